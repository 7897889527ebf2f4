"""guideline_joined: each record gets the guideline it was made under, and the agreement that was known then."""

import polars as pl
from pydantic import Field

from feedback_assets.digests import repeated
from feedback_assets.engine.engine import Engine
from feedback_assets.policy import Section
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, kept

NEW = 2**31  # rows of this part are numbered from here, those that arrived before from 0
STATUSES = ("declared", "inferred", "conflict", "ambiguous", "unknown-version", "unmatched")


class GuidelineJoinedSection(Section):
    """How records meet the guidelines."""

    agreement: bool = Field(
        default=True, description="compute the agreement of annotator and item as known at the time"
    )


def promises(section: GuidelineJoinedSection) -> list[Expectation]:
    """What the join keeps."""
    del section
    return [
        Expectation(
            "expect_column_values_to_be_in_set",
            "it is said of every record how its guideline was found",
            {"column": "guideline_status", "value_set": list(STATUSES)},
        ),
        Expectation(
            "expect_column_values_to_be_between",
            "agreement is a share",
            {"column": "annotator_agreement", "min_value": 0, "max_value": 1},
        ),
    ]


def guideline_joined(inputs: Inputs, section: GuidelineJoinedSection, engine: Engine) -> Output:
    """Add guideline and agreement columns to every row; none is dropped.

    Added: `guideline` (version applied, String), `guideline_digest` (SHA-256 of its text), `guideline_status`
    (see STATUSES), `guideline_in_force` (version in force by date, where exactly one is), `guideline_behind` (String:
    "none", "clarifying", "breaking": what has changed between it and the newest version of its task),
    `annotator_agreement` and `item_agreement` (Float64, null when the count behind them is 0) with
    `annotator_agreement_n` and `item_agreement_n` (Int64, judgments compared).
    """
    del engine
    rows = _with_guideline(inputs.rows, inputs.others["guidelines"])
    if section.agreement:
        rows = _with_agreement(rows, inputs.earlier)
    else:
        rows = rows.with_columns(
            *(pl.lit(None, pl.Float64).alias(f"{who}_agreement") for who in ("annotator", "item")),
            *(pl.lit(0, pl.Int64).alias(f"{who}_agreement_n") for who in ("annotator", "item")),
        )
    return Output(rows, kept(rows).collect())


def _with_guideline(rows: pl.LazyFrame, guidelines: pl.LazyFrame) -> pl.DataFrame:
    registry = guidelines.select(
        "task", "aspect", "version", "effective_from", "effective_to", "digest", "major", "minor", "patch"
    ).collect()
    frame = rows.collect()
    asked = (
        frame.lazy()
        .with_row_index("place")
        .select("place", "task", "aspect", "guideline_version", at=pl.coalesce("started_at", "collected_at"))
    )
    specific = pl.col("aspect_g").is_not_null()
    candidates = (
        asked.join(registry.lazy(), on="task", how="inner", suffix="_g")
        .filter(~specific | (pl.col("aspect_g") == pl.col("aspect")))
        .with_columns(
            dated=(pl.col("at") >= pl.col("effective_from"))
            & (pl.col("effective_to").is_null() | (pl.col("at") < pl.col("effective_to")))
        )
    )
    # Where both are in force, a guideline for one aspect goes before the one for the whole task.
    in_force = (
        candidates.filter("dated")
        .filter(specific == specific.any().over("place"))
        .sort("place", "major", "minor", "patch")
        .group_by("place", maintain_order=True)
        .agg(pl.len().alias("in_force"), pl.col("version", "digest").last(), digests="digest")
    )
    declared = (
        candidates.filter(pl.col("version") == pl.col("guideline_version"))
        .join(in_force.select("place", ruling="digests"), on="place", how="left")
        .with_columns(ruling=pl.col("digest").is_in(pl.col("ruling")).fill_null(value=False), specific=specific)
        .sort("place", "ruling", "specific", descending=[False, True, True])
        .unique("place", keep="first", maintain_order=True)
        .select("place", "ruling", "at", declared_digest="digest")
    )
    one = pl.col("in_force") == 1
    said = pl.col("guideline_version")
    joined = (
        asked.select("place", "guideline_version")
        .join(in_force, on="place", how="left", maintain_order="left")
        .join(declared, on="place", how="left", maintain_order="left")
        .with_columns(pl.when(one).then("version").alias("guideline_in_force"))
        .with_columns(
            pl.when(said.is_not_null() & pl.col("declared_digest").is_null())
            .then(pl.lit("unknown-version"))
            .when(said.is_not_null() & pl.col("at").is_not_null() & ~pl.col("ruling"))
            .then(pl.lit("conflict"))
            .when(said.is_not_null())
            .then(pl.lit("declared"))
            .when(one.fill_null(value=False))
            .then(pl.lit("inferred"))
            .when((pl.col("in_force") > 1).fill_null(value=False))
            .then(pl.lit("ambiguous"))
            .otherwise(pl.lit("unmatched"))
            .alias("guideline_status")
        )
        .with_columns(
            pl.coalesce(said, "guideline_in_force").alias("guideline"),
            pl.when(said.is_not_null())
            .then("declared_digest")
            .otherwise(pl.when(one).then("digest"))
            .alias("guideline_digest"),
        )
        .select("guideline_in_force", "guideline_status", "guideline", "guideline_digest")
    )
    newest = registry.sort("major", "minor", "patch").group_by("task", "aspect", maintain_order=True).last()
    numbered = registry.lazy().join(newest.lazy(), on=["task", "aspect"], nulls_equal=True, suffix="_new")
    behind = numbered.select(
        pl.col("digest").alias("guideline_digest"),
        pl.when(pl.col("major") != pl.col("major_new"))
        .then(pl.lit("breaking"))
        .when(pl.col("version") != pl.col("version_new"))
        .then(pl.lit("clarifying"))
        .otherwise(pl.lit("none"))
        .alias("guideline_behind"),
    ).unique("guideline_digest", keep="first", maintain_order=True)
    return frame.hstack(joined.join(behind, on="guideline_digest", how="left", maintain_order="left").collect())


