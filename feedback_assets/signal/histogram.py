"""Weight by value and by cell, counted in integers: exact, and the same whatever the order of rows or parts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from feedback_assets.errors import FeedbackError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NULL = "(null)"
"""The cell of values that are null, NaN or infinite."""
OTHER = "(other)"
"""The cell of all categories that a declared distribution does not name."""
UNIT = 1_000_000
"""Weights are counted in millionths."""


def effective_size(mass: int, squares: int) -> float:
    """Kish's effective sample size (Σw)²/Σw²; 0 without weight.

    Source: Kish, Survey Sampling (1965). `mass` is Σw and `squares` Σw², in the same unit.
    """
    return mass * mass / squares if squares else 0.0


def fixed_point(weights: pl.Series) -> pl.Series:
    """Weights in millionths, Int64.

    Raises:
        FeedbackError: a weight is null, negative, NaN or infinite.
    """
    values = weights.cast(pl.Float64)
    bad = int((~(values.is_finite() & (values >= 0))).fill_null(True).sum())
    if bad:
        raise FeedbackError(
            f"{weights.name}: {bad} weights are null, negative or not finite; give each row a weight >= 0"
        )
    return (values * UNIT).round().cast(pl.Int64)


@dataclass(frozen=True)
class Histogram:
    """Weight by cell. Histograms of parts merge with `+`: associative, commutative, exact.

    `cells` are category names in sorted order, or the intervals between `edges` (closed on the left) and NULL last.
    `mass` is in millionths, `squares` the sum of squared row weights in millionths².
    """

    cells: tuple[str, ...]
    mass: tuple[int, ...]
    rows: int
    squares: int
    edges: tuple[float, ...] | None = None

    @property
    def total(self) -> int:
        """Weight over all cells, in millionths."""
        return sum(self.mass)

    @property
    def effective(self) -> float:
        """Kish's effective sample size of the rows."""
        return effective_size(self.total, self.squares)

    def shares(self) -> tuple[float, ...]:
        """Share of each cell; all 0 without weight."""
        total = self.total
        return tuple(m / total if total else 0.0 for m in self.mass)

    def __add__(self, other: "Histogram") -> "Histogram":
        if self.edges != other.edges:
            raise ValueError("histograms over different edges do not merge")
        mass = dict(zip(self.cells, self.mass, strict=True))
        for cell, more in zip(other.cells, other.mass, strict=True):
            mass[cell] = mass.get(cell, 0) + more
        cells = self.cells if self.edges is not None else tuple(sorted(mass))
        return Histogram(
            cells, tuple(mass[c] for c in cells), self.rows + other.rows, self.squares + other.squares, self.edges
        )


@dataclass(frozen=True)
class Declared:
    """A distribution that people declared, or that of an approved release.

    Categorical: `cells` are categories, OTHER stands for those not named. Numeric: `shares` of the intervals between
    `edges`, then that of NULL. `effective` is None when the shares are not a sample.
    """

    cells: tuple[str, ...]
    share: tuple[float, ...]
    edges: tuple[float, ...] | None = None
    rows: int | None = None
    effective: float | None = None

    def shares(self) -> tuple[float, ...]:
        """Share of each cell."""
        return self.share


