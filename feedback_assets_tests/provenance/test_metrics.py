"""What a metric gives of training rows, and the one line where it cannot be read."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.metrics import BUILT_IN, baseline_of, metric

PREFERENCE = {"kind": "preference", "task": "t", "aspect": None, "score": None, "score_min": None, "score_max": None}
ROWS: list[dict[str, Any]] = [
    {**PREFERENCE, "row_id": "1", "label": "a", "response_a_chars": 9, "response_b_chars": 5, "training_weight": 3.0},
    {**PREFERENCE, "row_id": "2", "label": "b", "response_a_chars": 9, "response_b_chars": 5, "training_weight": 1.0},
    {**PREFERENCE, "row_id": "3", "label": "tie", "response_a_chars": 9, "response_b_chars": 5, "training_weight": 4.0},
    {
        **PREFERENCE,
        **{"row_id": "4", "kind": "rating", "label": None, "score": 4.0, "score_min": 1.0, "score_max": 5.0},
        **{"response_a_chars": 7, "response_b_chars": None, "training_weight": 2.0},
    },
]
FRAME = pl.LazyFrame(ROWS, infer_schema_length=None).with_columns(
    item_id=pl.Series(["i", "i", "i", "j"]),
    annotator_id=pl.Series(["p", "p", "q", "q"]),
    response_b_id=pl.when(pl.col("kind") == "preference").then(pl.lit("b")),
    origin_a=pl.lit("model:m"),
    origin_b=pl.lit("human"),
    category=pl.Series(["x", "x", "y", "y"]),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chosen-longer", 3 / 4),
        ("tie-share", 4 / 8),
        ("mean-score", 0.75),
        ("effective-sample-size", 100 / 30),
        ("effective-sample-size:item", 100 / (64 + 4)),
        ("effective-sample-size:annotator", 100 / (16 + 36)),
        ("model-origin-share", 5 / 6),
        ("agreement", 0.0),
        ("AVG(response_a_chars)", 8.5),
        ("SUM(CASE WHEN category = 'x' THEN training_weight ELSE 0 END) / SUM(training_weight)", 0.4),
        ("COUNT(*)", 4.0),
        ("COUNT(DISTINCT response_b_chars)", 1.0),
        ("COUNT(*) / COUNT(DISTINCT annotator_id)", 2.0),
    ],
)
def test_a_metric_has_its_known_value(name: str, value: float) -> None:
    assert metric(name)(FRAME) == pytest.approx(value)


def test_psi_is_0_against_the_own_distribution_and_that_of_one_column_or_the_highest() -> None:
    baseline = baseline_of(FRAME, {"category": {"x": 0.9, "y": 0.1}})
    assert metric("psi:outcome", baseline)(FRAME) == pytest.approx(0, abs=1e-12)
    # Σ(p−q)·ln(p/q) of (.9, .1) against (.4, .6)
    assert metric("psi:category", baseline)(FRAME) == pytest.approx(1.3013455, rel=1e-6)
    assert metric("psi", baseline)(FRAME) == metric("psi:category", baseline)(FRAME)


def test_a_metric_without_anything_to_measure_has_no_value() -> None:
    for name in BUILT_IN:
        if name not in ("psi", "effective-sample-size"):
            assert metric(name)(FRAME.clear()) is None
    assert metric("AVG(score)")(FRAME.filter(pl.col("kind") == "preference")) is None


def test_a_function_of_ones_own_is_called_with_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metric.py").write_text("def heaviest(frame):\n    return frame['training_weight'].max()\n")
    monkeypatch.chdir(tmp_path)
    assert metric("own_metric:heaviest")(FRAME) == 4.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("chosen-longr", "did you mean 'chosen-longer'"),
        ("no_such_module:f", "cannot import no_such_module"),
        ("json:nothing", "json has no function nothing"),
        ("json:dumps", "TypeError"),
        ("SUM(nowhere)", "nowhere"),
        ("training_weight", "a value a row"),
        ("SUM(DISTINCT training_weight)", "distinct is refused"),
        ("COUNT(DISTINCT category, kind)", "distinct is refused"),
        ("'much'", "not a number"),
        ("(SELECT 1)", "SELECT is refused"),
        ("SUM(training_weight) OVER (PARTITION BY kind)", "OVER is refused"),
        ("psi:height", "no baseline"),
        ("effective-sample-size:week", "known units"),
    ],
)
def test_what_cannot_be_measured_is_one_line(name: str, says: str) -> None:
    with pytest.raises(FeedbackError, match=r"^--metric|^psi|^effective|^the expression") as refused:
        metric(name)(FRAME)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