def _with_agreement(rows: pl.DataFrame, earlier: pl.LazyFrame | None) -> pl.DataFrame:
    """Agreement with others, counting records that were collected earlier and arrived no later."""
    key = ["item_id", "kind", "task", "aspect"]
    numbered = rows.lazy().with_row_index("place", offset=NEW)
    everything = [] if earlier is None else [earlier.with_row_index("place")]
    judged = (
        pl.concat([*everything, numbered], how="diagonal")
        .select(
            "place",
            *key,
            "annotator_id",
            "collected_at",
            "arrival",
            answer=pl.coalesce("label", pl.col("score").cast(pl.String)),
        )
        .filter(pl.col("annotator_id").is_not_null() & pl.col("collected_at").is_not_null())
        .collect()
    )
    several = judged.lazy().filter(repeated(judged.get_column("item_id").hash()))
    pairs = (
        several.join(several, on=key, nulls_equal=True, suffix="_other")
        .filter(pl.col("annotator_id") != pl.col("annotator_id_other"))
        .select(
            "place",
            "annotator_id",
            agrees=(pl.col("answer") == pl.col("answer_other")).cast(pl.Int64),
            earlier=(pl.col("collected_at_other") < pl.col("collected_at"))
            & (pl.col("arrival_other") <= pl.col("arrival")),
            known_at=pl.max_horizontal("collected_at", "collected_at_other"),
            known_arrival=pl.max_horizontal("arrival", "arrival_other"),
        )
        .collect()
    )
    new = pl.col("place") >= NEW
    item = (
        pairs.lazy()
        .filter(pl.col("earlier") & new)
        .group_by("place")
        .agg(same=pl.col("agrees").sum(), item_agreement_n=pl.len().cast(pl.Int64))
        .select("place", "item_agreement_n", item_agreement=pl.col("same") / pl.col("item_agreement_n"))
    )
    seen = [
        _annotator_agreement(pairs, part, arrival)
        for (arrival,), part in sorted(judged.filter(new).partition_by("arrival", as_dict=True).items())
    ]
    empty = pl.LazyFrame(
        schema={"place": pl.UInt32, "annotator_agreement_n": pl.Int64, "annotator_agreement": pl.Float64}
    )
    known = (
        numbered.select("place")
        .join(pl.concat([empty, *seen]), on="place", how="left", maintain_order="left")
        .join(item, on="place", how="left", maintain_order="left")
        .with_columns(pl.col("annotator_agreement_n", "item_agreement_n").fill_null(0))
    )
    return rows.hstack(known.drop("place").collect())


def _annotator_agreement(pairs: pl.DataFrame, judged: pl.DataFrame, arrival: int) -> pl.LazyFrame:
    """For the records of one arrival: how often their annotators had agreed with others, as known at each moment."""
    history = (
        pairs.lazy()
        .filter(pl.col("known_arrival") <= arrival)
        .join(judged.lazy().select("annotator_id").unique(), on="annotator_id", how="semi")
        .group_by("annotator_id", "known_at")
        .agg(pl.col("agrees").sum(), pl.len().cast(pl.Int64).alias("compared"))
        .sort("known_at", "annotator_id")
        .with_columns(pl.col("agrees", "compared").cum_sum().over("annotator_id"))
    )
    return (
        judged.lazy()
        .select("place", "annotator_id", "collected_at")
        .sort("collected_at", "place")
        .join_asof(
            history,
            left_on="collected_at",
            right_on="known_at",
            by="annotator_id",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .select(
            "place",
            pl.col("compared").fill_null(0).alias("annotator_agreement_n"),
            (pl.col("agrees") / pl.col("compared")).alias("annotator_agreement"),
        )
    )


STAGE = Stage(
    name="guideline_joined",
    description=(
        "Each record gets the guideline version under which it was made, with the digest of that text, and the "
        "agreement of its annotator and its item with others as known at that moment. A declared version that "
        "contradicts the date is recorded as a conflict, never resolved in silence."
    ),
    inputs=("ingested", "guidelines"),
    section=GuidelineJoinedSection,
    function=guideline_joined,
    promises=promises,
    scope="prefix",
)
