"""Rows of a database as a batch file: what was read once, because a window cannot be read again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

_JSON, _PSEUDONYMS = "json_columns", "pseudonyms"


@dataclass(frozen=True)
class Landed:
    """Which columns of a batch were landed as pseudonyms, and the check value of the key that they were made with."""

    columns: tuple[str, ...]
    check: str


def write_landed(rows: pl.DataFrame, path: Path, json_columns: Sequence[str], pseudonyms: Landed | None = None) -> None:
    """Write `rows` as Parquet, as they came; `json_columns` (String) hold JSON, `pseudonyms` are in place of ids."""
    told = {_JSON: json.dumps(sorted(json_columns))}
    if pseudonyms is not None:
        told[_PSEUDONYMS] = json.dumps([sorted(pseudonyms.columns), pseudonyms.check])
    rows.write_parquet(path, compression="zstd", compression_level=1, metadata=told)


def pseudonyms_of(path: Path) -> Landed | None:
    """The pseudonyms in a batch that was landed; None if it has none."""
    told = pl.read_parquet_metadata(path).get(_PSEUDONYMS)
    if told is None:
        return None
    columns, check = json.loads(told)
    return Landed(tuple(columns), check)


def read_landed(path: Path) -> pl.DataFrame:
    """The rows, columns of JSON decoded as in a JSONL file; one whose values are of several types stays text."""
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    for name in json.loads(pl.read_parquet_metadata(path)[_JSON]):
        try:
            frame = frame.with_columns(frame.get_column(name).str.json_decode(infer_schema_length=None))
        except pl.exceptions.PolarsError:
            continue
    return frame
