"""What a trainer will drop for its length, predicted from the characters that intake counted; no text is read."""

from typing import Any

import polars as pl

from feedback_assets.exports.lines import KINDS, lines, reason_left_out
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
    chars, turns = pl.col("prompt_chars").cast(pl.Int64), pl.col("prompt_turns").cast(pl.Int64)
    end = 0
    if drops(export) == "long-examples":
        pair = KINDS[export.format] == "preference"
        chars += pl.max_horizontal(["response_a_chars", "response_b_chars"] if pair else ["response_a_chars"])
        turns += 1
        end = 1  # what TRL appends to plain text; a chat template ends a turn itself
    rate = export.trainer.chars_per_token
    if export.conversational:
        found = (chars / rate).ceil() + turns * export.trainer.tokens_per_turn
    else:
        found = ((chars + turns * len(export.separator)) / rate).ceil() + end
    return pl.when(reason_left_out(export.pinned()).is_null()).then(found).cast(pl.UInt32).alias(export.tokens())


def predicted(rows: pl.DataFrame, export: Export, realise: str) -> dict[str, Any]:
    """What the trainer is predicted to drop of the export's lines, and of which groups, so that a bias is seen.

    Args:
        rows: the training set with the column of `tokens`, and `copies`.
        export: the export.
        realise: weights or copies, as in the policy.

    Returns:
        `trainer`, `max_length`, `examples`, `dropped`, and `by`: for each column of GROUPS the values that lose
        anything, as `value`, `examples`, `dropped`.
    """
    assert export.trainer is not None  # noqa: S101  the caller asked
    counts = {"examples": pl.len(), "dropped": pl.col("dropped").sum()}
    taken = lines(rows, export.pinned(), realise).with_columns(dropped=pl.col(export.tokens()) > most(export))
    told = taken.select(**counts).collect().row(0, named=True)
    groups = [
        taken.group_by(value=name).agg(**counts).filter(pl.col("dropped") > 0).sort("value", nulls_last=True)
        for name in GROUPS
    ]
    found = pl.collect_all(groups) if told["dropped"] else [pl.DataFrame()] * len(groups)
    return {
        "trainer": TRAINERS[drops(export)],
        "max_length": export.trainer.max_length,
        **told,
        "by": {name: group.to_dicts() for name, group in zip(GROUPS, found, strict=True)},
    }
