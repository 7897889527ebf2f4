"""JSON lines. The whole file at once where it is clean, line by line where it is not."""

import json
from codecs import BOM_UTF8
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import polars.selectors as cs

from feedback_assets.sources.encoding import not_utf8
from feedback_assets.sources.json_values import Seen, leaves, lines_of, only, schema_of_lines, seen, texts
from feedback_assets.sources.leftover import WIDE, as_text
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import (
    EXACT,
    EXTRA,
    LINE,
    SLICE,
    Raw,
    Unreadable,
    bad_lines,
    content,
    is_gzip,
    is_utf8,
    numbered,
)

_NOTHING = pl.Schema({"\x01": pl.String()})
"""Where every line is {}, or no key is read, there is no column, yet a record each."""


def read_jsonl(path: Path, source: str, batch: str, *, read: Collection[str], most: int) -> Raw:
    """Read a JSONL file, plain or gzip; `read` are the columns of which expressions make something.

    Blank lines are counted and are no records. Quarantined, with their line: what is no JSON object, and a number
    of more than 128 bits ("malformed-json"); a key that stands twice in one object ("duplicate-key"); half a
    surrogate pair ("lone-surrogate"); what is not UTF-8 ("invalid-utf8"); the line at which a gzip breaks off
    ("truncated-file"). Integers of up to 128 bits keep all their digits, beside fractions as text. A column whose
    values are of several types is read as text, and what of it is an object, a list or a truth value is in `not_text`.

    Raises:
        Unreadable: it unpacks to more than `most` bytes, or is one JSON document.
    """
    with path.open("rb") as opened:
        marked = opened.read(len(BOM_UTF8)) == BOM_UTF8
    # a name with such signs would be a pattern
    in_memory = marked or is_gzip(path) or any(sign in str(path) for sign in "*?[")
    file, truncated = content(path, most) if in_memory else (path, False)
    raw = read_objects(file, path, source, batch, read, truncated=truncated)
    if not truncated:
        _refuse_document(file, raw, path)
    return raw


def read_objects(
    file: Path | bytes, path: Path, source: str, batch: str, read: Collection[str], *, truncated: bool = False
) -> Raw:
    """Read JSON lines that have no byte order mark as `read_jsonl` does; `truncated`: they broke off."""
    every = lines_of(file)
    lines = every.filter("braced")
    good, lines = only(file, lines) if lines.height < every.height else (file, lines)
    parsed = _inferred(good, lines, read)
    if parsed is None:
        data = good if isinstance(good, bytes) else good.read_bytes()
        tried = _Tried(data, lines)
        rows = range(lines.height)
        bad = bad_lines(rows, rows, tried.are_objects)
        good, lines = only(data, lines.filter(~pl.int_range(pl.len()).is_in(bad))) if bad else (data, lines)
        parsed = _inferred(good, lines, read, tried)
        parsed = parsed or _parsed(good, lines, schema_of_lines(texts(good, lines)), read)
    if parsed is None:
        raise pl.exceptions.SchemaError("its objects have no common schema, not even with text")
    frame, extra, looked = parsed
    frame = numbered(frame, lines.get_column(LINE), path)
    raw = _without(frame if extra is None else frame.with_columns(extra), looked, source, batch)
    lost = every.filter(~pl.col("blank")).join(lines, on=LINE, how="anti", maintain_order="left")
    numbers = lost.get_column(LINE)
    broken = {number: text for number, text in zip(numbers, texts(file, lost), strict=True) if not is_utf8([text])}
    quarantine = [
        quarantined(source, batch, numbers.filter(~numbers.is_in(list(broken))), "malformed-json"),
        not_utf8(source, batch, broken),
        quarantined(source, batch, [every.height + 1] if truncated else [], "truncated-file"),
    ]
    return replace(raw, malformed=pl.concat([raw.malformed, *quarantine]).sort("line"))


def _refuse_document(file: Path | bytes, raw: Raw, path: Path) -> None:
    """Refuse a file of which the first line is no object, but all of it is an array of objects, or one over lines."""
    bad, kept = raw.malformed.filter(reason="malformed-json").get_column("line"), raw.frame.get_column(LINE)
    if not bad.len() or (kept.len() and kept[0] < bad[0]):
        return
    try:
        document = json.loads(file if isinstance(file, bytes) else file.read_bytes())
    except (ValueError, RecursionError):
        return
    records = document if isinstance(document, list) else [document] if bad.len() > 1 else []
    if records and isinstance(records[0], dict):
        value = "this is one JSON document, no JSON lines: set `format: json`, or name it .json"
        raise Unreadable(f"{path}: {value}", "json-document", value=value)


