"""Whether a parser took from JSON lines what they say: as many values as there are keys, each key once.

Polars keeps the first of two equal keys, Python the last; and it reads half a surrogate pair as NUL.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.sources.raw import LINE, NOT_TEXT, whole_lines

LINES = pl.Schema(
    {
        "start": pl.Int64,  # its place in the file, without the newline
        "end": pl.Int64,
        "keys": pl.Int64,  # how many there are
        "filled": pl.Int64,  # how many have a value that is not null
        "quoted": pl.Int64,  # how many have a text
        "halved": pl.Boolean,  # half a surrogate pair may be in it
        "braced": pl.Boolean,  # it begins and ends as an object does
        "blank": pl.Boolean,
    }
)
"""What the bytes of JSON lines say, a row a line; `__line`, from 1, beside it."""

_COLON, _QUOTE, _BACKSLASH, _SPACE, _NEWLINE, _RETURN, _OPEN, _CLOSE, _N, _U = b':"\\ \n\r{}nu'
_HALF_A_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u)")
_NUMBER = (pl.Int64(), pl.Int128(), pl.Float64())


@dataclass(frozen=True)
class Seen:
    """What a close look at some rows has found: what is wrong, by row, and values that only the frame makes text.

    `faults` are "duplicate-key" or "lone-surrogate". `made_text` says of a row the path of such a value and whether it
    was a truth value; numbers do not count.
    """

    faults: dict[int, str] = field(default_factory=dict)
    made_text: list[tuple[int, tuple[str, ...], bool]] = field(default_factory=list)

    def look(self, row: int, line: bytes, schema: pl.Schema) -> None:
        """Look at one line, whose object has become a row of `schema`."""
        fault = fault_of(line)
        if fault is not None:
            self.faults[row] = fault
            return
        self.made_text.extend((row, path, truth) for path, truth in _made_text(json.loads(line), schema))

    def not_text(self, lines: pl.Series) -> pl.DataFrame:
        """`made_text` as raw.NOT_TEXT; `lines` has the line of each row."""
        rows = [(lines[row], list(path), truth) for row, path, truth in self.made_text]
        return pl.DataFrame(rows, schema=NOT_TEXT, orient="row")


def _made_text(value: dict[str, Any], fields: Any) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Paths of the objects, lists and truth values in `value` for which the fields have text."""
    for name, dtype in fields.items():
        given = value.get(name)
        if dtype == pl.String and isinstance(given, dict | list | bool):
            yield (name,), isinstance(given, bool)
        elif isinstance(dtype, pl.Struct) and isinstance(given, dict):
            inner = {entry.name: entry.dtype for entry in dtype.fields}
            yield from (((name, *path), truth) for path, truth in _made_text(given, inner))


def lines_of(source: Path | bytes) -> pl.DataFrame:
    """The lines of JSON lines, as LINES.

    One pass over the bytes finds the keys: a quote and a colon, outside text, for in text the quote has a backslash.
    """
    import numpy as np

    found, at = [], 0
    for piece in whole_lines(source):
        signs = np.frombuffer(piece, np.uint8)
        ends = np.flatnonzero(signs == _NEWLINE)
        if not piece.endswith(b"\n"):
            ends = np.append(ends, len(piece))
        starts = np.append(0, ends[:-1] + 1)
        colons = np.flatnonzero(signs == _COLON)
        colons = colons[colons > len('{"')]
        quotes = colons - 1
        quotes = np.where(signs[quotes] == _SPACE, quotes - 1, quotes)
        keys = colons[(signs[quotes] == _QUOTE) & (signs[quotes - 1] != _BACKSLASH)]
        given_at = np.minimum(keys + 1, len(piece) - 1)
        given_at = np.where(signs[given_at] == _SPACE, np.minimum(given_at + 1, len(piece) - 1), given_at)
        escapes = np.flatnonzero(signs[:-1] == _BACKSLASH)  # a search for two bytes takes ten times as long
        halves = [match.start() for match in _HALF_A_PAIR.finditer(piece)] if (signs[escapes + 1] == _U).any() else []
        keys, filled, quoted, halved = (
            np.bincount(np.searchsorted(ends, some), minlength=len(ends))
            for some in (keys, keys[signs[given_at] != _N], keys[signs[given_at] == _QUOTE], halves)
        )
        last = np.maximum(ends - 1, starts)
        last = np.maximum(last - (signs[last] == _RETURN), starts)
        braced, blank = (signs[starts] == _OPEN) & (signs[last] == _CLOSE), np.zeros(len(ends), bool)
        for row in np.flatnonzero(~braced):
            text = piece[starts[row] : ends[row]].strip()
            braced[row], blank[row] = text.startswith(b"{") and text.endswith(b"}"), not text
        found.append((starts + at, ends + at, keys, filled, quoted, halved > 0, braced, blank))
        at += len(piece)
    columns = dict(zip(LINES, map(np.concatenate, zip(*found, strict=True)), strict=False))  # of an empty file none
    return pl.DataFrame(columns, schema=LINES).with_row_index(LINE, 1).cast({LINE: pl.Int64})


