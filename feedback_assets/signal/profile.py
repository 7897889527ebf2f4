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
MASS = "\0mass"
_PART = "\0part"


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
    def _by_column(self) -> dict[str, pl.DataFrame]:
        parts = self.counts.partition_by("column", as_dict=True, include_key=False, maintain_order=True)
        return {str(name): part for (name,), part in parts.items()}

    def of(self, column: str) -> pl.DataFrame:
        """The counts of one column: COUNTS without its name."""
        return self._by_column.get(column, self.counts.clear().drop("column"))

    def blank(self, column: str) -> bool:
        """Whether the column has no value in any row."""
        return column not in self._filled

    @cached_property
    def _filled(self) -> frozenset[str]:
        there = pl.any_horizontal(pl.col("value", "number").is_not_null())
        return frozenset(self.counts.filter(there).get_column("column").unique())

    def ordered(self, column: str) -> Ordered:
        """The values of a numeric column in order."""
        return Ordered.counted(self.of(column).select("number", "rows", "mass"), self.squares[column])

    def histogram(self, column: str, edges: tuple[float, ...] | None = None) -> Histogram:
        """Weight by category, or by interval where `edges` are given."""
        if edges is not None:
            return binned(self.ordered(column), edges)
        return self._by_category.get(column) or Histogram((), (), 0, self.squares[column])

    @cached_property
    def _by_category(self) -> dict[str, Histogram]:
        # A category that is itself called "(null)" shares the cell.
        cells = self.counts.with_columns(pl.col("value").fill_null(NULL)).group_by("column", "value")
        held = cells.agg(pl.col("rows", "mass").sum()).sort("column", "value").group_by("column")
        return {
            name: Histogram(tuple(values), tuple(mass), rows, self.squares[name])
            for name, values, mass, rows in held.agg("value", "mass", pl.col("rows").sum()).iter_rows()
        }


def profile(frame: Frame, watched: Sequence[Watched], weight: str | None = None) -> Profile:
    """Count the values of the `watched` columns that `frame` has; copies (a `copy_index`) are one record.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    there = _there(frame, watched)
    rows = records(frame, [name for entry in there for name in entry.needs], weight)
    return _profile(_counted(rows, there, []), there, weighted=MASS in rows.columns)


def profiles(frame: Frame, watched: Sequence[Watched], lengths: Sequence[int]) -> list[Profile]:
    """The profile of each of the consecutive parts of `frame` with these numbers of rows, counted in one go.

    Rows have no weight, and none is a copy.
    """
    there = _there(frame, watched)
    rows = frame.lazy().select(list(dict.fromkeys(name for entry in there for name in entry.needs))).collect()
    part = pl.Series(_PART, np.repeat(np.arange(len(lengths)), lengths))
    counts = _counted(rows.with_columns(part), there, [_PART])
    by_part = counts.partition_by(_PART, as_dict=True, include_key=False, maintain_order=True)
    nothing = counts.clear().drop(_PART)
    return [_profile(by_part.get((place,), nothing), there, weighted=False) for place in range(len(lengths))]


def _there(frame: Frame, watched: Sequence[Watched]) -> list[Watched]:
    schema = frame.lazy().collect_schema()
    return [entry for entry in watched if all(name in schema for name in entry.needs)]


def _counted(rows: pl.DataFrame, there: Sequence[Watched], by: list[str]) -> pl.DataFrame:
    """COUNTS and `squares`, the sum of squared weights, by the columns `by` and each value; sorted."""
    weighted = MASS in rows.columns
    mass = pl.col(MASS) if weighted else pl.lit(UNIT, pl.Int64)
    counted = []
    for entry in there:
        chosen = rows.lazy() if entry.applies is None else rows.lazy().filter(entry.applies.fill_null(False))
        if entry.kind == "numeric":
            number = entry.value.cast(pl.Float64)
            value, number = pl.lit(None, pl.String), pl.when(number.is_finite()).then(number)
        else:
            value, number = entry.value.cast(pl.String), pl.lit(None, pl.Float64)
        name = "number" if entry.kind == "numeric" else "value"
        counted.append(
            chosen.select(*by, value=value, number=number, mass=mass)
            .group_by(*by, name)
            .agg(
                rows=pl.len().cast(pl.Int64),
                squares=(pl.col("mass").cast(pl.Int128) * pl.col("mass")).sum() if weighted else pl.lit(0, pl.Int128),
                mass=pl.col("mass").sum() if weighted else pl.len().cast(pl.Int64) * UNIT,
            )
            .with_columns(
                pl.lit(entry.name).alias("column"),
                *(pl.lit(None, COUNTS[other]).alias(other) for other in ("value", "number") if other != name),
            )
            .select(*by, *COUNTS, "squares")
        )
    empty = pl.DataFrame(schema={**rows.select(by).schema, **COUNTS, "squares": pl.Int128})
    return pl.concat([empty, *pl.collect_all(counted)]).sort(*by, "column", "value", "number")


def _profile(counts: pl.DataFrame, there: Sequence[Watched], *, weighted: bool) -> Profile:
    by_column = counts.group_by("column").agg(pl.col("rows").sum(), pl.col("squares").sum())
    squares = {name: int(sum_ if weighted else rows * UNIT**2) for name, rows, sum_ in by_column.iter_rows()}
    return Profile(
        counts.select(COUNTS.names()),
        {entry.name: entry.kind for entry in there},
        {entry.name: squares.get(entry.name, 0) for entry in there},
    )


def merged(profiles: Sequence[Profile]) -> Profile:
    """The profile of all rows, from those of their parts: associative, commutative, exact."""
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


def records(frame: Frame, columns: Sequence[str], weight: str | None) -> pl.DataFrame:
    """`columns` of each record and, where rows are weighted or copied, its weight in millionths as MASS (Int64).

    Of the copies of a record one has the `copy_index` 0.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    copied = "copy_index" in schema and "row_id" in schema
    if weight is not None and weight not in schema:
        raise FeedbackError(f"no weight column {weight!r}; columns are {', '.join(schema)}")
    wanted = dict.fromkeys((*columns, *([weight] if weight else []), *(["row_id", "copy_index"] if copied else [])))
    rows = lazy.select(list(wanted)).collect()
    if weight is not None:
        rows = rows.with_columns(fixed_point(rows.get_column(weight)).alias(MASS))
    elif copied:
        rows = rows.with_columns(pl.lit(UNIT, pl.Int64).alias(MASS))
    if copied:
        first = pl.col("copy_index") == 0
        further = rows.filter(~first).group_by("row_id").agg(pl.col(MASS).sum().alias("\0further"))
        firsts = rows.filter(first).join(further, on="row_id", how="left", maintain_order="left")
        rows = firsts.with_columns(pl.col(MASS) + pl.col("\0further").fill_null(0)).drop("\0further", "copy_index")
    return rows


def named(counted: Profile, column: str, *, nulls: bool = False) -> dict[str, int]:
    """Rows by value of a categorical column; without `nulls` only those that have one."""
    held = counted.of(column).select("value", "rows")
    held = held.with_columns(pl.col("value").fill_null(NULL)) if nulls else held.drop_nulls("value")
    return dict(held.group_by("value").agg(pl.col("rows").sum()).sort("value").iter_rows())
