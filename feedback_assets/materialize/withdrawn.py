"""Records that were erased by request and arrive again: of each only its place and its row_id are taken in."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import polars as pl

from feedback_assets.digests import text_id
from feedback_assets.snapshots.erasures import Erasures
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.files import BatchFile, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.raw import Unreadable
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import ERASED, Intake

NAMES = ("feedback_id", "group_id", "annotator_id")
"""Columns of a record in which a source can name a person."""


def withdraw(store: Store, intake: Intake, unread: pl.DataFrame, file: BatchFile, source: Source) -> Intake:
    """`intake` with what is `unread` among the quarantined, and without anything of a record that was erased."""
    quarantined = pl.concat([unread, intake.quarantined]).sort("line", "position", "reason", nulls_last=True)
    whole = replace(intake, quarantined=quarantined)
    if not store.erasures.all():
        return whole
    emptied = store.erasures.withdrawn_lines(f"landed/{file.path.parent.name}/{file.path.name}")
    lines = withdrawn_lines(store.erasures, file, source) if quarantined.height else []
    gone = store.erasures.withdrawn(intake.rows)
    blank = _erased(intake.rows, emptied, file)
    return Intake(
        pl.concat([empty_rows(intake.rows, gone), blank], rechunk=True),
        pl.concat([empty_content(intake.content, gone), intake.content.clear(blank.height)], rechunk=True),
        quarantined.filter(~pl.col("line").is_in(list(emptied))).with_columns(
            pl.when(~pl.col("line").is_in(lines)).then("value").alias("value")
        ),
    )


def empty_rows(rows: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """`rows` without names and digest of the record where it is `gone`; what is left says where it was."""
    names = [name for name in NAMES if name in rows.columns]
    marks = [pl.when(~gone).then("record_digest").otherwise(pl.lit(ERASED)).alias("record_digest")]
    return rows.with_columns(
        *(pl.when(~gone).then(name).alias(name) for name in names), *(marks if "record_digest" in rows.columns else [])
    )


def empty_content(content: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """`content` without the text of the rows that are `gone`."""
    return content.select(pl.when(~gone).then(name).alias(name) for name in content.columns)


def withdrawn_lines(erasures: Erasures, file: BatchFile, source: Source) -> list[int]:
    """The lines of a file that hold a record which was erased, also one that is in quarantine for another column."""
    records = identified(file, source)
    return [] if records is None else records.filter(erasures.withdrawn(records)).get_column("line").unique().to_list()


def identified(file: BatchFile, source: Source) -> pl.DataFrame | None:
    """Who and what each line of a file is (line, source, row_id, feedback_id, annotator_id), whatever else is wrong."""
    columns = {name: mapping for name, mapping in source.columns.items() if name in ("feedback_id", "annotator_id")}
    try:
        named = source.model_copy(update={"columns": columns, "quarantine_when": {}, "batch": None})
        records = map_records(read(file, source), named, file).records
    except Unreadable:
        return None
    return records.select("line", pl.lit(source.name).alias("source"), "feedback_id", "annotator_id").with_columns(
        text_id(pl.col("source"), pl.col("feedback_id")).alias("row_id")
    )


def _erased(rows: pl.DataFrame, emptied: Mapping[int, Collection[str]], file: BatchFile) -> pl.DataFrame:
    """Rows for the records of a landed window whose rows were emptied there."""
    places = [(line, place, row_id) for line, ids in emptied.items() for place, row_id in enumerate(ids, 1)]
    told = pl.DataFrame(
        places, schema={"line": pl.Int64, "position": pl.Int64, "row_id": pl.String}, orient="row"
    ).with_columns(
        pl.lit(file.source).alias("source"),
        pl.lit(file.name).alias("batch"),
        pl.lit(ERASED).alias("record_digest"),
        pl.int_range(rows.height, rows.height + len(places), dtype=pl.UInt32, eager=True).alias("content_row"),
    )
    return pl.concat([rows.clear(), told], how="diagonal").select(rows.columns)
