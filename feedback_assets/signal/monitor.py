"""What is said of a signal: how it moved, what it is, which names came and went, how much it tells.

Here is no limit that fails anything by itself: `checks` holds the numbers against the limits of the policy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from feedback_assets.signal.clusters import clustered_size
from feedback_assets.signal.columns import IDENTITIES, MONITORED, watched
from feedback_assets.signal.divergence import finite
from feedback_assets.signal.drift import Drift, Verdict, compare, ordered_drift
from feedback_assets.signal.histogram import OTHER, UNIT, decile_edges, declared, effective_size
from feedback_assets.signal.profile import MASS, Frame, Kind, Profile, Watched, named, profile, records
from feedback_assets.signal.section import Limits, NumericShares, mapping_of

SAMPLE_UNITS = (("record", "row_id"), ("item", "item_id"), ("annotator", "annotator_id"))
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
TOP = 50
EXAMPLES = 10


@dataclass(frozen=True)
class ColumnDrift:
    """The drift of one monitored column, and the limits it is held against.

    Where it could not be computed, `drift` is None and `problem` says why: that is an error, not a pass.
    """

    name: str
    kind: Literal["categorical", "numeric"]
    drift: Drift | None
    limits: Limits = field(default_factory=Limits)
    problem: str | None = None

    @property
    def verdict(self) -> Verdict | Literal["error"]:
        """Against `limits.psi`."""
        return "error" if self.drift is None else self.drift.verdict(self.limits.psi)

    @property
    def warning(self) -> bool:
        """Whether it is beyond `limits.psi_warn` and beyond chance."""
        return self.drift is not None and self.drift.verdict(self.limits.psi_warn) == "moved"

    def as_json(self) -> dict[str, Any]:
        """Plain finite values."""
        return {
            "column": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "warning": self.warning,
            "problem": self.problem,
            "limits": {"psi": self.limits.psi, "psi_warn": self.limits.psi_warn},
            **({} if self.drift is None else self.drift.as_json()),
        }


@dataclass(frozen=True)
class IdentityChange:
    """Which names of an identity column are new, which vanished, and how much the largest one holds (share of rows)."""

    name: str
    before: int
    after: int
    new: int
    vanished: int
    new_examples: tuple[str, ...]
    vanished_examples: tuple[str, ...]
    largest: str | None
    largest_share: float | None
    largest_share_before: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain finite values; at most 10 examples each, in sorted order."""
        return {
            "column": self.name,
            "before": self.before,
            "after": self.after,
            "new": self.new,
            "vanished": self.vanished,
            "new_examples": list(self.new_examples),
            "vanished_examples": list(self.vanished_examples),
            "largest": self.largest,
            "largest_share": finite(self.largest_share),
            "largest_share_before": finite(self.largest_share_before),
        }


@dataclass(frozen=True)
class SampleSize:
    """Effective sample size (Σw)²/Σw² over units: records, items or annotators, each with the weight of its rows."""

    unit: str
    count: int
    effective: float

    def as_json(self) -> dict[str, Any]:
        """Plain finite values."""
        return {"unit": self.unit, "count": self.count, "effective": finite(self.effective)}


def transformation_drift(before: Profile, after: Profile, limits: Limits) -> list[ColumnDrift]:
    """How a stage's output differs from its input, for every monitored column that both have.

    Chance is that of two independent samples, which is cautious: the output is mostly part of the input. Columns
    without a value on both sides are left out, and so are identities.
    """
    monitored = {entry.name for entry in MONITORED}
    found = []
    for name, kind in before.kinds.items():
        if name not in after or (name in IDENTITIES and name not in monitored):
            continue
        if before.blank(name) and after.blank(name):
            continue
        if kind == "numeric" and after.kinds[name] == "numeric":
            result = ordered_drift(before.ordered(name), after.ordered(name))
        else:
            result = compare(before.histogram(name), after.histogram(name))
        found.append(ColumnDrift(name, kind, result, limits))
    return found


def baseline_drift(
    frame: Frame,
    expected: Mapping[str, NumericShares | Mapping[str, Any]],
    *,
    weight: str | None = None,
    limits: Limits | None = None,
    cluster: str | None = None,
) -> list[ColumnDrift]:
    """How the signal differs from the distribution it is expected to have, for every column in `expected`.

    Args:
        frame: rows, record columns.
        expected: by column {value: share}, {edges, shares, nulls} or an entry of `distribution` (an approved release).
        weight: weight column, or None.
        limits: limits to hold the PSI against; the default ones if None.
        cluster: column whose equal values are not independent, such as annotator_id; chance allows for it.

    Raises:
        FeedbackError: a weight is null, negative or not finite; a distribution is malformed.
    """
    held = limits or Limits()
    schema = frame.lazy().collect_schema()
    entries = {entry.name: entry for entry in watched(schema, tuple(expected)) if entry.name in expected}
    seen = profile(frame, list(entries.values()), weight)
    found = []
    for name in sorted(expected):
        reference = declared(mapping_of(expected[name]))
        kind: Kind = "categorical" if reference.edges is None else "numeric"
        if seen.kinds.get(name) != kind:
            why = "has no such column" if name not in seen else f"has it {seen.kinds[name]}, not {kind}"
            found.append(ColumnDrift(name, kind, None, held, f"expect.{name}: the data {why}"))
            continue
        size = _clustered_size(frame, entries[name], weight, cluster, reference.edges)
        result = compare(reference, seen.histogram(name, reference.edges), effective=(None, size))
        found.append(ColumnDrift(name, kind, result, held))
    return found


