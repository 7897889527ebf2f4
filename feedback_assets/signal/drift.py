"""How far one distribution lies from another: PSI, KL, JS and KS, with what chance alone would give.

Pure statistics on count vectors and on Polars series. Counts and weights are integers (millionths) until the last
division, so no value depends on the order of a sum. What cannot be computed is None, never NaN or infinite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from feedback_assets.errors import FeedbackError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Verdict = Literal["stable", "moved", "inconclusive"]

NULL = "(null)"
"""The cell of values that are null, NaN or infinite."""
OTHER = "(other)"
"""The cell of all categories that a declared distribution does not name."""
UNIT = 1_000_000
"""Weights are counted in millionths."""
EPSILON = 1e-4
"""The share that stands in for an empty cell."""
LEAST_CLUSTERS = 10
"""With fewer clusters the variance between them is not estimated."""
SHOWN_CELLS = 50
"""As many cells are written out; of more, those that moved most."""


def finite(value: float | None) -> float | None:
    """`value` to 9 significant digits, so that another machine's libm writes the same; None if not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")


def psi(reference: Sequence[float], current: Sequence[float], epsilon: float = EPSILON) -> float | None:
    """Population stability index Σ(p−q)·ln(p/q) over aligned counts or weights.

    Shares of 0 become `epsilon` and are not renormalised (Evidently's convention). Symmetric, at least 0.
    Source: Siddiqi, Credit Risk Scorecards (2006); it is Jeffreys' divergence over bins.
    Returns None if either side is empty.
    """
    shares = _two_shares(reference, current)
    if shares is None:
        return None
    return math.fsum(_psi_terms(*shares, epsilon))