@dataclass(frozen=True)
class Ordered:
    """Distinct finite values, ascending, with the rows and the weight up to and including each (0 before the first).

    `rows` and `squares` (Σ of squared row weights) are of all rows; `nulls` is the weight without a finite value.
    """

    values: "NDArray[np.float64]"
    rows_upto: "NDArray[np.int64]"
    upto: "NDArray[np.int64]"
    rows: int
    nulls: int
    squares: int

    @staticmethod
    def of(series: pl.Series, weights: pl.Series | None) -> "Ordered":
        """Order the values of `series`."""
        mass = mass_of(series, weights)
        squares = series.len() * UNIT * UNIT if weights is None else squares_of(mass)
        counted = pl.DataFrame({"number": series.cast(pl.Float64), "mass": mass}).group_by("number")
        return Ordered.counted(counted.agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("mass").sum()), squares)

    @staticmethod
    def counted(counts: pl.DataFrame, squares: int) -> "Ordered":
        """Order values that are counted already: `number` (Float64), `rows` and `mass` (Int64)."""
        numbers, rows, mass = (counts.get_column(name).to_numpy() for name in ("number", "rows", "mass"))
        usable = np.flatnonzero(np.isfinite(numbers))
        usable = usable[np.argsort(numbers[usable], kind="stable")]
        rows_upto, upto = (np.concatenate([np.zeros(1, np.int64), np.cumsum(held[usable])]) for held in (rows, mass))
        # -0.0 and 0.0 are one value to Polars, and NumPy's + 0.0 gives it one sign.
        values = numbers[usable] + 0.0
        return Ordered(values, rows_upto, upto, int(rows.sum()), int(mass.sum() - upto[-1]), squares)

    def quantile(self, shares: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Quantiles of the rows, between two of them linear: what numpy.quantile gives of all values."""
        at = shares * (self.rows_upto[-1] - 1)
        below = np.floor(at).astype(np.int64)
        low, high = (
            self.values[np.searchsorted(self.rows_upto[1:], np.minimum(place, self.rows_upto[-1] - 1), side="right")]
            for place in (below, below + 1)
        )
        part = at - below
        return np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))


def decile_edges(reference: pl.Series | Ordered, bins: int = 10) -> tuple[float, ...]:
    """The inner edges of `bins` quantile bins of the finite values, ascending.

    Ties collapse edges. With at most `bins` distinct values each value gets a bin of its own.
    """
    ordered = reference if isinstance(reference, Ordered) else Ordered.of(reference, None)
    if len(ordered.values) <= bins:
        return tuple(ordered.values[1:].tolist())
    cuts = np.unique(ordered.quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    return tuple(cuts[cuts > ordered.values[0]].tolist())


def numeric_histogram(values: pl.Series, edges: Sequence[float], weights: pl.Series | None = None) -> Histogram:
    """Weight by interval: below the first edge, [edge, next edge) …, from the last edge on, and NULL."""
    return binned(Ordered.of(values, weights), tuple(edges))


def categorical_histogram(values: pl.Series, weights: pl.Series | None = None) -> Histogram:
    """Weight by category, each value of `values` (cast to text) a cell, nulls in NULL."""
    cells = pl.DataFrame({"cell": values.cast(pl.String)})
    if weights is None:
        counted = cells.group_by("cell").agg(mass=pl.len().cast(pl.Int64) * UNIT)
        squares = values.len() * UNIT * UNIT
    else:
        mass = fixed_point(weights)
        counted = cells.with_columns(mass=mass).group_by("cell").agg(pl.col("mass").sum())
        squares = squares_of(mass)
    # A category that is itself called "(null)" shares the cell.
    counted = counted.with_columns(pl.col("cell").fill_null(NULL)).group_by("cell").agg(pl.col("mass").sum())
    names, held = counted.sort("cell").get_columns()
    return Histogram(tuple(names.to_list()), tuple(held.to_list()), values.len(), squares)


def interval_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Names of the intervals between `edges`, and NULL."""
    if not edges:
        return ("all", NULL)
    shown = [f"{edge:.6g}" for edge in edges]
    if len(set(shown)) < len(shown):
        shown = [repr(edge) for edge in edges]
    between = (f"[{low}, {high})" for low, high in pairwise(shown))
    return (f"< {shown[0]}", *between, f">= {shown[-1]}", NULL)


def binned(ordered: Ordered, edges: tuple[float, ...]) -> Histogram:
    """Weight by interval; see `numeric_histogram`."""
    below = ordered.upto[np.searchsorted(ordered.values, np.asarray(edges, dtype=np.float64), side="left")]
    mass = np.diff(np.concatenate([ordered.upto[:1], below, ordered.upto[-1:]]))
    return Histogram(interval_names(edges), (*mass.tolist(), ordered.nulls), ordered.rows, ordered.squares, edges)


def cell_numbers(values: pl.Series, edges: Sequence[float]) -> pl.Series:
    """The number of the interval of each value, from 0; -1 for what is not finite."""
    numbers = values.cast(pl.Float64)
    cell = np.searchsorted(np.asarray(edges, dtype=np.float64), numbers.fill_null(np.nan).to_numpy(), side="right")
    usable = numbers.is_finite().fill_null(False).to_numpy()
    return pl.Series(np.where(usable, cell, -1))


def mass_of(values: pl.Series, weights: pl.Series | None) -> pl.Series:
    """The weight of each row in millionths; 1 each without `weights`."""
    return pl.repeat(UNIT, values.len(), dtype=pl.Int64, eager=True) if weights is None else fixed_point(weights)


def squares_of(mass: pl.Series) -> int:
    """Σ of squared weights (`mass`, Int64, in millionths), in millionths²."""
    top = int(mass.abs().max() or 0)  # type: ignore[arg-type]
    # Twice as wide only where it must be: that takes five times as long.
    wide = mass if top**2 * len(mass) < 2**63 else mass.cast(pl.Int128)
    return int((wide * wide).sum())


def declared(value: Mapping[str, Any]) -> Declared:
    """Read a declared distribution: {value: share}, {edges, shares, nulls}, or an entry of `monitor.distribution`.

    Raises:
        FeedbackError: it is none of these, the shares do not add up to 1, or the edges do not rise.
    """
    rows, effective = value.get("rows"), value.get("effective_rows")
    sampled = isinstance(value.get("shares"), Mapping)
    if "edges" in value:
        edges = tuple(float(edge) for edge in value["edges"])
        shares = (*(float(share) for share in value["shares"]), float(value.get("nulls", 0.0)))
        if len(shares) != len(edges) + 2 or any(low >= high for low, high in pairwise(edges)):
            raise FeedbackError(f"{len(edges)} edges: they must rise, and need {len(edges) + 1} shares")
        found = Declared(interval_names(edges), shares, edges, rows, effective)
    elif sampled:
        named = {str(k): float(v) for k, v in sorted(value["shares"].items())}
        found = Declared(tuple(named), tuple(named.values()), None, rows, effective)
    else:
        named = {str(k): float(v) for k, v in sorted(value.items())}
        found = Declared(tuple(named), tuple(named.values()))
    total = math.fsum(found.share)
    if min(found.share, default=0.0) < 0 or abs(total - 1) > 1e-6:
        raise FeedbackError(f"the shares add up to {total:.6g}; they must be at least 0 and add up to 1")
    return found
