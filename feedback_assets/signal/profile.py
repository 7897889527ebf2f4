"""How much of each watched column is of each value: counted once for each part, and merged.

All comparisons of the signal are made of profiles: monitoring reads the rows once, and a new batch costs its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.signal.histogram import NULL, UNIT, Histogram, Ordered, binned, fixed_point

Frame: TypeAlias = pl.DataFrame | pl.LazyFrame
Kind: TypeAlias = Literal["categorical", "numeric"]

COUNTS = pl.Schema(
    {
        "column": pl.String,
        "value": pl.String,  # of a categorical column; null is null
        "number": pl.Float64,  # of a numeric column; null, NaN and infinity are null
        "rows": pl.Int64,  # records: copies of one count once
        "mass": pl.Int64,  # their weight in millionths
    }
)
"""Columns of a profile's counts, which are sorted by column, value and number."""
_MASS = "\0mass"
_PIECE = 65_536  # rows that are counted at once: with weights there can be as many counts


@dataclass(frozen=True)
class Watched:
    """A column to count: an expression over record columns.

    Rows for which `applies` is not true have no such value (a tie has no longer winner) and are left out; among the
    others null is a value of its own. `needs` are the columns that must be there.
    """

    name: str
    kind: Kind
    needs: tuple[str, ...]
    value: pl.Expr
    applies: pl.Expr | None = None

    @cached_property
    def cells(self) -> pl.Expr:
        """`value` or `number` (COUNTS) and weight of each row to which the column applies."""
        value, number = self.value, pl.lit(None, pl.Float64)
        if self.kind == "numeric":
            finite = self.value.cast(pl.Float64)
            value, number = pl.lit(None), pl.when(finite.is_finite()).then(finite)
        cells = pl.struct(value.cast(pl.String).alias("value"), number.alias("number"), pl.col(_MASS)).alias("cell")
        return cells if self.applies is None else cells.filter(self.applies.fill_null(False))


@dataclass(frozen=True)
class _Column:
    """The counts of one column, and what is made of them once."""

    counts: pl.DataFrame
    squares: int

    @cached_property
    def blank(self) -> bool:
        return all(self.counts[name].null_count() == self.counts.height for name in ("value", "number"))

    @cached_property
    def names(self) -> dict[str | None, int]:
        return dict(zip(self.counts["value"], self.counts["rows"], strict=True))

    @cached_property
    def ordered(self) -> Ordered:
        return Ordered.counted(self.counts, self.squares)

    @cached_property
    def histogram(self) -> Histogram:
        mass: dict[str, int] = {}
        for value, more in zip(self.counts["value"], self.counts["mass"], strict=True):
            name = NULL if value is None else value  # a category that is itself called "(null)" shares the cell
            mass[name] = mass.get(name, 0) + more
        cells = tuple(sorted(mass))
        rows = int(self.counts["rows"].sum())
        return Histogram(cells, tuple(mass[cell] for cell in cells), rows, self.squares)


@dataclass(frozen=True)
class Profile:
    """Counts by column and value (COUNTS), the kind of each column, and its sum of squared weights in millionths²."""

    counts: pl.DataFrame
    kinds: Mapping[str, Kind]
    squares: Mapping[str, int]

    def __add__(self, other: "Profile") -> "Profile":
        return merged([self, other])

    def __contains__(self, column: str) -> bool:
        return column in self.kinds

    @cached_property
    def _columns(self) -> dict[str, _Column]:
        parts = self.counts.partition_by("column", as_dict=True, include_key=False)
        none = self.counts.clear().drop("column")
        return {name: _Column(parts.get((name,), none), self.squares[name]) for name in self.kinds}

    def of(self, column: str) -> pl.DataFrame:
        """The counts of one column: COUNTS without its name."""
        return self._columns[column].counts

    def blank(self, column: str) -> bool:
        """Whether the column has no value in any row."""
        return self._columns[column].blank

    def names(self, column: str) -> dict[str | None, int]:
        """Rows by value, null among them, of a categorical column."""
        return self._columns[column].names if column in self else {}

    def ordered(self, column: str) -> Ordered:
        """The values of a numeric column in order."""
        return self._columns[column].ordered

    def histogram(self, column: str, edges: tuple[float, ...] | None = None) -> Histogram:
        """Weight by category, or by interval where `edges` are given."""
        return self._columns[column].histogram if edges is None else binned(self.ordered(column), edges)


