"""Batches in life: late, again, edited, retracted, renamed, half-written, gone; and two runs at once."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize import materialize as stage_module
from feedback_assets.materialize.arrivals import arrivals
from feedback_assets.materialize.batches import batches, notices, waiting_files
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.intake import take
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.sources.place import Complete

NOW = datetime(2024, 3, 1, tzinfo=UTC)
COLUMNS = {"feedback_id": "id", "kind": "'thumbs'", "prompt": "q", "response_a": "answer", "label": "thumb"}
RETRACTION = {"id": "vendor", "version": 1, "reason": "consent withdrawn", "who": "data team", "source": "s"}


def lines(**thumbs: str) -> str:
    """A batch: thumbs by id."""
    return "".join(
        json.dumps({"id": name, "q": "Why?", "answer": f"Because of {name}.", "thumb": thumb}) + "\n"
        for name, thumb in thumbs.items()
    )


class Inbox:
    """A project with one folder of batches."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.batches, self.runs = folder, folder / "batches", 0
        self.batches.mkdir()
        self.ingested: dict[str, Any] = {"sources": [{"name": "s", "path": "batches/*", "columns": dict(COLUMNS)}]}
        self.source: dict[str, Any] = self.ingested["sources"][0]
        self.source["format"] = "jsonl"

    def put(self, name: str, text: str) -> Path:
        path = self.batches / name
        path.write_text(text)
        return path

    def project(self) -> Project:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump({"ingested": self.ingested}))
        return Project.open(path, self.folder / "store")

    def run(self, now: datetime = NOW) -> Commit:
        self.runs += 1
        return materialize(self.project(), "ingested", run_id=f"run{self.runs}", now=now)

    def states(self, commit: Commit) -> list[tuple[str, str]]:
        return batches(self.project(), commit).select("batch", "state").rows()

    def labels(self, commit: Commit) -> dict[str, str]:
        return dict(rows(self.project(), commit).select("feedback_id", "label").collect().iter_rows())

    def fates(self, commit: Commit) -> dict[str, int]:
        return {fate["fate"]: fate["rows"] for fate in commit.content["fates"]}


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    monkeypatch.setattr(stage_module, "examine", lambda *_: {"checks": []})  # takes longer than the work
    return Inbox(tmp_path)


def test_a_late_batch_comes_last_whatever_its_name_and_leaves_the_earlier_ones_as_they_were(inbox: Inbox):
    inbox.put("w2", lines(a="up"))
    first = inbox.run()
    inbox.put("w1", lines(b="up"))
    second = inbox.run(NOW + timedelta(days=1))
    assert inbox.states(second) == [("w2", "current"), ("w1", "current")]
    assert rows(inbox.project(), second).select("feedback_id", "arrival").collect().rows() == [("a", 0), ("b", 1)]
    assert [told["at"][:10] for told in second.circumstances["arrived"].values()] == ["2024-03-01", "2024-03-02"]
    assert second.circumstances["arrived"]["0"] == first.circumstances["arrived"]["0"]


@pytest.mark.parametrize("runs", [1, 2])
def test_the_same_bytes_under_two_names_count_once(inbox: Inbox, runs: int):
    inbox.put("w1", lines(a="up", b="down"))
    if runs == 2:
        inbox.run()
    inbox.put("w1-again", lines(a="up", b="down"))
    commit = inbox.run()
    assert inbox.states(commit) == [("w1", "current"), ("w1-again", "redelivered")]
    assert inbox.fates(commit) == {"kept": 2, "redelivered": 2}


def test_the_same_bytes_in_two_sources_are_two_batches(inbox: Inbox):
    inbox.put("w1", lines(a="up"))
    inbox.ingested["sources"].append({**inbox.source, "name": "t"})
    assert [state for _, state in inbox.states(inbox.run())] == ["current", "current"]


