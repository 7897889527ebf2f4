"""Whether a stage passed every row on: what the files say, and what each fate says."""

import polars as pl
import pytest

from feedback_assets.checks.conservation import conservation, conserved
from feedback_assets.materialize.examine import _intake_conserves
from feedback_assets.materialize.kept import all_kept
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Snapshot, Table, write_fates, write_rows, write_table
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.stages.stage import kept

ROWS = pl.DataFrame({"row_id": list("abcdef"), "arrival": [0, 0, 1, 1, 2, 2]})
WEIGHTED = ROWS.with_columns(weight=pl.lit(1.0))
FATES = kept(ROWS).collect()


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def made(store: LocalStore, rows: pl.DataFrame, fates: pl.DataFrame, came: Table) -> Snapshot:
    tables = {"rows": write_rows(store, rows, ROWS, came), "fates": write_fates(store, fates, ROWS, came)}
    return Snapshot("after", tables)


def said(store: LocalStore, rows: pl.DataFrame, fates: pl.DataFrame) -> bool:
    came = write_table(store, ROWS, last_arrivals=[0, 1, 2])
    return all_kept(Held(store), Snapshot("before", {"rows": came}), made(store, rows, fates, came))


def test_rows_that_all_went_on_are_told_as_conservation_tells_them(store):
    assert said(store, WEIGHTED, FATES)
    assert conserved(ROWS.height) == conservation(ROWS, WEIGHTED, FATES)


@pytest.mark.parametrize(
    "fates",
    [
        FATES.with_columns(fate=pl.when(pl.col("row_id") == "c").then(pl.lit("dropped")).otherwise("fate")),
        FATES.with_columns(copies=pl.when(pl.col("row_id") == "f").then(2).otherwise("copies").cast(pl.Int32)),
        FATES.with_columns(rule=pl.when(pl.col("row_id") == "a").then(pl.lit("odd"))),
        FATES.with_columns(into=pl.when(pl.col("row_id") == "a").then(pl.lit("b"))),
        FATES.with_columns(fate=pl.when(pl.col("row_id") != "a").then("fate")),
        FATES.with_columns(row_id=pl.Series(list("abcdxf"))),
        FATES.reverse(),
        FATES.head(5),
    ],
    ids=["dropped", "copied", "by a rule", "into another", "untold", "of another", "in another order", "too few"],
)
def test_one_fate_that_says_anything_else_is_enough(store, fates):
    assert not said(store, WEIGHTED, fates)


@pytest.mark.parametrize(
    "rows",
    [
        ROWS.head(5),
        ROWS.reverse(),
        ROWS.with_columns(row_id=pl.Series(list("abcdex"))),
        ROWS.with_columns(copies=pl.lit(2, pl.Int32), copy_index=pl.lit(0, pl.Int32)),
    ],
    ids=["lost", "moved", "another", "copied"],
)
def test_rows_that_are_not_those_that_came_are_not_all_kept_whatever_their_fates_say(store, rows):
    assert not said(store, rows, FATES)


def test_fates_that_were_looked_at_before_are_not_read_again(store):
    came = write_table(store, ROWS, last_arrivals=[0, 1, 2])
    after = made(store, WEIGHTED, FATES, came)

    def first(table: Table, parts: int) -> Table:
        return Table(table.schema, table.parts[:parts])

    def asked(parts: int) -> bool:
        tables = {name: first(table, parts) for name, table in after.tables.items()}
        return all_kept(Held(store), Snapshot("before", {"rows": first(came, parts)}), Snapshot("after", tables))

    assert asked(2)
    for part in after.tables["fates"].parts[:2]:
        store.path(part.files[0].key).unlink()
    assert asked(3)
    with pytest.raises(OSError, match="No such file"):
        asked(1)


def test_intake_that_kept_all_is_told_as_its_fates_tell_it(store):
    taken = made(store, ROWS, FATES, write_table(store, ROWS, last_arrivals=[0, 1, 2]))
    assert all_kept(Held(store), taken, taken)
    assert _intake_conserves(ROWS.lazy(), None) == _intake_conserves(ROWS.lazy(), FATES)
    assert _intake_conserves(ROWS.lazy(), None).passed


def test_intake_that_kept_a_row_twice_is_refused_with_its_fates_or_without():
    twice, told = pl.concat([ROWS, ROWS.head(1)]), pl.concat([FATES, FATES.head(1)])
    placed = told.with_columns(arrival=0, line=pl.int_range(pl.len()), position=0)
    assert not _intake_conserves(twice.lazy(), placed).passed
    assert not _intake_conserves(twice.lazy(), None).passed
