"""Training examples in the shapes that TRL's trainers read, one content part at a time.

`preference` is for RewardTrainer and DPOTrainer, `kto` for KTOTrainer; `rating` is a plain prompt, completion, score.
Every example carries its `row_id`, so that what a trainer drops can be traced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError

INDEX = ("row_id", "kind", "label", "score", "content_row", "assigned_split")
"""Columns of the training set that an export reads."""

KINDS = {"preference": ("preference",), "kto": ("thumbs",), "rating": ("rating",)}


def examples(content: pl.LazyFrame, index: pl.DataFrame, export: Mapping[str, Any], realise: str) -> pl.DataFrame:
    """The examples of one content part.

    Args:
        content: record.CONTENT columns, in row order.
        index: the rows of the training set (INDEX) whose text lies in this part.
        export: `format`, `conversational` and `ties` as in the policy.
        realise: "weights" (each record once; its weight stands in the sidecar) or "copies" (records repeated, by the
            column `copies` of `index`).

    Returns:
        `row_id`, `split` and the columns of the format, ordered by content row.

    Raises:
        FeedbackError: a tie, where the policy says that ties are an error.
    """
    chosen = eligible(index, export).sort("content_row", "row_id")
    if not chosen.height:
        content = content.head(0)
    text = content.with_row_index("content_row").select("content_row", "prompt", "response_a", "response_b")
    joined = chosen.lazy().join(text, on="content_row", how="left", maintain_order="left")
    if realise == "copies":
        joined = joined.with_columns(pl.int_ranges(0, pl.col("copies")).alias("copy")).explode(
            "copy", empty_as_null=False
        )
    shape = COLUMNS[export["format"]](export["conversational"])
    return joined.select("row_id", pl.col("assigned_split").alias("split"), *shape).collect()


def eligible(index: pl.DataFrame, export: Mapping[str, Any]) -> pl.DataFrame:
    """The rows of the training set that an export takes: those of its kind, without ties.

    Raises:
        FeedbackError: a tie, where the policy says that ties are an error.
    """
    mine = index.filter(pl.col("kind").is_in(KINDS[export["format"]]))
    tied = mine.filter(pl.col("label") == "tie")
    if tied.height and export["ties"] == "error":
        raise FeedbackError(
            f"export {export['name']!r}: {tied.height} records are ties, first {tied['row_id'][0]}; "
            "a tie has no chosen side: use `ties: drop`, or filter them"
        )
    return mine.filter(pl.col("label").is_null() | (pl.col("label") != "tie"))


def _prompt(conversational: bool) -> pl.Expr:
    role, text = pl.element().struct.field("role"), pl.element().struct.field("text")
    if conversational:
        return pl.col("prompt").list.eval(pl.struct(role.alias("role"), text.alias("content"))).alias("prompt")
    several = pl.col("prompt").list.eval(pl.format("{}: {}", role, text)).list.join("\n\n")
    return (
        pl.when(pl.col("prompt").list.len() == 1)
        .then(pl.col("prompt").list.first().struct.field("text"))
        .otherwise(several)
        .alias("prompt")
    )


def _reply(text: pl.Expr, conversational: bool) -> pl.Expr:
    if not conversational:
        return text
    return pl.concat_list(pl.struct(pl.lit("assistant").alias("role"), text.alias("content")))


def _preference(conversational: bool) -> list[pl.Expr]:
    a, b = pl.col("response_a"), pl.col("response_b")
    first = pl.col("label") == "a"
    return [
        _prompt(conversational),
        _reply(pl.when(first).then(a).otherwise(b), conversational).alias("chosen"),
        _reply(pl.when(first).then(b).otherwise(a), conversational).alias("rejected"),
    ]


def _kto(conversational: bool) -> list[pl.Expr]:
    return [
        _prompt(conversational),
        _reply(pl.col("response_a"), conversational).alias("completion"),
        (pl.col("label") == "up").alias("label"),
    ]


def _rating(conversational: bool) -> list[pl.Expr]:
    return [_prompt(conversational), _reply(pl.col("response_a"), conversational).alias("completion"), pl.col("score")]


COLUMNS: dict[str, Callable[[bool], list[pl.Expr]]] = {"preference": _preference, "kto": _kto, "rating": _rating}
