"""JSON lines. The whole file at once where it is clean, line by line where it is not."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import polars as pl
import polars.selectors as cs

from feedback_assets.sources.json_values import Seen, leaves, schema_of_lines, seen
from feedback_assets.sources.leftover import WIDE, as_text
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import EXACT, EXTRA, LINE, Raw, bad_lines, content, is_gzip, is_utf8, numbered

_NO_KEY = "\x01"


def read_jsonl(path: Path, source: str, batch: str, *, read: Collection[str], most: int) -> Raw:
    """Read a JSONL file, plain or gzip; `read` are the columns of which expressions make something.

    Blank lines are counted and are no records. Quarantined, with their line: what is no JSON object, and a number
    of more than 128 bits ("malformed-json"); a key that stands twice in one object ("duplicate-key"); half a
    surrogate pair ("lone-surrogate"); what is not UTF-8 ("invalid-utf8"); the line at which a gzip breaks off
    ("truncated-file"). Integers of up to 128 bits keep all their digits, beside fractions as text. A column whose
    values are of several types is read as text, and what of it is an object, a list or a truth value is in `not_text`.

    Raises:
        Unreadable: it unpacks to more than `most` bytes.
    """
    file, truncated = content(path, most) if is_gzip(path) else (_unglobbed(path), False)
    schema = None if truncated else _schema(file)
    if schema and leaves(schema) <= WIDE and (clean := _clean(file, schema)) is not None:
        frame, found = clean
        lines = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True)
        return _without(numbered(frame, lines, path), found, source, batch)
    data = file if isinstance(file, bytes) else content(file, most)[0]
    return _careful(data, truncated, schema, path, source, batch, read)


def read_objects(data: bytes, path: Path, source: str, batch: str, read: Collection[str]) -> Raw:
    """Read JSON lines that are in memory, as `read_jsonl` does."""
    return _careful(data, False, None, path, source, batch, read)


def _unglobbed(path: Path) -> Path | bytes:
    """The file as Polars reads it: a name with such signs would be a pattern."""
    return path.read_bytes() if any(sign in str(path) for sign in "*?[") else path


def _schema(file: Path | bytes) -> pl.Schema | None:
    """The schema of all objects in a file, or None where a line is not one or several types have no common one."""
    try:
        return pl.scan_ndjson(file, infer_schema_length=None).collect_schema()
    except pl.exceptions.PolarsError:
        return None


def _clean(file: Path | bytes, schema: pl.Schema) -> tuple[pl.DataFrame, Seen] | None:
    """The frame and what was seen of its rows; None where lines and rows are not equally many."""
    try:
        frame = _exactly(file, schema)
    except pl.exceptions.PolarsError:
        return None
    found = seen(file, frame)
    return None if found is None else (frame, found)


def _without(frame: pl.DataFrame, found: Seen, source: str, batch: str) -> Raw:
    """`frame` without its rows that are wrong, which are quarantined for the reason given."""
    wrong, lines = found.faults, frame.get_column(LINE)
    if not wrong:
        return Raw(frame, pl.DataFrame(schema=QUARANTINE), not_text=found.not_text(lines))
    bad = [
        quarantined(source, batch, lines.gather([row for row, given in wrong.items() if given == reason]), reason)
        for reason in sorted(set(wrong.values()))
    ]
    rest = frame.filter(~pl.int_range(pl.len()).is_in(list(wrong)))
    return Raw(rest, pl.concat(bad).sort("line"), not_text=found.not_text(lines))


def _careful(
    data: bytes,
    truncated: bool,
    schema: pl.Schema | None,
    path: Path,
    source: str,
    batch: str,
    read: Collection[str],
) -> Raw:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    bad: list[int] = []
    filled = [lines[number] for number in numbers]
    parsed = _parsed(filled, b"\n".join(filled), schema, read) if schema else None
    if parsed is None:
        bad = bad_lines(lines, numbers, _are_objects)
        numbers = sorted(set(numbers).difference(bad)) if bad else numbers
        parsed = _objects([lines[number] for number in numbers], read)
    frame, extra, looked = parsed
    frame = numbered(frame, [number + 1 for number in numbers], path)
    raw = _without(frame if extra is None else frame.with_columns(extra), looked, source, batch)
    malformed = [number for number in bad if is_utf8([lines[number]])]
    found = [("malformed-json", malformed), ("invalid-utf8", sorted(set(bad).difference(malformed)))]
    found += [("truncated-file", [len(lines)])] if truncated else []
    quarantine = [quarantined(source, batch, [number + 1 for number in some], reason) for reason, some in found]
    return replace(raw, malformed=pl.concat([raw.malformed, *quarantine]).sort("line"))


def _are_objects(lines: list[bytes]) -> bool:
    """Whether each line is one JSON object in UTF-8."""
    try:
        return pl.read_ndjson(b"\n".join(lines), schema={_NO_KEY: pl.String}).height == len(lines)
    except pl.exceptions.PolarsError:
        return False


Parsed = tuple[pl.DataFrame, pl.Series | None, Seen]
"""The frame of some lines, `__extra` beside it where keys are very many, and what was seen of its rows."""


def _objects(lines: list[bytes], read: Collection[str]) -> Parsed:
    """Parse lines that are objects."""
    if not lines:
        return pl.DataFrame(), None, Seen()
    data = b"\n".join(lines)
    schema = _schema(data)
    parsed = None if schema is None else _parsed(lines, data, schema, read)
    parsed = parsed or _parsed(lines, data, schema_of_lines(lines), read)
    if parsed is None:
        raise pl.exceptions.SchemaError("its objects have no common schema, not even with text")
    return parsed


def _parsed(lines: list[bytes], data: bytes, schema: pl.Schema, read: Collection[str]) -> Parsed | None:
    """Parse lines, joined in `data`, by a schema; None where it does not fit, or a line is not one object."""
    wide = leaves(schema) > WIDE
    if wide:
        schema = pl.Schema({name: dtype for name, dtype in schema.items() if name in read})
    try:
        # where every line is {}, or no key is read: no column, yet a record each
        frame = _exactly(data, schema or pl.Schema({_NO_KEY: pl.String()}))
    except pl.exceptions.PolarsError:
        return None
    if frame.height != len(lines):
        return None
    if not wide:
        return frame, None, seen(data, frame) or Seen()
    found = Seen()
    for row, line in enumerate(lines):
        found.look(row, line, frame.schema)
    rest = ("{}" if row in found.faults else line for row, line in enumerate(lines))
    return frame, pl.Series(EXTRA, [as_text(json.loads(line), read) for line in rest], pl.String), found


def _exactly(file: Path | bytes, schema: pl.Schema) -> pl.DataFrame:
    """The frame, in which a column of floats is text if a whole number in it might have lost digits."""
    frame = pl.scan_ndjson(file, schema=schema).collect()
    most = frame.select(cs.float().abs().max())
    inexact = [name for name in most.columns if (most.item(0, name) or 0) > EXACT]
    if not inexact:
        return frame
    return pl.scan_ndjson(file, schema=pl.Schema({**schema, **dict.fromkeys(inexact, pl.String())})).collect()
