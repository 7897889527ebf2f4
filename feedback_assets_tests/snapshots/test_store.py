"""The store: objects are put once, whole, and never replaced."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.overlay import Overlay
from feedback_assets.snapshots.store import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def test_an_object_is_put_if_nothing_is_there(store):
    assert store.put("a/b.json", b"first")
    assert not store.put("a/b.json", b"second")
    assert store.get("a/b.json") == b"first"


def test_opening_a_store_writes_nothing(store):
    assert not store.exists("a")
    assert store.names("commits") == []
    assert not store.root.exists()


def test_what_is_missing_is_said_in_one_line(store):
    with pytest.raises(FeedbackError, match="the store lacks parts/x; it was deleted or belongs elsewhere") as caught:
        store.get("parts/x")
    assert "\n" not in str(caught.value)


class Killed(BaseException):
    """What a signal does to a run."""


def test_an_interrupted_write_leaves_nothing_that_can_be_read(store):
    with pytest.raises(Killed), store.scratch() as scratch:
        scratch.write_bytes(b"half")
        raise Killed
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_what_a_killed_process_left_behind_is_never_an_object(store):
    store.put("a/b", b"x")
    (store.root / "tmp" / "1-dead").write_bytes(b"half")
    assert store.names("a") == ["b"]
    assert store.put("a/c", b"y")


def test_of_many_writers_of_one_name_one_wins_and_all_read_what_it_wrote(store):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.put("k", str(n).encode()), range(40)))
    assert won.count(True) == 1
    assert store.get("k") == str(won.index(True)).encode()
    assert list((store.root / "tmp").iterdir()) == []


def test_names_are_sorted(store):
    for name in ("b", "a", "c"):
        store.put(f"f/{name}", b"")
    assert store.names("f") == ["a", "b", "c"]


def test_an_overlay_writes_to_its_own_folder_what_lies_beside_objects_of_the_store_below(store):
    store.put("commits/a/1", b"below")
    over = Overlay(store, store.root / "hybrids")
    assert over.put("commits/a/2", b"over")
    assert (over.get("commits/a/1"), over.get("commits/a/2")) == (b"below", b"over")
    assert not store.exists("commits/a/2")
