"""converted: ratings, rankings and thumbs become pairs; each pair names the two records it was made of."""

from collections.abc import Sequence
from typing import Annotated, Any

import polars as pl
from pydantic import AfterValidator

from feedback_assets.digests import digest, fingerprint, text_id
from feedback_assets.engine.engine import ContentPart, Engine
from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section, unique_ids
from feedback_assets.record import CONTENT_SCHEMA
from feedback_assets.stages.conversions import AnyConversion, Conversion, candidates, pairs
from feedback_assets.stages.guideline_joined import STATUSES
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, fates

PLACE = ("arrival", "line", "position", "row_id")
TEXT_ROWS = 50_000
"""Pairs whose texts are read together as one part of content, at most."""
TEXTS = pl.Schema(
    {
        "content_part": pl.String,  # what the pairs name
        "content_row": pl.UInt32,
        "a_part": pl.String,  # prompt and response a are the prompt and the response of this row of `ingested`
        "a_row": pl.UInt32,
        "b_part": pl.String,  # response b is the response of this one
        "b_row": pl.UInt32,
    }
)
"""The table `texts`: where the text of each pair lies. It is not written again."""


class ConvertedSection(Section):
    """The conversions. A record may become pairs under several; one that a conversion does not keep leaves."""

    conversions: Annotated[tuple[AnyConversion, ...], AfterValidator(unique_ids)] = ()


def promises(section: ConvertedSection) -> list[Expectation]:
    """What the pairs keep."""
    if not section.conversions:
        return []
    return [
        Expectation("expect_column_values_to_be_unique", "no pair is made twice", {"column": "row_id"}),
        Expectation(
            "expect_column_distinct_values_to_contain_set",
            "each conversion made pairs",
            {"column": "conversion", "value_set": [conversion.id for conversion in section.conversions]},
            blocking=False,
        ),
        Expectation(
            "expect_column_values_to_be_between", "a margin is at least 0", {"column": "margin", "min_value": 0}
        ),
    ]


def converted(inputs: Inputs, section: ConvertedSection, engine: Engine) -> Output:
    """Make pairs of records of single responses; rows that no conversion takes stay as they are.

    A pair is a preference whose `parents` are the record of response a, then that of b. Its `row_id` is a digest of
    the conversion's id and both parents, so it is the same whatever else arrives; its `feedback_id` names them. It has
    the `group_id` of the ranking, so that the factor `ranking_share` finds it; what the two records share; the later
    record's place and whatever else they differ in; the earlier start, the later end and the lesser confidence. Nobody
    was shown the two side by side: `shown_order` is unknown, and there is neither gold nor agreement on the item.

    Added: `conversion` (String, the id of what made the pair) and `margin` (Float64, how far the two scores lie apart,
    in their unit); both null for other rows.

    A parent is "converted", or kept where all conversions that used it say so. One that could have become a pair and
    did not is kept, or dropped under the first conversion that says so. The table `texts` (TEXTS) says where the text
    of each pair lies. Facts: for each conversion the records that it took, compared, decided, the pairs, and how many
    records became none.

    Raises:
        FeedbackError: as `conversions.pairs` and `conversions.candidates`.
    """
    del engine
    none = pl.lit(None, pl.String)
    rows = inputs.rows.with_columns(conversion=none, margin=pl.lit(None, pl.Float64)).collect().with_row_index("at")
    verdict = rows.select("at", "row_id", parent=pl.lit(False), converted=none, dropped=none)
    made = [rows.clear().drop("at")]
    facts: dict[str, Any] = {}
    for conversion in section.conversions:
        taken = rows.filter(candidates(rows, conversion))
        found, counted = pairs(taken, conversion)
        made.append(_children(rows, found, conversion))
        used = pl.concat([found.get_column("at"), found.get_column("at_other").alias("at")]).unique()
        parent, could = (pl.col("at").is_in(at.implode()) for at in (used, taken.get_column("at")))
        leaves, fails = parent & (not conversion.keep_parents), could & ~parent & (conversion.unpaired == "drop")
        verdict = verdict.with_columns(
            pl.col("parent") | parent,
            pl.coalesce("converted", pl.when(leaves).then(pl.lit(conversion.id))),
            pl.coalesce("dropped", pl.when(fails).then(pl.lit(conversion.id))),
        )
        facts[conversion.id] = {
            "records": taken.height,
            **counted,
            "pairs": found.height,
            "unpaired": taken.height - used.len(),
        }
    # A record that became a pair under one conversion is not dropped for having become none under another.
    verdict = verdict.with_columns(dropped=pl.when(~pl.col("parent")).then("dropped")).with_columns(
        rule=pl.coalesce("converted", "dropped")
    )
    stays = verdict.get_column("rule").is_null()
    children, texts = _with_texts(pl.concat(made, how="diagonal"))
    versions = {conversion.id: conversion.version for conversion in section.conversions}
    return Output(
        pl.concat([rows.filter(stays).drop("at"), children]),
        fates(
            verdict,
            pl.when(pl.col("converted").is_not_null())
            .then(pl.lit("converted"))
            .when(pl.col("dropped").is_not_null())
            .then(pl.lit("dropped"))
            .otherwise(pl.lit("kept")),
            rule=pl.col("rule"),
            rule_version=pl.col("rule").replace_strict(versions, default=None, return_dtype=pl.Int32),
            copies=pl.col("rule").is_null().cast(pl.Int32),
        ).collect(),
        tables={"texts": texts},
        facts={"conversions": facts},
    )


