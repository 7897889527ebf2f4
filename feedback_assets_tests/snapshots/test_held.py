"""Tables and text that a process holds: what it read once, up to a bound, and never what an erasure took."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback_assets.snapshots import held as module
from feedback_assets.snapshots.erasures import Erasure, erasure_key
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Part, Table, scan, scan_part, write_part
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


PARTS = [
    pl.DataFrame({"row_id": [f"{part}-{row}" for row in range(part + 1)], "arrival": [part] * (part + 1)})
    for part in range(5)
]


def table_of(store, parts, *, beside=()):
    """Some of PARTS; those of `beside` with a column in a file of its own."""
    told = []
    for part in parts:
        files = write_part(store, PARTS[part]).files
        if part in beside:
            files += write_part(store, PARTS[part].select(more=pl.col("arrival") * 10)).files
        told.append(Part(PARTS[part].height, files, (part, part)))
    return Table({"row_id": "string", "arrival": "int64", **({"more": "int64"} if beside else {})}, tuple(told))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=1), st.booleans()), max_size=6), room=st.booleans()
)
def test_whatever_was_read_before_a_table_has_its_own_rows_in_order(store, monkeypatch, asked, room):
    monkeypatch.setattr(module, "HELD_BYTES", 2**20 if room else 12_000)
    held = Held(store)
    for parts, wide in asked:
        table = table_of(store, parts, beside=parts if wide else ())
        held.ahead(table_of(store, sorted(parts)))
        assert held.rows(table).collect().equals(scan(store, table).collect())


def test_a_column_lies_in_one_place_for_all_tables_that_have_it(store):
    held = Held(store)

    def place(parts, beside=()):
        arrival = held.rows(table_of(store, parts, beside=beside)).collect()["arrival"]
        assert arrival.n_chunks() == 1
        array = arrival.to_arrow()
        return array.buffers()[1].address + 8 * array.offset

    assert place(range(4)) == place(range(4), beside=range(4))
    whole = place(range(5))
    assert [place(range(3)), place(range(1, 3))] == [whole, whole + PARTS[0].height * 8]


def test_what_is_read_ahead_and_is_gone_is_said_when_it_is_asked_for(store):
    held, table = Held(store), table_of(store, range(2))
    gone(store, table.parts[0])
    held.ahead(table)
    with pytest.raises(OSError, match="No such file"):
        held.rows(table)


def test_a_part_of_what_was_written_just_now_is_not_read_again(store):
    held, table = Held(store), table_of(store, range(5))
    held.keep(table, pl.concat(PARTS))
    for part in table.parts:
        gone(store, part)
    assert held.rows(Table(table.schema, table.parts[1:3])).collect().equals(pl.concat(PARTS[1:3]))
