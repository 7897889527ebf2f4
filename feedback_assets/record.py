"""The canonical record: one piece of feedback by one annotator on one item, column by column.

Every source is mapped to this schema at `ingested`; later stages add columns and never change one
that an earlier stage wrote. Text (`CONTENT`) is kept apart from the narrow columns (`RECORD`), so that
it lies in one place and the stages between intake and release move only ids, labels and numbers.

What belongs together by nature is several records with one `group_id`: a ranking of k responses is k records of kind
rating, each with one response and its rank or its points as `score`, a judgment by aspects one record an `aspect`.
So they are kept at intake; that they become pairs is a decision, which the stage `converted` takes from the policy. A
pair made there is a record of kind preference that names the two it was made of in `parents`: that of response a, then
that of b.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from feedback_assets.digests import text_id

TURNS = pl.List(pl.Struct({"role": pl.String, "text": pl.String}))
TIME = pl.Datetime("us", "UTC")

KINDS = ("preference", "rating", "thumbs")
LABELS = {"preference": ("a", "b", "tie"), "thumbs": ("up", "down"), "rating": ()}
SHOWN_ORDERS = ("ab", "ba", "unknown")
ANNOTATOR_KINDS = ("human", "model")


@dataclass(frozen=True)
class Column:
    """One column of the record: its name, Polars dtype, what it means, and who fills it.

    `filled_by` is "source" for what a source's expressions may give, "product" for what the product computes.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    filled_by: Literal["source", "product"] = "source"


RECORD: tuple[Column, ...] = (
    Column("source", pl.String, "name of the source in the policy", "product"),
    Column("batch", pl.String, "name of the batch the record arrived with"),
    Column("arrival", pl.Int64, "ordinal of that batch in the order of arrival, from 0", "product"),
    Column("line", pl.Int64, "line (or row) of the record in its batch file, from 1", "product"),
    Column("position", pl.Int64, "place of the record among those of its line, from 1", "product"),
    Column(
        "feedback_id", pl.String, "the source's own id; without one, or of blank text, made from content and occurrence"
    ),
    Column("row_id", pl.String, "digest of source and feedback_id, 32 hex characters", "product"),
    Column("revision", pl.Int32, "0 for the first delivery of a row_id, then 1, 2, …", "product"),
    Column("supersedes", pl.Int64, "arrival of the delivery that this revision replaces, else null", "product"),
    Column(
        "group_id",
        pl.String,
        "records that belong together: one ranking, the aspects of one judgment; blank text is null",
    ),
    Column("parents", pl.List(pl.String), "row_ids this record was made from; empty for an original", "product"),
    Column("kind", pl.String, "preference, rating or thumbs"),
    Column("task", pl.String, "the task the annotator was given"),
    Column("aspect", pl.String, "the aspect judged, e.g. helpfulness"),
    Column("category", pl.String, "the category of the prompt"),
    Column("language", pl.String, "language of the item, BCP 47"),
    Column("prompt_id", pl.String, "digest of the prompt, 32 hex characters", "product"),
    Column("response_a_id", pl.String, "digest of the first response in canonical order", "product"),
    Column("response_b_id", pl.String, "digest of the second response, null for a single one", "product"),
    Column("item_id", pl.String, "digest of prompt and responses in canonical order", "product"),
    Column("label", pl.String, "preference: a, b, tie; thumbs: up, down; in canonical order"),
    Column("score", pl.Float64, "rating on the scale score_min..score_max"),
    Column("score_min", pl.Float64, "lower end of the scale"),
    Column("score_max", pl.Float64, "upper end of the scale"),
    Column("confidence", pl.Float64, "the annotator's confidence or strength of preference, 0..1"),
    Column("shown_order", pl.String, "ab: the annotator saw a first; ba: b first; unknown"),
    Column("annotator_id", pl.String, "who judged; blank text is nobody: null"),
    Column("annotator_kind", pl.String, "human or model"),
    Column("started_at", TIME, "when the annotator began, UTC"),
    Column("collected_at", TIME, "when the judgment was given, UTC"),
    Column("guideline_version", pl.String, "the guideline version that the source declares"),
    Column("origin_prompt", pl.String, "who wrote the prompt: human, model:<name>, unknown"),
    Column("origin_a", pl.String, "who wrote response a: human, model:<name>, unknown"),
    Column("origin_b", pl.String, "who wrote response b: human, model:<name>, unknown; null for a single response"),
    Column("gold", pl.String, "the label known to be right, in canonical order"),
    Column("anchor", pl.Boolean, "an item repeated on purpose, for calibration"),
    Column("split", pl.String, "train or eval where the source fixes it"),
    Column("prompt_chars", pl.UInt32, "characters of the prompt, all turns", "product"),
    Column("prompt_turns", pl.UInt32, "turns of the prompt", "product"),
    Column("response_a_chars", pl.UInt32, "characters of response a", "product"),
    Column("response_b_chars", pl.UInt32, "characters of response b, null for a single response", "product"),
    Column("content_part", pl.String, "digest of the part of `content` that holds the text", "product"),
    Column("content_row", pl.UInt32, "row in that part, from 0", "product"),
)

CONTENT: tuple[Column, ...] = (
    Column("prompt", TURNS, "the prompt: a list of turns (role, text)"),
    Column("response_a", pl.String, "first response in canonical order"),
    Column("response_b", pl.String, "second response, null for a single one"),
    Column("extra", pl.String, "whatever else the source had, as JSON"),
)

SCHEMA = pl.Schema({c.name: c.dtype for c in RECORD})
CONTENT_SCHEMA = pl.Schema({c.name: c.dtype for c in CONTENT})
FROM_SOURCE = {c.name: c for c in (*RECORD, *CONTENT) if c.filled_by == "source" and c.name != "extra"}
"""Record columns that a source's expressions may give."""
IDS = ("annotator_id", "feedback_id", "group_id")
"""Record columns that only tell things apart; blank text tells nothing apart and is null, whatever the format."""


def row_ids(sources: Iterable[str], feedback_id: str) -> set[str]:
    """The row_ids that a record called `feedback_id` has, one in each of `sources`."""
    named = pl.DataFrame({"source": list(sources)}, schema={"source": pl.String})
    return set(named.select(text_id(pl.col("source"), pl.lit(feedback_id))).to_series())
