"""Commit records: a numbered sequence for each asset, that no writer overwrites and no edit survives."""

import json
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commits
from feedback_assets.snapshots.snapshot import Snapshot, write_table
from feedback_assets.snapshots.store import LocalStore

KEY = "commits/filtered/0000000001.json"


@pytest.fixture
def commits(tmp_path):
    return Commits(LocalStore(tmp_path / "store"))


def add(commits: Commits, run_id: str = "r", **content):
    snapshot = Snapshot("filtered", {"rows": write_table(commits.store, pl.DataFrame({"x": [1]}))})
    told = {"asset": "filtered", "data_version": snapshot.data_version, "code_version": "c", "checks": [], **content}
    return commits.add(told, {"run_id": run_id, "snapshot": snapshot.as_json()})


def test_the_first_commit_is_number_one_and_the_latest_is_the_last(commits):
    assert commits.latest("filtered") is None
    first, second = add(commits), add(commits, facts={"a": 1})
    assert (first.number, second.number) == (1, 2)
    assert commits.latest("filtered") == second
    assert commits.all("filtered") == [first, second]
    assert commits.latest("deduplicated") is None


def test_what_is_read_is_what_was_written(commits):
    commit = add(commits)
    assert commits.read("filtered", 1) == commit
    assert commits.read("filtered", 1).id == commit.id


def test_the_id_is_of_what_was_done_not_of_when_and_by_which_run(commits):
    assert add(commits, "one").id == add(commits, "two").id != add(commits, "two", facts={"a": 1}).id


def test_a_run_finds_its_own_commit_though_another_came_after_it(commits):
    mine = add(commits, "mine")
    add(commits, "other")
    assert commits.of_run("filtered", "mine") == mine
    assert commits.of_run("filtered", "nobody") is None


def test_many_writers_at_once_leave_neither_gap_nor_loss(commits):
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: add(commits, f"run{n}").number, range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert sorted(c.circumstances["run_id"] for c in commits.all("filtered")) == sorted(f"run{n}" for n in range(24))


def edit(commits: Commits, change) -> None:
    path = commits.store.path(KEY)
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["content"].update(code_version="d"),
        lambda value: value["circumstances"].update(run_id="other"),
        lambda value: value.update(digest="0" * 64),
        lambda value: value.pop("digest"),
        lambda value: value.pop("content"),
    ],
)
def test_an_edited_commit_record_is_refused_in_one_line(commits, change):
    add(commits)
    edit(commits, change)
    with pytest.raises(FeedbackError, match="this commit record was changed after it was written") as caught:
        commits.latest("filtered")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_a_commit_record_that_is_no_record_is_refused_in_one_line(commits, text):
    add(commits)
    commits.store.path(KEY).write_text(text, encoding="utf-8")
    with pytest.raises(FeedbackError, match="this commit record was changed") as caught:
        commits.latest("filtered")
    assert "\n" not in str(caught.value)


def test_a_commit_whose_parts_are_of_another_version_is_refused(commits):
    add(commits, data_version="0" * 64)
    with pytest.raises(FeedbackError, match=r"its data version is not .*; materialize filtered again"):
        commits.latest("filtered")
