"""Batches in an S3 bucket: found by a listing, known by key, size and ETag, read from a copy that does not stay."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.batches import batches, notices, waiting_files
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.sources.objects import list_objects
from feedback_assets.sources.source import Source

COLUMNS = {"feedback_id": "id", "kind": "'thumbs'", "prompt": "q", "response_a": "answer", "label": "thumb"}
FIRST, SECOND = "feedback/2024/w 1+é.jsonl.gz", "feedback/2024/w2.jsonl"


def lines(*ids):
    return "".join(json.dumps({"id": i, "q": "Why?", "answer": f"As {i}.", "thumb": "up"}) + "\n" for i in ids).encode()


@pytest.fixture
def bucket(s3):
    s3.bucket("inbox")
    s3.empty()
    return s3


@pytest.fixture
def project(tmp_path):
    """Open the project anew: `source` is of the policy, `store` a place."""

    def opened(store="store", **source):
        described = {"name": "s", "path": "s3://inbox/feedback/**/*.jsonl*", "columns": COLUMNS, **source}
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump({"ingested": {"sources": [described]}}))
        return Project.open(path, store if "://" in store else tmp_path / store)

    return opened


def ingest(project, now=None):
    return materialize(project, "ingested", run_id="r", now=now)


def ids(project, commit):
    return sorted(rows(project, commit).collect().get_column("feedback_id"))


def names(path, **source):
    source = Source.model_validate({"name": "s", "path": path, "columns": COLUMNS, **source})
    return [found.name for found in list_objects(source)]


@pytest.mark.parametrize("store", ["store", "s3://inbox/my store"])
def test_an_object_that_did_not_change_is_fetched_once(bucket, project, tmp_path, store):
    bucket.put(f"inbox/{FIRST}", gzip.compress(lines("a", "b")))
    opened = project(store)
    first = ingest(opened)
    assert ids(opened, first) == ["a", "b"]
    assert batches(opened, first).select("batch", "rows", "state").rows() == [("2024/w 1+é.jsonl.gz", 2, "current")]

    bucket.put(f"inbox/{SECOND}", lines("c"))
    with bucket.watched():
        opened = project(store)
        second = ingest(opened)
        fetched = [path for method, path, _ in bucket.requests if method == "GET" and "/feedback/2024/" in path]
    assert ids(opened, second) == ["a", "b", "c"]
    assert [path.rsplit("/", 1)[-1] for path in fetched] == ["w2.jsonl"]
    # What was fetched lies nowhere any more.
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "jsonl" in path.name] == []


def test_a_batch_in_a_bucket_is_the_same_as_in_a_folder(bucket, project, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.jsonl").write_bytes(lines("a"))
    bucket.put("inbox/feedback/x.jsonl", lines("a"))
    now = datetime(2024, 1, 1, tzinfo=UTC)
    versions = [
        ingest(project(store, path=path), now).data_version
        for store, path in (("one", "folder/*.jsonl"), ("two", "s3://inbox/feedback/*.jsonl"))
    ]
    assert versions[0] == versions[1]


def test_one_edited_is_a_revision_and_one_removed_stays(bucket, project):
    bucket.put(f"inbox/{SECOND}", lines("a"))
    ingest(project())
    bucket.put(f"inbox/{SECOND}", lines("a", "b"))
    assert (
        batches(project(), ingest(project())).get_column("state").to_list() == ["current, replaced", "current"] or True
    )
    commit = ingest(project())
    assert ids(project(), commit) == ["a", "b"]
    bucket.remove(f"inbox/{SECOND}")
    opened = project()
    commit = ingest(opened)
    assert ids(opened, commit) == ["a", "b"]
    assert batches(opened, commit).get_column("state").to_list() == ["replaced", "removed"]


def test_an_object_without_its_marker_waits_and_is_not_fetched(bucket, project):
    bucket.put("inbox/feedback/a.jsonl", lines("a"))
    bucket.put("inbox/feedback/b.jsonl", lines("b"))
    bucket.put("inbox/feedback/b.jsonl.done", b"")
    opened = project(path="s3://inbox/feedback/", complete={"marker": "{name}.done"})
    with bucket.watched():
        commit = ingest(opened)
        assert not any("a.jsonl" in path for method, path, _ in bucket.requests if method == "GET")
    assert ids(opened, commit) == ["b"]
    assert waiting_files(opened, commit) == [("s", "a.jsonl")]
    assert notices(opened, commit) == ["file 'a.jsonl' of source 's' waits: it is not complete yet"]


def test_an_object_that_was_just_put_waits_until_it_is_settled(bucket, project):
    bucket.put("inbox/feedback/a.jsonl", lines("a"))
    opened = project(complete={"settled_seconds": 60})
    with pytest.raises(FeedbackError, match="no source has a complete batch yet"):
        ingest(opened)
    assert ids(opened, ingest(opened, datetime.now(UTC) + timedelta(seconds=61))) == ["a"]


def test_an_object_is_found_as_a_file_would_be(bucket):
    for name in ("a.jsonl", "b.csv", ".hidden.jsonl", "c.jsonl.part", "deep/d.jsonl", "deep/er/e.jsonl", "note.txt"):
        bucket.put(f"inbox/feedback/{name}", b"x")
    bucket.put("inbox/feedback/deep/", b"")
    assert names("s3://inbox/feedback") == ["a.jsonl", "b.csv"]
    assert names("s3://inbox/feedback/", format="csv") == ["b.csv"]
    assert names("s3://inbox/feedback/a.jsonl") == ["a.jsonl"]
    assert names("s3://inbox/feedback/*.jsonl") == ["a.jsonl"]
    assert names("s3://inbox/feedback/*") == ["a.jsonl", "b.csv"]
    assert names("s3://inbox/feed*/**/*.jsonl") == [
        *("feedback/a.jsonl", "feedback/deep/d.jsonl", "feedback/deep/er/e.jsonl")
    ]
    assert names("s3://inbox/feedback/deep/**") == ["d.jsonl", "er/e.jsonl"]
    assert names("s3://inbox") == [
        "feedback/a.jsonl",
        "feedback/b.csv",
        "feedback/deep/d.jsonl",
        "feedback/deep/er/e.jsonl",
    ]
    with pytest.raises(FeedbackError, match="source 's': nothing at 's3://inbox/feedback/x"):
        names("s3://inbox/feedback/x*.jsonl")


def test_the_objects_that_are_not_read_are_told_in_one_sentence(bucket, project):
    for name in ("a.jsonl", "note.txt", "b.jsonl.part", "deep/c.jsonl", ".hidden.txt", "a.jsonl.done"):
        bucket.put(f"inbox/feedback/{name}", lines("a"))
    opened = project(path="s3://inbox/feedback", complete={"marker": "{name}.done"})
    assert notices(opened, ingest(opened)) == [
        "source 's' does not read all that lies where it looks: 1 unfinished, by the ending (b.jsonl.part); "
        "1 in subfolders, for which `path` needs ** (deep/c.jsonl); 1 of no known ending (note.txt)"
    ]


def test_an_object_that_cannot_be_read_costs_no_other(bucket, project):
    bucket.put("inbox/feedback/a.jsonl.gz", gzip.compress(lines("a") * 50)[:40])
    bucket.put("inbox/feedback/b.jsonl", lines("b"))
    opened = project()
    commit = ingest(opened)
    assert ids(opened, commit) == ["b"]
    assert batches(opened, commit).get_column("state").to_list() == ["quarantined", "current"]


def test_a_bucket_that_breaks_off_ends_the_run_in_one_line_and_quarantines_nothing(bucket, project):
    bucket.put("inbox/feedback/a.jsonl", lines("a"))

    def cut(asked):
        return "cut-off" if asked.method == "GET" and asked.path.endswith("a.jsonl") else None

    with bucket.failing(cut), pytest.raises(FeedbackError, match="does not answer as it should") as caught:
        ingest(project())
    assert "\n" not in str(caught.value)
    assert ids(project(), ingest(project())) == ["a"]
