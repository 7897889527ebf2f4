"""What can be measured of training rows: one number, or None where it has no meaning.

The frame has one row a record, with all columns that the stages gave it, and `training_weight` (Float64, weight ×
copies). Shares are of that weight.
"""

import importlib
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import aggregate
from feedback_assets.signal.columns import MONITORED, signal_of
from feedback_assets.signal.comparisons import baseline_drift
from feedback_assets.signal.monitor import distribution, effective_sample_size
from feedback_assets.signal.section import Limits

WEIGHT = "training_weight"
_WATCHED = {entry.name: entry for entry in MONITORED}
BUILT_IN = {
    "chosen-longer": "weight of decided preferences whose chosen response is the longer one",
    "tie-share": "weight of ties among preferences",
    "mean-score": "mean of ratings, each on its scale from 0 to 1",
    "psi": "PSI against what the good release expects, else has: of one column (psi:COLUMN), or the highest",
    "effective-sample-size": "(Σw)²/Σw² by record, or :item, or :annotator",
    "model-origin-share": "weight of records whose chosen response a model wrote",
    "agreement": "raw agreement over pairs of judgments of one item",
}
"""Metrics by name, with what they are."""


@dataclass(frozen=True)
class Metric:
    """A number of training rows, under the name that a person gave it."""

    name: str
    meaning: str
    function: Callable[[pl.LazyFrame], float | None]

    def __call__(self, frame: pl.LazyFrame) -> float | None:
        """The number; None where there is nothing to measure.

        Raises:
            FeedbackError: it cannot be computed; one line.
        """
        try:
            value = self.function(frame)
        except FeedbackError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            raise FeedbackError(f"--metric {self.name}: {type(error).__name__}: {said}") from None
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise FeedbackError(f"--metric {self.name}: it gives {type(value).__name__}, not a number")
        # Sums of floats differ in the last bits between threads.
        return float(f"{value:.9g}") if math.isfinite(value) else None


def metric(text: str, baseline: Mapping[str, Any] | None = None) -> Metric:
    """The metric that `text` names: one of BUILT_IN, `module:function`, or a Polars SQL expression over all rows.

    Args:
        text: as a person says it; `psi:COLUMN` and `effective-sample-size:UNIT` say of what.
        baseline: by column the distribution that `psi` is held against (see `signal.comparisons.baseline_drift`).

    Raises:
        FeedbackError: it names nothing, or is refused; one line.
    """
    name, _, of = text.partition(":")
    if name in BUILT_IN and (not of or name in ("psi", "effective-sample-size")):
        functions: dict[str, Callable[[pl.LazyFrame], float | None]] = {
            "chosen-longer": _chosen_longer,
            "tie-share": _tie_share,
            "mean-score": _mean_score,
            "psi": partial(_psi, of or None, baseline or {}),
            "effective-sample-size": partial(_effective, of or "record"),
            "model-origin-share": _model_origin_share,
            "agreement": _agreement,
        }
        return Metric(text, BUILT_IN[name], functions[name])
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        found = _imported(text)
        return Metric(text, f"what {text} gives", lambda frame: found(frame.collect()))
    if re.fullmatch(r"[a-z]+(-[a-z]+)*", text):
        close = get_close_matches(text, BUILT_IN, n=1)
        if close:
            raise FeedbackError(f"--metric {text}: there is none of that name; did you mean {close[0]!r}?")
    try:
        expression = aggregate(text)
    except ValueError as error:
        raise FeedbackError(f"--metric {text}: {error}; or name one of {', '.join(BUILT_IN)}") from None
    return Metric(text, "SQL over the training rows", partial(_selected, expression))


