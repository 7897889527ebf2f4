"""The training_set stage: one row a record, and the signal as it is realised."""

import polars as pl
import pytest
from pydantic import ValidationError

from feedback_assets.checks.conservation import conservation
from feedback_assets.errors import FeedbackError
from feedback_assets.stages.stage import Inputs, Output
from feedback_assets.stages.training_set import TrainingSetSection, promises, training_set
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import records

SPLITS = ["train", "train", "eval"]


def upsampled_rows(weights: list[float], copies: list[int]) -> pl.DataFrame:
    rows = records(*({} for _ in weights)).with_columns(
        pl.Series("weight", weights),
        pl.Series("copies", copies, pl.Int32),
        pl.Series("assigned_split", SPLITS[: len(weights)]),
    )
    return rows.with_columns(copy_index=pl.lit(0, pl.Int32))


def made(rows: pl.DataFrame, **section: object) -> Output:
    return training_set(Inputs(rows.lazy()), TrainingSetSection.model_validate(section), EngineInMemory())


def test_a_record_has_the_weight_of_all_its_copies():
    rows = upsampled_rows([0.5, 1.0, 2.0], [1, 3, 2])
    output = made(rows)
    assert output.rows.select("row_id", "copies", "training_weight").rows() == [
        ("r0", 1, 0.5),
        ("r1", 3, 3.0),
        ("r2", 2, 4.0),
    ]
    assert "copy_index" not in output.rows.columns
    assert {key: output.facts[key] for key in ("realise", "splits", "examples")} == {
        "realise": "weights",
        "splits": {"eval": 1, "train": 2},
        "examples": 6,
    }
    assert conservation(rows, output.rows, output.fates).passed


def test_copies_with_equal_weights_can_be_realised_as_copies():
    assert made(upsampled_rows([0.5, 0.5], [1, 3]), realise="copies").facts["realise"] == "copies"


def test_copies_that_would_lose_different_weights_are_refused_in_one_line():
    with pytest.raises(FeedbackError, match="copies would lose the weights, which differ between rows") as caught:
        made(upsampled_rows([0.5, 1.0], [1, 3]), realise="copies")
    assert "\n" not in str(caught.value)


def test_two_exports_of_one_name_are_refused_and_one_that_is_called_as_the_annotations():
    with pytest.raises(ValidationError, match="two exports have the same name"):
        TrainingSetSection.model_validate({"exports": [{"name": "a"}, {"name": "a", "format": "kto"}]})
    with pytest.raises(ValidationError, match="an export cannot be called 'annotations'"):
        TrainingSetSection.model_validate({"exports": [{"name": "annotations"}]})


@pytest.mark.parametrize(
    ("export", "wrong"),
    [
        ({"columns": ["annotator"]}, "e: columns: annotator: the training set has no column 'annotator'; it has: "),
        ({"format": "reward", "margin": "far"}, "e: margin: the training set has no column 'far'"),
        ({"format": "reward", "margin": "label"}, "e: margin: 'label' is no number; name a column that is one"),
    ],
)
def test_a_column_that_an_export_cannot_use_is_refused_before_anything_is_written(export, wrong):
    with pytest.raises(FeedbackError, match=wrong) as caught:
        made(upsampled_rows([1.0], [1]), exports=[{"name": "e", **export}])
    assert "\n" not in str(caught.value)


def test_ties_given_both_ways_weigh_half_which_copies_cannot_express():
    with pytest.raises(ValidationError, match="`realise: copies` cannot express"):
        TrainingSetSection.model_validate({"realise": "copies", "exports": [{"name": "e", "ties": "both-ways"}]})


def test_a_column_that_means_something_else_to_the_trainer_is_not_repeated():
    with pytest.raises(ValidationError, match=r"e\.columns: 'label' means something else in this file"):
        TrainingSetSection.model_validate({"exports": [{"name": "e", "columns": ["label"]}]})


def test_what_a_trainer_would_drop_is_a_promise_that_warns_or_holds_back_as_the_policy_says():
    def promised(**trainer):
        section = TrainingSetSection.model_validate({"exports": [{"name": "e", "trainer": trainer}]})
        return promises(section)[-1]

    warns = promised(max_length=512, max_dropped_share=0.02)
    assert warns.kwargs == {"column": "tokens_e", "max_value": 512, "mostly": 0.98}
    assert (warns.blocking, promised(blocking=True).blocking) == (False, True)
    assert "at most 2.0% are predicted to be dropped" in warns.meaning
