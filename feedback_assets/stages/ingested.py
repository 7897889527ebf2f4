"""ingested: batches become records. Every line that arrived is a record, or is in quarantine with its reason."""

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from pydantic import Field, field_validator

from feedback_assets.digests import text_id
from feedback_assets.policy import Section
from feedback_assets.record import (
    ANNOTATOR_KINDS,
    CONTENT_SCHEMA,
    KINDS,
    LABELS,
    RECORD,
    SCHEMA,
    SHOWN_ORDERS,
)
from feedback_assets.sources.quarantine import QUARANTINE
from feedback_assets.sources.source import Source
from feedback_assets.stages.stage import FATE_SCHEMA, Expectation, Stage

SWAPPED = {"label": {"a": "b", "b": "a"}, "gold": {"a": "b", "b": "a"}, "shown_order": {"ab": "ba", "ba": "ab"}}
UNTRACED = (
    "batch",
    "arrival",
    "line",
    "position",
    "row_id",
    "feedback_id",
    "content_part",
    "content_row",
    "revision",
    "supersedes",
)


PLACE = ["arrival", "line", "position"]
"""Columns that name one delivery of one record."""


class IngestedSection(Section):
    """Where feedback comes from."""

    as_of: datetime | None = Field(default=None, description="no record can be later; default: when its batch arrived")
    sources: tuple[Source, ...] = Field(min_length=1, description="the sources, each with its mapping")
    max_quarantined_share: float = Field(
        default=0.2, ge=0, le=1, description="more than this in quarantine fails the check"
    )

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value

    @field_validator("sources")
    @classmethod
    def _one_name_each(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}; a row's identity starts with its source's name")
        return sources


def promises(section: IngestedSection) -> list[Expectation]:
    """What every ingested row keeps."""
    del section
    return [
        Expectation(
            "expect_column_values_to_be_in_set",
            "every record is a preference, a rating or a thumb",
            {"column": "kind", "value_set": list(KINDS)},
        ),
        Expectation(
            "expect_column_values_to_be_in_set",
            "labels are of the canonical vocabulary",
            {"column": "label", "value_set": sorted({x for labels in LABELS.values() for x in labels})},
        ),
        Expectation("expect_column_values_to_not_be_null", "every record names its item", {"column": "item_id"}),
        Expectation(
            "expect_column_values_to_be_between",
            "confidence lies in 0..1",
            {"column": "confidence", "min_value": 0, "max_value": 1},
        ),
    ]


@dataclass(frozen=True)
class Intake:
    """One batch file, read: `rows` (record.SCHEMA and `record_digest`), `content` aligned with them, `quarantined`."""

    rows: pl.DataFrame
    content: pl.DataFrame
    quarantined: pl.DataFrame


def to_records(mapped: pl.DataFrame, source: str) -> Intake:
    """Turn one file's mapped columns into records.

    `mapped` has the columns of record.FROM_SOURCE, `line`, `position` and `extra`. Invalid rows go to `quarantined`;
    the two responses of the others are put in canonical order (by digest), and label, gold, shown order and origins
    with them.
    """
    frame = mapped.lazy().with_columns(
        pl.lit(source).alias("source"),
        pl.col("shown_order").fill_null("unknown"),
        pl.col("anchor").fill_null(value=False),
        pl.col("origin_prompt").fill_null("unknown"),
        pl.col("origin_a").fill_null("unknown"),
        pl.when(pl.col("response_b").is_not_null()).then(pl.col("origin_b").fill_null("unknown")).alias("origin_b"),
    )
    checked = frame.with_columns(_problem()).collect()
    bad = checked.filter(pl.col("problem").is_not_null())
    good = checked.filter(pl.col("problem").is_null()) if bad.height else checked
    quarantined = bad.select(
        pl.col("source"), pl.col("batch"), pl.col("line"), pl.col("position"), pl.col("problem").struct.unnest()
    ).select(QUARANTINE.names())
    records = _canonical(good.drop("problem"))
    content = records.select(CONTENT_SCHEMA.names())
    rows = _identified(records).select(*SCHEMA.names(), "record_digest")
    return Intake(rows, content, quarantined.cast(dict(QUARANTINE)))  # type: ignore[arg-type]


