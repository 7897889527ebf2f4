"""What was landed from a database is ours, and so is erased; what the database still has does not come back."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from feedback_assets.materialize import materialize as stage_module
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.erase import erase
from feedback_assets.provenance.sought import Request
from feedback_assets.provenance.verify import verify
from feedback_assets_tests.postgres_server import Server
from feedback_assets_tests.provenance.votes import holding, holding_objects
from feedback_assets_tests.s3_server import Server as S3

VARIABLE = "FEEDBACK_TEST_DATABASE"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = {"feedback_id": "id", "kind": "'thumbs'", "prompt": "q", "response_a": "answer", "label": "thumb"}


class Desk:
    """A project that reads a table of a real server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.runs = folder, server, 0
        self.place: Path | str = folder / "store"
        self.columns = {**COLUMNS, "annotator_id": "who"}

    def add(self, number: int, who: str, answer: str, thumb: str = "up") -> None:
        row = f"{number}, '2026-01-{number:02d}', '{who}', 'Why {answer}?', '{answer}', '{thumb}'"
        self.server.sql(f"INSERT INTO votes VALUES ({row})")

    @property
    def project(self) -> Project:
        source = {"name": "db", "connection": VARIABLE, "table": "votes", "key": "id", "watermark": "at"}
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump({"ingested": {"sources": [{**source, "columns": self.columns}]}}))
        return Project.open(path, self.place)

    def run(self) -> Commit:
        self.runs += 1
        return materialize(self.project, "ingested", run_id=f"run{self.runs}", now=NOW)

    def fates(self, commit: Commit) -> dict[str, int]:
        return {fate["fate"]: fate["rows"] for fate in commit.content["fates"]}


@pytest.fixture
def desk(tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv(VARIABLE, postgres.uri())
    monkeypatch.setattr(stage_module, "examine", lambda *_: {"checks": []})  # takes longer than the work
    table = "CREATE TABLE votes (id bigint, at timestamptz, who text, q text, answer text, thumb text)"
    postgres.sql("DROP TABLE IF EXISTS votes", table)
    yield Desk(tmp_path, postgres)


def test_rows_landed_from_a_database_are_erased_and_do_not_come_back(desk: Desk):
    desk.add(1, "anna-7781", "the-violet-door")
    desk.add(2, "ben", "the-green-roof")
    desk.add(3, "anna-7781", "the-copper-lake", "no word")  # in quarantine
    desk.run()
    theirs = ("anna-7781", "the-violet-door", "the-copper-lake")
    assert set(holding(desk.folder / "store", *theirs)) == set(theirs)
    plan = erase(desk.project, Request(annotator="anna-7781"), do=True)
    assert plan.changes["rows landed from a database"].rows == 2
    assert holding(desk.folder / "store", *theirs) == {}
    assert verify(desk.project.store).damages == []

    commit = desk.run()
    assert desk.fates(commit) == {"kept": 1, "erased": 2}
    # A row of theirs that changes in the database, and a new one, are seen and not landed.
    desk.server.sql("UPDATE votes SET at = '2026-02-01', answer = 'the-violet-door, new' WHERE id = 1")
    desk.add(4, "anna-7781", "the-copper-lake again")
    desk.add(5, "ben", "the-iron-hill")
    commit = desk.run()
    assert desk.fates(commit) == {"kept": 2, "erased": 2}
    assert holding(desk.folder / "store", *theirs) == {}
    assert erase(desk.project, Request(annotator="anna-7781"), do=True).changes == {}
    # Mapped anew, what is left of the window says the same.
    desk.columns = {**desk.columns, "language": "'en'"}
    commit = desk.run()
    assert desk.fates(commit) == {"kept": 2, "erased": 2}
    assert rows(desk.project, commit).collect().get_column("language").to_list() == ["en", "en"]
    assert verify(desk.project.store).damages == []


def test_rows_landed_into_a_bucket_are_erased_there_and_from_the_copies(desk: Desk, s3: S3):
    bucket = s3.bucket("landed-and-erased")
    desk.place = f"s3://{bucket}/store"
    desk.add(1, "anna-7781", "the-violet-door")
    desk.add(2, "ben", "the-green-roof")
    desk.run()
    theirs = ("anna-7781", "the-violet-door")
    copies = desk.folder / ".feedback_assets"
    assert set(holding_objects(s3.objects(bucket), *theirs)) == set(theirs) == set(holding(copies, *theirs))
    shutil.rmtree(copies)  # as on another machine
    plan = erase(desk.project, Request(annotator="anna-7781"), do=True)
    assert plan.changes["rows landed from a database"].rows == 1
    assert holding_objects(s3.objects(bucket), *theirs) == {} == holding(copies, *theirs)
    assert verify(desk.project.store).damages == []
    for mapped in ({}, {"language": "'en'"}):  # anew, from what is left of the window
        desk.columns |= mapped
        shutil.rmtree(copies)
        assert desk.fates(desk.run()) == {"kept": 1, "erased": 1}
    assert holding_objects(s3.objects(bucket), *theirs) == {} == holding(copies, *theirs)
