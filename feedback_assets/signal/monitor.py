"""Which columns of the record are monitored, and how: the signal that a reward model would learn from.

Labels are monitored as what they say (tie, position win, longer chosen), not as raw a or b. Here is no limit that
fails anything by itself: `checks` holds the numbers against the limits of the policy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import polars as pl
from pydantic import Field, model_validator

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.signal.drift import (
    NULL,
    OTHER,
    UNIT,
    Drift,
    Histogram,
    Verdict,
    categorical_histogram,
    clustered_size,
    compare,
    decile_edges,
    declared,
    drift,
    effective_size,
    finite,
    fixed_point,
    numeric_histogram,
)

Frame: TypeAlias = pl.DataFrame | pl.LazyFrame

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

_MASS = "\0mass"
_CLUSTER = "\0cluster"


@dataclass(frozen=True)
class Signal:
    """A monitored column: an expression over record columns.

    Rows for which `applies` is not true have no such value (a tie has no longer winner) and are left out; among the
    others null is a cell of its own. `needs` are the columns that must be there.
    """

    name: str
    kind: Literal["categorical", "numeric"]
    needs: tuple[str, ...]
    value: pl.Expr
    applies: pl.Expr | None = None


_LABEL = pl.col("label")
_DECIDED = (pl.col("kind") == "preference") & _LABEL.is_in(["a", "b"])
_SINGLE = pl.col("response_b_id").is_null()
_A_CHARS, _B_CHARS = (pl.col(f"response_{side}_chars").cast(pl.Int64) for side in "ab")
_LONGER = pl.when(_LABEL == "a").then(_A_CHARS - _B_CHARS).otherwise(_B_CHARS - _A_CHARS)


def _plain(name: str, kind: Literal["categorical", "numeric"] = "categorical") -> Signal:
    return Signal(name, kind, (name,), pl.col(name))


MONITORED: tuple[Signal, ...] = (
    Signal(
        "outcome",
        "categorical",
        ("kind", "label"),
        pl.when((pl.col("kind") == "preference") & (_LABEL != "tie")).then(pl.lit("decided")).otherwise(_LABEL),
        pl.col("kind") != "rating",
    ),
    Signal(
        "position_win",
        "categorical",
        ("kind", "label", "shown_order"),
        pl.when(pl.col("shown_order").is_in(["ab", "ba"])).then(
            pl.when(pl.col("shown_order").str.starts_with(_LABEL)).then(pl.lit("first")).otherwise(pl.lit("second"))
        ),
        _DECIDED,
    ),
    Signal(
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
    Signal(
        "score",
        "numeric",
        ("kind", "score", "score_min", "score_max"),
        pl.when(pl.col("score_max") > pl.col("score_min")).then(
            (pl.col("score") - pl.col("score_min")) / (pl.col("score_max") - pl.col("score_min"))
        ),
        pl.col("kind") == "rating",
    ),
    *(_plain(name) for name in ("category", "source", "task", "language", "kind")),
    Signal(
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
    Signal(
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


def transformation_drift(
    before: Frame,
    after: Frame,
    *,
    weight_before: str | None,
    weight_after: str | None,
    limits: Limits,
    columns: Sequence[str] = (),
) -> list[ColumnDrift]:
    """How a stage's output differs from its input, for every monitored column that both have.

    Copies (equal row_id beside a `copy_index`) are counted as one row with the weight of all. Chance is that of two
    independent samples, which is cautious: the output is mostly part of the input. Columns without a value on both
    sides are left out.

    Args:
        before: rows of the input, record columns.
        after: rows of the output.
        weight_before: weight column of `before`, or None.
        weight_after: weight column of `after`, or None.
        limits: limits to hold the PSI against.
        columns: further columns to monitor; text and booleans as categories, numbers by deciles.

    Raises:
        FeedbackError: a weight is null, negative or not finite.
    """
    left, right = _observe(before, weight_before, columns), _observe(after, weight_after, columns)
    found = []
    for name, was in left.items():
        now = right.get(name)
        if now is None or (was.blank and now.blank):
            continue
        result = drift(was.values, now.values, weights=(was.weights, now.weights))
        found.append(ColumnDrift(name, was.kind, result, limits))
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
    seen = _observe(frame, weight, tuple(expected), cluster)
    found = []
    for name in sorted(expected):
        reference = declared(_mapping(expected[name]))
        kind: Literal["categorical", "numeric"] = "categorical" if reference.edges is None else "numeric"
        observed = seen.get(name)
        if observed is None or observed.kind != kind:
            why = "has no such column" if observed is None else f"has it {observed.kind}, not {kind}"
            found.append(ColumnDrift(name, kind, None, held, f"expect.{name}: the data {why}"))
            continue
        size = None
        if observed.clusters is not None:
            size = clustered_size(observed.values, observed.clusters, observed.weights, reference.edges)
        result = compare(reference, observed.histogram(reference.edges), effective=(None, size))
        found.append(ColumnDrift(name, kind, result, held))
    return found


def distribution(frame: Frame, weight: str | None, columns: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The distribution of each monitored column, for a manifest; `baseline_drift` takes its entries.

    Categorical: shares of the 50 largest values, the rest as "(other)". Numeric: deciles as `edges` with `shares` and
    `nulls`, and quantiles. Shares are of weight where `weight` is given. Columns without any value are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, observed in _observe(frame, weight, columns).items():
        if observed.blank:
            continue
        entry: dict[str, Any] = {"kind": observed.kind}
        if observed.kind == "numeric":
            edges = decile_edges(observed.values)
            counted = observed.histogram(edges)
            shares = counted.shares()
            entry |= {
                "edges": list(edges),
                "shares": list(shares[:-1]),
                "nulls": shares[-1],
                "quantiles": observed.quantiles(),
            }
        else:
            counted = observed.histogram(None)
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


def effective_sample_size(frame: Frame, weight: str | None) -> list[SampleSize]:
    """Effective sample size by record (row_id), item (item_id) and annotator (annotator_id), where the column is there.

    Copies of one record count as one. Rows without the id are left out.

    Raises:
        FeedbackError: a weight is null, negative or not finite.
    """
    lazy = frame.lazy()
    units = [(unit, column) for unit, column in SAMPLE_UNITS if column in lazy.collect_schema()]
    rows = lazy.select(*(column for _, column in units), *([weight] if weight else [])).collect()
    mass = fixed_point(rows.get_column(weight)) if weight else pl.repeat(UNIT, rows.height, dtype=pl.Int64, eager=True)
    sizes = []
    for unit, column in units:
        held = (
            pl.DataFrame({"id": rows.get_column(column), "mass": mass})
            .drop_nulls("id")
            .group_by("id")
            .agg(pl.col("mass").sum().cast(pl.Int128))
            .get_column("mass")
        )
        sizes.append(SampleSize(unit, held.len(), effective_size(int(held.sum()), int((held * held).sum()))))
    return sizes


def identity_changes(before: Frame, after: Frame) -> list[IdentityChange]:
    """New and vanished names, and the largest share, for each of IDENTITIES that both have."""
    left, right = before.lazy(), after.lazy()
    both = left.collect_schema().keys() & right.collect_schema().keys()
    found = []
    for name in (column for column in IDENTITIES if column in both):
        was, now = _counts(left, name), _counts(right, name)
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


def loss_by_group(before: Frame, fates: Frame, columns: Sequence[str] = LOSS_COLUMNS) -> list[GroupLoss]:
    """Rows in and rows lost, by value of source, batch, category, guideline version and origin.

    Args:
        before: rows that came in, with row_id.
        fates: the stage's fates (row_id, fate), of which dropped, merged and quarantined are lost; or a frame with
            the row_ids that are left.
        columns: the grouping columns; those that `before` lacks are left out.

    Returns:
        One entry per column and value, by column in the given order, then by value.
    """
    marked = _marked(before, fates, columns)
    found = []
    for column in (name for name in columns if name in marked.columns):
        counted = (
            marked.lazy()
            .group_by(pl.col(column).cast(pl.String).fill_null(NULL).alias("value"))
            .agg(pl.len().cast(pl.Int64), pl.col("lost").sum().cast(pl.Int64))
            .sort("value")
            .collect()
        )
        found.extend(GroupLoss(column, value, rows, lost) for value, rows, lost in counted.iter_rows())
    return found


def loss_by_annotator(before: Frame, fates: Frame) -> list[GroupLoss]:
    """Annotators who lost more rows than the stage's overall rate explains, largest surprise first.

    One-sided binomial test for each annotator; the false discovery rate over them is held at .05 (Benjamini and
    Hochberg, J. R. Stat. Soc. B 57, 1995). Arguments as for `loss_by_group`.
    """
    losses = loss_by_group(before, fates, ("annotator_id",))
    rows, lost = sum(loss.rows for loss in losses), sum(loss.lost for loss in losses)
    if not lost or lost == rows:
        return []
    from scipy.special import bdtrc

    rate = lost / rows
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


@dataclass(frozen=True)
class _Observed:
    kind: Literal["categorical", "numeric"]
    values: pl.Series
    weights: pl.Series | None
    clusters: pl.Series | None

    @property
    def blank(self) -> bool:
        return self.values.null_count() == self.values.len()

    def histogram(self, edges: tuple[float, ...] | None) -> Histogram:
        if edges is None:
            return categorical_histogram(self.values, self.weights)
        return numeric_histogram(self.values, edges, self.weights)

    def quantiles(self) -> dict[str, float | None]:
        """The least value with at least that share of weight at or below it."""
        weights = self.weights if self.weights is not None else pl.repeat(1.0, self.values.len(), eager=True)
        usable = self.values.is_finite().fill_null(False)
        held = pl.DataFrame({"value": self.values, "mass": fixed_point(weights)}).filter(usable).sort("value")
        upto = held.get_column("mass").cum_sum()
        total = int(held.get_column("mass").sum())
        if not total:
            return {f"{q:g}": None for q in QUANTILES}
        at = [upto.search_sorted(max(1, math.ceil(q * total)), side="left") for q in QUANTILES]
        return {f"{q:g}": finite(held.get_column("value")[i]) for q, i in zip(QUANTILES, at, strict=True)}


def _mapping(value: NumericShares | Mapping[str, Any]) -> Mapping[str, Any]:
    return value.model_dump() if isinstance(value, NumericShares) else value


def _signals(schema: pl.Schema, columns: Sequence[str]) -> list[Signal]:
    found = [signal for signal in MONITORED if all(name in schema for name in signal.needs)]
    known = {signal.name for signal in MONITORED}
    for name in columns:
        if name in schema and name not in known and not schema[name].is_nested():
            found.append(_plain(name, "numeric" if schema[name].is_numeric() else "categorical"))
            known.add(name)
    return found


def _observe(
    frame: Frame, weight: str | None, columns: Sequence[str] = (), cluster: str | None = None
) -> dict[str, _Observed]:
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    signals = _signals(schema, columns)
    copies = "copy_index" in schema and "row_id" in schema
    extra = [pl.col(cluster).alias(_CLUSTER)] if cluster is not None and cluster in schema else []
    if weight is not None:
        if weight not in schema:
            raise FeedbackError(f"no weight column {weight!r}; columns are {', '.join(schema)}")
        extra.append(pl.col(weight).alias(_MASS))
    elif copies:
        extra.append(pl.lit(1.0).alias(_MASS))
    rows = lazy.select(
        *(signal.value.alias(signal.name) for signal in signals),
        *(
            signal.applies.fill_null(False).alias(f"\0{signal.name}")
            for signal in signals
            if signal.applies is not None
        ),
        *extra,
        *([pl.col("row_id").alias("\0row")] if copies else []),
    ).collect()
    if _MASS in rows.columns:
        rows = rows.with_columns(fixed_point(rows.get_column(_MASS).rename(weight or _MASS)).alias(_MASS))
    if copies:
        held = rows.group_by("\0row").agg(pl.col(_MASS).sum())
        rows = rows.drop(_MASS).filter(pl.col("\0row").is_first_distinct()).join(held, on="\0row", how="left")
    if _MASS in rows.columns:
        rows = rows.with_columns(pl.col(_MASS) / UNIT)
    observed = {}
    for signal in signals:
        chosen = rows if signal.applies is None else rows.filter(pl.col(f"\0{signal.name}"))
        values = chosen.get_column(signal.name)
        observed[signal.name] = _Observed(
            signal.kind,
            values.cast(pl.Float64) if signal.kind == "numeric" else values.cast(pl.String),
            chosen.get_column(_MASS) if _MASS in rows.columns else None,
            chosen.get_column(_CLUSTER) if _CLUSTER in rows.columns else None,
        )
    return observed


def _counts(frame: pl.LazyFrame, name: str) -> dict[str, int]:
    counted = frame.select(pl.col(name).cast(pl.String)).drop_nulls().group_by(name).len().collect()
    return dict(counted.iter_rows())


def _marked(before: Frame, fates: Frame, columns: Sequence[str]) -> pl.DataFrame:
    lazy = before.lazy()
    schema = lazy.collect_schema()
    signals = {signal.name: signal for signal in MONITORED}
    values = []
    for name in columns:
        signal = signals.get(name)
        if signal is not None and all(need in schema for need in signal.needs):
            value = signal.value
            values.append((value if signal.applies is None else pl.when(signal.applies).then(value)).alias(name))
        elif name in schema:
            values.append(pl.col(name))
    stands = fates.lazy()
    if "fate" in stands.collect_schema():
        gone, is_lost = stands.filter(pl.col("fate").is_in(LOST)), True
    else:
        gone, is_lost = stands, False
    listed = gone.select(pl.col("row_id").alias("\0row"), pl.lit(is_lost).alias("lost")).unique("\0row")
    return (
        lazy.select(pl.col("row_id").alias("\0row"), *values)
        .join(listed, on="\0row", how="left")
        .with_columns(pl.col("lost").fill_null(not is_lost))
        .collect()
    )