def test_an_edited_delivery_supersedes_and_the_first_stays_in_the_table(inbox: Inbox):
    inbox.put("w1", lines(a="up", b="up"))
    inbox.run()
    inbox.put("w1", lines(a="down", b="up"))
    commit = inbox.run()
    assert inbox.states(commit) == [("w1", "replaced"), ("w1", "current")]
    assert inbox.fates(commit) == {"kept": 2, "superseded": 1, "redelivered": 1}
    assert rows(inbox.project(), commit).filter(pl.col("feedback_id") == "a").collect()["supersedes"].to_list() == [0]


def test_a_line_added_to_a_file_leaves_a_correction_from_another_file_in_force(inbox: Inbox):
    inbox.put("w1", lines(a="up", b="up"))
    inbox.run()
    inbox.put("w1-corrected", lines(a="down"))
    inbox.run()
    inbox.put("w1", lines(a="up", b="up", c="up"))
    assert inbox.labels(inbox.run()) == {"a": "down", "b": "up", "c": "up"}


def test_a_retracted_batch_leaves_and_says_by_which_retraction(inbox: Inbox):
    inbox.put("w1", lines(a="up", b="up") + "{broken\n")
    inbox.put("w2", lines(a="down", c="up"))
    assert inbox.labels(inbox.run()) == {"a": "down", "b": "up", "c": "up"}
    inbox.ingested["retracted"] = [{**RETRACTION, "batch": "w2"}]
    commit = inbox.run()
    # What the retracted batch had replaced counts again.
    assert inbox.labels(commit) == {"a": "up", "b": "up"}
    assert inbox.states(commit) == [("w1", "current"), ("w2", "retracted")]
    told = {(fate["fate"], fate["rule"], fate["rule_version"], fate["rows"]) for fate in commit.content["fates"]}
    assert told == {("kept", None, None, 2), ("quarantined", "malformed-json", None, 1), ("retracted", "vendor", 1, 2)}
    assert commit.content["policy"]["retracted"][0]["who"] == "data team"
    inbox.ingested["retracted"] = [{**RETRACTION, "batch": "w1"}]
    commit = inbox.run()
    assert inbox.labels(commit) == {"a": "down", "c": "up"}
    assert inbox.fates(commit) == {"kept": 2, "retracted": 3}
    assert scan(inbox.project().store, commit.snapshot.tables["quarantine"]).collect().is_empty()
    inbox.ingested["retracted"] = []
    assert inbox.labels(inbox.run()) == {"a": "down", "b": "up", "c": "up"}


def test_one_of_two_deliveries_under_a_name_is_retracted_by_its_digest(inbox: Inbox):
    inbox.put("w1", lines(a="up"))
    first = inbox.run()
    inbox.put("w1", lines(a="down"))
    inbox.run()
    digest = batches(inbox.project(), first)["digest"][0]
    inbox.ingested["retracted"] = [{**RETRACTION, "batch": "w1", "digest": digest[:12]}]
    commit = inbox.run()
    assert inbox.states(commit) == [("w1", "retracted, replaced"), ("w1", "current")]
    assert inbox.fates(commit) == {"kept": 1, "retracted": 1}
    inbox.ingested["retracted"][0].pop("digest")
    assert inbox.fates(inbox.run()) == {"retracted": 2}