def _problem() -> pl.Expr:
    """The first thing wrong with a row, as a struct of reason, column and value, or null."""
    kind, label = pl.col("kind"), pl.col("label")
    preference, rating, thumbs = kind == "preference", kind == "rating", kind == "thumbs"

    def missing(column: str) -> pl.Expr:
        return pl.col(column).is_null()

    def outside(column: str, values: tuple[str, ...]) -> pl.Expr:
        return pl.col(column).is_not_null() & ~pl.col(column).is_in(values)

    problems: list[tuple[str, str, pl.Expr, bool]] = [
        ("missing-value", "kind", missing("kind"), False),
        ("outside-vocabulary", "kind", outside("kind", KINDS), True),
        ("missing-value", "prompt", missing("prompt") | (pl.col("prompt").list.len() == 0), False),
        ("missing-value", "response_a", missing("response_a"), False),
        ("missing-value", "response_b", preference & missing("response_b"), False),
        ("missing-value", "label", (preference | thumbs) & label.is_null(), False),
        ("outside-vocabulary", "label", preference & outside("label", LABELS["preference"]), True),
        ("outside-vocabulary", "label", thumbs & outside("label", LABELS["thumbs"]), True),
        ("outside-vocabulary", "label", rating & label.is_not_null(), True),
        ("outside-vocabulary", "gold", preference & outside("gold", LABELS["preference"]), True),
        ("outside-vocabulary", "gold", thumbs & outside("gold", LABELS["thumbs"]), True),
        ("missing-value", "score", rating & missing("score"), False),
        (
            "outside-scale",
            "score",
            (pl.col("score") < pl.col("score_min")) | (pl.col("score") > pl.col("score_max")),
            True,
        ),
        ("outside-scale", "confidence", ~pl.col("confidence").is_between(0, 1), True),
        ("outside-vocabulary", "shown_order", outside("shown_order", SHOWN_ORDERS), True),
        ("outside-vocabulary", "annotator_kind", outside("annotator_kind", ANNOTATOR_KINDS), True),
        ("outside-vocabulary", "split", outside("split", ("train", "eval")), True),
        ("ends-before-it-starts", "collected_at", pl.col("collected_at") < pl.col("started_at"), True),
    ]
    return pl.coalesce(
        pl.when(condition.fill_null(value=False)).then(
            pl.struct(
                pl.lit(reason).alias("reason"),
                pl.lit(column).alias("column"),
                (pl.col(column).cast(pl.String).str.slice(0, 80) if shown else pl.lit(None, pl.String)).alias("value"),
            )
        )
        for reason, column, condition, shown in problems
    ).alias("problem")


def _canonical(records: pl.DataFrame) -> pl.DataFrame:
    turns = pl.element().struct.field("role").fill_null(""), pl.element().struct.field("text").fill_null("")
    framed = pl.format("{}:{}:{};", turns[0], turns[1].str.len_bytes(), turns[1])
    with_ids = records.lazy().with_columns(
        text_id(pl.col("prompt").list.eval(framed).list.join("")).alias("prompt_id"),
        text_id(pl.col("response_a")).alias("response_a_id"),
        pl.when(pl.col("response_b").is_not_null()).then(text_id(pl.col("response_b"))).alias("response_b_id"),
        pl.col("prompt").list.eval(turns[1].str.len_chars()).list.sum().cast(pl.UInt32).alias("prompt_chars"),
        pl.col("prompt").list.len().cast(pl.UInt32).alias("prompt_turns"),
        pl.col("response_a").str.len_chars().cast(pl.UInt32).alias("response_a_chars"),
        pl.col("response_b").str.len_chars().cast(pl.UInt32).alias("response_b_chars"),
    )
    swap = pl.col("response_b_id") < pl.col("response_a_id")
    pairs = [(f"{stem}a{tail}", f"{stem}b{tail}") for stem, tail in (("response_", ""), ("response_", "_id"))]
    pairs += [("response_a_chars", "response_b_chars"), ("origin_a", "origin_b")]
    exchanged = [
        pl.when(swap.fill_null(value=False)).then(pl.col(there)).otherwise(pl.col(here)).alias(here)
        for a, b in pairs
        for here, there in ((a, b), (b, a))
    ]
    expressed = [
        pl.when(swap.fill_null(value=False)).then(pl.col(name).replace(mapping)).otherwise(pl.col(name)).alias(name)
        for name, mapping in SWAPPED.items()
    ]
    return (
        with_ids.with_columns(*exchanged, *expressed)
        .with_columns(text_id(pl.col("prompt_id"), pl.col("response_a_id"), pl.col("response_b_id")).alias("item_id"))
        .collect()
    )