def _schema(file: Path | bytes) -> pl.Schema | None:
    """The schema of all objects in a file, or None where a line is not one or several types have no common one."""
    try:
        return pl.scan_ndjson(file, infer_schema_length=None).collect_schema()
    except pl.exceptions.PolarsError:
        return None


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


class _Tried:
    """Tries whether lines are objects, and keeps their frames in case that the schema of the first is that of all."""

    def __init__(self, data: bytes, lines: pl.DataFrame) -> None:
        self.data, self.starts, self.ends = data, lines.get_column("start"), lines.get_column("end")
        schema = _schema(self._bytes(range(SLICE)[: lines.height])) if lines.height else None
        self.schema = schema if schema and leaves(schema) <= WIDE else None
        self.frames: dict[int, pl.DataFrame] = {}

    def are_objects(self, some: Sequence[int]) -> bool:
        """Whether each of consecutive lines is one JSON object in UTF-8."""
        data, count = self._bytes(some), len(some)
        frame = None if self.schema is None else _rows(data, self.schema, count)
        if frame is not None:
            self.frames[some[0]] = frame
            return True
        good = _rows(data, _NOTHING, count) is not None
        self.schema = None if good else self.schema
        return good

    def frame(self, schema: pl.Schema) -> pl.DataFrame | None:
        """The good lines by a schema, if that is how they were tried."""
        same = schema == self.schema and self.frames
        return pl.concat([frame for _, frame in sorted(self.frames.items())], rechunk=True) if same else None

    def _bytes(self, some: Sequence[int]) -> bytes:
        return self.data[self.starts[some[0]] : self.ends[some[-1]]]


def _rows(data: bytes, schema: pl.Schema, count: int) -> pl.DataFrame | None:
    """What Polars makes of `count` lines; None if they are not as many objects."""
    try:
        frame = pl.read_ndjson(data, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame if frame.height == count else None


Parsed = tuple[pl.DataFrame, pl.Series | None, Seen]
"""The frame of some lines, `__extra` beside it where keys are very many, and what was seen of its rows."""


def _inferred(
    file: Path | bytes, lines: pl.DataFrame, read: Collection[str], tried: _Tried | None = None
) -> Parsed | None:
    """Parse lines by the schema that Polars finds; None if it finds none, and as `_parsed`."""
    if not lines.height:
        return pl.DataFrame(), None, Seen()
    schema = _schema(file)
    if schema is None:
        return None
    return _parsed(file, lines, schema, read, None if tried is None else tried.frame(schema))


def _parsed(
    file: Path | bytes, lines: pl.DataFrame, schema: pl.Schema, read: Collection[str], frame: pl.DataFrame | None = None
) -> Parsed | None:
    """Parse the lines of which a file consists by a schema; None if it does not fit, or one is not one object."""
    wide = leaves(schema) > WIDE
    if wide:
        schema = pl.Schema({name: dtype for name, dtype in schema.items() if name in read})
    try:
        frame = _exactly(file, schema or _NOTHING, frame)
    except pl.exceptions.PolarsError:
        return None
    if not wide:
        found = seen(file, lines, frame)
        return None if found is None else (frame, None, found)
    if frame.height != lines.height:
        return None
    found = Seen()
    for row, line in enumerate(texts(file, lines)):
        found.look(row, line, frame.schema)
    rest = ("{}" if row in found.faults else line for row, line in enumerate(texts(file, lines)))
    return frame, pl.Series(EXTRA, [as_text(json.loads(line), read) for line in rest], pl.String), found


def _exactly(file: Path | bytes, schema: pl.Schema, frame: pl.DataFrame | None) -> pl.DataFrame:
    """The frame, in which a column of floats is text if a whole number in it might have lost digits."""
    frame = pl.scan_ndjson(file, schema=schema).collect() if frame is None else frame
    most = frame.select(cs.float().abs().max())
    inexact = [name for name in most.columns if (most.item(0, name) or 0) > EXACT]
    if not inexact:
        return frame
    return pl.scan_ndjson(file, schema=pl.Schema({**schema, **dict.fromkeys(inexact, pl.String())})).collect()
