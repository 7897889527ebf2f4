"""One flipped byte anywhere is found and named; so is what was cut short, and what is gone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback_assets.cli.main import main
from feedback_assets.digests import canonical_json, digest
from feedback_assets.materialize.commit import Commits
from feedback_assets.provenance.release import LOG, listed
from feedback_assets.provenance.verify import MISSING, Verified, verify
from feedback_assets.snapshots.store import LocalStore

KEPT = ("parts", "exports", "commits", "releases")


@pytest.fixture(scope="module")
def store(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    """The store of a run; whoever damages it mends it again. Files are copies: hard links would be hit twice."""
    yield LocalStore(shutil.copytree(sample_run / "store", tmp_path_factory.mktemp("store") / "store"))


def files(store: LocalStore) -> list[Path]:
    return sorted(path for name in KEPT for path in (store.root / name).rglob("*") if path.is_file())


def key(store: LocalStore, path: Path) -> str:
    return path.relative_to(store.root).as_posix()


def named(found: Verified) -> set[str]:
    return {damage.path for damage in found.damages}


def flip(path: Path, at: int, bit: int) -> bytes:
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[at % len(whole)] ^= 1 << bit
    path.write_bytes(bytes(damaged))
    return whole


def test_what_a_run_wrote_is_whole(store: LocalStore):
    found = verify(store, logical=True)
    assert found.damages == [] and found.erased == [] and found.collected == []
    assert found.objects >= len(files(store))


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_any_file_is_found_and_named(store: LocalStore, data: st.DataObject):
    kind = data.draw(st.sampled_from(KEPT))
    path = data.draw(st.sampled_from([path for path in files(store) if key(store, path).startswith(kind)]))
    whole = flip(path, data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(0, 7)))
    try:
        assert named(verify(store)) == {key(store, path)}
    finally:
        path.write_bytes(whole)


def test_a_flipped_byte_in_every_file_at_once_is_found_in_each(store: LocalStore):
    kept = {path: flip(path, path.stat().st_size // 2, 3) for path in files(store)}
    try:
        found = named(verify(store))
        assert {key(store, path) for path in kept if "releases/" not in key(store, path)} <= found
        assert {key(store, path) for path in kept if path.name == "0000000001.json"} <= found
    finally:
        for path, whole in kept.items():
            path.write_bytes(whole)


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_cut_short_or_deleted_is_named_with_its_releases(store: LocalStore, kind: str):
    (release,) = {entry["id"] for entry in listed(store)}
    path = max(path for path in files(store) if key(store, path).startswith(kind))
    if kind == "parts":  # others are only remembered
        commit = Commits(store).latest("training_set")
        assert commit is not None
        path = store.path(commit.snapshot.tables["rows"].parts[-1].files[-1].key)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        assert named(verify(store)) == {key(store, path)}
        path.unlink()
        if kind == "releases" and path.parent.name == "log":
            assert release not in {entry["id"] for entry in listed(store)}
        elif kind != "exports":  # a copy of it lies in the release
            (damage,) = verify(store).damages
            assert (damage.path, damage.found) == (key(store, path), MISSING)
            assert kind == "releases" or damage.releases == (release,)
    finally:
        path.write_bytes(whole)


def test_a_damaged_part_is_named_by_stage_table_and_part(store: LocalStore):
    commit = Commits(store).latest("deduplicated")
    assert commit is not None
    file = commit.snapshot.tables["fates"].parts[0].files[0]
    whole = flip(store.path(file.key), 1000, 0)
    try:
        for name in (None, "latest"):
            (damage,) = verify(store, name).damages
            assert (damage.what, damage.where) == ("part", "deduplicated, fates, part 0")
            assert damage.expected == file.digest
            assert len(damage.releases) == 1
    finally:
        store.path(file.key).write_bytes(whole)


def test_the_command_exits_1_and_names_what_is_damaged(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = store.root / "releases" / listed(store)[0]["id"][:16] / "annotations" / "part-00000.parquet"
    monkeypatch.setattr("sys.argv", ["feedback-assets", "verify", "1", "--store", str(store.root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "whole" in capsys.readouterr().out
    whole = flip(path, 5000, 0)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        path.write_bytes(whole)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"annotations (annotations/part-00000.parquet): {key(store, path)}: expected ")
    assert said.err.startswith("feedback-assets: 1 damaged")


@pytest.mark.parametrize("change", [{"manifest": None}, {"note": "not ours"}])
def test_a_release_entry_with_other_keys_is_damage_though_its_digest_is_its_own(
    store: LocalStore, change: dict[str, str | None]
):
    path = store.path(f"{LOG}/0000000001.json")
    entry = {**json.loads(path.read_bytes()), **change}
    told = {name: value for name, value in entry.items() if value is not None and name != "digest"}
    path.chmod(0o644)
    path.write_bytes(canonical_json({**told, "digest": digest(told)}))
    assert named(verify(store)) == {key(store, path)}
