"""JSON lines. The whole file at once where it is clean, line by line where it is not."""

from pathlib import Path

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import Raw, bad_lines, content, is_gzip, is_utf8, numbered, occurrences

_NO_KEY = "\x01"


def read_jsonl(path: Path, source: str, batch: str) -> Raw:
    """Read a JSONL file, plain or gzip.

    Blank lines are counted and are no records. Quarantined, with their line: what is no JSON object
    ("malformed-json"), what is not UTF-8 ("invalid-utf8"), the line at which a gzip breaks off
    ("truncated-file"). A column whose values are of several types is read as text.
    """
    data, truncated = content(path) if is_gzip(path) else (None, False)
    if not truncated and (frame := _clean(path if data is None else data)) is not None:
        lines = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True)
        return Raw(numbered(frame, lines, path), pl.DataFrame(schema=QUARANTINE))
    return _careful(content(path)[0] if data is None else data, truncated, path, source, batch)


def read_objects(data: bytes, path: Path, source: str, batch: str) -> Raw:
    """Read JSON lines that are in memory, as `read_jsonl` does."""
    return _careful(data, False, path, source, batch)


def _clean(file: Path | bytes) -> pl.DataFrame | None:
    try:
        if isinstance(file, bytes) or any(sign in str(file) for sign in "*?["):
            frame = pl.read_ndjson(file if isinstance(file, bytes) else file.read_bytes(), infer_schema_length=None)
        else:
            frame = pl.read_ndjson(file, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None
    (newlines,), ended = occurrences(file, b"\n")
    return frame if frame.width and frame.height == newlines + (not ended) else None


def _careful(data: bytes, truncated: bool, path: Path, source: str, batch: str) -> Raw:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    broken = bad_lines(lines, numbers, is_utf8)
    numbers = sorted(set(numbers).difference(broken)) if broken else numbers
    malformed = bad_lines(lines, numbers, _are_objects)
    numbers = sorted(set(numbers).difference(malformed)) if malformed else numbers
    found = [("invalid-utf8", broken), ("malformed-json", malformed)]
    found += [("truncated-file", [len(lines)])] if truncated else []
    quarantine = pl.concat(
        [pl.DataFrame(schema=QUARANTINE)]
        + [quarantined(source, batch, [number + 1 for number in some], reason) for reason, some in found]
    ).sort("line")
    frame = _objects([lines[number] for number in numbers], path)
    return Raw(numbered(frame, [number + 1 for number in numbers], path), quarantine)


def _are_objects(lines: list[bytes]) -> bool:
    try:
        return pl.read_ndjson(b"\n".join(lines), schema={_NO_KEY: pl.String}).height == len(lines)
    except pl.exceptions.PolarsError:
        return False


def _objects(lines: list[bytes], path: Path) -> pl.DataFrame:
    if not lines:
        return pl.DataFrame()
    data = b"\n".join(lines)
    try:
        frame = pl.read_ndjson(data, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        frame = _mixed(data)
    if frame.width and frame.height != len(lines):
        raise FeedbackError(
            f"{path}: {len(lines)} lines gave {frame.height} records; each line must be one JSON object"
        )
    # every line is {}: no column, yet a record each
    return frame if frame.width else pl.DataFrame({_NO_KEY: [None] * len(lines)}, schema={_NO_KEY: pl.String})


def _mixed(data: bytes) -> pl.DataFrame:
    schema = pl.scan_ndjson(data, infer_schema_length=None).collect_schema()
    for name, dtype in schema.items():
        try:
            pl.read_ndjson(data, schema={name: dtype})
        except pl.exceptions.PolarsError:
            schema[name] = pl.String()
    return pl.read_ndjson(data, schema=schema)