def kl(reference: Sequence[float], current: Sequence[float], epsilon: float = EPSILON) -> float | None:
    """Kullback–Leibler divergence Σ p·ln(p/q) in nats, p the reference, q the current (Evidently's direction).

    Great Expectations has the other direction, entropy(observed, expected): swap the arguments.
    Zeros are filled with `epsilon`, then both sides are normalised, as scipy.stats.entropy does.
    Source: Kullback and Leibler, Ann. Math. Stat. 22 (1951). Returns None if either side is empty.
    """
    shares = _two_shares(reference, current)
    if shares is None:
        return None
    p, q = (_normalised(_filled(side, epsilon)) for side in shares)
    return max(0.0, math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def js(reference: Sequence[float], current: Sequence[float]) -> float | None:
    """Jensen–Shannon divergence in nats: symmetric, within 0..ln 2, no filling needed. Its root is the JS distance.

    Source: Lin, IEEE Trans. Inf. Theory 37 (1991). Returns None if either side is empty.
    """
    shares = _two_shares(reference, current)
    if shares is None:
        return None
    terms = []
    for p, q in zip(*shares, strict=True):
        middle = (p + q) / 2
        terms.extend(share * math.log(share / middle) / 2 for share in (p, q) if share > 0)
    return min(max(0.0, math.fsum(terms)), math.log(2))


def ks(
    reference: pl.Series,
    current: pl.Series,
    weights_reference: pl.Series | None = None,
    weights_current: pl.Series | None = None,
) -> tuple[float | None, float | None]:
    """Exact two-sample Kolmogorov–Smirnov statistic, and the value at which the two distributions lie farthest apart.

    Null, NaN and infinite values are left out. At large n every shift is significant: decide on the statistic.
    Returns (None, None) if either side is empty.
    """
    return _ks(Ordered.of(reference, weights_reference), Ordered.of(current, weights_current))


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
class Drift:
    """How `current` differs from `reference`, and what chance gives at these sample sizes.

    `kl` is reference against current, `kl_reversed` the other way. `ks` is None for categories; `ks_exact` is False
    when it was read off the edges of a declared distribution (a lower bound). `effective_*` are the sample sizes that
    chance is judged by (Kish, or lower where clusters are given); None for a declared distribution without a sample.
    Without drift PSI has the mean `psi_mean` ≈ (B−1)(1/N+1/M) and exceeds `psi_critical` ≈ χ²₀.₉₅,B−1·(1/N+1/M) in 5 %
    of samples (Yurdakul, Statistical properties of PSI, 2018); `psi_chance` is the probability of this PSI or more.
    """

    cells: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    edges: tuple[float, ...] | None
    psi: float | None
    kl: float | None
    kl_reversed: float | None
    js: float | None
    js_distance: float | None
    ks: float | None
    ks_location: float | None
    ks_exact: bool
    psi_mean: float | None
    psi_critical: float | None
    psi_chance: float | None
    n_reference: int | None
    n_current: int
    effective_reference: float | None
    effective_current: float
    epsilon: float = EPSILON
    base: str = "e"

    def verdict(self, limit: float) -> Verdict:
        """Hold the PSI against `limit`.

        "moved": beyond the limit and beyond chance. "inconclusive": the samples are too small to tell, that is,
        chance alone reaches the limit. Otherwise "stable".
        """
        if self.psi is None or self.psi_critical is None or self.psi_critical > limit:
            return "inconclusive"
        return "moved" if self.psi > limit else "stable"

    def as_json(self) -> dict[str, Any]:
        """Plain finite values; of more than 50 cells those that moved most."""
        terms = _psi_terms(self.reference, self.current, self.epsilon)
        moved = list(zip(self.cells, self.reference, self.current, terms, strict=True))
        if len(moved) > SHOWN_CELLS:
            moved = sorted(moved, key=lambda row: (-row[3], row[0]))[:SHOWN_CELLS]
        rows = [
            {"cell": cell, "reference": finite(p), "current": finite(q), "psi": finite(term)}
            for cell, p, q, term in moved
        ]
        numbers = {
            name: finite(getattr(self, name))
            for name in (
                *("psi", "psi_mean", "psi_critical", "psi_chance", "kl", "kl_reversed", "js", "js_distance"),
                *("ks", "ks_location", "effective_reference", "effective_current", "epsilon"),
            )
        }
        return {
            **numbers,
            "ks_exact": self.ks_exact,
            "base": self.base,
            "n_reference": self.n_reference,
            "n_current": self.n_current,
            "cell_count": len(self.cells),
            "cells": rows,
            "edges": None if self.edges is None else [finite(edge) for edge in self.edges],
        }


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
        mass = _mass(series, weights)
        squares = series.len() * UNIT * UNIT if weights is None else _squares(mass)
        counted = pl.DataFrame({"number": series.cast(pl.Float64), "mass": mass}).group_by("number")
        return Ordered.counted(counted.agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("mass").sum()), squares)

    @staticmethod
    def counted(counts: pl.DataFrame, squares: int) -> "Ordered":
        """Order values that are counted already: `number` (Float64), `rows` and `mass` (Int64)."""
        finite_values = counts.filter(pl.col("number").is_finite()).sort("number")
        rows, mass = int(counts.get_column("rows").sum()), int(counts.get_column("mass").sum())
        rows_upto, upto = (
            np.concatenate([np.zeros(1, np.int64), np.cumsum(finite_values.get_column(name).to_numpy())])
            for name in ("rows", "mass")
        )
        # -0.0 and 0.0 are one value to Polars, and NumPy's + 0.0 gives it one sign.
        values = finite_values.get_column("number").to_numpy() + 0.0
        return Ordered(values, rows_upto, upto, rows, mass - int(upto[-1]), squares)

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
    return _edges(reference if isinstance(reference, Ordered) else Ordered.of(reference, None), bins)


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
        squares = _squares(mass)
    # A category that is itself called "(null)" shares the cell.
    counted = counted.with_columns(pl.col("cell").fill_null(NULL)).group_by("cell").agg(pl.col("mass").sum())
    names, held = counted.sort("cell").get_columns()
    return Histogram(tuple(names.to_list()), tuple(held.to_list()), values.len(), squares)


def compare(
    reference: Histogram | Declared,
    current: Histogram,
    *,
    ks: tuple[float | None, float | None] = (None, None),
    effective: tuple[float | None, float | None] = (None, None),
    epsilon: float = EPSILON,
) -> Drift:
    """The drift between two histograms: over the same edges, or over categories (their union is taken).

    `ks` is the exact statistic with its location where it is known; `effective` replaces Kish's sample sizes.
    Cells that are empty on both sides do not count.

    Raises:
        ValueError: the edges differ.
    """
    if reference.edges != current.edges:
        raise ValueError("histograms over different edges cannot be compared")
    cells, p, q = _aligned(reference, current)
    exact = ks[0] is not None
    if not exact and reference.edges:
        ks = _ks_at_edges(reference, current)
    n_reference = effective[0] if effective[0] is not None else reference.effective
    n_current = effective[1] if effective[1] is not None else current.effective
    value = psi(p, q, epsilon)
    mean, critical, chance = _chance(value, len(cells), n_reference, n_current)
    divergence = js(p, q)
    return Drift(
        cells=cells,
        reference=p,
        current=q,
        edges=reference.edges,
        psi=value,
        kl=kl(p, q, epsilon),
        kl_reversed=kl(q, p, epsilon),
        js=divergence,
        js_distance=None if divergence is None else math.sqrt(divergence),
        ks=ks[0],
        ks_location=ks[1],
        ks_exact=exact,
        psi_mean=mean,
        psi_critical=critical,
        psi_chance=chance,
        n_reference=reference.rows,
        n_current=current.rows,
        effective_reference=n_reference,
        effective_current=n_current,
        epsilon=epsilon,
    )