def _identified(records: pl.DataFrame) -> pl.DataFrame:
    traced = [
        pl.col(c.name).cast(pl.String) for c in RECORD if c.name not in (*UNTRACED, "source", "parents", "prompt_turns")
    ]
    narrow = records.lazy().drop("prompt", "response_a", "response_b")
    return (
        narrow.with_columns(text_id(*traced, pl.col("extra")).alias("record_digest"))
        .drop("extra")
        .with_columns(
            pl.col("feedback_id").fill_null(
                pl.format("content:{}#{}", pl.col("record_digest"), pl.int_range(pl.len()).over("record_digest"))
            ),
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("content_row"),
        )
        .with_columns(
            text_id(pl.col("source"), pl.col("feedback_id")).alias("row_id"),
            pl.lit(0, pl.Int32).alias("revision"),
            pl.lit(None, pl.Int64).alias("supersedes"),
            pl.lit([], pl.List(pl.String)).alias("parents"),
            pl.lit(None, pl.Int64).alias("arrival"),
            pl.lit(None, pl.String).alias("content_part"),
        )
        .collect()
    )


@dataclass(frozen=True)
class Resolved:
    """All batches together: current `rows`, what is `quarantined` across batches, and the `fates` of all deliveries.

    `fates` has FATE_SCHEMA and PLACE of the delivery: the same row_id may have been delivered often. `position` is null
    where a line as a whole is in quarantine.
    """

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    fates: pl.DataFrame
    facts: dict[str, dict[str, int]]


