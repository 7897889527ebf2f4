"""Which columns of the record are monitored, and how: the signal that a reward model would learn from.

Labels are monitored as what they say (tie, position win, longer chosen), not as raw a or b. Here is no limit that
fails anything by itself: `checks` holds the numbers against the limits of the policy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, model_validator

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.signal.drift import (
    NULL,
    OTHER,
    UNIT,
    Drift,
    Verdict,
    clustered_size,
    compare,
    decile_edges,
    declared,
    effective_size,
    finite,
    ordered_drift,
)
from feedback_assets.signal.profile import MASS, Frame, Kind, Profile, Watched, profile, records

LOST = ("dropped", "merged", "quarantined")
"""Fates that take a row out of the signal. A redelivered or superseded row stands in it as another delivery."""
IDENTITIES = ("annotator_id", "batch", "guideline_version", "guideline")
"""Columns whose values are names: a PSI over them is noise."""
LOSS_COLUMNS = ("source", "batch", "category", "guideline_version", "guideline", "origin")
"""Groups that no stage may empty unless the policy says so."""
SAMPLE_UNITS = (("record", "row_id"), ("item", "item_id"), ("annotator", "annotator_id"))
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
TOP = 50
EXAMPLES = 10
FALSE_DISCOVERIES = 0.05

_LABEL = pl.col("label")
_DECIDED = (pl.col("kind") == "preference") & _LABEL.is_in(["a", "b"])
_SINGLE = pl.col("response_b_id").is_null()
_A_CHARS, _B_CHARS = (pl.col(f"response_{side}_chars").cast(pl.Int64) for side in "ab")
_LONGER = pl.when(_LABEL == "a").then(_A_CHARS - _B_CHARS).otherwise(_B_CHARS - _A_CHARS)


def _plain(name: str, kind: Kind = "categorical") -> Watched:
    return Watched(name, kind, (name,), pl.col(name))


MONITORED: tuple[Watched, ...] = (
    Watched(
        "outcome",
        "categorical",
        ("kind", "label"),
        pl.when((pl.col("kind") == "preference") & (_LABEL != "tie")).then(pl.lit("decided")).otherwise(_LABEL),
        pl.col("kind") != "rating",
    ),
    Watched(
        "position_win",
        "categorical",
        ("kind", "label", "shown_order"),
        pl.when(pl.col("shown_order").is_in(["ab", "ba"])).then(
            pl.when(pl.col("shown_order").str.starts_with(_LABEL)).then(pl.lit("first")).otherwise(pl.lit("second"))
        ),
        _DECIDED,
    ),
    Watched(
        "chosen_longer",
        "categorical",
        ("kind", "label", "response_a_chars", "response_b_chars"),
        pl.when(_LONGER > 0)
        .then(pl.lit("longer"))
        .when(_LONGER < 0)
        .then(pl.lit("shorter"))
        .when(_LONGER == 0)
        .then(pl.lit("equal")),
        _DECIDED,
    ),
    Watched(
        "score",
        "numeric",
        ("kind", "score", "score_min", "score_max"),
        pl.when(pl.col("score_max") > pl.col("score_min")).then(
            (pl.col("score") - pl.col("score_min")) / (pl.col("score_max") - pl.col("score_min"))
        ),
        pl.col("kind") == "rating",
    ),
    *(_plain(name) for name in ("category", "source", "task", "language", "kind")),
    Watched(
        "origin",
        "categorical",
        ("label", "origin_a", "origin_b", "response_b_id"),
        pl.when((_LABEL == "b") & ~_SINGLE)
        .then(pl.col("origin_b"))
        .otherwise(pl.col("origin_a"))
        .str.strip_prefix("model:"),
        _SINGLE | _LABEL.is_in(["a", "b"]),
    ),
    _plain("prompt_chars", "numeric"),
    Watched(
        "response_chars",
        "numeric",
        ("label", "response_a_chars", "response_b_chars", "response_b_id"),
        pl.when((_LABEL == "b") & ~_SINGLE).then(_B_CHARS).otherwise(_A_CHARS),
        _SINGLE | _LABEL.is_in(["a", "b"]),
    ),
    _plain("guideline_version"),
    _plain("guideline"),
)
"""`origin` and `response_chars` are those of the chosen response, or of the only one."""


class Limits(Section):
    """Limits of the policy's `monitoring`. Rule of thumb for PSI: .10 look, .25 stop."""

    psi: float = Field(default=0.25, gt=0, description="beyond this PSI, and beyond chance, a column has moved")
    psi_warn: float = Field(default=0.1, gt=0, description="beyond this PSI, and beyond chance, a warning")
    lost_share: float = Field(default=1.0, gt=0, le=1, description="a group that loses this share or more is reported")

    @model_validator(mode="after")
    def _ordered(self) -> "Limits":
        if self.psi_warn > self.psi:
            raise ValueError(f"psi_warn {self.psi_warn} lies above psi {self.psi}")
        return self


class NumericShares(Section):
    """A declared numeric distribution: inner edges, and the share of each interval (one more than edges).

    Intervals are closed on the left and open-ended at both ends; `nulls` is the share without value. All add up to 1.
    """

    edges: tuple[float, ...] = Field(min_length=1)
    shares: tuple[float, ...]
    nulls: float = 0.0


class AllowedLoss(Section):
    """A group that a stage is expected to lose."""

    column: str = Field(description=f"one of {', '.join(LOSS_COLUMNS)}")
    value: str
    stage: str
    reason: str = Field(min_length=1)


