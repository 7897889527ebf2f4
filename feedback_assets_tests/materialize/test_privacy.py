"""With pseudonyms no annotator's id is anywhere in a store, and of a column that is never stored nothing is."""

import gzip
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.landing import landed
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.sources.landed import read_landed
from feedback_assets.sources.privacy import Pseudonyms
from feedback_assets_tests.every_byte import texts
from feedback_assets_tests.materialize.test_database import Desk, desk  # noqa: F401  a fixture

VARIABLE, KEY = "FEEDBACK_TEST_KEY", "a key of the tests and of nothing else"
NOW = datetime(2024, 3, 1, tzinfo=UTC)
COLUMNS: dict[str, Any] = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "label": "w",
    "annotator_id": "rater",
    "annotator_kind": "CASE WHEN STARTS_WITH(rater, 'Gpt') THEN 'model' ELSE 'human' END",
    "collected_at": "at",
}
PRIVATE = {"pseudonymise": {"annotator_id": VARIABLE}, "never_store": ["email"]}
RATERS = ("Anna.Secret", "Bob.Secret", "GptSecret")


def pseudonym(name: str) -> str:
    return "p-" + hmac.new(KEY.encode(), f"id:{name}".encode(), "sha256").hexdigest()[:32]


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "p": f"question {number}?",
        "a": f"yes {number}",
        "b": f"no {number}",
        "w": "ab"[number % 2],
        "rater": RATERS[number % 3],
        "at": "2024-01-02T00:00:00Z",
        "email": "mail@hidden.example",
        "note": "kept",
        **more,
    }


def lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in records).encode()