def _clustered_size(
    frame: Frame, entry: Watched, weight: str | None, cluster: str | None, edges: tuple[float, ...] | None
) -> float | None:
    if cluster is None or cluster not in frame.lazy().collect_schema():
        return None
    rows = records(frame, [*entry.needs, cluster], weight)
    if entry.applies is not None:
        rows = rows.filter(entry.applies.fill_null(False))
    weights = rows.get_column(MASS) / UNIT if MASS in rows.columns else None
    values = rows.select(entry.value.cast(pl.Float64 if entry.kind == "numeric" else pl.String)).to_series()
    return clustered_size(values, rows.get_column(cluster), weights, edges)


def distribution(seen: Profile) -> dict[str, dict[str, Any]]:
    """The distribution of each monitored column, for a manifest; `baseline_drift` takes its entries.

    Categorical: shares of the 50 largest values, the rest as "(other)". Numeric: deciles as `edges` with `shares` and
    `nulls`, and quantiles. Shares are of weight. Columns without any value are left out, and so are identities.
    """
    monitored = {entry.name for entry in MONITORED}
    found: dict[str, dict[str, Any]] = {}
    for name, kind in seen.kinds.items():
        if seen.blank(name) or (name in IDENTITIES and name not in monitored):
            continue
        entry: dict[str, Any] = {"kind": kind}
        if kind == "numeric":
            edges = decile_edges(seen.ordered(name))
            counted = seen.histogram(name, edges)
            shares = counted.shares()
            entry |= {
                "edges": list(edges),
                "shares": list(shares[:-1]),
                "nulls": shares[-1],
                "quantiles": _quantiles(seen.of(name)),
            }
        else:
            counted = seen.histogram(name)
            ranked = sorted(zip(counted.mass, counted.cells, strict=True), key=lambda cell: (-cell[0], cell[1]))
            mass = {cell: held for held, cell in ranked[:TOP]}
            rest = sum(held for held, _ in ranked[TOP:])
            if rest:
                mass[OTHER] = mass.get(OTHER, 0) + rest
            total = counted.total
            entry |= {"shares": {cell: held / total if total else 0.0 for cell, held in mass.items()}}
            entry |= {"values": len(ranked)}
        found[name] = entry | {"rows": counted.rows, "effective_rows": finite(counted.effective)}
    return found


def _quantiles(counts: pl.DataFrame) -> dict[str, float | None]:
    """The least value with at least that share of weight at or below it."""
    held = counts.drop_nulls("number").sort("number")
    upto = held.get_column("mass").cum_sum()
    total = int(held.get_column("mass").sum())
    if not total:
        return {f"{q:g}": None for q in QUANTILES}
    at = [upto.search_sorted(max(1, math.ceil(q * total)), side="left") for q in QUANTILES]
    return {f"{q:g}": finite(held.get_column("number")[i]) for q, i in zip(QUANTILES, at, strict=True)}


def effective_sample_size(frame: Frame, weight: str | None) -> list[SampleSize]:
    """Effective sample size by record (row_id), item (item_id) and annotator (annotator_id), where the column is there.

    Copies of one record count as one. Rows without the id are left out.

    Raises:
        FeedbackError: a weight is null, negative or not finite.
    """
    schema = frame.lazy().collect_schema()
    units = [(unit, column) for unit, column in SAMPLE_UNITS if column in schema]
    rows = records(frame, [column for _, column in units], weight)
    if MASS not in rows.columns:
        rows = rows.with_columns(pl.lit(UNIT, pl.Int64).alias(MASS))
    sizes = []
    for unit, column in units:
        held = rows.lazy().filter(pl.col(column).is_not_null())
        if unit != "record":
            held = held.group_by(pl.col(column).hash()).agg(pl.col(MASS).sum())
        wide = pl.col(MASS).cast(pl.Int128)
        count, mass, squares = (
            held.select(pl.len(), wide.sum().alias("m"), (wide * wide).sum().alias("s")).collect().row(0)
        )
        sizes.append(SampleSize(unit, count, effective_size(int(mass), int(squares))))
    return sizes


def identity_changes(before: Profile, after: Profile) -> list[IdentityChange]:
    """New and vanished names, and the largest share of rows, for each of IDENTITIES that both have."""
    found = []
    for name in (column for column in IDENTITIES if column in before and column in after):
        was, now = named(before, name), named(after, name)
        new, vanished = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
        largest = min(now, key=lambda value: (-now[value], value), default=None)
        found.append(
            IdentityChange(
                name=name,
                before=len(was),
                after=len(now),
                new=len(new),
                vanished=len(vanished),
                new_examples=tuple(new[:EXAMPLES]),
                vanished_examples=tuple(vanished[:EXAMPLES]),
                largest=largest,
                largest_share=None if largest is None else now[largest] / sum(now.values()),
                largest_share_before=None if largest is None or not was else was.get(largest, 0) / sum(was.values()),
            )
        )
    return found
