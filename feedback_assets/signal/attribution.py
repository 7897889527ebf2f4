"""What moved a column: the rule, factor or target without which it would have moved least, and the segment it fell on.

Leave one out: the rows that one rule removed are put back, one factor is divided out, one target's copies are taken
away, one segment's rows are left out; what brings the PSI down furthest is named. Asked only where something moved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from feedback_assets.signal.divergence import finite, psi, psi_terms
from feedback_assets.signal.drift import Drift
from feedback_assets.signal.histogram import NULL, OTHER, UNIT, cell_numbers
from feedback_assets.signal.profile import Watched

SEGMENTS = ("source", "batch", "annotator_id", "category", "guideline_version", "guideline", "origin")
"""Columns by which rows are told apart to say where a change fell; `origin` is that of the chosen response."""
CLUSTER = "cluster"
"""Of merged rows: the row that stands for them."""
REMOVED = {"dropped": "removed", "merged": "merged away", "quarantined": "put in quarantine"}
TELLING = 0.2
"""A segment is named if it holds this much more of what was removed than of what was there."""
MOST_VALUES = 50
"""As many values of a segment are tried, those with the most rows first."""


@dataclass(frozen=True)
class Cause:
    """What brings the PSI down furthest when it is left out.

    `kind` is rule, factor, target or segment; `does` what it did to the cell, in words with the number in them;
    `psi_without` the PSI when it is left out; `segment` where that fell, `share` of it.
    """

    kind: str
    name: str
    version: int | None
    does: str
    psi_without: float | None
    segment: str | None = None
    segment_share: float | None = None

    def sentence(self) -> str:
        """For a person, without a full stop."""
        version = f" v{self.version}" if self.version is not None else ""
        where = (
            f", {100 * self.segment_share:.0f} % of that from `{self.segment}`"
            if self.segment and self.segment_share
            else ""
        )
        return f"{self.kind} `{self.name}`{version} {self.does}{where}"

    def as_json(self) -> dict[str, Any]:
        """Plain finite values."""
        return {**self.__dict__, "psi_without": finite(self.psi_without), "segment_share": finite(self.segment_share)}


@dataclass(frozen=True)
class Moved:
    """The cell of a column that moved furthest, and its shares before and after."""

    column: str
    cell: str
    before: float
    after: float

    def sentence(self) -> str:
        """E.g. "`category=coding` went from 12.0 % to 3.1 %"."""
        return f"`{self.column}={self.cell}` went from {self.before:.1%} to {self.after:.1%}".replace("%", " %")


def moved_most(column: str, drift: Drift, cell: str | None = None) -> Moved:
    """The cell with the largest part in the PSI, or `cell`."""
    if cell is not None:
        at = drift.cells.index(cell)
        return Moved(column, cell, drift.reference[at], drift.current[at])
    terms = psi_terms(drift.reference, drift.current, drift.epsilon)
    at = max(range(len(terms)), key=lambda place: (terms[place], drift.cells[place]))
    return Moved(column, drift.cells[at], drift.reference[at], drift.current[at])


def with_cells(rows: pl.LazyFrame, entry: Watched, drift: Drift, segments: Sequence[Watched]) -> pl.DataFrame:
    """The rows to which the column applies: `cell` as in `drift`, `mass` (Float64, by `_weight` if there), segments.

    Args:
        rows: record columns, `_weight` (weight) and whatever else is wanted beside, which is kept.
        entry: the column.
        drift: its drift, whose cells are meant.
        segments: what tells rows apart.
    """
    schema = rows.collect_schema()
    chosen = rows if entry.applies is None else rows.filter(entry.applies.fill_null(value=False))
    beside = [name for name in schema if name.startswith("_")]
    usable = [segment for segment in segments if segment.name != entry.name and set(segment.needs) <= set(schema)]
    value = entry.value.cast(pl.String if drift.edges is None else pl.Float64)
    found = chosen.select(
        value.alias("_value"),
        *(segment.value.cast(pl.String).alias(segment.name) for segment in usable),
        *beside,
    ).collect()
    if drift.edges is None:
        cell = pl.col("_value").fill_null(NULL)
        known = [name for name in drift.cells if name != OTHER]
        cell = pl.when(cell.is_in(known)).then(cell).otherwise(pl.lit(OTHER)) if OTHER in drift.cells else cell
        return found.with_columns(cell.alias("cell")).drop("_value")
    from feedback_assets.signal.histogram import interval_names

    names = interval_names(drift.edges)
    numbers = cell_numbers(found.get_column("_value"), drift.edges)
    cells = pl.Series("cell", [*names[:-1], NULL])
    at = pl.select(pl.when(numbers < 0).then(len(names) - 1).otherwise(numbers)).to_series()
    return found.with_columns(cells.gather(at)).drop("_value")


def by_fate(rows: pl.DataFrame, drift: Drift, moved: Moved) -> Cause | None:
    """Which rule moved it, by what became of the rows.

    Args:
        rows: the rows that came in, as `with_cells` gives them, with `_fate`, `_rule`, `_version` and `_cluster` (its
            row_id, or that of the row it was merged into).
        drift: the drift, input against output.
        moved: the cell.
    """
    gone = rows.filter(pl.col("_fate").is_in(list(REMOVED)))
    if gone.is_empty():
        return None
    stands = _by_cell(rows.filter(~pl.col("_fate").is_in(list(REMOVED))), drift)
    tried = []
    for (fate, rule, version), theirs in _groups(gone, ["_fate", "_rule", "_version"]):
        back = [one + more for one, more in zip(stands, _by_cell(theirs, drift), strict=True)]
        tried.append((psi(drift.reference, back) or 0.0, fate, rule, version, theirs))
    without, fate, rule, version, theirs = min(tried, key=lambda entry: (entry[0], str(entry[1:4])))
    here = pl.col("cell") == moved.cell
    # A share grows because the others shrink: then it is them that something was done to.
    grew = moved.after > moved.before
    meant = ~here if grew else here
    there, lost = rows.filter(meant), theirs.filter(meant)
    if lost.is_empty():
        return None
    what = f"{REMOVED[fate]} {lost.height / max(there.height, 1):.0%} of {'all others' if grew else 'it'}"
    segments = [*SEGMENTS, *([f"_{CLUSTER}"] if fate == "merged" else [])]
    return Cause("rule", rule or fate, version, what.replace("%", " %"), without, *_segment(there, lost, segments))


def by_factor(rows: pl.DataFrame, drift: Drift, moved: Moved, factors: Mapping[str, tuple[str, int]]) -> Cause | None:
    """Which factor moved it.

    Args:
        rows: the rows that came out, as `with_cells` gives them, with each factor's column.
        drift: the drift, input against output.
        moved: the cell.
        factors: column of each factor (which begins with `_`) and version, by id.
    """
    tried = []
    for name, (column, version) in sorted(factors.items()):
        others = [other for other, _ in factors.values() if other != column]
        left = math.prod((pl.col(other) for other in others), start=pl.lit(1.0))
        without = psi(drift.reference, _by_cell(rows, drift, left)) or 0.0
        tried.append((without, name, version, column))
    if not tried:
        return None
    without, name, version, column = min(tried)
    mean = rows.select(
        pl.col(column).filter(pl.col("cell") == moved.cell).mean().alias("here"),
        pl.col(column).filter(pl.col("cell") != moved.cell).mean().alias("elsewhere"),
    ).row(0)
    if mean[0] is None or not mean[1]:
        return None
    what = f"weighs it {mean[0]:.2g} on average, all others {mean[1]:.2g}"
    return Cause("factor", name, version, what, without)


def by_copies(rows: pl.DataFrame, drift: Drift, moved: Moved) -> Cause | None:
    """Which target moved it: rows as for `by_fate`, with `_weight` (weight before) and `_copies`."""
    copied = rows.filter(pl.col("_copies") > 1)
    tried = []
    for (rule, version), _ in _groups(copied, ["_rule", "_version"]):
        once = pl.when(pl.col("_rule") == rule).then(1).otherwise(pl.col("_copies")) * pl.col("_weight")
        tried.append((psi(drift.reference, _by_cell(rows, drift, once)) or 0.0, rule, version))
    if not tried:
        return None
    without, rule, version = min(tried, key=lambda entry: (entry[0], str(entry[1:])))
    here = pl.col("cell") == moved.cell
    grew = moved.after > moved.before
    times = rows.filter(here if grew else ~here).get_column("_copies").mean()
    what = f"let {'it' if grew else 'all others'} stand {times:.3g} times on average"
    return Cause("target", rule or "copies", version, what, without)


def by_segment(rows: pl.DataFrame, drift: Drift) -> Cause | None:
    """Which rows of `rows` (those that came later) account for the drift: without them it is least.

    A segment that holds half of the rows or more is the whole rather than a part, and is not named.
    """
    weight = pl.col("_weight") if "_weight" in rows.columns else pl.lit(1.0)
    whole = rows.select(weight.sum() if "_weight" in rows.columns else pl.len()).item()
    every = _by_cell(rows, drift, weight)
    tried = []
    for column in (name for name in SEGMENTS if name in rows.columns):
        sizes = rows.drop_nulls(column).group_by(column).agg(pl.len()).sort("len", column, descending=[True, False])
        top = sizes.head(MOST_VALUES).get_column(column).to_list()
        for (value,), theirs in _groups(rows.filter(pl.col(column).is_in(top)), [column]):
            held = _by_cell(theirs, drift, weight)
            share = sum(held) / whole if whole else 1.0
            if share < 0.5:
                rest = [one - less for one, less in zip(every, held, strict=True)]
                tried.append((psi(drift.reference, rest) or 0.0, column, value, share))
    if not tried or drift.psi is None:
        return None
    without, column, value, share = min(tried)
    if without > drift.psi / 2:
        return None
    what = f"holds {share:.0%} of the rows; without it the PSI is {without:.2g}".replace("%", " %")
    return Cause("segment", f"{column}={value}", None, what, without)


def _by_cell(rows: pl.DataFrame, drift: Drift, weight: pl.Expr | None = None) -> list[float]:
    held = pl.len() if weight is None else ((weight * UNIT).round().cast(pl.Int64)).sum()
    found = dict(rows.group_by("cell").agg(held.alias("held")).iter_rows())
    return [float(found.get(cell, 0)) for cell in drift.cells]


def _groups(rows: pl.DataFrame, by: list[str]) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return sorted(rows.partition_by(by, as_dict=True).items(), key=lambda entry: str(entry[0]))


def _segment(there: pl.DataFrame, lost: pl.DataFrame, columns: Sequence[str]) -> tuple[str | None, float | None]:
    """The segment that holds more of `lost` than of `there`, and its share of what was lost."""
    found = []
    for column in (name for name in columns if name in there.columns):
        was, now = (
            frame.group_by(column).agg((pl.len() / max(frame.height, 1)).alias("share")) for frame in (there, lost)
        )
        most = now.drop_nulls(column).sort("share", column, descending=[True, False]).head(MOST_VALUES)
        for value, share, before in most.join(was, on=column).iter_rows():
            found.append((share - before, share, f"{column.removeprefix('_')}={value}"))
    if not found:
        return None, None
    more, share, name = max(found)
    return (name, share) if more >= TELLING else (None, None)
