"""One raw value to the dtype of its record column, as Polars expressions.

A conversion gives null for what does not convert; the caller compares with the raw value.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from feedback_assets.record import TIME, TURNS, Column
from feedback_assets.sources.conversation import (
    anthropic_turns,
    before_the_reply,
    conversation,
    list_turns,
    reply,
    role_turns,
)
from feedback_assets.sources.raw import EXACT, NOT_CONVERTIBLE
from feedback_assets.sources.source import ColumnMapping

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 to 9999: a number beyond them was given in another unit, and no calendar has the time."""

WITHOUT_ZONE = "time-without-zone"

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EXCEL_EPOCH = 25_569  # days from 1899-12-30 to 1970-01-01
_ZONE = "([Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
_SECOND = "(:[0-9]{2}(?:[.,][0-9]{1,6})?)"
_ISO = f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]+)?)? ?{_ZONE}?)?$"
_ADVICE: dict[object, str] = {
    pl.String: "give text or a number; of a response also a conversation with `format: conversation`",
    pl.Float64: "give a number, or text that is one",
    pl.Boolean: "give true, false, 1 or 0",
    pl.Datetime: "give a time, text, or a number with its `unit`",
    pl.List: "give text; a list of texts with `format: turns`; a list of (role, content) with `format: roles`, or with "
    "`format: conversation` if the response is its last turn",
}


class NotThis(ValueError):
    """The type that an expression gives cannot become the record column; says how to mend it."""


@dataclass(frozen=True)
class Conversion:
    """The converted value, whether it can fail for a record, and the quarantine reason when it does."""

    value: pl.Expr
    checked: bool = True
    problem: pl.Expr = field(default_factory=lambda: pl.lit(NOT_CONVERTIBLE))


def convert(value: pl.Expr, dtype: pl.DataType, column: Column, mapping: ColumnMapping) -> Conversion:
    """The expression that makes `column` from `value` of type `dtype`.

    - text: numbers as written in decimal (213.0 is "213"; a float beyond 2**53 has lost digits and does not
      convert), truth values as true and false, times as ISO 8601
    - number: from numbers and text; NaN and infinity do not convert
    - truth value: from true, false, 1, 0 in any case
    - time: microseconds in UTC, finer digits cut off; ISO 8601 text, `format`, or a number with `unit`; one outside the
      years 1 to 9999 does not convert
    - prompt: text is one turn of the user; other shapes by `format`
    - response: text, or by `format` the last turn of a conversation

    Raises:
        NotThis: no value of that type can become this column.
    """
    base = column.dtype.base_type()
    if dtype == pl.Null:
        return Conversion(pl.lit(None, column.dtype), checked=False)
    conversion = _BY_TYPE[base](value, dtype, mapping)
    if conversion is None:
        raise NotThis(f"{mapping.expr!r} gives {named(dtype)}, of which no {column.name} can be made; {_ADVICE[base]}")
    return conversion


def named(dtype: pl.DataType) -> str:
    """A type without the names of its fields, which a file gives."""
    if isinstance(dtype, pl.List):
        return f"List({named(dtype.inner)})"  # type: ignore[arg-type]
    return "Struct" if isinstance(dtype, pl.Struct) else str(dtype)


def _text(value: pl.Expr, dtype: pl.DataType, mapping: ColumnMapping) -> Conversion | None:
    if mapping.format in ("conversation", "last-turn"):
        turns = conversation(value, dtype)
        return None if turns is None else Conversion(reply(turns))
    if dtype == pl.String:
        return Conversion(value, checked=False)
    if dtype.is_float():
        whole = value.cast(pl.Int64, strict=False).cast(pl.String)
        text = pl.when(value % 1 == 0).then(whole).otherwise(value.cast(pl.String))
        return Conversion(pl.when(value.abs() <= EXACT).then(text))
    if dtype in (pl.Datetime, pl.Date):
        return Conversion(value.dt.to_string("iso:strict"), checked=False)
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Categorical, pl.Enum, pl.Decimal):
        return Conversion(value.cast(pl.String), checked=False)
    return None


def _number(value: pl.Expr, dtype: pl.DataType, _: ColumnMapping) -> Conversion | None:
    if dtype != pl.String and not dtype.is_numeric():
        return None
    number = value.cast(pl.Float64, strict=False)
    return Conversion(pl.when(number.is_finite()).then(number))


def _truth(value: pl.Expr, dtype: pl.DataType, _: ColumnMapping) -> Conversion | None:
    if dtype == pl.Boolean:
        return Conversion(value, checked=False)
    if dtype == pl.String:
        value = value.str.to_lowercase()
        return Conversion(pl.when(value.is_in(["true", "1"])).then(True).when(value.is_in(["false", "0"])).then(False))
    if dtype.is_numeric():
        return Conversion(pl.when(value == 1).then(True).when(value == 0).then(False))
    return None


def _time(value: pl.Expr, dtype: pl.DataType, mapping: ColumnMapping) -> Conversion | None:
    if isinstance(dtype, pl.Datetime):
        value = _dated(value)
    conversion = _instant(value, dtype, mapping)
    # A zone can bring a time of the first or the last year outside.
    return conversion and Conversion(_dated(conversion.value), problem=conversion.problem)


def _dated(time: pl.Expr) -> pl.Expr:
    """A time if it lies in the years 1 to 9999."""
    return pl.when(time.dt.timestamp("ms").is_between(EARLIEST * 1_000, LATEST * 1_000 + 999)).then(time)


