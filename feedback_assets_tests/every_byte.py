"""What is anywhere in a folder: also inside databases, archives and compressed Parquet."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import polars as pl


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `folder`, each as it is and, where its bytes hide what it says, as that."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield path, path.name.encode()
            yield path, data
            if data[:16] == b"SQLite format 3\0":
                yield path, _database(path)
            elif data[:2] == b"\x1f\x8b":
                yield path, gzip.decompress(data)
            elif data[:4] == b"PAR1":
                yield path, _parquet(path)


def _database(path: Path) -> bytes:
    """Long values lie on several pages, so that no search of the bytes alone would find them."""
    with sqlite3.connect(path) as connection:
        return "\n".join(connection.iterdump()).encode()


def _parquet(path: Path) -> bytes:
    told = json.dumps(pl.read_parquet_metadata(path), ensure_ascii=False)
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    return (told + "\n" + frame.write_ndjson()).encode()