def test_every_record_has_a_fate_when_a_batch_is_retracted(inbox: Inbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    inbox.put("w1", lines(a="up", b="up") + "{broken\n")
    inbox.put("w2", lines(a="up", c="up"))
    inbox.ingested["retracted"] = [{**RETRACTION, "batch": "w1"}]
    assert inbox.run().failed == []


def test_a_retraction_of_a_batch_that_never_arrived_is_refused(inbox: Inbox):
    inbox.put("week-1", lines(a="up"))
    inbox.ingested["retracted"] = [{**RETRACTION, "batch": "weak-1"}]
    with pytest.raises(FeedbackError, match="no batch 'weak-1' of source 's' ever arrived; did you mean 'week-1'"):
        inbox.run()


def test_a_renamed_file_is_the_batch_it_was_and_can_be_mapped_anew(inbox: Inbox):
    path = inbox.put("w1", lines(a="up"))
    first = inbox.run()
    path.rename(inbox.batches / "2024-w1")
    second = inbox.run()
    assert inbox.states(second) == [("w1", "renamed")]
    assert second.id == first.id
    inbox.source["columns"]["language"] = "'en'"
    third = inbox.run()
    assert rows(inbox.project(), third).select("batch", "language").collect().rows() == [("w1", "en")]
    # Back under its name it is there again; and both names at once are a delivery more.
    inbox.put("w1", lines(a="up"))
    assert inbox.states(inbox.run()) == [("w1", "current"), ("2024-w1", "redelivered")]


def test_files_that_rotate_keep_their_batches(inbox: Inbox):
    log = inbox.put("log", lines(a="up"))
    inbox.run()
    log.rename(inbox.batches / "log.1")
    inbox.put("log", lines(b="up"))
    commit = inbox.run()
    assert inbox.states(commit) == [("log", "renamed"), ("log", "current")]
    assert inbox.fates(commit) == {"kept": 2}


def test_a_file_without_its_marker_waits(inbox: Inbox):
    inbox.source["complete"] = {"marker": "{name}.done"}
    inbox.put("w1", lines(a="up"))
    with pytest.raises(FeedbackError, match="no source has a complete batch yet"):
        inbox.run()
    inbox.put("w1.done", "")
    inbox.put("w2", lines(b="up")[:20])
    commit = inbox.run()
    assert inbox.states(commit) == [("w1", "current")]
    assert waiting_files(inbox.project(), commit) == [("s", "w2")]
    assert notices(inbox.project(), commit) == ["file 'w2' of source 's' waits: it is not complete yet"]
    inbox.put("w2", lines(b="up"))
    inbox.put("w2.done", "")
    assert inbox.fates(inbox.run()) == {"kept": 2}
    (inbox.batches / "w1.done").unlink()
    assert inbox.states(inbox.run()) == [("w1", "current"), ("w2", "current")]


def test_a_file_that_grows_while_it_is_read_waits_for_the_next_run(inbox: Inbox):
    inbox.put("w1", lines(a="up"))
    path = inbox.put("w2", lines(b="up"))
    project = inbox.project()
    section = project.policy.ingested
    found = arrivals(project.folder, project.store, section, None, NOW)
    path.write_text(lines(b="up", c="up"))
    taken = take(project.held, section, found, NOW)
    assert [told["batch"] for told in taken.arrived.values()] == ["w1"]
    said = "file 'w2' of source 's' waits: it changed while it was read; the next run takes it"
    assert taken.noticed == (said,)
    assert set(inbox.labels(inbox.run())) == {"a", "b", "c"}
    path.write_text(lines(b="up", c="down"))
    found = arrivals(project.folder, project.store, section, project.commits.latest("ingested"), NOW)
    path.write_text(lines(b="up"))
    taken = take(project.held, section, found, NOW)
    assert [told["batch"] for told in taken.arrived.values()] == ["w1", "w2"]


def test_what_lies_in_the_place_of_a_source_and_is_not_read_is_told_in_one_sentence(inbox: Inbox):
    del inbox.source["format"]
    inbox.put("w1.jsonl", lines(a="up"))
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.jsonl.part"):
        inbox.put(name, "")
    commit = inbox.run()
    assert notices(inbox.project(), commit) == [
        "source 's' does not read all that lies where it looks: 4 of no known ending (a.txt, b.txt, c.txt and 1 more); "
        "1 unfinished, by the ending (e.jsonl.part)"
    ]
    (inbox.batches / "f.txt").write_text("")
    assert inbox.run().id == commit.id


def test_a_file_that_was_changed_a_moment_ago_waits(inbox: Inbox):
    inbox.source["complete"] = {"settled_seconds": 60}
    path = inbox.put("w1", lines(a="up"))
    os.utime(path, (NOW.timestamp(), NOW.timestamp() - 59))
    with pytest.raises(FeedbackError, match="no source has a complete batch yet"):
        inbox.run()
    assert inbox.fates(inbox.run(NOW + timedelta(seconds=1))) == {"kept": 1}


@pytest.mark.parametrize(
    ("complete", "said"),
    [
        ({}, "give `marker` or `settled_seconds`"),
        ({"marker": "{name}.done", "settled_seconds": 1}, "give `marker` or `settled_seconds`"),
        *(({"marker": marker}, "with {name} in it") for marker in ("done", "{name}", "done/{name}", "{name}{x}")),
    ],
)
def test_what_says_that_a_file_is_complete_is_one_thing(complete: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Complete.model_validate(complete)


def test_a_batch_stays_though_its_file_or_every_file_is_gone(inbox: Inbox):
    paths = [inbox.put(name, lines(**{name: "up"})) for name in ("w1", "w2")]
    first = inbox.run()
    for path, states in zip(paths, [["removed", "current"], ["removed", "removed"]], strict=True):
        path.unlink()
        commit = inbox.run()
        assert [state for _, state in inbox.states(commit)] == states
        assert commit.id == first.id
    inbox.batches.rmdir()
    with pytest.raises(FeedbackError, match="no file at 'batches/"):
        inbox.run()


def test_a_batch_whose_file_is_gone_goes_on_as_it_was_mapped_and_says_so(inbox: Inbox):
    gone = inbox.put("w1", lines(a="up"))
    inbox.put("w2", lines(b="up"))
    inbox.run()
    gone.unlink()
    inbox.source["columns"]["language"] = "'en'"
    for _ in range(2):
        commit = inbox.run()
        assert inbox.states(commit) == [("w1", "mapped earlier, removed"), ("w2", "current")]
        assert notices(inbox.project(), commit) == [
            "batch 'w1' of source 's': its file is gone, and the mapping or the code has changed since; "
            "it stays as it was mapped"
        ]
        told = rows(inbox.project(), commit).select("feedback_id", "language").collect()
        assert told.rows() == [("a", None), ("b", "en")]
    inbox.put("w1", lines(a="up"))
    again = inbox.run()
    assert rows(inbox.project(), again).collect()["language"].to_list() == ["en", "en"]
    assert inbox.states(again) == [("w1", "current"), ("w2", "current")]


def test_what_the_store_has_forgotten_of_a_file_that_is_gone_is_an_error(inbox: Inbox):
    inbox.put("w1", lines(a="up"))
    inbox.put("w2", lines(b="up"))
    commit = inbox.run()
    (inbox.batches / "w1").unlink()
    name = commit.circumstances["arrived"]["0"]["mapped"]
    inbox.project().store.path(f"memo/{name[:2]}/{name}.json").unlink()
    with pytest.raises(FeedbackError, match=r"'w1' of source 's' is no longer where it was, .*; put the file back"):
        inbox.run()


def test_two_deliveries_at_once_lose_no_batch(inbox: Inbox, monkeypatch: pytest.MonkeyPatch):
    """Two runs start from the same commit; each sees one new file, which is gone when the next run looks."""
    inbox.put("w0", lines(a="up"))
    inbox.run()
    project = inbox.project()
    both = threading.Barrier(2)
    examine = stage_module.examine

    def examined_together(*given: Any) -> Any:
        both.wait(timeout=60)  # both have read the latest commit, none has committed
        return examine(*given)

    monkeypatch.setattr(stage_module, "examine", examined_together)
    first = inbox.put("w1", lines(b="up"))
    began = threading.Thread(target=materialize, args=(project, "ingested"), kwargs={"run_id": "one", "now": NOW})
    began.start()
    while both.n_waiting < 1:
        began.join(0.01)
    first.unlink()
    second = inbox.put("w2", lines(c="up"))
    materialize(project, "ingested", run_id="two", now=NOW)
    began.join()
    second.unlink()
    monkeypatch.setattr(stage_module, "examine", examine)
    made = {commit.circumstances["run_id"]: inbox.labels(commit) for commit in project.commits.all("ingested")}
    assert (set(made["one"]), set(made["two"])) == ({"a", "b"}, {"a", "c"})
    commit = inbox.run()
    assert set(inbox.labels(commit)) == {"a", "b", "c"}
    assert sorted(name for name, _ in inbox.states(commit)) == ["w0", "w1", "w2"]
    assert inbox.run().id == commit.id
