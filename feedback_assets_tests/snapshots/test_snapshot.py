"""Snapshots: parts named by their bytes, versions made of their values."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.digests import file_digest, fingerprint
from feedback_assets.snapshots.snapshot import (
    Memo,
    Snapshot,
    Table,
    further_copies,
    scan,
    write_fates,
    write_part,
    write_rows,
    write_table,
)
from feedback_assets.snapshots.store import LocalStore

ROWS = pl.DataFrame({"row_id": list("abcdef"), "arrival": [0, 0, 1, 1, 1, 3]})


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def version(table: Table, **others: Table) -> str:
    return Snapshot("x", {"rows": table, **others}).data_version


def test_a_part_is_named_by_its_bytes_and_says_what_it_holds(store):
    part = write_part(store, ROWS)
    (file,) = part.files
    path = store.path(file.key)
    assert file_digest(path) == file.digest == path.stem
    assert (part.fingerprint, part.rows, part.bytes) == (fingerprint(ROWS), 6, path.stat().st_size)
    assert part.arrivals == (0, 3)


def test_the_same_values_are_written_once(store):
    one, two = write_part(store, ROWS), write_part(store, pl.concat([ROWS[:2], ROWS[2:]], rechunk=False))
    assert one == two
    assert len(list(store.path("parts").rglob("*.parquet"))) == 1


def test_a_part_that_was_deleted_is_written_again(store):
    part = write_part(store, ROWS)
    store.path(part.files[0].key).unlink()
    assert write_part(store, ROWS) == part
    assert store.exists(part.files[0].key)


def test_parts_end_where_arrivals_end(store):
    table = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    assert [(part.rows, part.arrivals) for part in table.parts] == [(2, (0, 0)), (3, (1, 1)), (1, (3, 3))]
    assert scan(store, table).collect().equals(ROWS)


def test_a_later_arrival_leaves_the_earlier_parts(store):
    before = write_table(store, ROWS[:5], last_arrivals=[0, 1])
    after = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    assert after.parts[:2] == before.parts


def test_an_arrival_without_rows_has_no_part(store):
    assert [part.rows for part in write_table(store, ROWS, last_arrivals=[0, 1, 2, 3, 4]).parts] == [2, 3, 1]


@pytest.mark.parametrize("last_arrivals", [[], [4], [0, 1, 3]])
def test_a_table_without_rows_can_be_read_and_has_its_columns(store, last_arrivals):
    table = write_table(store, ROWS.clear(), last_arrivals=last_arrivals)
    assert scan(store, table).collect().equals(ROWS.clear())
    assert table.rows == 0


def test_long_tables_are_cut(store):
    table = write_table(store, ROWS, part_rows=4)
    assert [part.rows for part in table.parts] == [4, 2]
    assert scan(store, table).collect().equals(ROWS)


def files(store: LocalStore) -> set[str]:
    return {path.name for path in store.path("parts").rglob("*.parquet")}


def test_a_stage_that_adds_columns_writes_these_and_keeps_the_rest(store):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    earlier = files(store)
    rows = ROWS.with_columns(weight=pl.col("arrival") / 2)
    table = write_rows(store, rows, ROWS, before)
    assert scan(store, table).collect().equals(rows)
    assert [part.files[0] for part in table.parts] == [part.files[0] for part in before.parts]
    added = [pl.read_parquet(store.path(part.files[1].key)).columns for part in table.parts]
    assert added == [["weight"]] * 3
    assert len(files(store) - earlier) == 3


def test_a_stage_that_drops_rows_writes_only_the_parts_that_lost_some(store):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    rows = ROWS.filter(pl.col("row_id") != "d")
    table = write_rows(store, rows, ROWS, before)
    assert scan(store, table).collect().equals(rows)
    assert (table.parts[0], table.parts[2]) == (before.parts[0], before.parts[2])
    assert [part.rows for part in table.parts] == [2, 2, 1]
    gone = write_rows(store, ROWS.filter(pl.col("arrival") != 1), ROWS, before)
    assert gone.parts == (before.parts[0], before.parts[2])


def test_copies_stand_after_all_originals_and_leave_them_as_they_are(store):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    firsts = ROWS.with_columns(copies=pl.lit(2, pl.Int32), copy_index=pl.lit(0, pl.Int32))
    rows = pl.concat([firsts, firsts.with_columns(copy_index=pl.lit(1, pl.Int32))])
    table = write_rows(store, firsts, ROWS, before)
    assert scan(store, table).collect().equals(rows)
    assert [part.files[0] for part in table.parts[:3]] == [part.files[0] for part in before.parts]
    assert [part.further for part in table.parts] == [False, False, False, True]
    assert scan(store, table.records).collect().equals(firsts)
    originals = firsts.drop("copy_index").with_columns(weight=pl.lit(1.0))
    released = write_rows(store, originals, firsts, table.records)
    assert scan(store, released).collect().equals(originals)
    assert [len(part.files) for part in released.parts] == [3, 3, 3]


@given(st.lists(st.integers(1, 4), max_size=6))
def test_further_copies_are_numbered_from_one_record_by_record(copies: list[int]):
    rows = ROWS.head(len(copies)).with_columns(copies=pl.Series(copies, dtype=pl.Int32), copy_index=pl.lit(0, pl.Int32))
    found = further_copies(rows)
    assert found.schema == rows.schema
    expected = [(name, index) for name, most in zip("abcdef", copies, strict=False) for index in range(1, most)]
    assert found.select("row_id", "copy_index").rows() == expected


def test_copies_of_earlier_arrivals_stay_in_the_files_that_they_lie_in(store, monkeypatch):
    monkeypatch.setattr("feedback_assets.snapshots.snapshot.COPIED_TOGETHER", 1)

    def copied(rows: pl.DataFrame, last_arrivals: list[int]) -> Table:
        before = write_table(store, rows, last_arrivals=last_arrivals)
        firsts = rows.with_columns(copies=pl.lit(3, pl.Int32), copy_index=pl.lit(0, pl.Int32))
        further = [firsts.with_columns(copy_index=pl.lit(index, pl.Int32)) for index in (1, 2)]
        made = pl.concat([firsts, pl.concat(further).sort("arrival", "row_id", "copy_index")])
        table = write_rows(store, firsts, rows, before)
        assert scan(store, table).collect().equals(made)
        return table

    first = copied(ROWS.filter(pl.col("arrival") < 3), [0, 1])
    assert [part.rows for part in first.further.parts] == [4, 6]
    assert copied(ROWS, [0, 1, 3]).further.parts[:2] == first.further.parts


def test_fates_share_the_file_of_the_ids_of_a_part(store):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    kept = ROWS.select("row_id", fate=pl.lit("kept"))
    first = write_fates(store, kept, ROWS, before)
    firsts = ROWS.with_columns(copies=pl.lit(2, pl.Int32), copy_index=pl.lit(0, pl.Int32))
    copied = kept.with_columns(fate=pl.lit("copied"))
    later = write_fates(store, copied, firsts, write_rows(store, firsts, ROWS, before).records)
    assert scan(store, first).collect().equals(kept)
    assert scan(store, later).collect().equals(copied)
    assert [part.files[0] for part in later.parts] == [part.files[0] for part in first.parts]


@pytest.mark.parametrize("fates", [ROWS[:3], ROWS.reverse(), ROWS[1:]], ids=["some", "in another order", "of others"])
def test_fates_that_are_not_those_of_whole_parts_are_read_back_as_they_are(store, fates):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    told = fates.select("row_id", fate=pl.lit("kept"))
    assert scan(store, write_fates(store, told, ROWS, before)).collect().equals(told)


@pytest.mark.parametrize(
    "rows",
    [ROWS.reverse(), ROWS.with_columns(pl.col("row_id").str.to_uppercase()), pl.concat([ROWS, ROWS[:1]]), ROWS.clear()],
    ids=["moved rows", "rewrote a column", "repeated a row", "dropped all"],
)
def test_whatever_a_stage_did_to_the_rows_what_is_read_is_what_it_made(store, rows):
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    table = write_rows(store, rows, ROWS, before)
    assert sorted(scan(store, table).collect().rows()) == sorted(rows.rows())
    assert table.rows == rows.height


def test_parts_whose_files_hold_columns_in_another_order_are_read_as_one_table(store):
    wide = ROWS.select("arrival", "row_id", more=pl.lit(1))
    before = write_table(store, wide, last_arrivals=[0, 1, 3])
    rows = ROWS.filter(pl.col("row_id") != "d").with_columns(x=pl.lit("x"))
    table = write_rows(store, rows, wide, before)
    again = write_rows(store, rows.filter(pl.col("row_id") != "a"), rows, table)
    assert scan(store, again).collect().equals(rows.filter(pl.col("row_id") != "a"))


@settings(deadline=None, max_examples=30)
@given(stands=st.lists(st.booleans(), min_size=6, max_size=6), again=st.lists(st.booleans(), min_size=6, max_size=6))
def test_what_two_stages_made_of_rows_is_read_back_whole(tmp_path_factory, stands, again):
    store = LocalStore(tmp_path_factory.mktemp("store"))
    before = write_table(store, ROWS, last_arrivals=[0, 1, 3])
    one = ROWS.filter(pl.Series(stands)).with_columns(x=pl.col("arrival") + 1)
    first = write_rows(store, one, ROWS, before)
    two = one.filter(pl.Series(again[: one.height], dtype=pl.Boolean)).with_columns(y=pl.lit("y"))
    assert scan(store, first).collect().equals(one)
    assert scan(store, write_rows(store, two, one, first)).collect().equals(two)


def test_a_data_version_is_of_values_schema_and_order(store):
    rows = write_table(store, ROWS)
    assert version(rows) == version(write_table(store, pl.concat([ROWS[:1], ROWS[1:]], rechunk=False)))
    others = [
        ROWS.reverse(),
        ROWS.rename({"arrival": "line"}),
        ROWS.with_columns(pl.col("arrival").cast(pl.Int32)),
        ROWS.select("arrival", "row_id"),
        ROWS[:5],
        ROWS.with_columns(pl.lit(None).alias("more")),
    ]
    assert len({version(rows), *(version(write_table(store, frame)) for frame in others)}) == len(others) + 1


def test_the_data_version_is_the_same_in_every_run(store):
    assert version(write_table(store, ROWS)) == "8b548c663be80062a8a197c4ecd273275112d6c911982bde11789f40fec24b99"


def test_tables_that_only_explain_do_not_enter_the_data_version(store):
    rows, other = write_table(store, ROWS), write_table(store, ROWS[:1])
    assert version(rows, fates=other) == version(rows, quarantine=other) == version(rows)
    assert version(rows, plan=other) != version(rows)


def test_a_snapshot_survives_its_way_through_json(store):
    snapshot = Snapshot("x", {"rows": write_table(store, ROWS), "plan": write_table(store, ROWS[:0])}, {"n": 1})
    again = Snapshot.from_json(snapshot.as_json())
    assert again == snapshot
    assert again.data_version == snapshot.data_version


def test_what_was_remembered_comes_back(store):
    memo, snapshot = Memo(store), Snapshot("x", {"rows": write_table(store, ROWS)})
    assert memo.get("ab12") is None
    memo.put("ab12", snapshot)
    assert Memo(store).get("ab12") == snapshot


def test_what_was_remembered_counts_as_forgotten_when_a_part_of_it_is_gone(store):
    memo = Memo(store)
    snapshot = Snapshot("x", {"rows": write_table(store, ROWS, last_arrivals=[0, 1, 3])})
    memo.put("ab12", snapshot)
    store.path(snapshot.tables["rows"].parts[1].files[0].key).unlink()
    assert memo.get("ab12") is None
    write_table(store, ROWS, last_arrivals=[0, 1, 3])
    assert memo.get("ab12") == snapshot
