"""training_set: the index of a release. Which records are in it, how often, with which weight, in which split."""

from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field

from feedback_assets.engine.engine import Engine
from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, fates


class Export(Section):
    """One flat file a split, for a trainer."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the folder")
    format: Literal["preference", "kto", "rating"] = Field(
        default="preference",
        description="prompt with chosen, rejected (preference), completion, label (kto) or completion, score (rating)",
    )
    file: Literal["parquet", "jsonl"] = "parquet"
    conversational: bool = Field(
        default=True, description="prompt and responses as lists of messages; otherwise plain text"
    )
    ties: Literal["drop", "error"] = Field(
        default="drop", description="a tie has no chosen side: leave it out, or refuse"
    )


def _named_once(exports: tuple[Export, ...]) -> tuple[Export, ...]:
    names = [export.name for export in exports]
    if len(set(names)) < len(names):
        raise ValueError("two exports have the same name; they would write the same files")
    return exports


DEFAULT_EXPORTS = (Export.model_validate({"name": "preferences"}),)


class TrainingSetSection(Section):
    """How the signal is realised, and what is written for trainers."""

    realise: Literal["weights", "copies"] = Field(
        default="weights",
        description="weights: each record once, with a weight column; copies: repeated lines and no weight column",
    )
    exports: Annotated[tuple[Export, ...], AfterValidator(_named_once)] = DEFAULT_EXPORTS


def promises(section: TrainingSetSection) -> list[Expectation]:
    """What a release keeps."""
    del section
    return [
        Expectation(
            "expect_column_values_to_be_in_set",
            "each record is in train or eval",
            {"column": "assigned_split", "value_set": ["train", "eval"]},
        ),
        Expectation("expect_table_row_count_to_be_between", "there is something to train on", {"min_value": 1}),
        Expectation(
            "expect_column_values_to_be_between",
            "weights as realised are at least 0 and finite",
            {"column": "training_weight", "min_value": 0, "max_value": 1e9},
        ),
    ]


def training_set(inputs: Inputs, section: TrainingSetSection, engine: Engine) -> Output:
    """One row a record: all columns so far and `training_weight` (Float64, weight × copies: the signal as realised).

    Copies of one record are one row here. With `realise: copies` the weights must all be equal.

    Raises:
        FeedbackError: `realise: copies` with weights that differ.
    """
    del engine
    rows = (
        inputs.rows.filter(pl.col("copy_index") == 0)
        .drop("copy_index")
        .with_columns((pl.col("weight") * pl.col("copies")).alias("training_weight"))
        .collect()
    )
    if section.realise == "copies" and rows.get_column("weight").n_unique() > 1:
        raise FeedbackError(
            "training_set.realise: copies would lose the weights, which differ between rows; "
            "use `realise: weights`, or take the factors out of `reweighted`"
        )
    came = inputs.rows.select("row_id", "copies").collect()
    splits = rows.group_by("assigned_split").len().sort("assigned_split")
    return Output(
        rows,
        fates(rows, "kept", copies=1).collect(),
        facts={"realise": section.realise, "splits": dict(splits.iter_rows()), "examples": came.height},
    )


STAGE = Stage(
    name="training_set",
    description=(
        "The release: an index of records, copies, weights and splits over the text, a manifest that answers the "
        "three questions on its own, and flat files for trainers. Nothing is released unless every blocking "
        "check of the exact versions behind it has passed."
    ),
    inputs=("upsampled",),
    section=TrainingSetSection,
    function=training_set,
    promises=promises,
    reads_content=True,
    weight="training_weight",
)
