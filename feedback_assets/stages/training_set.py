"""training_set: the index of a release. Which records are in it, how often, with which weight, in which split."""

from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from feedback_assets.engine.engine import Engine
from feedback_assets.errors import FeedbackError
from feedback_assets.exports.lengths import TRAINERS, drops, most, predicted, tokens
from feedback_assets.exports.lines import eligible
from feedback_assets.exports.section import Export, Exports
from feedback_assets.policy import Section
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, fates

DEFAULT_EXPORTS = (Export.model_validate({"name": "preferences"}),)


class TrainingSetSection(Section):
    """How the signal is realised, and what is written for trainers."""

    realise: Literal["weights", "copies"] = Field(
        default="weights",
        description="weights: each record once, with a weight column; copies: repeated lines and no weight column",
    )
    exports: Exports = DEFAULT_EXPORTS

    @model_validator(mode="after")
    def _halves_a_tie(self) -> "TrainingSetSection":
        for export in self.exports:
            if self.realise == "copies" and export.ties == "both-ways":
                raise ValueError(
                    f"export {export.name!r}: a tie given both ways weighs half each way, which `realise: copies` "
                    "cannot express; use `realise: weights`, or `ties: drop`"
                )
        return self


def promises(section: TrainingSetSection) -> list[Expectation]:
    """What a release keeps."""
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
        *(
            Expectation(
                "expect_column_values_to_be_between",
                f"of {export.name}, at most {export.trainer.max_dropped_share:.1%} are predicted to be dropped for "
                f"their length, as {TRAINERS[drops(export)]} would at {export.trainer.max_length:,} tokens",
                {
                    "column": export.tokens(),
                    "max_value": most(export),
                    "mostly": round(1 - export.trainer.max_dropped_share, 9),
                },
                id="length",
                blocking=export.trainer.blocking,
            )
            for export in section.exports
            if export.trainer
        ),
    ]


def training_set(inputs: Inputs, section: TrainingSetSection, engine: Engine) -> Output:
    """One row a record: all columns so far and `training_weight` (Float64, weight × copies: the signal as realised).

    With `realise: copies` the weights must all be equal. For each export with a trainer, `tokens_<export>` (UInt32):
    the predicted length that decides whether the trainer drops the example.

    Raises:
        FeedbackError: `realise: copies` with weights that differ; an export names a column that is not there, or has
            ties or missing margins that its policy calls an error.
    """
    del engine
    rows = inputs.rows.drop("copy_index").collect()
    rows = rows.with_columns((pl.col("weight") * pl.col("copies")).alias("training_weight"))
    if section.realise == "copies" and rows.get_column("weight").n_unique() > 1:
        raise FeedbackError(
            "training_set.realise: copies would lose the weights, which differ between rows; "
            "use `realise: weights`, or take the factors out of `reweighted`"
        )
    for export in section.exports:
        _held_against(export, rows)
    asked = [export for export in section.exports if export.trainer]
    rows = rows.with_columns(*map(tokens, asked))
    splits = rows.group_by("assigned_split").len().sort("assigned_split")
    return Output(
        rows,
        fates(rows, "kept", copies=1).collect(),
        facts={
            "realise": section.realise,
            "splits": dict(splits.iter_rows()),
            "examples": int(rows.get_column("copies").sum()),
            "predicted_drops": {export.name: predicted(rows, export, section.realise) for export in asked},
        },
    )


def _held_against(export: Export, rows: pl.DataFrame) -> None:
    named = {f"columns: {name}": name for name in export.columns}
    if export.format == "reward":
        named["margin"] = export.margin
    for key, name in named.items():
        if name not in rows.columns:
            raise FeedbackError(
                f"training_set.exports: {export.name}: {key}: the training set has no column {name!r}; "
                f"it has: {', '.join(sorted(rows.columns))}"
            )
    if export.format == "reward" and not rows.schema[export.margin].is_numeric():
        raise FeedbackError(
            f"training_set.exports: {export.name}: margin: {export.margin!r} is no number; name a column that is one, "
            "such as margin or confidence"
        )
    eligible(rows, export.pinned())


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
