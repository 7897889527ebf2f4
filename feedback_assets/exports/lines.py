"""Which records of a training set become lines of an export, how often, and why the others do not."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError

KINDS = {"preference": "preference", "reward": "preference", "kto": "thumbs", "rating": "rating"}
DECIDED = {
    "preference": (pl.col("label") == "a") | (pl.col("label") == "b"),
    "thumbs": (pl.col("label") == "up") | (pl.col("label") == "down"),
    "rating": pl.col("score").is_not_null(),
}
REASONS = pl.Enum(["another-kind", "no-answer", "no-margin", "tie"])


def reason_left_out(export: Mapping[str, Any]) -> pl.Expr:
    """Why a record is not in the export (REASONS), or null.

    Args:
        export: an export as in the policy, as plain values.
    """
    kind = KINDS[export["format"]]
    tied = (pl.lit(kind == "preference") & (pl.col("label") == "tie")).fill_null(value=False)
    decided = DECIDED[kind].fill_null(value=False)
    if export["ties"] == "both-ways":
        decided, tied_out = decided | tied, pl.lit(False)
    else:
        tied_out = tied
    no_margin = pl.lit(False)
    if export["format"] == "reward" and export["missing_margin"] != "zero":
        no_margin = pl.col(export["margin"]).is_null() & ~tied
    return (
        pl.when(pl.col("kind") != kind)
        .then(pl.lit("another-kind", REASONS))
        .when(tied_out)
        .then(pl.lit("tie", REASONS))
        .when(~decided)
        .then(pl.lit("no-answer", REASONS))
        .when(no_margin)
        .then(pl.lit("no-margin", REASONS))
        .otherwise(None)
    )


def left_out(index: pl.DataFrame, export: Mapping[str, Any]) -> dict[str, int]:
    """How many records the export leaves out, by reason."""
    counted = index.lazy().select(reason=reason_left_out(export)).drop_nulls().group_by("reason").len().sort("reason")
    return dict(counted.collect().iter_rows())


def eligible(index: pl.DataFrame, export: Mapping[str, Any]) -> pl.LazyFrame:
    """The rows of the training set that an export takes.

    Raises:
        FeedbackError: a tie or a missing margin, where the policy says that it is an error.
    """
    reason = reason_left_out(export)
    for name, refused, wrong, mend in (
        (
            "tie",
            export["ties"] == "error",
            "are ties, which have no chosen side",
            "use `ties: drop` or `ties: both-ways`, or filter them",
        ),
        (
            "no-margin",
            export["format"] == "reward" and export["missing_margin"] == "error",
            f"have no {export.get('margin')}",
            "use `missing_margin: zero` or `drop`, or name another column under `margin`",
        ),
    ):
        if refused and (found := index.lazy().filter(reason == name).select("row_id").collect()).height:
            raise FeedbackError(
                f"export {export['name']!r}: {found.height} records {wrong}, first {found['row_id'].min()}; {mend}"
            )
    return index.lazy().filter(reason.is_null())


def lines(index: pl.DataFrame, export: Mapping[str, Any], realise: str) -> pl.LazyFrame:
    """The lines of an export, in the order of `index`: text and sidecars alike are made of them.

    Args:
        index: rows of the training set, with `copies` where they are realised.
        export: as in the policy.
        realise: "weights" (each record once, but for ties given both ways) or "copies" (repeated).

    Returns:
        The rows of `index`; the `label` of a tie given both ways is a, then b. Added: `ways` (Int8, the lines among
        which a record's weight is divided), of copies `copy_index` (Int32, from 0 within a record) and, for the format
        reward, `margin` (Float64, 0 for a tie).
    """
    taken = eligible(index, export)
    tied = (pl.col("label") == "tie").fill_null(value=False)
    if export["format"] == "reward":
        margin = pl.col(export["margin"]).cast(pl.Float64).fill_null(0.0)
        taken = taken.with_columns(margin=pl.when(tied).then(0.0).otherwise(margin))
    taken = taken.with_columns(ways=pl.when(tied).then(2).otherwise(1).cast(pl.Int8))
    if export["ties"] == "both-ways":
        each = pl.when(tied).then(pl.lit(["a", "b"])).otherwise(pl.concat_list("label"))
        taken = taken.with_columns(label=each).explode("label", empty_as_null=False)
    if realise == "copies":
        times = pl.int_ranges(0, pl.col("copies"), dtype=pl.Int32)
        taken = taken.with_columns(copy_index=times).explode("copy_index", empty_as_null=False)
    return taken
