"""A project whose store is in S3: the same release, read anywhere, whatever fails on the way."""

import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feedback_assets.cli import main as command_line
from feedback_assets.cli.starter import write_starter
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.release import annotations_of, find, listed, release
from feedback_assets.snapshots.snapshot import scan

PLACE = "s3://team/feedback/store"


@pytest.fixture
def bucket(s3, monkeypatch):
    """An empty bucket."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    s3.bucket("team")
    s3.empty()
    return s3


@pytest.fixture
def starter(tmp_path):
    """A project of six records, and the id of its release."""
    write_starter(tmp_path / "starter")
    return tmp_path / "starter"


def elsewhere(folder: Path, to: Path) -> Path:
    """The policy and its batches on another machine, with nothing of what was made."""
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("store", ".feedback_assets")))


def made(folder: Path, place: str) -> str:
    """The id of a release that is made stage by stage, without Dagster."""
    project = Project.open(folder / "policy.yaml", place)
    commits = {}
    for stage in STAGES[:-1]:
        inputs = {name: commits[name] for name in stage.inputs}
        commits[stage.name] = materialize(project, stage.name, run_id=str(folder), inputs=inputs)
    inputs = {name: commits[name] for name in STAGES[-1].inputs}
    _, released = release(project, run_id=str(folder), inputs=inputs)
    assert released is not None
    return released.id


def said(capsys, monkeypatch, *arguments):
    """Exit code, and what the command line says."""
    monkeypatch.setattr(sys, "argv", ["feedback-assets", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    return stopped.value.code, capsys.readouterr()


def test_a_run_on_s3_makes_the_release_of_a_run_in_a_folder(sample_run, tmp_path, bucket, capsys, monkeypatch):
    folder = elsewhere(sample_run, tmp_path / "here")
    ran = run(Project.open(folder / "policy.yaml", PLACE))
    assert ran.problems == []
    local = find(Project.open(sample_run / "policy.yaml", sample_run / "store").store, "latest")
    assert ran.release.id == local.id

    there = elsewhere(sample_run, tmp_path / "there")
    options = ("--policy", there, "--store", PLACE, "--json")
    code, shown = said(capsys, monkeypatch, "releases", *options)
    assert (code, [entry["id"] for entry in json.loads(shown.out)]) == (0, [local.id])
    code, shown = said(capsys, monkeypatch, "questions", "latest", *options)
    assert (code, json.loads(shown.out)["release"]) == (0, local.id)
    code, shown = said(capsys, monkeypatch, "trace", "ar-000100", *options)
    assert (code, json.loads(shown.out)[0]["record"]["line"]) == (0, 101)
    store = Project.open(there / "policy.yaml", PLACE).store
    assert annotations_of(store, find(store, "latest")).collect().height == local.content["annotations"]["records"]

    with bucket.watched():
        assert made(there, PLACE) == local.id
        put = [path for method, path, _ in bucket.requests if method == "PUT"]
    # It computed nothing again.
    assert [path for path in put if re.search(r"/(parts|memo)/", path)] == []


def test_a_run_goes_on_where_single_requests_fail(starter, bucket):
    undisturbed = made(elsewhere(starter, starter.with_name("a")), str(starter / "store"))
    faults = ("refused", "cut-off")
    with bucket.failing(lambda asked: None if asked.number % 7 else faults[asked.number // 7 % 2]):
        assert made(starter, PLACE) == undisturbed
        assert len(bucket.requests) > 200


def test_a_run_that_loses_the_bucket_ends_in_one_line_and_the_next_makes_the_release(starter, bucket):
    with bucket.watched():
        undisturbed = made(starter, PLACE)
        requests = len(bucket.requests)
    for share in (0.4, 0.98):
        bucket.empty()
        folder = elsewhere(starter, starter.with_name(f"lost-at-{share}"))
        with (
            bucket.failing(lambda asked, last=share * requests: "refused" if asked.number > last else None),
            pytest.raises(FeedbackError, match="does not answer as it should") as caught,
        ):
            made(folder, PLACE)
        assert "\n" not in str(caught.value)

        reader = Project.open(elsewhere(starter, starter.with_name(f"reader-{share}")) / "policy.yaml", PLACE)
        for commit in (commit for stage in STAGES for commit in reader.commits.all(stage.name)):
            for table in commit.snapshot.tables.values():
                assert scan(reader.store, table).collect().height == table.rows
        assert [find(reader.store, entry["id"]).id for entry in listed(reader.store)] in ([], [undisturbed])
        assert made(folder, PLACE) == undisturbed
        assert listed(reader.store)[-1]["id"] == undisturbed


def test_two_runs_at_once_make_the_same_release_and_lose_no_commit(starter, bucket):
    folders = [elsewhere(starter, starter.with_name(name)) for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(made, folders, [PLACE] * 2))
    assert ids[0] == ids[1]
    project = Project.open(starter / "policy.yaml", PLACE)
    assert [entry["id"] for entry in listed(project.store)] == ids
    for stage in STAGES:
        commits = project.commits.all(stage.name)
        assert sorted(commit.circumstances["run_id"] for commit in commits) == sorted(map(str, folders))
        assert len({commit.id for commit in commits}) == 1


def test_what_a_person_cannot_reach_is_said_in_one_line(starter, bucket, capsys, monkeypatch):
    asked = ("--policy", starter, "--store", "s3://nobody-made-this/store")
    line = "feedback-assets: s3://nobody-made-this/store: there is no such bucket; make it, or correct its name\n"
    taking = (["verify"], ["gc", "--yes"], ["erase", "--annotator", "x"])
    for command in (["run"], ["releases"], ["questions", "latest"], ["trace", "x"], *taking):
        code, shown = said(capsys, monkeypatch, *command, *asked)
        assert code == 2
        assert shown.err.replace("no release: ", "").replace("ingested: ", "") == line, command
    assert os.environ["AWS_ACCESS_KEY_ID"] not in shown.err
