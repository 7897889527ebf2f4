"""From the source's own columns to the record: expressions give raw values, the conversion is ours.

A value that was there and did not convert quarantines its record. Nothing is coerced silently.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of, expression
from feedback_assets.record import CONTENT_SCHEMA, FROM_SOURCE, IDS, TURNS
from feedback_assets.sources.conversation import another_prompt, conversation
from feedback_assets.sources.conversion import Conversion, NotThis, convert, written
from feedback_assets.sources.entries import entries, fitting
from feedback_assets.sources.files import BatchFile, first_line
from feedback_assets.sources.leftover import folded, leftover
from feedback_assets.sources.privacy import Pseudonyms, pseudonymised, pseudonyms
from feedback_assets.sources.quarantine import EXCERPT, QUARANTINE, excerpt, quarantined
from feedback_assets.sources.raw import (
    EXTRA,
    LINE,
    MISFIT,
    NOT_CONVERTIBLE,
    POSITION,
    WHOLE_FILE,
    Raw,
    Unreadable,
    bad_lines,
    listed,
)
from feedback_assets.sources.source import ColumnMapping, Source, format_of

DIFFERENT_PROMPTS = "different-prompts"
MISSING_COLUMN = "missing-column"
"""Beside MISFIT the reason for which a whole file is in quarantine though it can be read: if all files of a source are,
its mapping is wrong."""

_VALUE, _PROBLEM = "__value_", "__problem_"
_TRIED = 500  # records on which an expression must fail one by one to be wrong for a whole file


@dataclass(frozen=True)
class Mapped:
    """One file as records.

    `records` has every column of `record.FROM_SOURCE` in its order and dtype, then `line`, `position` (Int64), `extra`
    (String: JSON of the source's columns that no expression reads, nulls left out, names sorted; null when
    nothing is left). `quarantined` (quarantine.QUARANTINE) has everything else that the file held, what could not
    be read included, by line. Each raw row, or each entry of its list, is in exactly one of the two.
    """

    records: pl.DataFrame
    quarantined: pl.DataFrame


def map_records(raw: Raw, source: Source, file: BatchFile) -> Mapped:
    """Map one file that was read to records.

    A record of which a value was there and did not convert is quarantined: "not-convertible" (also an object or a list
    for which text is asked), "time-without-zone", "expression-fails", "different-prompts" where the conversation that
    a response ends has another prompt, or "no-batch" where the source's `batch` is null; so is what `entries` says.
    Ids of annotators leave as pseudonyms where the source asks for them. In a CSV an empty field is null, except in
    columns of text; in any format blank text is null where it would tell records, groups or annotators apart
    (record.IDS). The type of a column may differ from file to file: one without any value fits every expression, a
    number fits one that asks for text, and text that is a number one that asks for a number.

    Raises:
        Unreadable: an expression reads a column that the file lacks and is not optional, fails on all of its
            records, or gives a type of which the record column cannot be made; names file, source and policy key.
    """
    if raw.frame.columns == [LINE] and not raw.frame.height:
        return Mapped(no_records(), raw.malformed)
    raw = entries(raw, source, file)
    if not raw.frame.height and raw.malformed.height:
        return Mapped(no_records(), raw.malformed.sort("line", "position"))
    mappings = {name: source.columns[name] for name in FROM_SOURCE if name in source.columns}
    mappings = fitting(mappings, raw.frame.schema)
    if source.batch is not None:
        mappings["batch"] = ColumnMapping(expr=source.batch)
    for name, mapping in mappings.items():
        _check_columns(name, mapping, raw.frame.columns, source, file)
    if not raw.frame.height:
        return Mapped(no_records(), raw.malformed)
    read = {LINE, POSITION}.union(*(columns_of(text) for text in source.each or ()))
    read = read.union(*(columns_of(mapping.expr) for mapping in mappings.values()), source.of_annotators())
    made = None if raw.pseudonyms.issuperset(source.of_annotators()) else pseudonyms(source.name, source)
    frame = folded(raw.frame, read)
    values = {name: _value(mapping.expr, mapping.optional, frame.schema) for name, mapping in mappings.items()}
    try:
        extra = pl.col(EXTRA) if EXTRA in frame.columns else leftover(frame.schema, read)
    except (FeedbackError, RecursionError) as error:
        raise _misfit(f"source {source.name!r}", "`extra`", file, error) from None
    malformed = raw.malformed
    if raw.not_text.height:
        other = _not_text(frame, raw.not_text, values, mappings, source, file)
        frame, malformed = _apart(frame, other), pl.concat([malformed, other])
    try:
        mapped = _mapped(frame, values, extra, mappings, source, file, made)
    except pl.exceptions.PolarsError as error:
        failed = pl.concat(_failed(frame, name, value, mappings, source, file) for name, value in values.items())
        if not failed.height:
            raise _misfit(f"source {source.name!r}", "the mapping", file, error) from None
        failed = failed.unique(["line", "position"], keep="first", maintain_order=True)
        mapped = _mapped(_apart(frame, failed), values, extra, mappings, source, file, made)
        malformed = pl.concat([malformed, failed])
    return Mapped(mapped.records, pl.concat([malformed, mapped.quarantined]).sort("line", "position"))


def unread(error: Unreadable, file: BatchFile) -> Mapped:
    """A file of which no record can be made: one row in quarantine says so."""
    row = quarantined(file.source, file.name, [WHOLE_FILE], error.reason)
    value = excerpt(pl.lit(error.value, pl.String)).alias("value")
    return Mapped(no_records(), row.with_columns(pl.lit(error.column, pl.String).alias("column"), value))


def _mapped(
    frame: pl.DataFrame,
    values: Mapping[str, "_Value"],
    extra: pl.Expr,
    mappings: Mapping[str, ColumnMapping],
    source: Source,
    file: BatchFile,
    made: Pseudonyms | None,
) -> Mapped:
    as_they_are = [value.expr.alias(_VALUE + name) for name, value in values.items() if not value.columns]
    fitted = [value.of(frame).rename({"": _VALUE + name}) for name, value in values.items() if value.columns]
    selected = frame.lazy().select(LINE, POSITION, *as_they_are, extra.alias("extra"))
    selected = pl.concat([selected, *fitted], how="horizontal") if fitted else selected
    conversions = _conversions(selected.collect_schema(), mappings, source, file)
    narrow = [pl.col(_VALUE + name) for name in conversions if name not in CONTENT_SCHEMA]
    converted = selected.select(
        *_record(conversions, file),
        pl.col(LINE).alias("line"),
        pl.col(POSITION).alias("position"),
        "extra",
        *narrow,
        *_problems(conversions),
    ).collect()
    if made is not None:
        converted = pseudonymised(converted, made, source.hidden)
    return _split(converted, [name for name in conversions if _PROBLEM + name in converted.columns], source, file)


def _conversions(
    types: Mapping[str, pl.DataType], mappings: Mapping[str, ColumnMapping], source: Source, file: BatchFile
) -> dict[str, Conversion]:
    is_csv = (source.format or format_of(file.path.name)) == "csv"
    conversions: dict[str, Conversion] = {}
    for name, mapping in mappings.items():
        value, dtype = pl.col(_VALUE + name), types[_VALUE + name]
        if is_csv and dtype == pl.String and name not in CONTENT_SCHEMA:
            given = pl.when(value != "").then(value)
        else:
            given = value
        try:
            conversion = convert(given, dtype, FROM_SOURCE[name], mapping)
        except NotThis as error:
            raise Unreadable(f"{_key(name, source)}: {error} ({file.path})", MISFIT, name, str(error)) from None
        problem = pl.when(given.is_not_null() & conversion.value.is_null()).then(conversion.problem)
        if name == "batch":
            problem = pl.when(conversion.value.is_null()).then(pl.lit("no-batch"))
        converted = conversion.value
        if name in IDS:
            converted = pl.when(converted.str.strip_chars() != "").then(converted)
        conversions[name] = Conversion(converted, conversion.checked or name == "batch", problem)
    if "prompt" in conversions:
        for name in ("response_a", "response_b"):
            if name in mappings and mappings[name].format == "conversation":
                turns = conversation(pl.col(_VALUE + name), types[_VALUE + name])
                assert turns is not None  # noqa: S101  it was converted
                other = pl.when(another_prompt(turns, conversions["prompt"].value)).then(pl.lit(DIFFERENT_PROMPTS))
                converted = conversions[name]
                conversions[name] = Conversion(converted.value, True, pl.coalesce(converted.problem, other))
    return conversions


def _record(conversions: Mapping[str, Conversion], file: BatchFile) -> Iterable[pl.Expr]:
    for name, column in FROM_SOURCE.items():
        if name in conversions:
            yield conversions[name].value.cast(column.dtype).alias(name)
        else:
            yield pl.lit(file.name if name == "batch" else None, column.dtype).alias(name)


def _problems(conversions: Mapping[str, Conversion]) -> Iterable[pl.Expr]:
    return (conversion.problem.alias(_PROBLEM + name) for name, conversion in conversions.items() if conversion.checked)


def _split(converted: pl.DataFrame, checked: Sequence[str], source: Source, file: BatchFile) -> Mapped:
    records = converted.select(*FROM_SOURCE, "line", "position", "extra")
    failed = {name: pl.col(_PROBLEM + name).is_not_null() for name in checked}
    bad = converted.select(pl.any_horizontal(False, *failed.values())).to_series()
    if not bad.any():
        return Mapped(records, pl.DataFrame(schema=QUARANTINE))
    column = pl.coalesce(pl.when(has_failed).then(pl.lit(name)) for name, has_failed in failed.items())
    value = pl.lit(None, pl.String)
    for name in reversed(checked):
        untold = name in CONTENT_SCHEMA or name in source.hidden
        shown = (
            pl.lit(None, pl.String)
            if untold
            else excerpt(written(pl.col(_VALUE + name), converted.schema[_VALUE + name]))
        )
        value = pl.when(failed[name]).then(shown).otherwise(value)
    quarantined = converted.filter(bad).select(
        pl.lit(source.name).alias("source"),
        pl.lit(file.name).alias("batch"),
        pl.col("line"),
        pl.col("position"),
        pl.coalesce(pl.col(_PROBLEM + name) for name in checked).alias("reason"),
        column.alias("column"),
        value.alias("value"),
    )
    return Mapped(records.filter(~bad), quarantined)


def no_records() -> pl.DataFrame:
    """The records of a file that has none."""
    schema = {name: column.dtype for name, column in FROM_SOURCE.items()}
    return pl.DataFrame(schema={**schema, "line": pl.Int64, "position": pl.Int64, "extra": pl.String})


def _key(name: str, source: Source) -> str:
    return f"source {source.name!r}, " + ("batch" if name == "batch" else f"columns.{name}")


def _check_columns(name: str, mapping: ColumnMapping, columns: list[str], source: Source, file: BatchFile) -> None:
    if mapping.optional:
        return
    own = [column for column in columns if column not in (LINE, POSITION, EXTRA)]
    for column in columns_of(mapping.expr):
        if column not in columns:
            close = get_close_matches(column, own[:_TRIED], n=1)
            hint = f"; did you mean {close[0][:EXCERPT]!r}?" if close else ""  # blanks of a name are to be seen
            raise Unreadable(
                f"{_key(name, source)}: reads column {column!r} which {file.path} does not have",
                MISSING_COLUMN,
                name,
                f"lacks the column {column!r}",
                shown=f"{hint or ';'} it has: {listed(own)}",
                shown_value=hint,
            )


@dataclass(frozen=True)
class _Value:
    """What an expression gives, over `columns` that replace those of the file."""

    expr: pl.Expr
    columns: Mapping[str, pl.Expr]

    def of(self, frame: pl.DataFrame) -> pl.LazyFrame:
        return frame.lazy().with_columns(**self.columns).select(self.expr.alias(""))

    def fits(self, schema: pl.Schema) -> bool:
        try:
            self.of(pl.DataFrame(schema=schema)).collect(engine="in-memory")
        except pl.exceptions.PolarsError:
            return False
        return True


def _value(text: str, optional: bool, schema: pl.Schema) -> _Value:
    """The value of an expression in a file whose columns have these types."""
    return _fitting(text, optional, tuple((name, schema[name]) for name in columns_of(text) if name in schema))


@lru_cache(maxsize=1_000)
def _fitting(text: str, optional: bool, types: tuple[tuple[str, pl.DataType], ...]) -> _Value:
    expr = expression(text)
    read = columns_of(text)
    there = pl.Schema(types)
    absent: dict[str, pl.Expr] = {name: pl.lit(None, pl.Null) for name in read if name not in there}
    empty = [name for name in read if there.get(name, pl.Null) == pl.Null]
    numbers = [name for name, dtype in there.items() if dtype.is_numeric() or dtype == pl.Boolean]
    texts = [name for name, dtype in there.items() if dtype == pl.String]
    candidates: list[dict[str, pl.Expr]] = [{}]
    candidates += [dict.fromkeys(empty, pl.lit(None, dtype)) for dtype in (pl.String, pl.Float64)] if empty else []
    candidates += [{name: pl.col(name).cast(pl.String) for name in numbers}] if numbers else []
    candidates += [{name: pl.col(name).cast(pl.Float64) for name in texts}] if texts else []
    for columns in candidates:
        value = _Value(expr, absent | columns)
        if value.fits(there):
            return value
    a_field_is_absent = optional and any(dtype == pl.Struct for dtype in there.values())
    if empty == list(read) or a_field_is_absent:  # such as a field of a struct that is null in all records
        return _Value(pl.lit(None, pl.Null), absent)
    return _Value(expr, absent)


def _failed(
    frame: pl.DataFrame,
    name: str,
    value: _Value,
    mappings: Mapping[str, ColumnMapping],
    source: Source,
    file: BatchFile,
) -> pl.DataFrame:
    """The records on which one expression fails, in quarantine.

    Raises:
        Unreadable: it fails on all of them, or on each of many that are evenly spread.
    """
    mapping = mappings[name]
    read = columns_of(mapping.expr)
    own = (column for column in read if column in frame.columns and column not in (LINE, POSITION))
    narrow = frame.select(LINE, POSITION, *own)
    cause: list[pl.exceptions.PolarsError] = []

    def runs(rows: Sequence[int]) -> bool:
        try:
            given = value.of(narrow[rows]).rename({"": _VALUE + name})
            only = _conversions(given.collect_schema(), {name: mapping}, source, file)
            given.select(only[name].value.alias(name)).collect()
        except pl.exceptions.PolarsError as error:
            cause[:] = [error]
            return False
        return True

    everything = range(narrow.height)
    if runs(everything):
        return pl.DataFrame(schema=QUARANTINE)
    tried = everything[:: max(1, narrow.height // _TRIED)]
    if not any(runs([row]) for row in tried):
        raise _misfit(_key(name, source), repr(mapping.expr), file, cause[0], name)
    bad = narrow[bad_lines(everything, everything, runs)]
    untold = {*CONTENT_SCHEMA, *source.hidden}.intersection(mappings)
    in_text = {column for text in untold for column in columns_of(mappings[text].expr)}
    shown = pl.col(read[0]).cast(pl.String) if len(read) == 1 and read[0] not in in_text else pl.lit(None, pl.String)
    return quarantined(source.name, file.name, bad.get_column(LINE), "expression-fails").with_columns(
        pl.lit(name).alias("column"),
        bad.get_column(POSITION).alias("position"),
        bad.select(excerpt(shown).alias("value")).to_series(),
    )


def _apart(frame: pl.DataFrame, failed: pl.DataFrame) -> pl.DataFrame:
    """`frame` without the records that are in quarantine."""
    keys = ["line", "position"]
    return frame.join(failed, left_on=[LINE, POSITION], right_on=keys, how="anti", maintain_order="left")


def _not_text(
    frame: pl.DataFrame,
    not_text: pl.DataFrame,
    values: Mapping[str, _Value],
    mappings: Mapping[str, ColumnMapping],
    source: Source,
    file: BatchFile,
) -> pl.DataFrame:
    """The records of which a text would be made of an object or a list, in quarantine; each once.

    So are those of which the prompt, a response or an id would be made of a truth value: a label may be one. An
    expression makes something of such a value if it gives something else without it.
    """
    found = [pl.DataFrame(schema=QUARANTINE)]
    for name, value in values.items():
        those = not_text if name in CONTENT_SCHEMA or name in IDS else not_text.filter(~pl.col("truth"))
        those = those.filter(pl.col("path").list.first().is_in(columns_of(mappings[name].expr)))
        if FROM_SOURCE[name].dtype not in (pl.String, TURNS) or not those.height:
            continue
        rows = frame.filter(pl.col(LINE).is_in(those.get_column(LINE).implode()))
        try:
            given, without = (value.of(some).collect().to_series() for some in (rows, _emptied(rows, those)))
        except pl.exceptions.PolarsError:
            given, without = pl.repeat("", rows.height, eager=True), pl.repeat(None, rows.height, eager=True)
        if given.dtype != pl.String:
            continue
        untold = name in CONTENT_SCHEMA or name in source.hidden
        shown = pl.lit(None, pl.String) if untold else excerpt(pl.col("value"))
        made = rows.select(LINE, POSITION).with_columns(given.alias("value")).filter(given.ne_missing(without))
        found.append(
            quarantined(source.name, file.name, made.get_column(LINE), NOT_CONVERTIBLE)
            .with_columns(made.get_column(POSITION).alias("position"), pl.lit(name).alias("column"), made["value"])
            .with_columns(shown.alias("value"))
        )
    return pl.concat(found).unique(["line", "position"], keep="first", maintain_order=True)


def _emptied(frame: pl.DataFrame, those: pl.DataFrame) -> pl.DataFrame:
    """`frame` with null for the values that are no text."""
    for (path,), some in those.group_by("path", maintain_order=True):
        there = pl.col(LINE).is_in(some.get_column(LINE).implode())
        frame = frame.with_columns(_without(pl.col(path[0]), path[1:], there))
    return frame


def _without(value: pl.Expr, path: Sequence[str], there: pl.Expr) -> pl.Expr:
    if not path:
        return pl.when(~there).then(value)
    inner = _without(value.struct.field(path[0]), path[1:], there)
    return value.struct.with_fields(inner.alias(path[0]))


def _misfit(key: str, what: str, file: BatchFile, error: Exception, column: str | None = None) -> Unreadable:
    said = f": {first_line(error)}"
    return Unreadable(
        f"{key}: {what} fails on {file.path}", MISFIT, column, f"{what} fails", shown=said, shown_value=said
    )