def _imported(text: str) -> Callable[[pl.DataFrame], Any]:
    module, _, name = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise FeedbackError(f"--metric {text}: cannot import {module}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise FeedbackError(f"--metric {text}: {module} has no function {name}")
    return found


def _selected(expression: pl.Expr, frame: pl.LazyFrame) -> float | None:
    found = frame.select(expression.alias("value")).collect()
    if found.height != 1:
        raise FeedbackError("the expression gives a value a row; sum or average it, as in SUM(x * training_weight)")
    return found.item()


def _share(column: str, value: pl.Expr, frame: pl.LazyFrame) -> float | None:
    watched = _WATCHED[column]
    rows = frame if watched.applies is None else frame.filter(watched.applies.fill_null(value=False))
    return _mean(rows, value.replace_strict({True: 1.0, False: 0.0}, default=None, return_dtype=pl.Float64), watched)


def _mean(rows: pl.LazyFrame, value: pl.Expr, watched: Any) -> float | None:
    held = rows.select(watched.value.alias("watched"), WEIGHT).select(value.alias("value"), WEIGHT).drop_nulls()
    total, weight = held.select((pl.col("value") * pl.col(WEIGHT)).sum(), pl.col(WEIGHT).sum()).collect().row(0)
    return total / weight if weight else None


def _chosen_longer(frame: pl.LazyFrame) -> float | None:
    return _share("chosen_longer", pl.col("watched") == "longer", frame)


def _tie_share(frame: pl.LazyFrame) -> float | None:
    return _share("outcome", pl.col("watched") == "tie", frame.filter(pl.col("kind") == "preference"))


def _model_origin_share(frame: pl.LazyFrame) -> float | None:
    chosen_b = (pl.col("label") == "b") & pl.col("response_b_id").is_not_null()
    origin = pl.when(chosen_b).then("origin_b").otherwise("origin_a")
    applies = _WATCHED["origin"].applies
    assert applies is not None  # noqa: S101  MONITORED says so
    rows = frame.filter(applies.fill_null(value=False)).with_columns(made=origin.str.starts_with("model:"))
    held = rows.select("made", WEIGHT).drop_nulls()
    models, weight = held.select((pl.col("made") * pl.col(WEIGHT)).sum(), pl.col(WEIGHT).sum()).collect().row(0)
    return models / weight if weight else None


def _mean_score(frame: pl.LazyFrame) -> float | None:
    watched = _WATCHED["score"]
    return _mean(frame.filter(pl.col("kind") == "rating"), pl.col("watched"), watched)


def _agreement(frame: pl.LazyFrame) -> float | None:
    """Raw agreement over pairs of judgments of one item: Σ n_answer(n_answer−1) / Σ n(n−1)."""
    key = ["item_id", "kind", "task", "aspect"]
    answers = (
        frame.select(*key, answer=pl.coalesce("label", pl.col("score").cast(pl.String)))
        .drop_nulls("answer")
        .group_by(*key, "answer")
        .agg(n=pl.len().cast(pl.Int64))
        .group_by(key)
        .agg(all=pl.col("n").sum(), same=(pl.col("n") * (pl.col("n") - 1)).sum())
    )
    same, pairs = answers.select(pl.col("same").sum(), (pl.col("all") * (pl.col("all") - 1)).sum()).collect().row(0)
    return same / pairs if pairs else None


def _effective(unit: str, frame: pl.LazyFrame) -> float | None:
    sizes = {size.unit: size.effective for size in effective_sample_size(frame, WEIGHT)}
    if unit not in sizes:
        raise FeedbackError(f"effective-sample-size:{unit}: known units are {', '.join(sizes)}")
    return sizes[unit]


def _psi(column: str | None, baseline: Mapping[str, Any], frame: pl.LazyFrame) -> float | None:
    if column is not None and column not in baseline:
        raise FeedbackError(f"psi:{column}: there is no baseline of it; known: {', '.join(sorted(baseline))}")
    held = {name: value for name, value in baseline.items() if column in (None, name)}
    found = baseline_drift(signal_of(frame, WEIGHT, tuple(held)), held, Limits())
    values = [entry.drift.psi for entry in found if entry.drift is not None and entry.drift.psi is not None]
    return max(values, default=None)


def baseline_of(frame: pl.LazyFrame, expected: Mapping[str, Any]) -> dict[str, Any]:
    """What `psi` is held against: what is expected, and of the columns of which nothing is, what `frame` has."""
    return {**distribution(signal_of(frame, WEIGHT)), **expected}
