"""The training_set stage: one row a record, and the signal as it is realised."""

import polars as pl
import pytest
from pydantic import ValidationError

from feedback_assets.checks.conservation import conservation
from feedback_assets.errors import FeedbackError
from feedback_assets.stages.stage import Inputs, Output
from feedback_assets.stages.training_set import TrainingSetSection, training_set
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import records

SPLITS = ["train", "train", "eval"]


def upsampled_rows(weights: list[float], copies: list[int]) -> pl.DataFrame:
    rows = records(*({} for _ in weights)).with_columns(
        pl.Series("weight", weights),
        pl.Series("copies", copies, pl.Int32),
        pl.Series("assigned_split", SPLITS[: len(weights)]),
    )
    return rows.with_columns(copy_index=pl.int_ranges(0, "copies", dtype=pl.Int32)).explode("copy_index")


def made(rows: pl.DataFrame, **section: object) -> Output:
    return training_set(Inputs(rows.lazy()), TrainingSetSection.model_validate(section), EngineInMemory())


def test_copies_of_a_record_are_one_row_with_the_weight_of_all():
    rows = upsampled_rows([0.5, 1.0, 2.0], [1, 3, 2])
    output = made(rows)
    assert output.rows.select("row_id", "copies", "training_weight").rows() == [
        ("r0", 1, 0.5),
        ("r1", 3, 3.0),
        ("r2", 2, 4.0),
    ]
    assert "copy_index" not in output.rows.columns
    assert output.facts == {"realise": "weights", "splits": {"eval": 1, "train": 2}, "examples": 6}
    assert conservation(rows, output.rows, output.fates).passed


def test_copies_with_equal_weights_can_be_realised_as_copies():
    assert made(upsampled_rows([0.5, 0.5], [1, 3]), realise="copies").facts["realise"] == "copies"


def test_copies_that_would_lose_different_weights_are_refused_in_one_line():
    with pytest.raises(FeedbackError, match="copies would lose the weights, which differ between rows") as caught:
        made(upsampled_rows([0.5, 1.0], [1, 3]), realise="copies")
    assert "\n" not in str(caught.value)


def test_two_exports_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two exports have the same name"):
        TrainingSetSection.model_validate({"exports": [{"name": "a"}, {"name": "a", "format": "kto"}]})