def drift(
    reference: pl.Series,
    current: pl.Series,
    *,
    weights: tuple[pl.Series | None, pl.Series | None] = (None, None),
    clusters: tuple[pl.Series | None, pl.Series | None] = (None, None),
    bins: int = 10,
    epsilon: float = EPSILON,
) -> Drift:
    """The drift of `current` against `reference`, numeric by dtype or categorical.

    Numeric: bins at the deciles of the reference's rows, and exact KS. Nulls, and categories seen on one side only,
    are cells of their own.

    Args:
        reference: values, any numeric dtype, or text, boolean, categorical.
        current: values of the same kind.
        weights: of the two, Float64, at least 0; None counts each row once.
        clusters: whose judgment or which item a row is, where rows are not independent (see `clustered_size`).
        bins: how many quantile bins.
        epsilon: the share that stands in for an empty cell.

    Raises:
        FeedbackError: a weight is null, negative or not finite.
    """
    if not (reference.dtype.is_numeric() and current.dtype.is_numeric()):
        left = categorical_histogram(reference, weights[0])
        right = categorical_histogram(current, weights[1])
        return compare(
            left, right, effective=_clustered((reference, current), weights, clusters, None), epsilon=epsilon
        )
    before, after = Ordered.of(reference, weights[0]), Ordered.of(current, weights[1])
    effective = _clustered((reference, current), weights, clusters, _edges(before, bins))
    return ordered_drift(before, after, bins=bins, effective=effective, epsilon=epsilon)


def ordered_drift(
    before: Ordered,
    after: Ordered,
    *,
    bins: int = 10,
    effective: tuple[float | None, float | None] = (None, None),
    epsilon: float = EPSILON,
) -> Drift:
    """The drift of numeric values that are in order already; see `drift` and `compare`."""
    edges = _edges(before, bins)
    return compare(
        binned(before, edges), binned(after, edges), ks=_ks(before, after), effective=effective, epsilon=epsilon
    )


def clustered_size(
    values: pl.Series, clusters: pl.Series, weights: pl.Series | None = None, edges: Sequence[float] | None = None
) -> float | None:
    """How many independent rows tell as much about the shares of `values` as these clustered ones.

    First-order correction of Rao and Scott (J. Am. Stat. Assoc. 76, 1981): (B−1) / Σ_k V(p_k)/p_k, where
    V(p_k) = G/(G−1) · Σ_c (m_ck − p_k·m_c)² / M² is the variance of a share between the G clusters. Weights are
    allowed for. A row without cluster is one of its own.

    Returns:
        The size, at most Kish's; None with fewer than 10 clusters or with one cell only.
    """
    cell = values.cast(pl.String).fill_null(NULL) if edges is None else _cell_numbers(values, edges)
    own = pl.format("\0{}", pl.int_range(pl.len()))
    counted = (
        pl.DataFrame({"cell": cell, "cluster": clusters.cast(pl.String), "mass": _mass(values, weights)})
        .lazy()
        .with_columns(pl.col("cluster").fill_null(own))
        .group_by("cluster", "cell")
        .agg(pl.col("mass").sum().cast(pl.Int128))
        .with_columns(pl.col("mass").sum().over("cluster").alias("all"))
        .collect()
    )
    by_cell = (
        counted.group_by("cell")
        .agg(
            pl.col("mass").sum(),
            (pl.col("mass") * pl.col("mass")).sum().alias("squares"),
            (pl.col("mass") * pl.col("all")).sum().alias("products"),
        )
        .filter(pl.col("mass") > 0)
        .sort("cell")
    )
    by_cluster = counted.select("cluster", "all").unique("cluster").get_column("all")
    groups, total = by_cluster.len(), int(by_cluster.sum())
    if groups < LEAST_CLUSTERS or by_cell.height < 2 or not total:
        return None
    squares = int((by_cluster * by_cluster).sum())
    variance = 0.0
    for _, mass, own_squares, products in by_cell.iter_rows():
        # exact in integers: Σ(m_ck − p_k·m_c)² · M²
        spread = own_squares * total**2 - 2 * mass * products * total + mass**2 * squares
        variance += groups / (groups - 1) * (spread / total**4) * (total / mass)
    kish = effective_size(total, _squares(_mass(values, weights)))
    return min(kish, (by_cell.height - 1) / variance) if variance > 0 else kish


def _mass(values: pl.Series, weights: pl.Series | None) -> pl.Series:
    return pl.repeat(UNIT, values.len(), dtype=pl.Int64, eager=True) if weights is None else fixed_point(weights)


def _squares(mass: pl.Series) -> int:
    wide = mass.cast(pl.Int128)
    return int((wide * wide).sum())


