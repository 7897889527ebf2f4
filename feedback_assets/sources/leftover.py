"""`extra`: what a source had and no expression reads, as JSON that depends on the record alone."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.raw import EXTRA, LINE

WIDE = 2_000
"""Columns, those in structs counted singly, above which a record's JSON is made in Python: an expression for each
takes Polars a third of a millisecond."""


def leftover(schema: pl.Schema, read: set[str]) -> pl.Expr:
    """JSON (String) of the columns in `schema` that are not in `read`; null when nothing is left.

    Names are sorted and nulls left out, in structs too: the same record gives the same text whatever other records
    stand in its file. Times are ISO 8601, bytes are hexadecimal.

    Raises:
        FeedbackError: a column holds bytes inside a list.
    """
    fields = [(name, cs.by_name(name).as_expr(), dtype) for name, dtype in schema.items() if name not in read]
    if not fields:
        return pl.lit(None, pl.String)
    body = _object(fields)
    return pl.when(body != "{}").then(body)


def _object(fields: list[tuple[str, pl.Expr, pl.DataType]]) -> pl.Expr:
    members = [
        pl.when(value.is_not_null()).then(_member(name, value, dtype))
        for name, value, dtype in sorted(fields, key=lambda field: field[0])
    ]
    inside = pl.concat_str(members, separator=",", ignore_nulls=True) if members else pl.lit("")
    return pl.concat_str(pl.lit("{"), inside, pl.lit("}"))


def _member(name: str, value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Struct):
        inner = [
            (field.name, value.struct.field(field.name), pl.Schema({"": field.dtype})[""]) for field in dtype.fields
        ]
        return pl.concat_str(pl.lit(json.dumps(name, ensure_ascii=False) + ":"), _object(inner))
    if dtype == pl.Binary:
        value = value.bin.encode("hex")
    elif dtype.is_temporal():
        value = value.dt.to_string("iso" if dtype == pl.Time else "iso:strict")
    elif dtype in (pl.Categorical, pl.Enum, pl.Decimal):
        value = value.cast(pl.String)
    elif "Binary" in str(dtype):
        raise FeedbackError(f"column {name!r} holds bytes in {dtype}; convert or drop it before delivery")
    encoded = pl.struct(value.alias(name)).struct.json_encode()
    return encoded.str.strip_prefix("{").str.strip_suffix("}")


def folded(frame: pl.DataFrame, read: set[str]) -> pl.DataFrame:
    """`frame`, or where it is very wide the columns that are `read` and, for all others, `__extra` (String: JSON)."""
    others = [name for name in frame.columns if name not in read]
    if EXTRA in others or len(others) <= WIDE:
        return frame
    rows = frame.select(others).iter_rows(named=True)
    extra = pl.Series(EXTRA, [as_text(row, ()) for row in rows], pl.String)
    return frame.select([name for name in frame.columns if name in read or name == LINE]).with_columns(extra)


def as_text(record: Mapping[str, Any], read: Collection[str]) -> str | None:
    """One record as `leftover` writes it: JSON without nulls and without what is `read`; None when nothing is left."""
    rest = _filled({name: value for name, value in record.items() if name not in read})
    text = json.dumps(rest, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_plain)
    return None if text == "{}" else text


def _filled(value: dict[str, Any]) -> dict[str, Any]:
    given = {name: _filled(entry) if isinstance(entry, dict) else entry for name, entry in value.items()}
    return {name: entry for name, entry in given.items() if entry is not None}


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else value.isoformat() if hasattr(value, "isoformat") else str(value)
