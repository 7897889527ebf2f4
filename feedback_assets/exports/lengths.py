"""What a trainer will drop for its length, predicted from the characters that intake counted; no text is read."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from feedback_assets.exports.lines import KINDS, reason_left_out
from feedback_assets.exports.section import Export

TRAINERS = {"long-examples": "RewardTrainer", "long-prompts": "DPOTrainer and KTOTrainer"}
GROUPS = ("source", "category", "language")


def drops(export: Export) -> str:
    """Whether long examples or only long prompts are dropped."""
    asked = export.trainer.drops if export.trainer else None
    return asked or ("long-prompts" if export.format == "kto" else "long-examples")


def most(export: Export) -> int:
    """The most tokens that are not dropped: `max_length`, or one less where the prompt must leave room."""
    assert export.trainer is not None  # noqa: S101  the caller asked
    return export.trainer.max_length - (drops(export) == "long-prompts")


def tokens(export: Export) -> pl.Expr:
    """Predicted tokens (UInt32) of what the trainer measures; null for a record that is not in the export.

    ⌈characters / chars_per_token⌉ of prompt and the longer response, or of the prompt alone, and what a chat template
    adds to each turn. From prompt_chars, prompt_turns, response_a_chars and response_b_chars.
    """
    assert export.trainer is not None  # noqa: S101  the caller asked
    plain = export.pinned()
    prompt, turns = pl.col("prompt_chars").cast(pl.Int64), pl.col("prompt_turns").cast(pl.Int64)
    if drops(export) == "long-examples":
        sides = (
            ["response_a_chars", "response_b_chars"] if KINDS[export.format] == "preference" else ["response_a_chars"]
        )
        chars = prompt + pl.max_horizontal(sides)
        turns = turns + 1
    else:
        chars = prompt
    added = turns * export.trainer.tokens_per_turn if export.conversational else turns * len(export.separator)
    if export.conversational:
        found = (chars / export.trainer.chars_per_token).ceil() + added
    else:
        found = ((chars + added) / export.trainer.chars_per_token).ceil()
    return pl.when(reason_left_out(plain).is_null()).then(found).cast(pl.UInt32).alias(export.tokens())


def predicted(rows: pl.DataFrame, export: Export) -> dict[str, Any]:
    """What the trainer is predicted to drop, of the records in the export and by group, so that a bias is seen.

    Args:
        rows: the training set with the column of `tokens`, and `copies`.
        export: the export.

    Returns:
        `trainer`, `max_length`, `records`, `dropped`, `examples`, `examples_dropped` (copies counted), and `by`: for
        each column of GROUPS the values that lose anything, as `value`, `records`, `dropped`.
    """
    assert export.trainer is not None  # noqa: S101  the caller asked
    taken = rows.filter(pl.col(export.tokens()).is_not_null()).with_columns(
        dropped=pl.col(export.tokens()) > most(export)
    )
    counts: Mapping[str, pl.Expr] = {
        "records": pl.len(),
        "dropped": pl.col("dropped").sum(),
        "examples": pl.col("copies").sum(),
        "examples_dropped": pl.col("copies").filter("dropped").sum(),
    }
    by = {}
    for name in GROUPS:
        groups = taken.group_by(value=name).agg(records=pl.len(), dropped=pl.col("dropped").sum())
        by[name] = groups.filter(pl.col("dropped") > 0).sort("value", nulls_last=True).to_dicts()
    return {
        "trainer": TRAINERS[drops(export)],
        "max_length": export.trainer.max_length,
        **taken.select(**counts).row(0, named=True),
        "by": by,
    }
