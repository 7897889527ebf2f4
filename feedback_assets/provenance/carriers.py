"""What carries the movement of a metric: the stage, the rules and factors, and the segments of records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.changes import Change
from feedback_assets.provenance.effects import Moved, moved
from feedback_assets.provenance.metrics import Metric
from feedback_assets.signal.columns import MONITORED

SEGMENTS = ("source", "batch", "category", "guideline", "origin", "annotator_id")
PLACES = ("arrival", "line", "position", "supersedes", "content_part", "content_row", "parents")
"""Columns that say where a record is; that they change moves no signal."""
MOST = 8
"""As many values of a segment are looked at, those with the most changed records."""


class Building(Protocol):
    """A build of the pipeline: its stages, and the training rows after each."""

    @property
    def project(self) -> Project:
        """The project that it was built in."""
        ...

    @property
    def commits(self) -> Mapping[str, Commit]:
        """Its stages by name."""
        ...

    def rows(self, stage: str = ...) -> pl.LazyFrame:
        """The training rows after a stage."""
        ...


@dataclass(frozen=True)
class Step:
    """The metric after a stage in both builds, and how much of the difference this stage added."""

    stage: str
    good: float | None
    bad: float | None
    added: float


@dataclass(frozen=True)
class Segment:
    """Records with one value in one column: how many changed, and which share of the movement goes if they do not."""

    column: str
    value: str | None
    rows: int
    share: float | None


@dataclass(frozen=True)
class Carriers:
    """What carries a movement: `stage` added the most of it; `moved` is what rules and factors did; `segments`."""

    stage: str | None
    steps: Sequence[Step]
    moved: Sequence[Moved]
    segments: Sequence[Segment]


def carriers(meter: Metric, good: Building, bad: Building, causes: Sequence[Change]) -> Carriers:
    """What carries the metric from one build to another that differs from it by `causes`."""
    steps = _steps(meter, good, bad)
    whole = steps[-1]
    movement = None if whole.good is None or whole.bad is None else whole.bad - whole.good
    direction = 1 if (movement or 0) >= 0 else -1
    most = max(steps, key=lambda step: direction * step.added)
    return Carriers(
        most.stage if movement else None,
        steps,
        moved(bad.project.store, good.commits, bad.commits, "upsampled", causes),
        _segments(meter, good.rows(), bad.rows(), whole.bad, movement) if movement else (),
    )


def _steps(meter: Metric, good: Building, bad: Building) -> list[Step]:
    steps: list[Step] = []
    before = 0.0
    for name in (name for name in good.commits if name != "guidelines"):
        was, now = (_value(meter, build.rows(name)) for build in (good, bad))
        difference = 0.0 if was is None or now is None else now - was
        steps.append(Step(name, was, now, difference - before))
        before = difference
    return steps


def _value(meter: Metric, rows: pl.LazyFrame) -> float | None:
    try:
        return meter(rows)
    except FeedbackError:  # an early stage has not all columns
        return None


def _segments(
    meter: Metric, good: pl.LazyFrame, bad: pl.LazyFrame, value: float | None, movement: float
) -> list[Segment]:
    """The movement that would go if the records of one value were as in the good build, for the largest values."""
    names = [name for name in good.collect_schema().names() if name in bad.collect_schema().names()]
    good, bad = ((frame.with_columns(_origin())) for frame in (good, bad))
    same = [name for name in names if name not in PLACES]
    columns = [name for name in SEGMENTS if name in (*names, "origin")]
    seen = [
        frame.select(
            "row_id", pl.struct(same).hash().alias("hash"), *(pl.col(name).cast(pl.String) for name in columns)
        )
        for frame in (good, bad)
    ]
    both = seen[0].join(seen[1], on="row_id", how="full", coalesce=True, suffix="_bad")
    changed = both.filter(pl.col("hash").ne_missing(pl.col("hash_bad"))).collect()
    found = []
    for column in columns:
        sides = [changed.select("row_id", pl.col(name).alias("value")) for name in (column, f"{column}_bad")]
        # A record that is missing on one side has no value there.
        there = [changed.get_column(name).is_not_null() for name in ("hash", "hash_bad")]
        held = pl.concat([side.filter(mask) for side, mask in zip(sides, there, strict=True)]).unique()
        counted = held.group_by("value").len().sort(["len", "value"], descending=[True, False], nulls_last=True)
        mine = []
        for name, rows in counted.head(MOST).iter_rows():
            ids = held.lazy().filter(pl.col("value").eq_missing(pl.lit(name, pl.String))).select("row_id")
            swapped = pl.concat(
                [bad.join(ids, on="row_id", how="anti"), good.join(ids, on="row_id", how="semi")], how="diagonal"
            )
            without = _value(meter, swapped)
            share = None if without is None or value is None else (value - without) / movement
            mine.append(Segment(column, name, rows, share))
        found += sorted(mine, key=lambda entry: -(entry.share or 0))
    return found


def _origin() -> pl.Expr:
    return next(entry.value for entry in MONITORED if entry.name == "origin").alias("origin")
