"""A batch of which nothing can be used costs itself: it is one row in quarantine, and holds the release back."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest
import yaml

from feedback_assets.cli.quarantine import quarantine
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan

NOW = datetime(2024, 3, 1, tzinfo=UTC)
COLUMNS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "label": "w",
    "collected_at": {"expr": "at", "optional": True},
}


def records(*numbers, **more):
    return [{"id": f"r{n}", "p": "q?", "a": f"yes {n}", "b": "no", "w": "a", **more} for n in numbers]


def lines(*numbers, **more):
    return "".join(json.dumps(record) + "\n" for record in records(*numbers, **more))


class Intake:
    """A folder of batches of any format, and what `ingested` makes of it."""

    def __init__(self, folder):
        self.folder = folder
        self.source = {"name": "s", "path": "batches", "columns": dict(COLUMNS)}
        self.more = {}
        self.section = {"max_quarantined_share": 1}
        (folder / "batches").mkdir()

    def write(self, name, data):
        path = self.folder / "batches" / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def run(self):
        policy = {"ingested": {**self.section, "sources": [self.source]}, **self.more}
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(policy), encoding="utf-8")
        self.project = Project.open(path, self.folder / "store")
        self.commit = materialize(self.project, "ingested", run_id="r", now=NOW)
        return self

    def table(self, name, *columns):
        return scan(self.project.store, self.commit.snapshot.tables[name]).select(columns).collect().rows()

    def kept(self):
        return sorted(rows(self.project, self.commit).select("feedback_id").collect().to_series())

    def check(self, name="quarantined_batches"):
        return next((c["status"], c["meaning"]) for c in self.commit.checks if c["name"] == name)


@pytest.fixture
def intake(tmp_path):
    return Intake(tmp_path)


def test_unreadable_files_are_a_row_in_quarantine_each_and_cost_no_other_batch(intake):
    intake.write("a.jsonl", lines(1, 2))
    intake.write("b.parquet", b"PAR1 no parquet")
    intake.write("c.xlsx", b"no zip")
    intake.write("d.jsonl", lines(3).replace('"w"', '"winner"'))
    intake.write("e.jsonl", "")
    intake.write("f.csv", "")
    intake.write("g.jsonl", "{\n{\n")
    intake.run()
    assert intake.kept() == ["r1", "r2"]
    assert intake.table("batches", "batch", "rows", "quarantined", "state") == [
        ("a.jsonl", 2, 0, "current"),
        ("b.parquet", 0, 1, "quarantined"),
        ("c.xlsx", 0, 1, "quarantined"),
        ("d.jsonl", 0, 1, "quarantined"),
        ("e.jsonl", 0, 0, "empty"),
        ("f.csv", 0, 1, "quarantined"),
        ("g.jsonl", 0, 2, "quarantined"),
    ]
    found = intake.table("quarantine", "batch", "line", "reason", "column")
    assert found == [
        ("b.parquet", 0, "unreadable-file", None),
        ("c.xlsx", 0, "unreadable-file", None),
        ("d.jsonl", 0, "missing-column", "label"),
        ("f.csv", 0, "no-header", None),
        ("g.jsonl", 1, "malformed-json", None),
        ("g.jsonl", 2, "malformed-json", None),
    ]
    (value,) = (value for batch, value in intake.table("quarantine", "batch", "value") if batch == "d.jsonl")
    assert value == "lacks the column 'w'"
    status, meaning = intake.check()
    assert status == "failed"
    assert meaning == (
        "nothing of s/b.parquet, s/c.xlsx, s/d.jsonl, s/f.csv, s/g.jsonl could be used; mend file or mapping, or "
        "name it under ingested.lost_batches"
    )
    assert intake.check("conservation")[0] == "passed"
    assert "quarantined_batches" in intake.commit.failed


def test_a_file_of_which_the_bytes_cannot_be_had_costs_itself_until_they_can(intake):
    intake.write("a.jsonl", lines(1))
    there = intake.write("b.jsonl", lines(2))
    hidden = there.rename(intake.folder / "b")
    there.symlink_to(intake.folder / "gone")
    assert intake.run().kept() == ["r1"]
    assert intake.table("quarantine", "batch", "line", "reason", "value") == [
        ("b.jsonl", 0, "unreadable-file", "cannot be read: No such file or directory")
    ]
    assert intake.check()[0] == "failed"
    made = intake.commit.id
    assert intake.run().commit.id == made
    there.unlink()
    hidden.rename(there)
    assert intake.run().kept() == ["r1", "r2"]
    assert intake.check()[0] == "passed"
    assert intake.table("batches", "batch", "state")[1:] == [("b.jsonl", "mended"), ("b.jsonl", "current")]


def test_a_team_can_give_a_batch_up_by_name_with_a_reason(intake):
    intake.write("a.jsonl", lines(1))
    intake.write("b.parquet", b"")
    intake.section["lost_batches"] = [{"source": "s", "batch": "b.parquet", "reason": "the vendor has no copy"}]
    status, meaning = intake.run().check()
    assert (status, meaning) == ("passed", "no batch is in quarantine as a whole, but for 1 that the policy gives up")
    intake.write("c.parquet", b"")
    assert intake.run().check()[0] == "failed"


def test_the_rows_of_a_mended_file_come_back_and_its_batch_holds_nothing_back(intake):
    intake.write("a.jsonl", lines(1))
    path = intake.write("b.parquet", b"broken")
    intake.run()
    pl.DataFrame(records(2, 3)).write_parquet(path)
    assert intake.run().kept() == ["r1", "r2", "r3"]
    states = intake.table("batches", "batch", "state")
    assert states == [("a.jsonl", "current"), ("b.parquet", "mended"), ("b.parquet", "current")]
    assert intake.check()[0] == "passed"
    intake.source["columns"]["language"] = "'en'"  # the broken bytes are gone, and nothing of them is missed
    assert intake.run().kept() == ["r1", "r2", "r3"]
    assert intake.table("batches", "batch", "state") == states


def test_the_rows_of_a_mended_mapping_come_back(intake):
    intake.write("a.jsonl", lines(1, who="x"))
    intake.write("b.jsonl", lines(2, 3))
    intake.source["columns"]["annotator_id"] = "who"
    assert intake.run().kept() == ["r1"]
    intake.source["columns"]["annotator_id"] = {"expr": "who", "optional": True}
    assert intake.run().kept() == ["r1", "r2", "r3"]
    assert intake.table("quarantine", "line") == []
    assert intake.check()[0] == "passed"


def torn(good, bad):
    """Lines of which some are no JSON."""
    return lines(*good) + "".join("{torn\n" for _ in bad)


def test_what_was_in_quarantine_counts_no_more_when_its_file_was_mended(intake):
    intake.section["max_quarantined_share"] = 0.2
    intake.write("a.jsonl", torn(range(10), range(10)))
    status, meaning = intake.run().check("quarantined_share")
    assert (status, "(10 of 20)" in meaning, "ingested.retracted" in meaning) == ("failed", True, True)
    intake.write("a.jsonl", lines(*range(20)))
    status, meaning = intake.run().check("quarantined_share")
    assert (status, "(0 of 20)" in meaning) == ("passed", True)
    assert quarantine(intake.project)["rows"] == []
    assert quarantine(intake.project, "a.jsonl")["records"] == 0
    fates = intake.table("fates", "arrival", "fate")
    assert fates.count((0, "quarantined")) == 10  # the history stays
    columns = ("batch", "records", "rows", "quarantined", "redelivered")
    assert intake.table("batches", *columns) == [("a.jsonl", 20, 10, 10, 0), ("a.jsonl", 20, 10, 0, 10)]
    made = intake.commit.id
    (intake.folder / "batches" / "a.jsonl").unlink()
    assert intake.run().commit.id == made  # what was mended stays so when the file is gone


def test_a_file_that_was_put_back_as_it_was_stands_for_its_name_again(intake):
    intake.write("a.jsonl", lines(1, 2))
    intake.run()
    intake.write("a.jsonl", "{\n")
    assert intake.run().check()[0] == "failed"
    assert "(1 of 3)" in intake.check("quarantined_share")[1]
    intake.write("a.jsonl", lines(1, 2))
    assert intake.run().check()[0] == "passed"
    assert "(0 of 2)" in intake.check("quarantined_share")[1]


def test_the_quarantine_of_a_log_that_rotates_still_counts(intake):
    intake.source["path"], intake.source["format"] = "batches/*", "jsonl"
    log = intake.write("log", torn([1], [1]))
    intake.run()
    log.rename(log.with_name("log.1"))
    intake.write("log", lines(2, 3))
    assert "(1 of 4)" in intake.run().check("quarantined_share")[1]


def test_what_comes_again_does_not_thin_the_quarantine_out(intake):
    intake.write("a.jsonl", torn([1], [1]))
    intake.write("b.jsonl", lines(2, 3))
    intake.run()
    for name in ("c.jsonl", "d.jsonl"):
        intake.write(name, lines(2, 3))
    assert "(1 of 4)" in intake.run().check("quarantined_share")[1]


def test_a_mended_file_that_is_retracted_mends_nothing(intake):
    intake.write("a.jsonl", "{\n")
    intake.write("b.jsonl", lines(9))
    intake.run()
    intake.write("a.jsonl", lines(1))
    assert intake.run().check()[0] == "passed"
    digest = intake.table("batches", "digest")[2][0]
    entry = {"id": "r", "version": 1, "reason": "x", "who": "y", "source": "s", "batch": "a.jsonl", "digest": digest}
    intake.section["retracted"] = [entry]
    assert intake.run().check()[0] == "failed"
    columns = ("records", "rows", "withdrawn", "state")
    assert intake.table("batches", *columns)[2] == (1, 0, 1, "retracted")


def test_the_table_of_batches_accounts_for_each_record_of_a_file_once(intake):
    intake.section["as_of"] = "2024-02-01T00:00:00Z"
    late = lines(1, at="2024-02-01T00:00:01Z") + lines(2, 8, at="2024-01-31T00:00:00Z")
    intake.write("a.jsonl", late + lines(3, w="a") + lines(3, w="b") + lines(4, 4, w="?") + "{\n")
    intake.write("b.jsonl", lines(2, at="2024-01-31T00:00:00Z") + lines(8, w="b") + lines(9))
    columns = ("batch", "records", "rows", "quarantined", "redelivered", "superseded", "withdrawn")
    assert intake.run().table("batches", *columns) == [("a.jsonl", 8, 1, 6, 0, 1, 0), ("b.jsonl", 3, 2, 0, 1, 0, 0)]
    fates = intake.table("fates", "arrival", "fate")
    assert [fates.count((place, "quarantined")) for place in (0, 1)] == [6, 0]


@pytest.mark.parametrize("others", [{}, {"b.parquet": b"broken", "c.jsonl": ""}, {"b.jsonl": lines(2)}])
def test_a_column_that_every_file_lacks_is_a_mistake_in_the_mapping(intake, others):
    intake.write("a.jsonl", lines(1))
    for name, data in others.items():
        intake.write(name, data)
    intake.source["columns"]["annotator_id"] = "ww"
    with pytest.raises(FeedbackError, match=r"^source 's', columns\.annotator_id: reads column 'ww' which .*'w'\?"):
        intake.run()


def test_a_type_of_which_nothing_can_be_made_in_every_file_is_a_mistake_in_the_mapping(intake):
    intake.write("a.jsonl", lines(1, at=5))
    with pytest.raises(FeedbackError, match=r"columns\.collected_at: 'at' gives Int64, .* a number with its `unit`"):
        intake.run()


def test_what_is_said_of_an_unreadable_batch_does_not_depend_on_the_folder(tmp_path):
    ids = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        intake = Intake(tmp_path / name)
        intake.write("a.jsonl", lines(1))
        intake.write("b.parquet", b"broken")
        intake.write("c.arrow", b"broken")
        ids.append(intake.run().commit.id)
    assert ids[0] == ids[1]


def test_a_record_in_the_future_and_two_of_one_id_cost_themselves(intake):
    intake.section["as_of"] = "2024-02-01T00:00:00Z"
    late = lines(1, at="2024-02-01T00:00:01Z") + lines(2, at="2024-01-31T00:00:00Z")
    intake.write("a.jsonl", late + lines(3, w="a") + lines(3, w="b") + lines(4))
    assert intake.run().kept() == ["r2", "r4"]
    assert intake.table("quarantine", "line", "reason", "value") == [
        (1, "in-the-future", "2024-02-01 00:00:01.000000+00:00"),
        (3, "conflicting-duplicate", "r3"),
        (4, "conflicting-duplicate", "r3"),
    ]
    assert intake.check()[0] == "passed"


def test_versions_of_a_guideline_that_are_in_force_at_once_are_told_and_hold_nothing_back(intake):
    intake.write("a.jsonl", lines(1))
    (intake.folder / "guidelines").mkdir()
    for version, start in (("1.0.0", "2024-01-01"), ("1.1.0", "2024-02-01")):
        matter = f"---\ntask: help\nversion: {version}\neffective_from: {start}\n---\nBe kind.\n"
        (intake.folder / "guidelines" / f"{version}.md").write_text(matter)
    intake.more["guidelines"] = {"path": "guidelines/*.md"}
    commit = materialize(intake.run().project, "guidelines", run_id="r", now=NOW)
    (check,) = (check for check in commit.checks if check["name"] == "overlaps")
    assert (check["status"], check["blocking"], commit.failed) == ("failed", False, [])
    assert check["meaning"] == (
        "in force at the same time: help 1.0.0 and 1.1.0 from 2024-02-01 on; set effective_to of the earlier one"
    )


def test_a_batch_that_is_late_as_a_whole_holds_the_release_back(intake):
    intake.section["as_of"] = "2024-02-01T00:00:00Z"
    intake.write("a.jsonl", lines(1, at="2024-02-01T00:00:01Z"))
    assert intake.run().check()[0] == "failed"
