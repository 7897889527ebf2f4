"""What nobody needs goes; what a kept release, the latest materializations or a run need stays."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.collected import collected, given_up
from feedback_assets.provenance.gc import Keep, gc, kept_releases
from feedback_assets.provenance.names import approve
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, find, folder, listed
from feedback_assets.provenance.report import report, report_key
from feedback_assets.provenance.verify import verify
from feedback_assets.snapshots.leases import live, writing
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.votes import NOW, Votes, vote

NONE = timedelta(0)
LAST = Keep(number=1, grace=NONE, unused=NONE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Votes:
    """Three releases, one batch more each; the file of the first batch is gone. Not to be changed."""
    votes = Votes(tmp_path_factory.mktemp("votes") / "project")
    for week in range(3):
        votes.put(f"w{week}", *(vote(f"{week}-{n}", f"rater-{n}", f"the-well-{week}-{n}") for n in range(4)))
        votes.run()
    (votes.folder / "batches" / "w0").unlink()
    return votes


@pytest.fixture
def votes(made: Votes, tmp_path: Path) -> Votes:
    return made.copy(tmp_path / "copy")


def ids(votes: Votes) -> list[str]:
    return [entry["id"] for entry in listed(votes.project.store)]


def test_without_a_choice_every_release_is_kept_and_only_garbage_goes(votes: Votes):
    store = votes.project.store
    store.put("parts/00/0000.parquet", b"what a killed run left")
    store.put("tmp/123-456", b"and its scratch")
    assert gc(store, Keep(), do=True).keys == []  # all of it is young
    sweep = gc(store, Keep(grace=NONE), do=False)
    assert not sweep.done
    assert {"parts/00/0000.parquet", "tmp/123-456"} <= set(sweep.keys)
    gc(store, Keep(grace=NONE), do=True)
    assert not store.exists("parts/00/0000.parquet")
    found = verify(store)
    assert (found.damages, found.collected) == ([], [])
    assert sweep.given_up == []


def test_a_release_that_is_given_up_answers_from_its_manifest_and_the_kept_one_is_whole(votes: Votes):
    store = votes.project.store
    first, second, third = ids(votes)
    sweep = gc(store, LAST, do=True)
    assert (sweep.kept, sweep.given_up) == ([third], [first, second])
    assert verify(store, third).damages == []
    found = verify(store)
    assert found.damages == [] and found.collected
    assert set(given_up(collected(store), listed(store))) == {first, second}
    assert questions(find(store, first))["annotations"]["records"] == 4
    assert not store.exists(f"releases/{first[:16]}/annotations/part-00000.parquet")
    assert gc(store, LAST, do=True).keys == []
    # What a kept release needs is no less damaged when it is missing.
    store.delete(f"releases/{third[:16]}/annotations/part-00000.parquet")
    assert [damage.what for damage in verify(store).damages] == ["annotations"]


def test_all_that_lies_beside_the_manifest_of_a_kept_release_stays_and_its_report_is_no_damage(votes: Votes):
    store = votes.project.store
    first, second, third = (find(store, name) for name in ids(votes))
    for made in (first, second, third):
        store.put(report_key(made), report(made).encode())
        approve(store, folder(made.id), made.id, by="ines", note="read it")
        store.put(f"{folder(made.id)}/minutes.txt", b"what the reviewers said")
    before = dict(held(votes, third))
    gc(store, LAST, do=True)
    assert held(votes, third) == before
    assert {"manifest.json", "report.html", "minutes.txt", "approvals/0000000001.json"} <= before.keys()
    assert verify(store).damages == [] == verify(store, third.id).damages
    assert set(held(votes, first)) == {"manifest.json", "report.html", "approvals/0000000001.json"}


def held(votes: Votes, made: Release) -> dict[str, bytes]:
    """All that lies in the folder of a release."""
    place = votes.project.store.path(folder(made.id))
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_releases_are_kept_by_number_or_age_and_the_latest_always(votes: Votes):
    store = votes.project.store
    first, second, third = ids(votes)
    now = NOW + timedelta(days=3)
    assert kept_releases(store, Keep(number=2), now) == [second, third]
    assert kept_releases(store, Keep(age=timedelta(days=1)), now) == [second, third]
    assert kept_releases(store, Keep(age=NONE), now + timedelta(days=9)) == [third]
    assert kept_releases(store, Keep(number=1, age=timedelta(days=5)), now) == [first, second, third]


def test_a_run_after_a_collection_makes_what_it_would_have_made_and_keeps_a_batch_whose_file_is_gone(
    votes: Votes, made: Votes, tmp_path: Path
):
    untouched = made.copy(tmp_path / "untouched")
    gc(votes.project.store, LAST, do=True)
    for each in (votes, untouched):
        each.put("w9", vote("new", "rater-1", "the-new-well"))
    assert votes.run().id == untouched.run().id
    assert verify(votes.project.store, "latest").damages == []


class Cut(Exception):
    pass


def test_a_collection_that_is_killed_anywhere_leaves_the_store_right(
    made: Votes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    total = len(gc(made.project.store, LAST, do=False).keys)
    for stop in (0, 1, total // 3, total // 2, total - 1):
        store = LocalStore(made.copy(tmp_path / f"cut{stop}").folder / "store")
        left = [stop]
        real = LocalStore.delete

        def delete(self: LocalStore, *keys: str, real: Any = real, left: list[int] = left) -> None:
            for key in keys:
                if not key.startswith("leases/"):
                    if not left[0]:
                        raise Cut
                    left[0] -= 1
                real(self, key)

        with monkeypatch.context() as patched:
            patched.setattr(LocalStore, "delete", delete)
            with pytest.raises(Cut):
                gc(store, LAST, do=True)
        assert verify(store).damages == []
        gc(store, LAST, do=True)
        assert verify(store).damages == []
        assert gc(store, LAST, do=False).keys == []


def test_a_collection_beside_runs_takes_nothing_of_theirs(votes: Votes):
    store = votes.project.store
    refused, done = [], threading.Event()

    def collect() -> None:
        while not done.is_set():
            try:
                gc(store, LAST, do=True)
            except FeedbackError as error:
                refused.append(str(error))
            time.sleep(0.02)

    beside = threading.Thread(target=collect)
    beside.start()
    try:
        for week in (10, 11):
            votes.put(f"w{week}", vote(f"{week}", "rater-1", f"the-well-{week}"))
            for stage in STAGES[:4]:
                commit = materialize(votes.project, stage.name, run_id=f"beside{week}", now=NOW + timedelta(days=week))
                for file in commit.snapshot.files:
                    assert store.exists(file.key)
    finally:
        done.set()
        beside.join()
    assert any("is at work there" in line for line in refused)
    votes.runs = 12
    votes.run()
    assert verify(store).damages == []


def test_a_lease_of_a_process_that_was_killed_holds_nobody_up(votes: Votes):
    store = votes.project.store
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom feedback_assets.snapshots.store import LocalStore\n"
        "from feedback_assets.snapshots.leases import writing\n"
        "with writing(LocalStore(Path(sys.argv[1])), 'a run'):\n    print('in', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        assert [lease["pid"] for lease in live(store)] == [other.pid]
        with pytest.raises(FeedbackError, match=f"a run is at work there .process {other.pid}"):
            gc(store, LAST, do=True)
        other.kill()
        other.wait()
    assert live(store) == []
    assert gc(store, LAST, do=True).done
    assert store.names("leases") == []


def test_a_lease_is_one_a_process_and_is_given_back(votes: Votes):
    store = votes.project.store
    with writing(store, "a run"), writing(store, "a run of ingested"):
        assert [(lease["what"], lease["pid"]) for lease in live(store)] == [("a run", os.getpid())]
    assert live(store) == []