class Team:
    """A project with annotators who are not to be known."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        self.source: dict[str, Any] = {"name": "s", "path": "batches", "columns": dict(COLUMNS), **PRIVATE}
        self.section: dict[str, Any] = {"max_quarantined_share": 1}
        (folder / "batches").mkdir()
        self.write("a.jsonl", lines(*map(record, range(12))))

    def write(self, name: str, data: bytes) -> None:
        (self.folder / "batches" / name).write_bytes(data)

    def project(self) -> Project:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump({"ingested": {**self.section, "sources": [self.source]}}))
        return Project.open(path, self.folder / "store")

    def ingest(self) -> list[str]:
        self.runs += 1
        self.made = self.project()
        self.commit = materialize(self.made, "ingested", run_id=f"r{self.runs}", now=NOW)
        return rows(self.made, self.commit).sort("feedback_id").collect().get_column("annotator_id").to_list()

    def refusal(self) -> str:
        with pytest.raises(FeedbackError) as refused:
            self.ingest()
        return str(refused.value)

    def table(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        return scan(self.made.store, self.commit.snapshot.tables[name]).select(columns).collect().rows()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("DAGSTER_HOME", "")
    return Team(tmp_path)


def found(folder: Path, *words: str) -> list[str]:
    """In which files of a store the words are."""
    return sorted({str(path) for path, data in texts(folder) if any(word.encode() in data for word in words)})


def wrong_in_every_way(team: Team) -> None:
    """Ids and mails where a row, a line or a whole file cannot be used."""
    bad = [
        record(20, w="sideways"),
        record(21, at="yesterday"),
        record(22, rater=["Anna.Secret"]),
        record(23, w={"Anna.Secret": "mail@hidden.example"}),
        record(24, at="2099-01-01T00:00:00Z"),
        record(25),
        record(25, w="tie"),
    ]
    torn = lines(record(26))[:-60] + b"\n"
    team.write("b.jsonl", lines(record(28), *bad[:2], *bad[4:]) + torn)
    team.write("c.jsonl", lines(bad[2], record(27)))
    team.write("d.jsonl", lines(bad[3]))
    team.write("e.jsonl.gz", gzip.compress(lines(*map(record, range(30, 33))))[:-12])
    team.write("f.csv", b"Anna.Secret,mail@hidden.example\n1,2\n")
    wide = {f"k{number}": number for number in range(2_500)}
    team.write("g.jsonl", lines(record(40, **wide)))
    pl.DataFrame([record(50, rater=7.0)]).write_parquet(team.folder / "batches" / "h.parquet")
    team.source["columns"]["score"] = {"expr": "CAST(note AS DOUBLE)", "optional": True}
    team.section["lost_batches"] = [
        {"source": "s", "batch": name, "reason": "a test"} for name in ("c.jsonl", "d.jsonl", "f.csv")
    ]


def test_blank_text_is_nobody_and_gets_no_pseudonym(team: Team):
    team.write("a.jsonl", lines(record(0), record(1, rater=" ")))
    assert team.ingest() == [pseudonym("Anna.Secret"), None]
    assert Pseudonyms(KEY.encode()).of(pl.Series(["", " ", None])).to_list() == [None] * 3


def test_no_id_and_no_mail_is_anywhere_in_the_store_after_a_release(team: Team) -> None:
    wrong_in_every_way(team)
    del team.source["columns"]["score"]
    ran = run(team.project())
    assert ran.problems == []
    assert ran.release is not None
    store = team.folder / "store"
    assert found(store, "question 3?"), "text is found where it is"
    assert found(store, pseudonym("Anna.Secret"))
    assert found(store, *RATERS, "mail@hidden", KEY) == []


def test_no_id_and_no_mail_is_in_the_store_when_expressions_fail(team: Team) -> None:
    wrong_in_every_way(team)
    (team.folder / "batches" / "a.jsonl").unlink()
    team.source["columns"]["annotator_id"] = "CAST(rater AS INT)"
    team.source["columns"]["label"] = "CASE WHEN rater = 'x' THEN 'a' ELSE rater END"
    for _ in range(2):
        try:
            team.ingest()
        except FeedbackError as error:
            assert not any(word in str(error) for word in (*RATERS, "mail@hidden"))
        team.source["columns"]["annotator_id"] = "rater"
        team.source["columns"].pop("score", None)
    assert {("outside-vocabulary", "label", None)} <= set(team.table("quarantine", "reason", "column", "value"))
    assert found(team.folder / "store", *RATERS, "mail@hidden") == []


def test_a_pseudonym_is_the_hmac_of_the_id_and_the_same_in_every_format(team: Team) -> None:
    team.write("b.csv", b"id,p,a,b,w,rater,at\nc1,q,yes,no,a,213,2024-01-02T00:00:00Z\n")
    pl.DataFrame([record(1, id="p1", rater=213.0)]).write_parquet(team.folder / "batches" / "c.parquet")
    made = team.ingest()
    assert made[:2] == [pseudonym("213")] * 2
    assert made[2] == pseudonym("Anna.Secret")
    assert set(made) == {pseudonym(name) for name in ("213", *RATERS)}
    kinds = dict(rows(team.made, team.commit).select("annotator_id", "annotator_kind").collect().iter_rows())
    assert kinds[pseudonym("GptSecret")] == "model"
    assert kinds[pseudonym("Anna.Secret")] == "human"
    assert {extra for (extra,) in team.table("content", "extra")} == {'{"note":"kept"}', None}


def test_a_missing_or_short_key_and_a_changed_one_are_one_line_each(team: Team, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert f"source 's': the environment variable {VARIABLE} is not set" in team.refusal()
    monkeypatch.setenv(VARIABLE, "short")
    assert "holds fewer than 16 characters" in team.refusal()
    monkeypatch.setenv(VARIABLE, KEY)
    before = team.ingest()
    monkeypatch.setenv(VARIABLE, KEY + "!")
    told = team.refusal()
    assert f"source 's': {VARIABLE} holds another key than before (check value " in told
    assert KEY not in told
    monkeypatch.setenv("ANOTHER_KEY", KEY + "!")
    team.source["pseudonymise"] = {"annotator_id": "ANOTHER_KEY"}
    assert set(team.ingest()).isdisjoint(before)


def test_a_batch_whose_file_is_gone_does_not_pass_with_the_ids_it_had(team: Team) -> None:
    for name in PRIVATE:
        team.source.pop(name)
    assert set(team.ingest()) == set(RATERS)
    team.write("b.jsonl", lines(record(60)))
    (team.folder / "batches" / "a.jsonl").unlink()
    team.source |= PRIVATE
    assert (
        "was taken in before `pseudonymise` and `never_store` were as they are now; put the file back" in team.refusal()
    )
    team.write("a.jsonl", lines(*map(record, range(12))))
    assert set(team.ingest()) == {pseudonym(name) for name in RATERS}


def test_what_tells_records_apart_becomes_a_pseudonym_where_it_is_made_of_the_id(team: Team) -> None:
    team.source["columns"] |= {"feedback_id": "id || '/' || rater", "group_id": "p"}
    team.ingest()
    ids = rows(team.made, team.commit).select("feedback_id", "group_id").collect().rows()
    assert (pseudonym("r0/Anna.Secret"), "question 0?") in ids
    assert len(set(ids)) == 12


def test_a_column_that_a_file_spells_otherwise_is_not_stored_under_that_name(team: Team) -> None:
    team.write("b.jsonl", lines(record(70)).replace(b'"email"', b'"E-Mail"'))
    assert len(team.ingest()) == 12
    assert team.table("quarantine", "batch", "line", "reason", "value") == [
        ("b.jsonl", 0, "mapping-fails", "never_store names 'email', which the file lacks")
    ]
    assert found(team.folder / "store", "mail@hidden") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"never_store": ["p"]}, "columns.prompt reads 'p', which `never_store` names; take it out of one of the two"),
        ({"never_store": ["email", "email"]}, "'email' stands twice"),
        (
            {"quarantine_when": {"draft": "email = 'x'"}},
            "quarantine_when.draft reads 'email', which `never_store` names",
        ),
        (
            {"columns": {**COLUMNS, "category": "LOWER(rater)"}},
            "columns.category: 'LOWER(rater)' reads what annotator_id",
        ),
        ({"batch": "rater"}, "batch: 'rater' reads what annotator_id is made of"),
        ({"pseudonymise": {"annotator_id": "no variable"}}, "ingested.sources.0.pseudonymise.annotator_id"),
        ({"pseudonymise": {"response_a": VARIABLE}}, "input should be 'annotator_id'"),
        ({"columns": {"kind": "'thumbs'"}}, "`pseudonymise` names annotator_id, for which `columns` has no expression"),
    ],
)
def test_a_policy_that_would_keep_what_is_private_is_refused(team: Team, change: dict[str, Any], said: str) -> None:
    team.source |= change
    assert said in team.refusal()


def test_fields_of_one_column_are_told_apart(team: Team) -> None:
    team.source |= {
        "never_store": [],
        "each": "judgments",
        "columns": {**COLUMNS, "label": "each.w", "annotator_id": "each.who.id", "category": "each.topic"}
        | {"annotator_kind": "'human'", "feedback_id": "id || '#' || __position"},
    }
    judged = [{"w": "a", "who": {"id": name}, "topic": "chat"} for name in RATERS]
    team.write("a.jsonl", lines(record(1, rater=None, judgments=judged)))
    assert team.ingest() == [pseudonym(name) for name in RATERS]
    assert found(team.folder / "store", *RATERS) == []
    team.source["columns"]["category"] = "each.who.id || '!'"
    assert "columns.category" in team.refusal()


def add_raters(desk: Desk, *raters: str) -> None:  # noqa: F811
    desk.server.sql("ALTER TABLE feedback ADD COLUMN rater text, ADD COLUMN email text, ADD COLUMN about jsonb")
    for number, rater in enumerate(raters, 1):
        desk.add((number, str(number)))
        desk.server.sql(
            f"UPDATE feedback SET rater = '{rater}', email = 'mail@hidden', about = '{{}}' WHERE id = {number}"
        )
    desk.source |= {**PRIVATE, "never_store": ["email", "about"]}
    desk.source["columns"] = {**desk.source["columns"], "annotator_id": "rater"}


def test_rows_of_a_database_are_landed_with_pseudonyms_and_without_what_is_never_stored(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    add_raters(desk, *RATERS)
    commit = desk.run()
    project = desk.project()
    assert set(rows(project, commit).collect().get_column("annotator_id")) == {pseudonym(name) for name in RATERS}
    (batch,) = landed(project.store, project.policy.ingested.sources[0])
    assert {"email", "about"}.isdisjoint(read_landed(batch.path).columns)
    assert found(desk.folder / "store", *RATERS, "mail@hidden", KEY) == []
    assert desk.run().data_version == commit.data_version, "nothing is landed twice"
    desk.server.sql("UPDATE feedback SET email = 'other@hidden'")
    assert desk.run().data_version == commit.data_version, "what is never stored is not compared either"


def test_of_a_database_private_columns_are_held_against_the_query(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    add_raters(desk, *RATERS)

    def refusal(**change: Any) -> str:
        before = dict(desk.source)
        desk.source |= change
        with pytest.raises(FeedbackError) as refused:
            desk.run()
        desk.source = before
        return str(refused.value)

    columns = desk.source["columns"]
    assert "its `never_store` is 'emial', which the query does not give; did you mean 'email'?" in refusal(
        never_store=["emial"]
    )
    assert "the key 'id' is kept of each row" in refusal(
        never_store=["id"], columns={**columns, "feedback_id": "choice"}
    )
    assert "annotator_id must be one column of the query" in refusal(
        columns={**columns, "annotator_id": "LOWER(rater)"}
    )
    assert "let the query compute it from the id" in refusal(columns={**columns, "annotator_kind": "rater"})
    desk.run()
    monkeypatch.setenv("ANOTHER_KEY", KEY + "!")
    assert "its rows were landed with pseudonyms of another key than ANOTHER_KEY holds now" in refusal(
        pseudonymise={"annotator_id": "ANOTHER_KEY"}
    )
