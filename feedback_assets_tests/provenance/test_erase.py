"""A record or an annotator is erased: no byte of the store holds them, and everything else goes on."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from feedback_assets.cli.integrity import as_stored, erase_records
from feedback_assets.cli.main import main
from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import rows
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.erase import erase, erased_releases
from feedback_assets.provenance.release import annotations_of, find
from feedback_assets.provenance.sought import NothingKnown, Request
from feedback_assets.provenance.trace import trace
from feedback_assets.provenance.verify import verify
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.votes import ANNAS, Votes, holding, vote

ANNA = ("anna-7781", "the-violet-door", "the-copper-lake", "the-broken-hour")
"""Her name, what only she was asked, and what stands only in her extra columns or her quarantined line."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Votes:
    """A release of what three people said. Not to be changed."""
    votes = Votes(tmp_path_factory.mktemp("votes") / "project")
    votes.put(
        "w1",
        *ANNAS,
        vote("5", "anna-7781", "the-violet-door again", "the-broken-hour"),
        '{"id": "6", "who": "anna-7781", "q": "the-violet-door cut sho',
    )
    votes.put("w2", *(vote(f"b{n}", "ben", f"the-quiet-field {n}", "two") for n in range(8)))
    votes.put("w3", vote("1", "anna-7781", "the-violet-door, edited"), vote("c1", "cleo", "the-last-gate"))
    votes.run()
    return votes


@pytest.fixture
def votes(made: Votes, tmp_path: Path) -> Votes:
    return made.copy(tmp_path / "copy")


def erased(votes: Votes, **asked: Any) -> Any:
    return erase(votes.project, Request(**asked), do=True)


def test_no_byte_of_the_store_holds_an_annotator_who_was_erased(votes: Votes):
    store = votes.project.store
    assert set(holding(store.root, *ANNA)) == set(ANNA)
    before = find(store, "latest")
    plan = erased(votes, annotator="anna-7781", reason="asked by mail")
    assert holding(store.root, *ANNA) == {}
    assert len(plan.row_ids) == 2
    assert [Path(path).name for path in plan.sources] == ["w1", "w3"]
    assert plan.releases == [before.id] == list(erased_releases(store))
    found = verify(store)
    assert found.damages == []
    assert f"releases/{before.id[:16]}/annotations/part-00000.parquet" in found.erased

    after = votes.run()
    assert after.id != before.id
    assert holding(store.root, *ANNA) == {}
    assert verify(store, "latest").damages == []
    assert {entry["chosen"] for entry in votes.examples(after)} >= {"the-shared-well is not."}


def test_what_is_left_is_the_release_that_would_have_been_made_without_them(votes: Votes, tmp_path: Path):
    erased(votes, annotator="anna-7781")
    after = votes.run()
    without = Votes(tmp_path / "without")
    for path in sorted((votes.folder / "batches").iterdir()):
        lines = [line for line in path.read_text().splitlines() if "anna" not in line]
        without.put(path.name, *lines)
    never = without.run()
    assert votes.examples(after) == without.examples(never)
    columns = ["row_id", "weight", "assigned_split", "cluster_id"]
    annotations = [
        annotations_of(each.project.store, release).select(columns).sort("row_id").collect()
        for each, release in ((votes, after), (without, never))
    ]
    assert annotations[0].equals(annotations[1])


def test_a_text_that_someone_else_holds_too_stays_with_them(votes: Votes):
    store = votes.project.store
    before = find(store, "latest")
    cleos = [example for example in votes.examples(before) if "the-shared-well" in example["chosen"]]
    erased(votes, annotator="anna-7781")
    left = [example for example in votes.examples(before) if "the-shared-well" in example["chosen"]]
    assert len(left) == 1 < len(cleos)
    content = scan(store, votes.project.commits.latest("ingested").snapshot.tables["content"]).collect()
    kept = content.filter(pl.col("response_a").str.contains("shared"))
    assert kept.height == 1


