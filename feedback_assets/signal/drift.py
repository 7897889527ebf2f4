"""How far one distribution lies from another: PSI, KL, JS and KS, with what chance alone would give.

Counts and weights are integers (millionths) until the last division, so no value depends on the order of a sum. What
cannot be computed is None, never NaN or infinite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl

from feedback_assets.signal.clusters import clustered_size
from feedback_assets.signal.decisions import FALSE_DISCOVERIES, Verdict, verdict
from feedback_assets.signal.divergence import EPSILON, finite, js, kl, psi, psi_terms, two_shares
from feedback_assets.signal.histogram import (
    OTHER,
    Declared,
    Histogram,
    Ordered,
    binned,
    categorical_histogram,
    decile_edges,
)

LEAST_SHARE = 0.01
"""A category with less is not asked how much of its share it kept."""
SHOWN_CELLS = 50
"""As many cells are written out; of more, those that moved most."""


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


@dataclass(frozen=True)
class Drift:
    """How `current` differs from `reference`, and what chance gives at these sample sizes.

    `kl` has the `direction` Σ p·ln(p/q), p the reference and q the current; `kl_reversed` is the other way. `ks` is
    None for categories; `ks_exact` is False when it was read off the edges of a declared distribution (a lower bound).
    `effective_*` are the sample sizes that chance is judged by (Kish, or lower where clusters are given); None for a
    declared distribution without a sample.
    Without drift PSI has the mean `psi_mean` ≈ (B−1)(1/N+1/M) and exceeds `psi_critical` ≈ χ²₀.₉₅,B−1·(1/N+1/M) in 5 %
    of samples (Yurdakul, Statistical properties of PSI, 2018). `psi_chance` is the probability, without drift, of as
    great a difference, by Pearson's χ² at the effective sizes: the PSI itself is no χ² where cells are nearly empty.
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
    direction: str = "reference→current"

    def verdict(self, limit: float, adjusted: float | None = None, share_kept: float = 0.0) -> Verdict:
        """Hold the PSI against `limit`, and each value's share against `share_kept`.

        `adjusted` is `psi_chance` adjusted for the number of decisions.
        """
        chance = self.psi_chance if adjusted is None else adjusted
        fallen = self.fallen(share_kept) is not None
        return verdict(self.psi, self.psi_critical, chance, limit, fallen=fallen)

    def fallen(self, share_kept: float) -> str | None:
        """The largest category that kept at most this part of its share, beyond chance; None if there is none.

        Of those that had 1 % or more; of intervals, only where they were declared. Chance by the two-proportion test at
        the effective sizes, allowing for the number of cells (Bonferroni).
        """
        if not self.effective_current or self.effective_reference == 0:
            return None
        if self.edges is not None and self.effective_reference is not None:
            return None
        known, n = self.effective_reference, self.effective_current
        scale = 1 / n + (1 / known if known is not None else 0.0)
        beyond = []
        for cell, p, q in zip(self.cells, self.reference, self.current, strict=True):
            if p < LEAST_SHARE or q > share_kept * p:
                continue
            middle = p if known is None else (p * known + q * n) / (known + n)
            deviation = (p - q) / math.sqrt(max(middle * (1 - middle), 1e-12) * scale)
            if math.erfc(deviation / math.sqrt(2)) * len(self.cells) <= FALSE_DISCOVERIES:
                beyond.append((p, cell))
        return max(beyond)[1] if beyond else None

    def as_json(self) -> dict[str, Any]:
        """Plain finite values; of more than 50 cells those that moved most."""
        terms = psi_terms(self.reference, self.current, self.epsilon)
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
            "direction": self.direction,
            "n_reference": self.n_reference,
            "n_current": self.n_current,
            "cell_count": len(self.cells),
            "cells": rows,
            "edges": None if self.edges is None else [finite(edge) for edge in self.edges],
        }


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
    mean, critical, chance = _chance(p, q, n_reference, n_current, epsilon)
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
    effective = _clustered((reference, current), weights, clusters, decile_edges(before, bins))
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
    edges = decile_edges(before, bins)
    return compare(
        binned(before, edges), binned(after, edges), ks=_ks(before, after), effective=effective, epsilon=epsilon
    )


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
    shares = two_shares(reference.shares()[:-1], current.shares()[:-1])
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
    p: tuple[float, ...], q: tuple[float, ...], n_reference: float | None, n_current: float, epsilon: float
) -> tuple[float | None, float | None, float | None]:
    if not sum(p) or not sum(q) or not n_current or n_reference == 0:
        return None, None, None
    from scipy.special import chdtrc, chdtri

    # One cell alone can still hide a second one, so it counts as two.
    freedom = max(len(p) - 1, 1)
    scale = 1 / n_current + (1 / n_reference if n_reference is not None else 0.0)
    known = n_reference or 0.0
    middle = [
        max(a, epsilon) if n_reference is None else (a * known + b * n_current) / (known + n_current)
        for a, b in zip(p, q, strict=True)
    ]
    pearson = math.fsum((a - b) ** 2 / m for a, b, m in zip(p, q, middle, strict=True)) / scale
    return freedom * scale, float(chdtri(freedom, 0.05)) * scale, float(chdtrc(freedom, pearson))


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
