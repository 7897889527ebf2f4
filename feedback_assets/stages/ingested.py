"""ingested: batches become records. Every line that arrived is a record, or is in quarantine with its reason."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import polars as pl
from pydantic import AfterValidator, Field, field_validator, model_validator

from feedback_assets.digests import repeated, text_digest, text_id
from feedback_assets.policy import Pinned, Section, unique_ids
from feedback_assets.record import (
    ANNOTATOR_KINDS,
    CONTENT_SCHEMA,
    KINDS,
    LABELS,
    RECORD,
    SCHEMA,
    SHOWN_ORDERS,
)
from feedback_assets.sources.quarantine import QUARANTINE, excerpt
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


ERASED = "erased"
"""`record_digest` of a record that was erased by request: of it only its place and its row_id are left."""
BY_REQUEST = "by-request"
IN_THE_FUTURE, CONFLICTING, IN_LINE = "in-the-future", "conflicting-duplicate", "entries-share-an-id"
PLACE = ["arrival", "line", "position"]
"""Columns that name one delivery of one record."""


class LostBatch(Section):
    """A batch of which nothing could be used, and that the team goes on without."""

    source: str = Field(min_length=1)
    batch: str = Field(min_length=1, description="its name, as the quarantine shows it")
    reason: str = Field(min_length=1, description="why the release may do without it")


class Retraction(Pinned):
    """A batch whose records leave: those of no other delivery count in their place, if there is one."""

    source: str = Field(description="name of the source")
    batch: str = Field(min_length=1, description="name of the batch, as in the table of batches")
    digest: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{12,64}$", description="how its digest begins; None: each batch of that name"
    )
    who: str = Field(min_length=1, description="who decided it")


class IngestedSection(Section):
    """Where feedback comes from."""

    as_of: datetime | None = Field(default=None, description="no record can be later; default: when its batch arrived")
    excerpts: bool = Field(default=True, description="what holds for a source that does not say `excerpts` itself")
    sources: tuple[Source, ...] = Field(min_length=1, description="the sources, each with its mapping")
    retracted: Annotated[tuple[Retraction, ...], AfterValidator(unique_ids)] = Field(
        default=(), description="batches whose records leave"
    )
    max_quarantined_share: float = Field(
        default=0.2, ge=0, le=1, description="more than this in quarantine fails the check"
    )
    lost_batches: tuple[LostBatch, ...] = Field(
        default=(), description="batches that may be in quarantine as a whole; any other fails the check"
    )

    @model_validator(mode="before")
    @classmethod
    def _excerpts_of_all(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("excerpts", True) is not False:
            return value
        sources = value.get("sources")
        told = [{"excerpts": False, **one} if isinstance(one, dict) else one for one in sources or ()]
        return {**value, "sources": told} if isinstance(sources, list | tuple) else value

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


def to_records(mapped: pl.DataFrame, source: str, hidden: Collection[str] = ()) -> Intake:
    """Turn one file's mapped columns into records.

    `mapped` has the columns of record.FROM_SOURCE, `line`, `position` and `extra`. Invalid rows go to `quarantined`,
    with the value at fault unless its column is `hidden`;
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
    checked = frame.with_columns(_problem(hidden)).collect()
    bad = checked.filter(pl.col("problem").is_not_null())
    good = checked.filter(pl.col("problem").is_null()) if bad.height else checked
    quarantined = (
        bad.select("source", "batch", "line", "position", pl.col("problem").struct.unnest())
        .with_columns(excerpt(pl.col("value")))
        .select(QUARANTINE.names())
    )
    # Polars 2.1 panics in list.eval where a column of lists has several chunks.
    records = _canonical(good.drop("problem").rechunk())
    content = records.select(CONTENT_SCHEMA.names())
    rows = _identified(records).select(*SCHEMA.names(), "record_digest")
    return Intake(rows, content, quarantined.cast(dict(QUARANTINE)))  # type: ignore[arg-type]


def _problem(hidden: Collection[str]) -> pl.Expr:
    """The first thing wrong with a row, as a struct of reason, column and value, or null."""
    kind, label, null = pl.col("kind"), pl.col("label"), pl.lit(None, pl.String)
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
                (pl.col(column).cast(pl.String).str.slice(0, 80) if shown and column not in hidden else null).alias(
                    "value"
                ),
            )
        )
        for reason, column, condition, shown in problems
    ).alias("problem")


