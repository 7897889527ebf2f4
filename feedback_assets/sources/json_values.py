"""Whether a parser took from JSON lines what they say: as many values as there are keys, each key once.

Polars keeps the first of two equal keys, Python the last; and it reads half a surrogate pair as NUL.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.sources.raw import NOT_TEXT, whole_lines

_COLON, _QUOTE, _BACKSLASH, _SPACE, _NEWLINE, _N, _U = b':"\\ \nnu'
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


def seen(source: Path | bytes, frame: pl.DataFrame) -> Seen | None:
    """What lines say otherwise than the rows of `frame`, which is what Polars made of `source`, a row a line.

    None if lines and rows are not equally many. A line is looked at closely only where its keys and the frame's values
    are not equally many, or fewer of its values are text. One pass over the bytes finds the keys: a quote and a colon,
    outside text, because in text the quote has a backslash.
    """
    import numpy as np

    given, dtype = pl.struct(pl.all()), pl.Struct(frame.schema)
    values, cells, texts = frame.select(
        _inside(given, dtype, filled=True).alias("values"),
        _inside(given, dtype, filled=False).alias("cells"),
        _inside(given, dtype, filled=True, text=True).alias("texts"),
    ).get_columns()
    found = Seen()
    first = 0
    for piece in whole_lines(source):
        signs = np.frombuffer(piece, np.uint8)
        ends = np.flatnonzero(signs == _NEWLINE)
        if not piece.endswith(b"\n"):
            ends = np.append(ends, len(piece))
        if first + len(ends) > frame.height:
            return None
        colons = np.flatnonzero(signs == _COLON)
        quotes = colons - 1
        quotes = np.where(signs[quotes] == _SPACE, quotes - 1, quotes)
        keys = colons[(signs[quotes] == _QUOTE) & (signs[quotes - 1] != _BACKSLASH)]
        given_at = np.minimum(keys + 1, len(piece) - 1)
        given_at = np.where(signs[given_at] == _SPACE, np.minimum(given_at + 1, len(piece) - 1), given_at)
        line_of = np.searchsorted(ends, keys)
        filled = np.bincount(line_of[signs[given_at] != _N], minlength=len(ends))
        quoted = np.bincount(line_of[signs[given_at] == _QUOTE], minlength=len(ends))
        every = np.bincount(line_of, minlength=len(ends))
        here = slice(first, first + len(ends))
        odd = np.flatnonzero(
            (filled != values[here].to_numpy()) | (every > cells[here].to_numpy()) | (quoted < texts[here].to_numpy())
        )
        escapes = np.flatnonzero(signs[:-1] == _BACKSLASH)  # a search for two bytes takes ten times as long
        halves = [match.start() for match in _HALF_A_PAIR.finditer(piece)] if (signs[escapes + 1] == _U).any() else []
        for row in sorted({*odd.tolist(), *np.searchsorted(ends, halves).tolist()}):
            found.look(first + row, piece[(ends[row - 1] + 1 if row else 0) : ends[row]], frame.schema)
        first += len(ends)
    return found if first == frame.height else None


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
