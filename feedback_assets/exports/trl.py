"""Training examples in the shapes that TRL's trainers read, one content part at a time.

`preference` is for RewardTrainer and DPOTrainer, `reward` for RewardTrainer, which reads its `margin`; `kto` is for
KTOTrainer; `rating` is a plain prompt, completion, score. Every example carries its `row_id`, so that what a trainer
drops can be traced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.exports.lines import KINDS, lines

INDEX = ("row_id", "kind", "label", "score", "content_row", "assigned_split")
"""Columns of the training set that every export reads."""
_LACKS = "_lacks"


class NoText(FeedbackError):
    """Records of an export have no text: it was erased, or a part of the store is damaged."""

    def __init__(self, export: str, row_ids: pl.Series) -> None:
        super().__init__(
            f"export {export!r}: {row_ids.n_unique():,} records have no text, first {row_ids.min()}; "
            "`feedback-assets verify` says whether it was erased (then run all stages again: they leave it out) or "
            "damaged (then restore it from a backup)"
        )
        self.row_ids = row_ids


def examples(content: pl.LazyFrame, index: pl.DataFrame, export: Mapping[str, Any], realise: str) -> pl.DataFrame:
    """The examples of one content part.

    Args:
        content: record.CONTENT columns, in row order.
        index: the rows of the training set whose text lies in this part: INDEX, the columns that the export repeats,
            `copies` where they are realised, and for `reward` the column of the margin.
        export: an export as in the policy, as plain values.
        realise: "weights" (each record once; its weight stands in the sidecar) or "copies" (records repeated, by the
            column `copies` of `index`).

    Returns:
        `row_id`, `split`, the columns of the format and those to repeat, ordered by content row.

    Raises:
        FeedbackError: a tie or a missing margin, where the policy says that it is an error.
        NoText: the text of a record is not there.
    """
    chosen = lines(index.sort("content_row", "row_id"), export, realise).collect()
    if not chosen.height:
        content = content.head(0)
    text = content.with_row_index("content_row").select("content_row", "prompt", "response_a", "response_b")
    joined = chosen.lazy().join(text, on="content_row", how="left", maintain_order="left")
    separator = None if export["conversational"] else export["separator"]
    shape = COLUMNS[export["format"]](separator)
    needed = ["prompt", "response_a", *(["response_b"] if KINDS[export["format"]] == "preference" else [])]
    lacks = pl.any_horizontal(pl.col(needed).is_null()).alias(_LACKS)
    split = pl.col("assigned_split").alias("split")
    made = joined.select("row_id", split, *shape, *export["columns"], lacks).collect()
    if made.get_column(_LACKS).any():
        raise NoText(export["name"], made.filter(_LACKS).get_column("row_id"))
    return made.drop(_LACKS)


def _prompt(separator: str | None) -> pl.Expr:
    role, text = pl.element().struct.field("role"), pl.element().struct.field("text")
    if separator is None:
        return pl.col("prompt").list.eval(pl.struct(role.alias("role"), text.alias("content"))).alias("prompt")
    several = pl.col("prompt").list.eval(pl.format("{}: {}", role, text)).list.join(separator)
    single = pl.col("prompt").list.first().struct.field("text")
    whole = pl.when(pl.col("prompt").list.len() == 1).then(single).otherwise(several)
    return (whole + pl.lit(separator)).alias("prompt")


def _reply(text: pl.Expr, separator: str | None) -> pl.Expr:
    if separator is not None:
        return text
    return pl.concat_list(pl.struct(pl.lit("assistant").alias("role"), text.alias("content")))


def _preference(separator: str | None) -> list[pl.Expr]:
    a, b = pl.col("response_a"), pl.col("response_b")
    first = pl.col("label") == "a"
    return [
        _prompt(separator),
        _reply(pl.when(first).then(a).otherwise(b), separator).alias("chosen"),
        _reply(pl.when(first).then(b).otherwise(a), separator).alias("rejected"),
    ]


def _reward(separator: str | None) -> list[pl.Expr]:
    return [*_preference(separator), pl.col("margin")]


def _kto(separator: str | None) -> list[pl.Expr]:
    return [
        _prompt(separator),
        _reply(pl.col("response_a"), separator).alias("completion"),
        (pl.col("label") == "up").alias("label"),
    ]


def _rating(separator: str | None) -> list[pl.Expr]:
    return [_prompt(separator), _reply(pl.col("response_a"), separator).alias("completion"), pl.col("score")]


COLUMNS: dict[str, Callable[[str | None], list[pl.Expr]]] = {
    "preference": _preference,
    "reward": _reward,
    "kto": _kto,
    "rating": _rating,
}
"""The columns of each format, from the separator of plain text, or None where they are conversational."""