def resolve(rows: pl.DataFrame, quarantined: pl.DataFrame, limits: pl.DataFrame) -> Resolved:
    """Decide which delivery of each row_id counts.

    `rows`: those of all batches with `arrival`; `quarantined`: their quarantines with `arrival`;
    `limits`: `arrival` and `not_after` (UTC), the latest time that a record of it can have.
    An identical redelivery counts once; a changed one is a new revision that supersedes the old; within one batch,
    different records under one id are all quarantined: "conflicting-duplicate", or "entries-share-an-id" where they
    are of one line, whose source then needs `__position` or an id of the entry in its feedback_id.
    """
    late = (
        rows.lazy()
        .join(limits.lazy(), on="arrival", how="left")
        .select(*PLACE, late=(pl.col("collected_at") > pl.col("not_after")).fill_null(value=False))
    )
    repeated = rows.lazy().group_by("row_id").len().filter(pl.col("len") > 1).select("row_id")
    deliveries = (
        rows.lazy()
        .select("row_id", *PLACE, "record_digest")
        .join(repeated, on="row_id", how="semi")
        .sort("row_id", *PLACE)
        .with_columns(
            conflict=pl.col("record_digest").n_unique().over("row_id", "arrival") > 1,
            in_line=pl.col("record_digest").n_unique().over("row_id", "arrival", "line") > 1,
            again=pl.int_range(pl.len()).over("row_id", "arrival") > 0,
        )
    )
    # What is quarantined is no delivery: it neither supersedes another nor makes one a redelivery.
    sound = deliveries.join(late.filter("late"), on=PLACE, how="anti", maintain_order="left")
    heard = sound.filter(~pl.col("conflict") & ~pl.col("again")).with_columns(
        changed=(pl.col("record_digest") != pl.col("record_digest").shift().over("row_id")).fill_null(value=True)
    )
    revisions = (
        heard.filter("changed")
        .with_columns(
            revision=(pl.int_range(pl.len(), dtype=pl.Int32)).over("row_id"),
            before=pl.col("arrival").shift().over("row_id"),
            current=pl.int_range(pl.len()).over("row_id") == pl.len().over("row_id") - 1,
        )
        .select(*PLACE, "revision", "before", "current")
    )
    judged = (
        rows.lazy()
        .select("row_id", *PLACE)
        .join(late, on=PLACE, how="left")
        .join(repeated.with_columns(repeated=pl.lit(value=True)), on="row_id", how="left")
        .join(deliveries.select(*PLACE, "conflict", "in_line"), on=PLACE, how="left")
        .join(revisions, on=PLACE, how="left")
        .with_columns(
            fate=pl.when(pl.col("late") | pl.col("conflict").fill_null(value=False))
            .then(pl.lit("quarantined"))
            .when(pl.col("repeated").is_null() | pl.col("current"))
            .then(pl.lit("kept"))
            .when(pl.col("revision").is_not_null())
            .then(pl.lit("superseded"))
            .otherwise(pl.lit("redelivered")),
            rule=pl.when("late")
            .then(pl.lit("in-the-future"))
            .when(pl.col("in_line").fill_null(value=False))
            .then(pl.lit("entries-share-an-id"))
            .when(pl.col("conflict").fill_null(value=False))
            .then(pl.lit("conflicting-duplicate")),
        )
        .collect()
    )
    decided = judged.select("row_id", *PLACE, "fate", "rule", "revision", "before")
    everything = rows.join(decided.drop("row_id"), on=PLACE, how="left", suffix="_now", maintain_order="left")
    current = everything.filter(pl.col("fate") == "kept").with_columns(
        pl.col("revision_now").fill_null(0).cast(pl.Int32).alias("revision"), pl.col("before").alias("supersedes")
    )
    newly = everything.filter(pl.col("fate") == "quarantined").select(
        "source",
        "batch",
        "line",
        "position",
        pl.col("rule").alias("reason"),
        pl.when(pl.col("rule") == "in-the-future")
        .then(pl.lit("collected_at"))
        .otherwise(pl.lit("feedback_id"))
        .alias("column"),
        pl.when(pl.col("rule") == "in-the-future")
        .then(pl.col("collected_at").cast(pl.String))
        .otherwise(pl.col("feedback_id").str.slice(0, 80))
        .alias("value"),
        "arrival",
    )
    all_quarantined = pl.concat([quarantined, newly]).sort(*PLACE, "reason", nulls_last=True)
    line = text_id(pl.col("source"), pl.col("batch"), pl.col("line").cast(pl.String))
    entry = text_id(
        pl.col("source"), pl.col("batch"), pl.col("line").cast(pl.String), pl.col("position").cast(pl.String)
    )
    unread = quarantined.select(
        pl.when(pl.col("position").fill_null(1) == 1).then(line).otherwise(entry).alias("row_id"),
        pl.lit("quarantined").alias("fate"),
        pl.col("reason").alias("rule"),
        *PLACE,
    )
    gone = pl.col("fate").is_in(["redelivered", "superseded"])
    all_fates = (
        pl.concat([decided.select("row_id", "fate", "rule", *PLACE), unread])
        .with_columns(
            pl.lit(None, pl.Int32).alias("rule_version"),
            pl.when(gone).then("row_id").alias("into"),
            (pl.col("fate") == "kept").cast(pl.Int32).alias("copies"),
        )
        .select(*FATE_SCHEMA.names(), *PLACE)
        .sort(*PLACE, "row_id")
    )
    reasons = all_quarantined.group_by("reason").len().sort("reason")
    return Resolved(
        current.select(SCHEMA.names()).sort(*PLACE),
        all_quarantined,
        all_fates,
        {"quarantined": dict(reasons.iter_rows())},
    )


STAGE = Stage(
    name="ingested",
    description=(
        "Every batch of feedback, mapped to the canonical record. A line is a record or in quarantine with its reason; "
        "redeliveries count once, edits are revisions. The text is written here, and only the stages that "
        "need it read it."
    ),
    inputs=(),
    section=IngestedSection,
    function=None,
    promises=promises,
)