def written(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A raw value as text. Of a time outside the calendar the number, because Polars panics there."""
    if isinstance(dtype, pl.Datetime):
        return pl.coalesce(_dated(value).cast(pl.String), value.cast(pl.Int64).cast(pl.String))
    return value.cast(pl.String)


def _instant(value: pl.Expr, dtype: pl.DataType, mapping: ColumnMapping) -> Conversion | None:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return Conversion(value.dt.convert_time_zone("UTC").cast(TIME), checked=False)
    if dtype in (pl.Datetime, pl.Date):
        return _local_time(value.cast(pl.Datetime("us")), mapping.timezone)
    if dtype.is_numeric():
        return _time_from_number(value, dtype, mapping)
    if dtype != pl.String:
        return None
    if mapping.unit:
        return _time_from_number(value, dtype, mapping)
    if mapping.format:
        return _time_as_formatted(value, mapping.format, mapping.timezone)
    return _time_as_iso(value, mapping.timezone)


def _zoned(local: pl.Expr, timezone: str | None) -> pl.Expr:
    """A local time in UTC; null where no zone is known, or where that hour is there twice or not at all."""
    if timezone is None:
        return pl.lit(None, TIME)
    return local.dt.replace_time_zone(timezone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")


def _local_time(local: pl.Expr, timezone: str | None) -> Conversion:
    without = local.is_not_null() & pl.lit(timezone is None)
    problem = pl.when(without).then(pl.lit(WITHOUT_ZONE)).otherwise(pl.lit(NOT_CONVERTIBLE))
    return Conversion(_zoned(local, timezone), problem=problem)


def _time_from_number(value: pl.Expr, dtype: pl.DataType, mapping: ColumnMapping) -> Conversion | None:
    if mapping.unit is None:
        return None
    if mapping.unit == "days":
        milliseconds = ((value.cast(pl.Float64, strict=False) - _EXCEL_EPOCH) * 86_400_000).round(0)
        within = milliseconds.is_between(EARLIEST * 1_000, LATEST * 1_000)
        local = pl.when(within).then(milliseconds).cast(pl.Int64).cast(pl.Datetime("ms")).cast(pl.Datetime("us"))
        return _local_time(local, mapping.timezone)
    each = _PER_SECOND[mapping.unit]
    whole, broken = value.cast(pl.Int64, strict=False), value.cast(pl.Float64, strict=False)
    low, high = max(EARLIEST * each, -(2**63)), min(LATEST * each, 2**63 - 1)
    whole = pl.when(whole.is_between(low, high)).then(whole)
    microseconds = whole // 1_000 if mapping.unit == "ns" else whole * (1_000_000 // each)
    if dtype.is_float() or dtype == pl.String:
        broken = pl.when(broken.is_between(float(low), float(high))).then(broken * (1_000_000 / each)).round(0)
        broken = broken.cast(pl.Int64, strict=False)
        microseconds = broken if dtype.is_float() else pl.coalesce(microseconds, broken)
    return Conversion(microseconds.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))


def _time_as_formatted(value: pl.Expr, format_: str, timezone: str | None) -> Conversion:
    if any(sign in format_ for sign in ("%z", "%:z", "%#z", "%+")):
        return Conversion(value.str.to_datetime(format_, time_unit="us", time_zone="UTC", strict=False))
    return _local_time(value.str.to_datetime(format_, time_unit="us", strict=False), timezone)


def _time_as_iso(value: pl.Expr, timezone: str | None) -> Conversion:
    # the pattern is held once and the parts are cut by position: capturing them all costs ten times as much
    value = pl.when(value.str.contains(_ISO)).then(value)
    date, rest = value.str.slice(0, 10), value.str.slice(10)
    minute = pl.when(rest == "").then(pl.lit("00:00")).otherwise(rest.str.slice(1, 5))
    second = rest.str.extract(f"^.{{6}}{_SECOND}").str.replace(",", ".", literal=True).fill_null(":00")
    zone = rest.str.extract(f"{_ZONE}$")
    written = pl.concat_str(date, pl.lit("T"), minute, second)
    local = written.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    digits = zone.str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0) * 60
    minutes += digits.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    offset = pl.duration(minutes=pl.when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes))
    conversion = _local_time(local, timezone)
    in_utc = (local - offset).dt.replace_time_zone("UTC")
    return Conversion(
        pl.when(zone.is_not_null()).then(in_utc).otherwise(conversion.value),
        problem=pl.when(zone.is_null()).then(conversion.problem).otherwise(pl.lit(NOT_CONVERTIBLE)),
    )


def _turns(value: pl.Expr, dtype: pl.DataType, mapping: ColumnMapping) -> Conversion | None:
    format_ = mapping.format or "text"
    if dtype == pl.String and format_ == "text":
        turn = pl.struct(pl.lit("user").alias("role"), value.alias("text"))
        return Conversion(pl.when(value.is_not_null()).then(pl.concat_list(turn)), checked=False)
    if dtype == pl.String and format_ == "anthropic":
        return Conversion(anthropic_turns(value))
    if format_ == "conversation":
        turns = conversation(value, dtype)
        return None if turns is None else Conversion(before_the_reply(turns))
    if not isinstance(dtype, pl.List):
        return None
    if dtype.inner == pl.Null and format_ in ("turns", "roles"):
        return Conversion(pl.when(value.list.len() == 0).then(value.cast(TURNS)))
    if dtype.inner == pl.String and format_ == "turns":
        return Conversion(list_turns(value))
    if isinstance(dtype.inner, pl.Struct) and format_ == "roles":
        turns = role_turns(value, dtype.inner)
        return None if turns is None else Conversion(turns)
    return None


_BY_TYPE: dict[object, Callable[[pl.Expr, pl.DataType, ColumnMapping], Conversion | None]] = {
    pl.String: _text,
    pl.Float64: _number,
    pl.Boolean: _truth,
    pl.Datetime: _time,
    pl.List: _turns,
}