def _children(rows: pl.DataFrame, found: pl.DataFrame, conversion: Conversion) -> pl.DataFrame:
    """The pairs as rows like `rows`; beside them `b_part` and `b_row`, where the text of response b lies."""
    both = (
        rows.select(pl.all().name.prefix("a:"))[found.get_column("at")]
        .hstack(rows.select(pl.all().name.prefix("b:"))[found.get_column("at_other")])
        .hstack(found.select("label", "margin", "group_id"))
    )

    def a(name: str) -> pl.Expr:
        return pl.col(f"a:{name}")

    def b(name: str) -> pl.Expr:
        return pl.col(f"b:{name}")

    later = pl.lit(False)
    for name in reversed(PLACE):
        later = (b(name) > a(name)) | ((b(name) == a(name)) & later)
    surety = {status: place for place, status in enumerate(STATUSES)}
    sure, other = (side("guideline_status").replace_strict(surety, return_dtype=pl.Int8) for side in (a, b))
    held = ((a("split") == "eval") | (b("split") == "eval")).fill_null(value=False)
    said: dict[str, pl.Expr] = {
        "feedback_id": pl.format("{}:{}+{}", pl.lit(conversion.id), a("feedback_id"), b("feedback_id")),
        "row_id": text_id(pl.lit("converted"), pl.lit(conversion.id), a("row_id"), b("row_id")),
        "revision": pl.max_horizontal(a("revision"), b("revision")),
        "parents": pl.concat_list(a("row_id"), b("row_id")),
        "kind": pl.lit("preference"),
        "response_b_id": b("response_a_id"),
        "item_id": text_id(a("prompt_id"), a("response_a_id"), b("response_a_id")),
        **dict.fromkeys(("supersedes", "score", "score_min", "score_max", "gold", "item_agreement"), pl.lit(None)),
        "item_agreement_n": pl.lit(0),
        "confidence": pl.min_horizontal(a("confidence"), b("confidence")),
        "shown_order": pl.lit("unknown"),
        "started_at": pl.min_horizontal(a("started_at"), b("started_at")),
        "collected_at": pl.max_horizontal(a("collected_at"), b("collected_at")),
        "guideline_status": pl.when(sure > other).then(a("guideline_status")).otherwise(b("guideline_status")),
        "origin_b": b("origin_a"),
        "anchor": a("anchor") | b("anchor"),
        "split": pl.when(held).then(pl.lit("eval")).otherwise(pl.coalesce(a("split"), b("split"))),
        "response_b_chars": b("response_a_chars"),
        **{name: a(name) for name in ("response_a_id", "origin_a", "response_a_chars", "content_part", "content_row")},
        **{name: pl.col(name) for name in ("label", "margin", "group_id")},
        "conversion": pl.lit(conversion.id),
    }
    return both.select(
        *(
            said.get(name, pl.when(later).then(b(name)).otherwise(a(name))).cast(dtype).alias(name)
            for name, dtype in rows.schema.items()
            if name != "at"
        ),
        b_part=b("content_part"),
        b_row=b("content_row"),
    )


