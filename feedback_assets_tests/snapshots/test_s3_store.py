"""The store in S3: what `LocalStore` promises, over a wire that fails at any request."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import polars as pl
import pytest

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots import bucket as bucket_module
from feedback_assets.snapshots.bucket import Bucket
from feedback_assets.snapshots.s3_store import S3Store
from feedback_assets.snapshots.snapshot import Memo, Snapshot, scan, write_table
from feedback_assets.snapshots.store import LocalStore, store_at
from feedback_assets_tests.s3_server import FAULTS

PATIENCE = {"timeout": timedelta(seconds=0.3), "pause": timedelta(milliseconds=5)}
ROWS = pl.DataFrame({"row_id": ["a", "b", "c"], "score": [1.0, None, 3.0]})


@pytest.fixture
def place(s3, tmp_path):
    return f"s3://{s3.bucket(tmp_path.name.replace('_', '-')[:60])}/team one/store"


@pytest.fixture
def open_store(place, tmp_path):
    """The store as another machine sees it, each time with a folder of its own."""
    folders = iter(range(100))
    return lambda: S3Store(Bucket(place, **PATIENCE), tmp_path / f"machine-{next(folders)}")


def work(store):
    """What a stage does: parts, then what is remembered, then the record that publishes them."""
    snapshot = Snapshot("some", {"rows": write_table(store, ROWS, part_rows=2)})
    Memo(store).put("ab" * 32, snapshot)
    store.put("commits/some/0000000001.json", b'{"record": 1}')
    return snapshot


def seen(store, snapshot):
    """What a reader finds: the rows of the snapshot, if its record stands."""
    if not store.exists("commits/some/0000000001.json"):
        return None
    assert store.get("commits/some/0000000001.json") == b'{"record": 1}'
    return scan(store, snapshot.tables["rows"]).collect()


def test_an_object_is_put_if_nothing_is_there(open_store):
    assert open_store().put("a/b.json", b"first")
    assert not open_store().put("a/b.json", b"second")
    assert open_store().get("a/b.json") == b"first"
    assert open_store().names("a") == ["b.json"]


def test_another_machine_reads_the_same_rows_and_the_same_snapshot_as_a_folder(open_store, tmp_path):
    snapshot = work(open_store())
    assert snapshot == work(LocalStore(tmp_path / "folder"))
    elsewhere = open_store()
    assert seen(elsewhere, snapshot).equals(ROWS)
    assert Memo(elsewhere).get("ab" * 32) == snapshot


def test_a_part_is_fetched_once(open_store, s3):
    snapshot = work(open_store())
    elsewhere = open_store()
    seen(elsewhere, snapshot)
    with s3.watched():
        assert scan(elsewhere, snapshot.tables["rows"]).collect().equals(ROWS)
        assert s3.requests == []


def test_what_the_bucket_lost_is_not_taken_from_a_copy(open_store, s3, place):
    store = open_store()
    snapshot = work(store)
    s3.remove(f"{place.removeprefix('s3://')}/{snapshot.files[0].key}")
    again = S3Store(store.bucket, store.here.root.parents[2])
    assert again.here.path(snapshot.files[0].key).exists()
    assert Memo(again).get("ab" * 32) is None


def test_a_damaged_part_is_refused_in_one_line(open_store, s3, place):
    snapshot = work(open_store())
    key = snapshot.files[0].key
    s3.put(f"{place.removeprefix('s3://')}/{key}", b"half")
    with pytest.raises(FeedbackError, match=f"{key}: damaged; its bytes have another digest"):
        scan(open_store(), snapshot.tables["rows"])


def test_of_many_writers_of_one_name_one_wins_and_all_read_what_it_wrote(open_store):
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: stores[n % 4].put("k", str(n).encode()), range(24)))
    assert won.count(True) == 1
    assert open_store().get("k") == str(won.index(True)).encode()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_request_is_overcome_and_nothing_broken_is_seen(open_store, s3, fault):
    """Once, at each request in turn: writers and readers go on, and a reader sees all or nothing."""
    with s3.watched():
        snapshot = work(open_store())
        seen(open_store(), snapshot)
        requests = len(s3.requests)
    assert requests > 10
    for failing in range(1, requests + 1):
        s3.empty()
        with s3.failing(lambda asked, failing=failing: fault if asked.number == failing else None):
            assert work(open_store()) == snapshot
            assert seen(open_store(), snapshot).equals(ROWS)


@pytest.mark.parametrize("fault", FAULTS)
def test_where_a_fault_stays_the_run_ends_in_one_line_and_another_run_mends_it(open_store, s3, fault):
    """From each request on, as when the network goes: what was published stays whole."""
    with s3.watched():
        snapshot = work(open_store())
        requests = len(s3.requests)
    for failing in range(1, requests + 1, 7):
        s3.empty()
        with s3.failing(lambda asked, failing=failing: fault if asked.number >= failing else None):
            with pytest.raises(FeedbackError, match="does not answer as it should") as caught:
                work(open_store())
            assert "\n" not in str(caught.value)
        found = seen(open_store(), snapshot)
        assert found is None or found.equals(ROWS)
        assert work(open_store()) == snapshot
        assert seen(open_store(), snapshot).equals(ROWS)


def test_a_record_whose_answer_was_lost_is_known_to_be_ours(open_store, s3):
    store = open_store()
    store.put("a", b"")

    with s3.failing(lambda asked: "answer-lost" if asked.method == "PUT" and asked.number == 1 else None):
        assert store.put("commits/some/0000000001.json", b"mine")
    with s3.failing(lambda asked: "unanswered" if asked.method == "PUT" and asked.number == 1 else None):
        assert not store.put("commits/some/0000000001.json", b"other")


def test_what_is_large_comes_in_pieces(open_store, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_module, "PIECE", 4)
    bucket = open_store().bucket
    bucket.create("large", b"0123456789")
    found = bucket.standing("large")
    with s3.watched():
        assert bucket.fetch("large", tmp_path / "large", etag=found.etag, size=found.bytes)
        assert len(s3.requests) == 3
    assert (tmp_path / "large").read_bytes() == b"0123456789"
    assert not bucket.fetch("large", tmp_path / "large", etag='"of-another"', size=found.bytes)


def test_a_server_that_ignores_conditions_is_refused(open_store, s3):
    s3.ignores_conditions = True
    try:
        with pytest.raises(FeedbackError, match="ignores `If-None-Match`"):
            open_store().put("a", b"")
    finally:
        s3.ignores_conditions = False


def test_opening_a_store_asks_nothing_and_writes_nothing(tmp_path):
    store = store_at("s3://anywhere/prefix/", tmp_path)
    assert store.place == "s3://anywhere/prefix"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["s3://", "s3:/one-slash/x", "s3://UPPER/x", "s3://bucket/../x", "s3://b/x"])
def test_what_is_no_place_in_s3_is_said(tmp_path, place):
    with pytest.raises(FeedbackError, match="is no place in S3; write s3://bucket/prefix"):
        store_at(place, tmp_path)


def test_what_cannot_be_reached_is_said_in_one_line(tmp_path, s3, monkeypatch):
    def said():
        with pytest.raises(FeedbackError) as caught:
            S3Store(Bucket("s3://no-such-bucket/x", **PATIENCE), tmp_path).exists("a")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said() == "s3://no-such-bucket/x: there is no such bucket; make it, or correct its name"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert said().startswith("s3://no-such-bucket/x: http://127.0.0.1:1 does not answer as it should: ")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert said() == "AWS_ENDPOINT_URL is 'localhost:9000', which is no address; write https://host:port"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert said() == "s3://no-such-bucket/x: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def test_what_was_put_by_another_hand_under_a_digest_is_not_taken_for_ours(open_store, s3, place):
    store = open_store()
    with store.scratch() as scratch:
        scratch.write_bytes(b"whole")
        key = f"parts/x/{file_digest(scratch)}.parquet"
        s3.put(f"{place.removeprefix('s3://')}/{key}", b"ha")
        with pytest.raises(FeedbackError, match="2 bytes stand there, 5 were to be put"):
            store.put_file(key, scratch)