def texts(source: Path | bytes, lines: pl.DataFrame) -> Iterator[bytes]:
    """The bytes of `lines`, whose places are those in `source`."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        for start, end in lines.select("start", "end").iter_rows():
            file.seek(start)
            yield file.read(end - start)


def only(source: Path | bytes, lines: pl.DataFrame) -> tuple[bytes, pl.DataFrame]:
    """What `source` would be with no other `lines`, and they with their places in that."""
    run = (pl.col("start") != pl.col("end").shift() + 1).fill_null(value=True).cum_sum().alias("run")
    runs = lines.group_by(run, maintain_order=True).agg(pl.col("start").first(), pl.col("end").last())
    length = pl.col("end") - pl.col("start")
    end = (length + 1).cum_sum() - 1
    return b"\n".join(texts(source, runs)), lines.with_columns((end - length).alias("start"), end.alias("end"))


def seen(source: Path | bytes, lines: pl.DataFrame, frame: pl.DataFrame) -> Seen | None:
    """What lines say otherwise than the rows of `frame`, which is what Polars made of `source`, a row a line.

    None if lines and rows are not equally many. A line is looked at closely only where its keys and the frame's values
    are not equally many, or fewer of its values are text.
    """
    if lines.height != frame.height:
        return None
    given, dtype = pl.struct(pl.all()), pl.Struct(frame.schema)
    counts = frame.select(
        _inside(given, dtype, filled=True).alias("values"),
        _inside(given, dtype, filled=False).alias("cells"),
        _inside(given, dtype, filled=True, text=True).alias("texts"),
    )
    odd = (
        lines.hstack(counts)
        .with_row_index("row")
        .filter(
            (pl.col("filled") != pl.col("values"))
            | (pl.col("keys") > pl.col("cells"))
            | (pl.col("quoted") < pl.col("texts"))
            | pl.col("halved")
        )
    )
    found = Seen()
    for row, line in zip(odd.get_column("row"), texts(source, odd), strict=True):
        found.look(row, line, frame.schema)
    return found


def fault_of(line: bytes) -> str | None:
    """What is wrong with one JSON object that Polars can read, or None."""
    twice = False

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        value = dict(pairs)
        twice = twice or len(value) != len(pairs)
        return value

    try:
        value = json.loads(line, object_pairs_hook=once)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "lone-surrogate"
    except (ValueError, RecursionError):
        return "malformed-json"
    return "duplicate-key" if twice else None


def schema_of_lines(lines: Iterable[bytes]) -> pl.Schema:
    """The schema of JSON objects of which Polars cannot tell one: values of several types, at any depth, are text."""
    merged: pl.DataType = pl.Struct({})
    for line in lines:
        merged = _merged(merged, json.loads(line, object_pairs_hook=_of_object))
    assert isinstance(merged, pl.Struct)  # noqa: S101  each line is an object
    return pl.Schema({field.name: field.dtype for field in merged.fields})


def leaves(dtype: Any) -> int:
    """How many columns without fields of their own are in a dtype or schema."""
    if isinstance(dtype, pl.Schema):
        return sum(leaves(inner) for inner in dtype.values())
    if isinstance(dtype, pl.Struct):
        return sum(leaves(field.dtype) for field in dtype.fields)
    return leaves(dtype.inner) if isinstance(dtype, pl.List) else 1


def _inside(value: pl.Expr, dtype: Any, *, filled: bool, text: bool = False) -> pl.Expr:
    """The number of fields below `value`: those that are filled, or all that could be; with `text` those of text."""
    if isinstance(dtype, pl.List) and _has_fields(dtype):
        return value.list.eval(_inside(pl.element(), dtype.inner, filled=filled, text=text)).list.sum().fill_null(0)
    if not isinstance(dtype, pl.Struct) or not dtype.fields:
        return pl.lit(0, pl.Int64)
    counts = []
    for entry in dtype.fields:
        inner = value.struct.field(entry.name)
        if entry.dtype == pl.String or not text:
            counts.append((inner if filled else value).is_not_null().cast(pl.Int64))
        if _has_fields(entry.dtype):
            counts.append(_inside(inner, entry.dtype, filled=filled, text=text))
    return pl.sum_horizontal(counts) if counts else pl.lit(0, pl.Int64)


def _has_fields(dtype: Any) -> bool:
    return isinstance(dtype, pl.Struct) or (isinstance(dtype, pl.List) and _has_fields(dtype.inner))


def _of_object(pairs: list[tuple[str, Any]]) -> pl.DataType:
    """The type of an object; of a key that stands twice, that of both values."""
    fields: dict[str, pl.DataType] = {}
    for name, value in pairs:
        fields[name] = _merged(fields[name], _dtype(value)) if name in fields else _dtype(value)
    return pl.Struct(fields)


def _dtype(value: Any) -> pl.DataType:
    if isinstance(value, pl.DataType):
        return value
    if isinstance(value, list):
        inner: pl.DataType = pl.Null()
        for entry in value:
            inner = _merged(inner, _dtype(entry))
        return pl.List(inner)
    if isinstance(value, int) and not isinstance(value, bool):
        return pl.Int64() if -(2**63) <= value < 2**63 else pl.Int128()
    return {bool: pl.Boolean(), float: pl.Float64(), str: pl.String()}.get(type(value), pl.Null())


def _merged(one: Any, other: Any) -> pl.DataType:
    if other in (one, pl.Null):
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return pl.List(_merged(one.inner, other.inner))
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields = {field.name: field.dtype for field in one.fields}
        for field in other.fields:
            fields[field.name] = _merged(fields[field.name], field.dtype) if field.name in fields else field.dtype
        return pl.Struct(fields)
    if one in _NUMBER and other in _NUMBER:
        return max(one, other, key=_NUMBER.index)
    return pl.String()