Expected = Annotated[NumericShares | dict[str, float], Field(union_mode="left_to_right")]


class Monitoring(Section):
    """Policy section `monitoring`: what the signal is expected to be, and how far it may move.

    `expect` declares a distribution per monitored column: {value: share}, where "(other)" stands for all values not
    named and "(null)" for none; or {edges, shares}. `columns` are further record columns to monitor. `cluster` is the
    column whose equal values are not independent (null: none); the chance of a baseline drift allows for it.
    """

    limits: Limits = Limits()
    expect: dict[str, Expected] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    cluster: str | None = "annotator_id"
    allowed_losses: tuple[AllowedLoss, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> "Monitoring":
        for name, value in self.expect.items():
            try:
                declared(_mapping(value))
            except FeedbackError as error:
                raise ValueError(f"expect.{name}: {error}") from None
        for loss in self.allowed_losses:
            if loss.column not in LOSS_COLUMNS:
                raise ValueError(f"allowed_losses: column {loss.column!r} is none of {', '.join(LOSS_COLUMNS)}")
        return self

    def allowed(self, stage: str) -> dict[tuple[str, str], str]:
        """The reasons for the losses that `stage` may have, by (column, value)."""
        return {(loss.column, loss.value): loss.reason for loss in self.allowed_losses if loss.stage == stage}


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
class GroupLoss:
    """How many of a group's rows a stage lost. `chance`: the probability of that many or more at the overall rate."""

    column: str
    value: str
    rows: int
    lost: int
    chance: float | None = None

    @property
    def share(self) -> float:
        """Share of the group's rows that was lost."""
        return self.lost / self.rows if self.rows else 0.0

    @property
    def emptied(self) -> bool:
        """Whether nothing is left of it."""
        return self.rows > 0 and self.lost == self.rows

    def as_json(self) -> dict[str, Any]:
        """Plain finite values."""
        return {
            "column": self.column,
            "value": self.value,
            "rows": self.rows,
            "lost": self.lost,
            "share": finite(self.share),
            "emptied": self.emptied,
            "chance": finite(self.chance),
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


def watched(schema: pl.Schema, columns: Sequence[str] = ()) -> list[Watched]:
    """What is counted of rows with this schema: MONITORED, IDENTITIES, and `columns` by their dtype."""
    found = {entry.name: entry for entry in (*MONITORED, *(_plain(name) for name in IDENTITIES))}
    for name in columns:
        if name in schema and not schema[name].is_nested():
            found.setdefault(name, _plain(name, "numeric" if schema[name].is_numeric() else "categorical"))
    return list(found.values())


def signal_of(frame: Frame, weight: str | None = None, columns: Sequence[str] = ()) -> Profile:
    """The profile of all watched columns that `frame` has.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    return profile(frame, watched(frame.lazy().collect_schema(), columns), weight)


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
        reference = declared(_mapping(expected[name]))
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
        was, now = _named(before, name), _named(after, name)
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


def loss_by_group(before: Profile, lost: Profile | None, columns: Sequence[str] = LOSS_COLUMNS) -> list[GroupLoss]:
    """Rows in and rows lost, by value of source, batch, category, guideline version and origin.

    Args:
        before: profile of the rows that came in.
        lost: that of those among them that are lost (a fate in LOST); None: none is.
        columns: the grouping columns; those that `before` lacks are left out.

    Returns:
        One entry per column and value, by column in the given order, then by value.
    """
    found = []
    for column in (name for name in columns if name in before):
        gone = _named(lost, column, nulls=True) if lost is not None else {}
        there = sorted(_named(before, column, nulls=True).items())
        found.extend(GroupLoss(column, value, rows, gone.get(value, 0)) for value, rows in there)
    return found


def loss_by_annotator(before: Profile, lost: Profile | None) -> list[GroupLoss]:
    """Annotators who lost more rows than the stage's overall rate explains, largest surprise first.

    One-sided binomial test for each annotator; the false discovery rate over them is held at .05 (Benjamini and
    Hochberg, J. R. Stat. Soc. B 57, 1995). Arguments as for `loss_by_group`.
    """
    losses = loss_by_group(before, lost, ("annotator_id",))
    rows, gone = sum(loss.rows for loss in losses), sum(loss.lost for loss in losses)
    if not gone or gone == rows:
        return []
    from scipy.special import bdtrc

    rate = gone / rows
    tested = [
        GroupLoss(
            loss.column,
            loss.value,
            loss.rows,
            loss.lost,
            float(bdtrc(loss.lost - 1, loss.rows, rate)) if loss.lost else 1.0,
        )
        for loss in losses
        if loss.value != NULL
    ]
    tested.sort(key=lambda loss: (loss.chance or 0.0, loss.value))
    beyond = [i for i, loss in enumerate(tested, 1) if (loss.chance or 0.0) <= FALSE_DISCOVERIES * i / len(tested)]
    return tested[: max(beyond, default=0)]


def _named(counted: Profile, column: str, *, nulls: bool = False) -> dict[str, int]:
    """Rows by value of a categorical column."""
    held = counted.of(column).select("value", "rows")
    held = held.with_columns(pl.col("value").fill_null(NULL)) if nulls else held.drop_nulls("value")
    return dict(held.group_by("value").agg(pl.col("rows").sum()).sort("value").iter_rows())


def _mapping(value: NumericShares | Mapping[str, Any]) -> Mapping[str, Any]:
    return value.model_dump() if isinstance(value, NumericShares) else value