def profile(frame: Frame, watched: Sequence[Watched], weight: str | None = None) -> Profile:
    """Count the values of the `watched` columns that `frame` has; copies (a `copy_index`) are one record.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    there = _there(frame, watched)
    rows, mass = records(frame, [name for entry in there for name in entry.needs], weight)
    mass = pl.repeat(UNIT, rows.height, dtype=pl.Int64, eager=True) if mass is None else mass
    rows = rows.with_columns(mass.alias(_MASS))
    starts = range(0, max(rows.height, 1), _PIECE) if there else ()
    return merged([_counted(rows.slice(start, _PIECE), there) for start in starts])


def _there(frame: Frame, watched: Sequence[Watched]) -> list[Watched]:
    schema = frame.lazy().collect_schema()
    return [entry for entry in watched if all(name in schema for name in entry.needs)]


def _counted(rows: pl.DataFrame, there: Sequence[Watched]) -> Profile:
    wide = pl.col(_MASS).cast(pl.Int128)
    found = (
        rows.lazy()
        .select(entry.cells.value_counts(name="rows").implode().alias(entry.name) for entry in there)
        .unpivot(variable_name="column", value_name="cell")
        .explode("cell", empty_as_null=False)
        .unnest("cell")
        .unnest("cell")
        .group_by("column", "value", "number")
        .agg(
            pl.col("rows").sum().cast(pl.Int64),
            (pl.col(_MASS) * pl.col("rows")).sum().alias("mass"),
            (wide * wide * pl.col("rows")).sum().alias("squares"),
        )
        .sort("column", "value", "number")
        .collect()
    )
    squares = dict(found.group_by("column").agg(pl.col("squares").sum()).iter_rows())
    return Profile(
        found.select(COUNTS.names()),
        {entry.name: entry.kind for entry in there},
        {entry.name: int(squares.get(entry.name, 0)) for entry in there},
    )


def merged(profiles: Sequence[Profile]) -> Profile:
    """The profile of all rows, from those of their parts: associative, commutative, exact."""
    if len(profiles) == 1:
        return profiles[0]
    counts = (
        pl.concat([pl.DataFrame(schema=COUNTS), *(one.counts for one in profiles)])
        .group_by("column", "value", "number")
        .agg(pl.col("rows", "mass").sum())
        .sort("column", "value", "number")
    )
    squares: dict[str, int] = {}
    kinds: dict[str, Kind] = {}
    for one in profiles:
        kinds |= one.kinds
        squares |= {name: squares.get(name, 0) + more for name, more in one.squares.items()}
    return Profile(counts, kinds, squares)


def records(frame: Frame, columns: Sequence[str], weight: str | None) -> tuple[pl.DataFrame, pl.Series | None]:
    """`columns` of each record and, where rows are weighted or copied, its weight in millionths (Int64).

    Of the copies of a record one has the `copy_index` 0, and each says how many `copies` there are. The weights are
    beside the columns, not among them: Polars would copy all columns to cut them as these.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    if weight is not None and weight not in schema:
        raise FeedbackError(f"no weight column {weight!r}; columns are {', '.join(schema)}")
    columns = list(dict.fromkeys(columns))
    copied = "copy_index" in schema
    asked = [*columns, *([weight] if weight else []), *(["copies"] if copied else [])]
    rows = lazy.select(list(dict.fromkeys(asked))).collect()
    mass = None if weight is None else fixed_point(rows.get_column(weight))
    if not copied:
        return rows.select(columns), mass
    each = pl.repeat(UNIT, rows.height, dtype=pl.Int64, eager=True) if mass is None else mass
    mass = each * rows.get_column("copies").cast(pl.Int64)
    first = _firsts(lazy)
    count = int(first.sum())
    # In a table all further copies come after the others.
    ahead = first.head(count).all()
    rows = rows.select(columns)
    return (rows.head(count), mass.head(count)) if ahead else (rows.filter(first), mass.filter(first))


def _firsts(rows: pl.LazyFrame) -> pl.Series:
    return rows.select(pl.col("copy_index") == 0).collect().to_series()


def named(counted: Profile, column: str, *, nulls: bool = False) -> dict[str, int]:
    """Rows by value of a categorical column; without `nulls` only those that have one."""
    held = counted.names(column)
    found = {value: rows for value, rows in held.items() if value is not None}
    if nulls and None in held:
        found[NULL] = found.get(NULL, 0) + held[None]
    return found
