"""Text that a process holds: what it read once, up to a bound, and never what an erasure took."""

import polars as pl
import pytest

from feedback_assets.snapshots import held as module
from feedback_assets.snapshots.erasures import Erasure, erasure_key
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import scan_part, write_part
from feedback_assets.snapshots.store import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def text(word):
    return pl.DataFrame({"response_a": [word * 100] * 50})


def gone(store, part):
    for file in part.files:
        store.path(file.key).unlink()


def test_the_text_of_a_part_is_read_once(store):
    held, part = Held(store), write_part(store, text("once"))
    assert held.text(part).collect().equals(text("once"))
    gone(store, part)
    assert held.text(part).collect().equals(text("once"))


def test_text_beyond_the_bound_is_read_as_often_as_it_is_asked_for(store, monkeypatch):
    first, second = (write_part(store, text(word)) for word in ("first", "second"))
    monkeypatch.setattr(module, "HELD_TEXT", text("first").estimated_size() + 1)
    held = Held(store)
    for _ in range(2):
        assert held.text(first).collect().equals(text("first"))
        assert held.text(second).collect().equals(text("second"))
    gone(store, first)
    gone(store, second)
    assert held.text(first).collect().equals(text("first"))
    with pytest.raises(OSError, match="No such file"):
        held.text(second).collect()


def test_what_an_erasure_rewrote_is_not_remembered(store):
    held, part, other = Held(store), write_part(store, text("secret")), write_part(store, text("******"))
    assert held.text(part).collect().equals(text("secret"))
    moved = {part.files[0].key: other.files[0].key}
    nothing = {"row_ids": (), "dropped": (), "batches": (), "releases": (), "lines": {}, "rows": {}, "replaced": {}}
    erasure = Erasure(1, "2026-01-01T00:00:00+00:00", None, annotator=None, moved=moved, **nothing)
    store.put(erasure_key(1), erasure.as_bytes())
    gone(store, part)
    assert held.text(part).collect().equals(text("******"))
    assert scan_part(store, part).collect().equals(text("******"))