def test_a_part_of_text_that_two_batches_share_keeps_the_text_of_the_one_who_stays(tmp_path: Path):
    votes = Votes(tmp_path / "same")
    # The same texts, so one part of text; other people.
    votes.put("w1", *(vote(f"a{n}", "anna-7781", f"the-stone-{n}") for n in range(3)))
    votes.put("w2", *(vote(f"b{n}", "ben", f"the-stone-{n}") for n in range(3)))
    votes.run()
    erased(votes, annotator="anna-7781")
    after = votes.run()
    assert [example["chosen"] for example in votes.examples(after)].count("the-stone-0 is well.") == 1
    # What comes later with the very text that was erased has its text, too.
    votes.put("w3", *(vote(f"c{n}", "anna-7781" if n else "cleo", f"the-moon-{n}") for n in range(3)))
    votes.run()
    erased(votes, record="c0")
    votes.put("w4", *(vote(f"d{n}", "cleo", f"the-moon-{n}") for n in range(3)))
    latest = votes.run()
    assert sum("the-moon-" in example["chosen"] for example in votes.examples(latest)) == 3
    assert verify(votes.project.store).damages == []


def test_what_was_erased_does_not_come_back_under_another_name_or_from_a_changed_mapping(votes: Votes):
    store = votes.project.store
    erased(votes, annotator="anna-7781")
    votes.run()
    votes.put("w9", vote("new", "anna-7781", "the-violet-door, newer"), vote("n2", "ben", "the-iron-hill"))
    shutil.copy(votes.folder / "batches" / "w1", votes.folder / "batches" / "w1-again")
    policy = votes.folder / "policy.yaml"
    policy.write_text(
        policy.read_text().replace("kind: '''preference'''", "language: '''en'''\n      kind: '''preference'''")
    )
    assert "language" in policy.read_text()
    after = votes.run()
    assert holding(store.root, *ANNA) == {}
    commit = votes.project.commits.latest("ingested")
    fates = {fate["fate"]: fate["rows"] for fate in commit.content["fates"]}
    assert fates["erased"] == 6  # 1, 3 in w1 and its copy, 1 in w3, and the new one
    assert any("the-iron-hill" in example["prompt"] for example in votes.examples(after))


def test_the_data_after_an_erasure_does_not_depend_on_what_the_store_remembers(votes: Votes):
    erased(votes, annotator="anna-7781")
    first = votes.run()
    shutil.rmtree(votes.folder / "store" / "memo")
    assert (
        votes.run().content["commits"]["training_set"]["data_version"]
        == (first.content["commits"]["training_set"]["data_version"])
    )


def test_a_batch_whose_file_is_gone_is_erased_and_goes_on_without_them(votes: Votes):
    (votes.folder / "batches" / "w1").unlink()
    votes.run()
    erased(votes, annotator="anna-7781")
    after = votes.run()
    assert holding(votes.folder / "store", *ANNA[:3]) == {}
    assert any("the-green-roof" in example["prompt"] for example in votes.examples(after))


def test_an_erasure_costs_the_batches_that_it_concerns_and_no_other(votes: Votes, monkeypatch: pytest.MonkeyPatch):
    from feedback_assets.materialize import intake

    erased(votes, record="c1")
    read: list[str] = []
    real = intake._read_file
    monkeypatch.setattr(
        intake, "_read_file", lambda store, file, *more: read.append(file.name) or real(store, file, *more)
    )
    votes.run()
    assert read == ["w3"]


