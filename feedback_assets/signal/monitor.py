"""What is said of a signal beside how it moved: what it is, which names came and went, how much it tells."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context
from typing import Any

import numpy as np
import polars as pl

from feedback_assets.signal.columns import IDENTITIES, MONITORED
from feedback_assets.signal.divergence import finite
from feedback_assets.signal.histogram import OTHER, decile_edges, effective_size, squares_of
from feedback_assets.signal.profile import Frame, Profile, named, records

SAMPLE_UNITS = (("record", "row_id"), ("item", "item_id"), ("annotator", "annotator_id"))
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
TOP = 50
EXAMPLES = 10
_DOWN = Context(prec=9, rounding=ROUND_FLOOR)


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


def distribution(seen: Profile) -> dict[str, dict[str, Any]]:
    """The distribution of each monitored column, for a manifest; `comparisons.baseline_drift` takes its entries.

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
            # Written with 9 digits, an edge must not pass the value that it stands on.
            edges = tuple(sorted({float(_DOWN.create_decimal(edge)) for edge in decile_edges(seen.ordered(name))}))
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


@dataclass(frozen=True)
class Grouped:
    """Rows by an id: those that have one (None: all), in the order of their ids (`order`), where each id `starts`."""

    there: pl.Series | None
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def by(cls, ids: pl.Series) -> "Grouped":
        """Ids are told apart by 64-bit hashes."""
        there = ids.is_not_null() if ids.null_count() else None
        hashes = (ids if there is None else ids.filter(there)).hash().to_numpy()
        order = np.argsort(hashes)
        ordered = hashes[order]
        return cls(there, order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]))

    def sums(self, mass: pl.Series | None) -> pl.Series:
        """The weight of each id; None counts each row once."""
        if mass is None:
            return pl.Series(np.diff(self.starts, append=len(self.order)), dtype=pl.Int64)
        mine = mass if self.there is None else mass.filter(self.there)
        return pl.Series(np.add.reduceat(mine.to_numpy()[self.order], self.starts)) if len(mine) else mine


def effective_sample_size(
    frame: Frame,
    weight: str | None,
    seen: Profile | None = None,
    grouped: Callable[[pl.Series], Grouped] = Grouped.by,
) -> list[SampleSize]:
    """Effective sample size by record (row_id), item (item_id) and annotator (annotator_id), where the column is there.

    Copies of one record count as one. Rows without the id are left out. What `seen`, the profile of the rows, counts
    already is not counted again; `grouped` may know how rows with the same ids were grouped before.

    Raises:
        FeedbackError: a weight is null, negative or not finite.
    """
    schema = frame.lazy().collect_schema()
    units = [(unit, column) for unit, column in SAMPLE_UNITS if column in schema]
    counted = [column for _, column in units if seen is not None and column in seen]
    rows, mass = records(frame, [column for _, column in units if column not in counted], weight)
    sizes = []
    for unit, column in units:
        if seen is not None and column in counted:
            held = seen.of(column).drop_nulls("value").get_column("mass")
        elif unit == "record":
            there = rows.get_column(column).is_not_null()
            held = there.filter(there).cast(pl.Int64) if mass is None else mass.filter(there)
        else:
            held = grouped(rows.get_column(column)).sums(mass)
        sizes.append(SampleSize(unit, len(held), effective_size(int(held.sum()), squares_of(held))))
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