def _two_shares(
    reference: Sequence[float], current: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if len(reference) != len(current):
        raise ValueError(f"the vectors are not aligned: {len(reference)} and {len(current)} cells")
    if not (sum(reference) > 0 and sum(current) > 0):
        return None
    return _normalised(reference), _normalised(current)


def _normalised(vector: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(vector)
    return tuple(value / total for value in vector)


def _filled(shares: Sequence[float], epsilon: float) -> tuple[float, ...]:
    return tuple(share if share > 0 else epsilon for share in shares)


def _psi_terms(p: Sequence[float], q: Sequence[float], epsilon: float) -> list[float]:
    return [(a - b) * math.log(a / b) for a, b in zip(_filled(p, epsilon), _filled(q, epsilon), strict=True)]


def _edges(ordered: Ordered, bins: int) -> tuple[float, ...]:
    if len(ordered.values) <= bins:
        return tuple(ordered.values[1:].tolist())
    cuts = np.unique(ordered.quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    return tuple(cuts[cuts > ordered.values[0]].tolist())


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


def _cell_numbers(values: pl.Series, edges: Sequence[float]) -> pl.Series:
    numbers = values.cast(pl.Float64)
    cell = np.searchsorted(np.asarray(edges, dtype=np.float64), numbers.fill_null(np.nan).to_numpy(), side="right")
    usable = numbers.is_finite().fill_null(False).to_numpy()
    return pl.Series(np.where(usable, cell, -1))


def _ks(reference: Ordered, current: Ordered) -> tuple[float | None, float | None]:
    small, large = sorted((reference, current), key=lambda side: len(side.values))
    total_small, total_large = int(small.upto[-1]), int(large.upto[-1])
    if not total_small or not total_large:
        return None, None
    # Between two values of `small` only the other distribution rises, so the largest distance is at such a value
    # or just before it.
    before = np.searchsorted(large.values, small.values, side="left")
    inside = np.minimum(before, len(large.values) - 1)
    upto = before + (large.values[inside] == small.values)
    at = np.abs(small.upto[1:] / total_small - large.upto[upto] / total_large)
    just_before = np.abs(small.upto[:-1] / total_small - large.upto[before] / total_large)
    i, j = int(np.argmax(at)), int(np.argmax(just_before))
    if at[i] >= just_before[j]:
        return float(at[i]), float(small.values[i])
    earlier = [large.values[before[j] - 1]] if before[j] else []
    earlier += [small.values[j - 1]] if j else []
    return float(just_before[j]), float(max(earlier))


def _ks_at_edges(reference: Histogram | Declared, current: Histogram) -> tuple[float | None, float | None]:
    shares = _two_shares(reference.shares()[:-1], current.shares()[:-1])
    if shares is None:
        return None, None
    apart = np.abs(np.cumsum(shares[0]) - np.cumsum(shares[1]))[:-1]
    at = int(np.argmax(apart))
    return float(apart[at]), cast("tuple[float, ...]", reference.edges)[at]


def _aligned(
    reference: Histogram | Declared, current: Histogram
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    left = dict(zip(reference.cells, reference.shares(), strict=True))
    right: dict[str, float] = {}
    pooled = isinstance(reference, Declared) and OTHER in left
    for cell, share in zip(current.cells, current.shares(), strict=True):
        name = OTHER if pooled and cell not in left else cell
        right[name] = right.get(name, 0.0) + share
    names = reference.cells if reference.edges is not None else tuple(sorted(left | right))
    seen = tuple(name for name in names if left.get(name, 0) > 0 or right.get(name, 0) > 0)
    return seen, tuple(left.get(n, 0.0) for n in seen), tuple(right.get(n, 0.0) for n in seen)


def _chance(
    value: float | None, cells: int, n_reference: float | None, n_current: float
) -> tuple[float | None, float | None, float | None]:
    if value is None or not n_current or n_reference == 0:
        return None, None, None
    from scipy.special import chdtrc, chdtri

    # One cell alone can still hide a second one, so it counts as two.
    freedom = max(cells - 1, 1)
    scale = 1 / n_current + (1 / n_reference if n_reference is not None else 0.0)
    return freedom * scale, float(chdtri(freedom, 0.05)) * scale, float(chdtrc(freedom, value / scale))


def _clustered(
    values: tuple[pl.Series, pl.Series],
    weights: tuple[pl.Series | None, pl.Series | None],
    clusters: tuple[pl.Series | None, pl.Series | None],
    edges: Sequence[float] | None,
) -> tuple[float | None, float | None]:
    sizes = [
        None if cluster is None else clustered_size(value, cluster, weight, edges)
        for value, weight, cluster in zip(values, weights, clusters, strict=True)
    ]
    return sizes[0], sizes[1]


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