def _canonical(records: pl.DataFrame) -> pl.DataFrame:
    turns = pl.element().struct.field("role").fill_null(""), pl.element().struct.field("text").fill_null("")
    framed = pl.format("{}:{}:{};", turns[0], turns[1].str.len_bytes(), turns[1])
    with_ids = records.lazy().with_columns(
        text_digest(pl.col("prompt").list.eval(framed).list.join("")).alias("prompt_id"),
        text_digest(pl.col("response_a")).alias("response_a_id"),
        text_digest(pl.col("response_b")).alias("response_b_id"),
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
    digested = narrow.with_columns(text_id(*traced, pl.col("extra")).alias("record_digest")).drop("extra")
    if records.get_column("feedback_id").null_count():
        occurrence = pl.int_range(pl.len()).over("record_digest")
        made = pl.format("content:{}#{}", pl.col("record_digest"), occurrence)
        digested = digested.with_columns(pl.col("feedback_id").fill_null(made))
    return (
        digested.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("content_row"))
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
    """Batches together: current `rows`, what is `quarantined` across batches, and the `fates` of all deliveries.

    `fates` has FATE_SCHEMA and PLACE of the delivery: the same row_id may have been delivered often. `position` is null
    where a line as a whole is in quarantine.
    """

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    fates: pl.DataFrame
    facts: dict[str, dict[str, int]]


UNUSUAL = pl.Schema(
    {
        "row_id": pl.String,
        "arrival": pl.Int64,
        "line": pl.Int64,
        "position": pl.Int64,
        "fate": pl.String,
        "rule": pl.String,  # the reason, if it is quarantined
        "revision": pl.Int32,
        "supersedes": pl.Int64,  # arrival of the delivery that it replaces
    }
)
"""Columns of what `decide` says of a delivery."""
DELIVERY = ("row_id", *PLACE, "record_digest", "collected_at")
"""Columns of a delivery that `decide` reads."""


def resolve(rows: pl.DataFrame, quarantined: pl.DataFrame, limits: pl.DataFrame) -> Resolved:
    """Decide which delivery of each row_id counts; see `decide` and `settle`."""
    return settle(rows, quarantined, decide(rows, limits))


def decide(deliveries: pl.DataFrame, limits: pl.DataFrame) -> pl.DataFrame:
    """The deliveries that are not simply kept as the first of their row_id, which most are (UNUSUAL).

    `deliveries`: DELIVERY columns of all batches; `limits`: `arrival`, `not_after` (UTC), the latest time that a
    record of it can have, and `first`, the first arrival of its source and name. An identical redelivery counts once; a
    changed one is a new revision that supersedes the old, unless it is what the batch of that name said before: a file
    that grows takes back no correction that came in another. Within one batch, different records under one id are all
    quarantined ("conflicting-duplicate", or "entries-share-an-id" where they are of one line, whose source then needs
    `__position` or an id of the entry in its feedback_id), and so is a record from the future. One that was erased by
    request is no delivery.
    """
    place = ["row_id", *PLACE]
    gone = pl.col("record_digest") == ERASED
    erased = (
        deliveries.lazy()
        .filter(gone)
        .select(
            *place,
            pl.lit("erased").alias("fate"),
            pl.lit(BY_REQUEST).alias("rule"),
            pl.lit(None, pl.Int32).alias("revision"),
            pl.lit(None, pl.Int64).alias("supersedes"),
        )
    )
    late = (pl.col("collected_at") > pl.col("not_after")).fill_null(value=False)
    again = repeated(deliveries.select(pl.col("row_id").hash()).to_series())
    sorted_ = (
        deliveries.lazy()
        .with_columns(again.alias("again"))
        .filter(~gone)
        .select(*DELIVERY, "again")
        .join(limits.lazy(), on="arrival", how="left")
        .with_columns(late=late)
        .filter(pl.col("late") | pl.col("again"))
        .drop("again")
        .sort(place)
        .with_columns(
            conflict=pl.col("record_digest").n_unique().over("row_id", "arrival") > 1,
            in_line=pl.col("record_digest").n_unique().over("row_id", "arrival", "line") > 1,
            again=pl.int_range(pl.len()).over("row_id", "arrival") > 0,
        )
    )
    # What is quarantined is no delivery: it neither supersedes another nor makes one a redelivery.
    heard = sorted_.filter(~pl.col("late") & ~pl.col("conflict") & ~pl.col("again"))
    for told_by in (["row_id", "first"], ["row_id"]):
        before = pl.col("record_digest").shift().over(told_by)
        heard = heard.filter((pl.col("record_digest") != before).fill_null(value=True))
    revisions = heard.with_columns(
        revision=(pl.int_range(pl.len(), dtype=pl.Int32)).over("row_id"),
        supersedes=pl.col("arrival").shift().over("row_id"),
        current=pl.int_range(pl.len()).over("row_id") == pl.len().over("row_id") - 1,
    ).select(*place, "revision", "supersedes", "current")
    others = (
        sorted_.join(revisions, on=place, how="left", maintain_order="left")
        .with_columns(
            fate=pl.when(pl.col("late") | pl.col("conflict"))
            .then(pl.lit("quarantined"))
            .when("current")
            .then(pl.lit("kept"))
            .when(pl.col("revision").is_not_null())
            .then(pl.lit("superseded"))
            .otherwise(pl.lit("redelivered")),
            rule=pl.when("late")
            .then(pl.lit(IN_THE_FUTURE))
            .when("in_line")
            .then(pl.lit(IN_LINE))
            .when("conflict")
            .then(pl.lit(CONFLICTING)),
        )
        .filter((pl.col("fate") != "kept") | (pl.col("revision") > 0))
        .select(UNUSUAL.names())
        .cast(dict(UNUSUAL))  # type: ignore[arg-type]
    )
    return pl.concat([others, erased.sort(place)]).collect()


def settle(rows: pl.DataFrame, quarantined: pl.DataFrame, unusual: pl.DataFrame) -> Resolved:
    """Give each delivery its fate.

    `rows`: those of some batches with `arrival`, in order of arrival and line; `quarantined`: their quarantines with
    `arrival`; `unusual`: what `decide` says of them, at least. `rows` of the result are record.SCHEMA.
    """
    place = ["row_id", *PLACE]
    told = rows.drop("revision", "supersedes", strict=False).join(unusual, on=place, how="left", maintain_order="left")
    told = told.with_columns(pl.col("fate").fill_null("kept"), pl.col("revision").fill_null(0))
    current = told if not unusual.height else told.filter(pl.col("fate") == "kept")
    future = pl.col("rule") == IN_THE_FUTURE
    newly = told.filter(pl.col("fate") == "quarantined").select(
        "source",
        "batch",
        "line",
        "position",
        pl.col("rule").alias("reason"),
        pl.when(future).then(pl.lit("collected_at")).otherwise(pl.lit("feedback_id")).alias("column"),
        pl.when(future)
        .then(pl.col("collected_at").cast(pl.String))
        .otherwise(excerpt(pl.col("feedback_id")))
        .alias("value"),
        "arrival",
    )
    all_quarantined = pl.concat([quarantined, newly]).sort(*PLACE, "reason", nulls_last=True)
    unread = quarantined.select(
        _row_id_of_unread(),
        pl.lit("quarantined").alias("fate"),
        pl.col("reason").alias("rule"),
        *PLACE,
    )
    gone = pl.col("fate").is_in(["redelivered", "superseded"])
    all_fates = (
        pl.concat([told.select("row_id", "fate", "rule", *PLACE), unread])
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
        current.select(SCHEMA.names()).sort(*PLACE, "row_id"),
        all_quarantined,
        all_fates,
        {"quarantined": dict(reasons.iter_rows())},
    )


@dataclass(frozen=True)
class Retracted:
    """What is left when batches are retracted, and the fates of what is not (as in Resolved)."""

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    fates: pl.DataFrame


def retract(rows: pl.DataFrame, quarantined: pl.DataFrame, retracted: pl.DataFrame) -> Retracted:
    """Take the records of retracted batches away, as if they had not been delivered.

    `rows` and `quarantined` are those of all batches with `arrival`; `retracted` has `arrival` (Int64), `rule` (String)
    and `rule_version` (Int32): which batches, and the retraction that says so.
    """
    unread = quarantined.select(_row_id_of_unread(), *PLACE)
    fates = (
        pl.concat([rows.select("row_id", *PLACE), unread])
        .join(retracted, on="arrival")
        .select(
            "row_id",
            pl.lit("retracted").alias("fate"),
            "rule",
            "rule_version",
            pl.lit(None, pl.String).alias("into"),
            pl.lit(0, pl.Int32).alias("copies"),
            *PLACE,
        )
    )
    return Retracted(
        rows.join(retracted, on="arrival", how="anti", maintain_order="left"),
        quarantined.join(retracted, on="arrival", how="anti", maintain_order="left"),
        fates,
    )


def _row_id_of_unread() -> pl.Expr:
    line = (pl.col("source"), pl.col("batch"), pl.col("line").cast(pl.String))
    several = pl.col("position").fill_null(1) > 1
    entry = text_id(*line, pl.col("position").cast(pl.String))
    return pl.when(several).then(entry).otherwise(text_id(*line)).alias("row_id")


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
