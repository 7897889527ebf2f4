"""How much of each watched column is of each value: counted once for each part, and merged.

All comparisons of the signal are made of profiles: monitoring reads the rows once, and a new batch costs its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
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
FEW = 20_000
"""Up to so many rows Polars takes longer to set its streaming engine up, column by column, than to count."""
_PART = "\0part"
_MASS = "\0mass"


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
    (found,) = profiles(frame, watched, [frame.lazy().select(pl.len()).collect().item()], weight)
    return found


def profiles(
    frame: Frame, watched: Sequence[Watched], lengths: Sequence[int], weight: str | None = None
) -> list[Profile]:
    """The profile of each of the consecutive parts of `frame` with these numbers of rows, counted in one go.

    Raises:
        FeedbackError: as `profile`.
    """
    there = _there(frame, watched)
    rows, mass = records(frame, [name for entry in there for name in entry.needs], weight)
    part = pl.Series(_PART, np.repeat(np.arange(len(lengths)), lengths))
    if rows.height < len(part):
        part = part.filter(_firsts(frame.lazy()))
    mass = pl.repeat(UNIT, rows.height, dtype=pl.Int64, eager=True) if mass is None else mass
    counts = _counted(rows.hstack([part, mass.alias(_MASS)]), there)
    by_part = counts.partition_by(_PART, as_dict=True, include_key=False, maintain_order=True)
    nothing = counts.clear().drop(_PART)
    return [_profile(by_part.get((place,), nothing), there) for place in range(len(lengths))]


def _there(frame: Frame, watched: Sequence[Watched]) -> list[Watched]:
    schema = frame.lazy().collect_schema()
    return [entry for entry in watched if all(name in schema for name in entry.needs)]


def _counted(rows: pl.DataFrame, there: Sequence[Watched]) -> pl.DataFrame:
    """COUNTS of each part and the sum of squared weights (`squares`, Int128), sorted."""
    wide = pl.col(_MASS).cast(pl.Int128)
    found = []
    for entry in there:
        chosen = rows.lazy() if entry.applies is None else rows.lazy().filter(entry.applies.fill_null(False))
        if entry.kind == "numeric":
            number = entry.value.cast(pl.Float64)
            name, other, value = "number", "value", pl.when(number.is_finite()).then(number)
        else:
            name, other, value = "value", "number", entry.value.cast(pl.String)
        found.append(
            chosen.select(_PART, _MASS, value.alias(name))
            .group_by(_PART, name)
            .agg(
                pl.len().cast(pl.Int64).alias("rows"),
                pl.col(_MASS).sum().alias("mass"),
                (wide * wide).sum().alias("squares"),
            )
            .with_columns(pl.lit(entry.name).alias("column"), pl.lit(None, COUNTS[other]).alias(other))
            .select(_PART, *COUNTS, "squares")
        )
    empty = pl.DataFrame(schema={_PART: pl.Int64, **COUNTS, "squares": pl.Int128})
    engine = "in-memory" if rows.height <= FEW else "auto"
    return pl.concat([empty, *pl.collect_all(found, engine=engine)]).sort(_PART, "column", "value", "number")


def _profile(counts: pl.DataFrame, there: Sequence[Watched]) -> Profile:
    squares = dict(counts.group_by("column").agg(pl.col("squares").sum()).iter_rows())
    return Profile(
        counts.select(COUNTS.names()),
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
