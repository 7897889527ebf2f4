"""Rows of a database as a batch file: what was read once, because a window cannot be read again."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

_JSON = "json_columns"


def write_landed(rows: pl.DataFrame, path: Path, json_columns: Sequence[str]) -> None:
    """Write `rows` as Parquet, as they came; `json_columns` (String) hold JSON."""
    rows.write_parquet(
        path, compression="zstd", compression_level=1, metadata={_JSON: json.dumps(sorted(json_columns))}
    )


def read_landed(path: Path) -> pl.DataFrame:
    """The rows, columns of JSON decoded as in a JSONL file; one whose values are of several types stays text."""
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    for name in json_columns(path):
        try:
            frame = frame.with_columns(frame.get_column(name).str.json_decode(infer_schema_length=None))
        except pl.exceptions.PolarsError:
            continue
    return frame


def json_columns(path: Path) -> list[str]:
    """The columns of landed rows that hold JSON."""
    return json.loads(pl.read_parquet_metadata(path)[_JSON])