def test_a_record_is_erased_by_its_feedback_id_with_all_its_revisions(votes: Votes):
    store = votes.project.store
    erased(votes, record="1")
    assert holding(store.root, "the-copper-lake", "the-violet-door, edited", "What of the-violet-door?") == {}
    (traced,) = trace(votes.project, "1")
    assert traced["erased"] is not None
    votes.run()
    (traced,) = trace(votes.project, "1")
    assert [delivery["fate"] for delivery in traced["deliveries"]] == ["erased", "erased"]
    assert traced["in_release"] is False
    assert (
        rows(votes.project, votes.project.commits.latest("ingested")).filter(annotator_id="anna-7781").collect().height
        == 1
    )
    with pytest.raises(FeedbackError, match="nothing is known of record 'nobody'"):
        erased(votes, record="nobody")
    assert erased(votes, record="1").changes == {}


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def test_without_yes_nothing_changes_and_the_table_says_what_would(
    votes: Votes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = tree(votes.folder)
    policy = str(votes.folder / "policy.yaml")
    monkeypatch.setattr("sys.argv", ["feedback-assets", "erase", "--annotator", "anna-7781", "--policy", policy])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert tree(votes.folder) == before
    assert said.startswith("annotator 'anna-7781': 2 records")
    for what in ("texts", "rows of records", "rows in quarantine", "training files", "files of releases", "w3"):
        assert what in said


def test_a_name_is_erased_as_it_came_and_as_its_pseudonym_whichever_of_them_the_store_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEEDBACK_TEST_KEY", "a key of the tests and of nothing else")
    votes = Votes(tmp_path / "project")
    policy = yaml.safe_load((votes.folder / "policy.yaml").read_text())
    (plain,) = policy["ingested"]["sources"]
    hidden = {"name": "hidden", "path": "hidden/*", "pseudonymise": {"annotator_id": "FEEDBACK_TEST_KEY"}}
    policy["ingested"]["sources"].append({**plain, **hidden})
    (votes.folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    (votes.folder / "hidden").mkdir()
    votes.put("w1", vote("1", "anna-7781", "the-violet-door"), vote("2", "ben", "the-green-roof"))
    votes.put("../hidden/w1", vote("1", "anna-7781", "the-copper-lake"), vote("2", "cleo", "the-last-gate"))
    votes.run()

    def asked(who: str) -> dict[str | None, int]:
        plans = {}
        for request in as_stored(votes.project, Request(annotator=who)):
            with suppress(NothingKnown):
                plans[request.annotator] = len(erase(votes.project, request, do=False).row_ids)
        erase_records(votes.folder / "policy.yaml", None, Request(annotator=who), do=True, as_json=True)
        return plans

    assert asked("ben") == {"ben": 1}
    ((name, count),) = asked("cleo").items()
    assert name is not None and name.startswith("p-") and count == 1
    assert list(asked("anna-7781").values()) == [1, 1]
    for text in ("the-violet-door", "the-copper-lake", "the-green-roof", "the-last-gate"):
        assert holding(votes.folder / "store", text) == {}
    with pytest.raises(NothingKnown, match="nothing is known of annotator 'dora'"):
        asked("dora")
    monkeypatch.delenv("FEEDBACK_TEST_KEY")
    with pytest.raises(FeedbackError, match="FEEDBACK_TEST_KEY is not set"):
        asked("dora")
    assert as_stored(votes.project, Request(annotator=name)) == [Request(annotator=name)], "it is meant as it is"


@pytest.mark.parametrize("excerpts", [True, False])
def test_names_that_differ_in_case_or_blanks_alone_are_said_whether_there_is_a_hit_or_none(
    excerpts: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    votes = Votes(tmp_path / "project")
    policy = yaml.safe_load((votes.folder / "policy.yaml").read_text())
    policy["ingested"]["sources"][0]["excerpts"] = excerpts
    (votes.folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    said = [("1", "Ben", "the-violet-door"), ("2", "ben ", "the-green-roof"), ("3", "cleo", "the-last-gate")]
    votes.put("w1", *(vote(*one) for one in said))
    votes.run()
    votes.put("w2", vote("4", "BEN", "the-copper-lake"))  # which no run has taken in yet
    shown = ["'BEN'", "'Ben'", "'ben '"] if excerpts else ["one of source 'votes', which shows no values"]
    with pytest.raises(NothingKnown) as error:
        erase_records(votes.folder / "policy.yaml", None, Request(annotator="ben"), do=True, as_json=False)
    assert f"nothing is known of annotator 'ben'; did you mean {' or '.join(shown)}?" in str(error.value)
    erase_records(votes.folder / "policy.yaml", None, Request(annotator="Ben"), do=False, as_json=False)
    told = capsys.readouterr().out
    assert "other names that differ in case or blanks alone, and stay:\n" in told
    assert all(name in told for name in shown if name != "'Ben'")
    assert "door" not in told + str(error.value)
    assert erased(votes, annotator="cleo").alike == []


class Cut(Exception):
    pass


def calls(monkeypatch: pytest.MonkeyPatch, cut_at: int | None) -> list[int]:
    """Count the calls that change a store, and cut one of them short."""
    count = [0]
    at_once = LocalStore.delete

    def one_by_one(self: LocalStore, *keys: str) -> None:
        for key in keys:
            LocalStore._delete(self, key)  # type: ignore[attr-defined]

    monkeypatch.setattr(LocalStore, "_delete", at_once, raising=False)
    monkeypatch.setattr(LocalStore, "delete", one_by_one)
    for name in ("put", "put_file", "replace", "_delete"):
        real = getattr(LocalStore, name)

        def counted(self: LocalStore, key: str, *args: Any, real: Any = real, **options: Any) -> Any:
            if not key.startswith("leases/"):
                count[0] += 1
                if count[0] == cut_at:
                    raise Cut
            return real(self, key, *args, **options)

        monkeypatch.setattr(LocalStore, name, counted)
    return count


def test_an_erasure_that_is_cut_anywhere_leaves_all_readable_and_ends_when_it_is_asked_again(
    made: Votes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        total = calls(patched, None)
        erased(made.copy(tmp_path / "whole"), annotator="anna-7781")
    for cut_at in range(1, total[0] + 1, max(1, total[0] // 8)):
        votes = made.copy(tmp_path / f"cut{cut_at}")
        with monkeypatch.context() as patched:
            calls(patched, cut_at)
            with pytest.raises(Cut):
                erased(votes, annotator="anna-7781")
        for stage in STAGES:
            for table in votes.project.commits.latest(stage.name).snapshot.tables.values():
                scan(votes.project.store, table).collect()
        assert {damage.what for damage in verify(votes.project.store).damages} <= {"erasure", "annotations", "export"}
        erased(votes, annotator="anna-7781")
        assert holding(votes.folder / "store", *ANNA) == {}
        assert verify(votes.project.store).damages == []


def test_after_erasing_one_annotator_the_real_job_goes_on_and_nothing_of_them_is_anywhere(sample: Path):
    project = Project.open(sample / "policy.yaml", sample / "store")
    held = rows(project, project.commits.latest("ingested")).filter(kind="preference", annotator_kind="human").collect()
    name = held.group_by("annotator_id").len().sort("len", "annotator_id").row(-1)[0]
    theirs = _texts(sample, name)
    assert len(theirs) > 3
    assert set(holding(sample / "store", *theirs[:3])) == set(theirs[:3])
    erase(project, Request(annotator=name), do=True)
    assert holding(sample / "store", name, *theirs) == {}
    ran = run(Project.open(sample / "policy.yaml", sample / "store"))
    assert ran.problems == [] and ran.release is not None
    assert holding(sample / "store", name, *theirs) == {}
    assert verify(project.store).damages == []


def _texts(sample: Path, name: str) -> list[str]:
    """What stands in the batches of one annotator's pairs and nowhere else."""
    lines = [
        json.loads(line)
        for path in sorted((sample / "batches").glob("*.jsonl"))
        for line in path.read_text().splitlines()
        if line.startswith("{") and line.endswith("}")
    ]
    pairs = [line for line in lines if "left" in line and line.get("rater")]
    others = {line[side] for line in pairs if line["rater"] != name for side in ("left", "right")}
    return [line["left"] for line in pairs if line["rater"] == name and line["left"] not in others][:8]