def _with_texts(children: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give pairs a `content_part` and a `content_row` of their own, by arrival; beside them the table of texts."""
    done, texts = [children.clear().drop("b_part", "b_row", strict=False)], [TEXTS.to_frame()]
    piece = pl.int_range(pl.len()).over("arrival") // TEXT_ROWS
    numbered = children.sort(PLACE).with_columns(piece=piece)
    for part in numbered.partition_by("arrival", "piece", maintain_order=True):
        where = part.select(a_part="content_part", a_row="content_row", b_part="b_part", b_row="b_row")
        here = {
            "content_part": pl.lit(digest(["texts of pairs", fingerprint(where)])),
            "content_row": pl.int_range(pl.len(), dtype=pl.UInt32),
        }
        done.append(part.with_columns(**here).drop("b_part", "b_row", "piece"))
        texts.append(where.with_columns(**here).select(TEXTS.names()))
    return pl.concat(done), pl.concat(texts)


def with_texts_of_pairs(content: Sequence[ContentPart], texts: pl.DataFrame) -> list[ContentPart]:
    """`content`, the parts of `ingested`, and those that the table of texts (TEXTS) makes of it, read when needed.

    The text of pairs stands behind the last part that it needs, so that a new batch changes no earlier place.

    Raises:
        FeedbackError: a part is gone.
    """
    place = {part.digest: at for at, part in enumerate(content)}
    behind: dict[int, list[ContentPart]] = {}
    for (name,), pairs_of in texts.partition_by("content_part", as_dict=True, maintain_order=True).items():
        needed = pl.concat(
            [
                pairs_of.select(part="a_part", row="a_row"),
                pairs_of.select(part="b_part", row="b_row"),
            ]
        ).unique()
        rows = dict(needed.group_by("part").agg("row").iter_rows())
        gone = sorted(rows.keys() - place.keys())
        if gone:
            raise FeedbackError(
                f"the text of {needed.filter(pl.col('part').is_in(gone)).height} records that became pairs is in no "
                "part of `ingested`; materialize it and `converted` again"
            )
        ordered = sorted(rows, key=place.__getitem__)
        read = pl.concat(
            [
                content[place[part]].at(rows[part], "prompt", "response_a").with_columns(part=pl.lit(part))
                for part in ordered
            ]
        )
        frame = (
            pairs_of.lazy()
            .join(read, left_on=["a_part", "a_row"], right_on=["part", "row"], how="left", maintain_order="left")
            .join(
                read.select("part", "row", response_b="response_a"),
                left_on=["b_part", "b_row"],
                right_on=["part", "row"],
                how="left",
                maintain_order="left",
            )
            .select("prompt", "response_a", "response_b", extra=pl.lit(None, pl.String))
        )
        made = ContentPart(name, pairs_of.height, frame.select(CONTENT_SCHEMA.names()).lazy)
        behind.setdefault(place[ordered[-1]], []).append(made)
    return [entry for at, part in enumerate(content) for entry in (part, *behind.get(at, ()))]


STAGE = Stage(
    name="converted",
    description=(
        "Ratings, rankings and thumbs of one annotator become pairs, under one guideline and as the policy says. Each "
        "pair names the two records it was made of, and each record what became of it. Text is not written again."
    ),
    inputs=("guideline_joined",),
    section=ConvertedSection,
    function=converted,
    promises=promises,
    idle=lambda section: not section.conversions,
)
