"""What becomes of one file of the store when records are erased from it. Only what holds something of them changes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from feedback_assets.materialize.withdrawn import NAMES, empty_content, empty_rows
from feedback_assets.record import CONTENT
from feedback_assets.snapshots.snapshot import write_frame
from feedback_assets.sources.quarantine import QUARANTINE

TEXT = {column.name for column in CONTENT}


@dataclass(frozen=True)
class Erased:
    """What is to go: the records, an annotator's id (None: records only), and the lines of batches they came on.

    `lines` has `source`, `batch` and `line`; `content` says of a file of text (its key) which rows (from 0) go.
    """

    row_ids: frozenset[str]
    annotator: str | None
    source: str | None
    lines: pl.DataFrame
    content: Mapping[str, Collection[int]]

    @property
    def ids(self) -> pl.Series:
        """The ids of the records."""
        return pl.Series(sorted(self.row_ids), dtype=pl.String)


def is_text(names: Collection[str]) -> bool:
    """Whether a file with these columns holds the text of records."""
    return set(names) >= TEXT


def emptied(path: Path, key: str, erased: Erased) -> tuple[pl.DataFrame, int, str] | None:
    """A Parquet file of the store without what is to go, the number of rows concerned, and what they are.

    None if nothing in it is.
    """
    schema = pl.read_parquet_schema(path)
    if is_text(schema):
        rows = erased.content.get(key, ())
        return _text(path, rows) if rows else None
    if "row_id" in schema and set(NAMES) & set(schema):
        what, theirs = "rows of records", _of_records(schema, erased)
    elif set(QUARANTINE) <= set(schema):
        what, theirs = "rows in quarantine", _in_quarantine(erased)
    elif {"column", "value"} <= set(schema):
        what, theirs = "counts by annotator", _counted(erased)
    else:
        return None
    scanned = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    if what == "rows in quarantine":
        places = erased.lines.with_columns(theirs=pl.lit(value=True)).lazy()
        scanned = scanned.join(places, on=["source", "batch", "line"], how="left", maintain_order="left")
    gone = scanned.select(theirs.fill_null(value=False).alias("gone")).collect().get_column("gone")
    if not gone.any():
        return None
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    if what == "rows of records":
        frame = empty_rows(frame, gone)
    else:
        frame = frame.with_columns(pl.when(~gone).then("value").alias("value"))
    return frame, int(gone.sum()), what


def _of_records(schema: Collection[str], erased: Erased) -> pl.Expr:
    holds = pl.any_horizontal(pl.col(name).is_not_null() for name in NAMES if name in schema)
    return pl.col("row_id").is_in(erased.ids.implode()) & holds


def _in_quarantine(erased: Erased) -> pl.Expr:
    """What came on a line of theirs, and an excerpt that names the annotator."""
    named = pl.lit(value=False)
    if erased.annotator is not None:
        named = pl.col("value").str.contains(erased.annotator, literal=True)
        named &= (pl.col("column") == "annotator_id") | (pl.col("value") == erased.annotator)
    return (named | pl.col("theirs").fill_null(value=False)) & pl.col("value").is_not_null()


def _counted(erased: Erased) -> pl.Expr:
    of_annotators = pl.col("column") == "annotator_id"
    if erased.annotator is None or erased.source is not None:  # in other sources the name stays
        return of_annotators & pl.lit(value=False)
    return of_annotators & (pl.col("value") == erased.annotator)


def _text(path: Path, rows: Collection[int]) -> tuple[pl.DataFrame, int, str] | None:
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    theirs = pl.int_range(frame.height, eager=True).is_in(pl.Series(sorted(rows), dtype=pl.Int64).implode())
    holds = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
    count = int((theirs & holds).sum())
    return (empty_content(frame, theirs), count, "texts") if count else None


def without(path: Path, suffix: str, row_ids: pl.Series, scratch: Path) -> int:
    """Write to `scratch` a training file without the examples of these records; the number that went.

    Its name ends in `suffix`. Those that stay are byte for byte what they were.
    """
    if suffix == ".parquet":
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        if "row_id" not in frame.columns:
            return 0
        left = frame.filter(~pl.col("row_id").is_in(row_ids.implode()))
        if left.height < frame.height:
            write_frame(scratch, left)
        return frame.height - left.height
    data = path.read_bytes()
    if suffix != ".jsonl" or not data:  # a dataset's card holds no example
        return 0
    ids = pl.scan_ndjson(path, schema={"row_id": pl.String}).collect().get_column("row_id")
    stays = (~ids.is_in(row_ids.implode())).to_list()
    if all(stays):
        return 0
    lines = [line + b"\n" for line in data.rstrip(b"\n").split(b"\n")]
    scratch.write_bytes(b"".join(line for line, stay in zip(lines, stays, strict=True) if stay))
    return stays.count(False)
