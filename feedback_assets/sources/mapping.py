"""From the source's own columns to the record: expressions give raw values, the conversion is ours.

A value that was there and did not convert quarantines its record. Nothing is coerced silently.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of, expression
from feedback_assets.record import CONTENT_SCHEMA, FROM_SOURCE
from feedback_assets.sources.conversation import another_prompt, conversation
from feedback_assets.sources.conversion import Conversion, NotThis, convert
from feedback_assets.sources.entries import entries, fitting
from feedback_assets.sources.files import BatchFile, first_line
from feedback_assets.sources.leftover import leftover
from feedback_assets.sources.quarantine import QUARANTINE, excerpt
from feedback_assets.sources.raw import LINE, POSITION, Raw
from feedback_assets.sources.source import ColumnMapping, Source, format_of

DIFFERENT_PROMPTS = "different-prompts"
_VALUE, _PROBLEM = "__value_", "__problem_"


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

    A record of which a value was there and did not convert is quarantined: "not-convertible",
    "time-without-zone", "different-prompts" where the conversation that a response ends has another prompt, or
    "no-batch" where the source's `batch` is null; so is what `entries` says. In a CSV an empty field is null, except
    in columns of text.

    Raises:
        FeedbackError: an expression reads a column that the file lacks, fails on its data, or gives a type of
            which the record column cannot be made; names file, source and policy key.
    """
    if raw.frame.columns == [LINE] and not raw.frame.height:
        return Mapped(_no_records(), raw.malformed)
    raw = entries(raw, source, file)
    if not raw.frame.height:
        return Mapped(_no_records(), raw.malformed.sort("line", "position"))
    mappings = {name: source.columns[name] for name in FROM_SOURCE if name in source.columns}
    mappings = fitting(mappings, raw.frame.schema)
    if source.batch is not None:
        mappings["batch"] = ColumnMapping(expr=source.batch)
    read = {LINE, POSITION, *(column for each in source.each or () for column in columns_of(each))}
    for name, mapping in mappings.items():
        read.update(columns_of(mapping.expr))
        _check_columns(name, mapping, raw.frame.columns, source, file)

    values = raw.frame.lazy().select(
        LINE,
        POSITION,
        *(expression(mapping.expr).alias(_VALUE + name) for name, mapping in mappings.items()),
        leftover(raw.frame.schema, read).alias("extra"),
    )
    try:
        conversions = _conversions(values.collect_schema(), mappings, source, file)
        narrow = [pl.col(_VALUE + name) for name in conversions if name not in CONTENT_SCHEMA]
        converted = values.select(
            *_record(conversions, file),
            pl.col(LINE).alias("line"),
            pl.col(POSITION).alias("position"),
            "extra",
            *narrow,
            *_problems(conversions),
        ).collect()
    except pl.exceptions.PolarsError as error:
        raise _blame(raw.frame, mappings, source, file, error) from None
    mapped = _split(converted, [name for name in conversions if _PROBLEM + name in converted.columns], source, file)
    return Mapped(mapped.records, pl.concat([raw.malformed, mapped.quarantined]).sort("line", "position"))


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
            raise FeedbackError(f"{_key(name, source)}: {error} ({file.path})") from None
        problem = pl.when(given.is_not_null() & conversion.value.is_null()).then(conversion.problem)
        if name == "batch":
            problem = pl.when(conversion.value.is_null()).then(pl.lit("no-batch"))
        conversions[name] = Conversion(conversion.value, conversion.checked or name == "batch", problem)
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
        shown = pl.lit(None, pl.String) if name in CONTENT_SCHEMA else excerpt(pl.col(_VALUE + name).cast(pl.String))
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


def _no_records() -> pl.DataFrame:
    schema = {name: column.dtype for name, column in FROM_SOURCE.items()}
    return pl.DataFrame(schema={**schema, "line": pl.Int64, "position": pl.Int64, "extra": pl.String})


def _key(name: str, source: Source) -> str:
    return f"source {source.name!r}, " + ("batch" if name == "batch" else f"columns.{name}")


def _check_columns(name: str, mapping: ColumnMapping, columns: list[str], source: Source, file: BatchFile) -> None:
    own = [column for column in columns if column not in (LINE, POSITION)]
    for column in columns_of(mapping.expr):
        if column not in columns:
            close = get_close_matches(column, own, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise FeedbackError(
                f"{_key(name, source)}: reads column {column!r} which {file.path} does not have; "
                f"{hint}it has: {', '.join(own)}"
            )


def _blame(
    frame: pl.DataFrame, mappings: Mapping[str, ColumnMapping], source: Source, file: BatchFile, error: Exception
) -> FeedbackError:
    for name, mapping in mappings.items():
        try:
            value = frame.select(LINE, POSITION, expression(mapping.expr).alias(_VALUE + name))
            only = _conversions(value.schema, {name: mapping}, source, file)
            value.select(LINE, only[name].value.alias(name))
        except pl.exceptions.PolarsError as cause:
            return FeedbackError(f"{_key(name, source)}: {mapping.expr!r} fails on {file.path}: {first_line(cause)}")
    return FeedbackError(f"source {source.name!r}: {file.path} cannot be mapped: {first_line(error)}")
