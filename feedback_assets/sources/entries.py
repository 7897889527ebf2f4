"""One source row, several records: the entries of a list, and what of them is no feedback."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from feedback_assets.expressions import columns_of, expression
from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.conversion import NotThis, convert, named
from feedback_assets.sources.files import BatchFile
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import LINE, MISFIT, POSITION, Raw, Unreadable, listed
from feedback_assets.sources.source import EACH, ColumnMapping, Source, expressions

NO_ENTRY = "no-entry"


def entries(raw: Raw, source: Source, file: BatchFile) -> Raw:
    """One row a record: an entry of the list that `each` gives, or without `each` the source's own row.

    The frame gets `__position` (Int64), the place of the record among those of its row, from 1; with `each` also the
    entry as `each`, and loses the columns that only `each` reads. Quarantined: a row whose list is empty or null
    ("no-entry"), and a record for which an expression of `quarantine_when` is true, under the reason named there.

    Raises:
        Unreadable: `each` gives no list, or the source has a column of a name that is ours.
    """
    frame, malformed = raw.frame, [raw.malformed]
    taken = [name for name in ((EACH, POSITION) if source.each else (POSITION,)) if name in frame.columns]
    if taken:
        value = f"the column name {taken[0]} is ours"
        raise Unreadable(f"{file.path}: {value}; rename it", value=value)
    if not source.each:
        frame = frame.with_columns(pl.lit(1, pl.Int64).alias(POSITION))
    else:
        each = next((text for text in source.each if type_of(text, frame.schema) == pl.List), None)
        if each is None:
            raise _no_list(source, frame.schema, file)
        frame = frame.with_columns(expression(each).alias(EACH))
        used = {name for text in expressions(source) for name in columns_of(text)}
        frame = frame.drop(name for name in columns_of(each) if name not in used and name != LINE)
        empty = frame.select((pl.col(EACH).list.len() == 0).fill_null(value=True)).to_series()
        malformed.append(quarantined(source.name, file.name, frame.get_column(LINE).filter(empty), NO_ENTRY))
        frame = (
            frame.filter(~empty)
            .with_columns(pl.int_ranges(1, pl.col(EACH).list.len() + 1, dtype=pl.Int64).alias(POSITION))
            .explode(EACH, POSITION, empty_as_null=False)
        )
    for reason, alternatives in source.quarantine_when.items():
        condition = next((text for text in alternatives if type_of(text, frame.schema) in (pl.Boolean, pl.Null)), None)
        if condition is None:
            raise Unreadable(
                f"source {source.name!r}, quarantine_when.{reason}: {alternatives[0]!r} is no condition on the columns "
                f"of {file.path}",
                MISFIT,
                value=f"quarantine_when.{reason} is no condition on its columns",
                shown=f"; it has: {listed(frame.columns)}",
            )
        met = frame.select(expression(condition).cast(pl.Boolean).fill_null(value=False).alias("")).to_series()
        met = met.new_from_index(0, frame.height) if met.len() != frame.height else met
        rejected = frame.filter(met)
        malformed.append(
            quarantined(source.name, file.name, rejected.get_column(LINE), reason).with_columns(
                rejected.get_column(POSITION).alias("position")
            )
        )
        frame = frame.filter(~met)
    return replace(raw, frame=frame, malformed=pl.concat(malformed).select(QUARANTINE.names()))


def fitting(mappings: Mapping[str, ColumnMapping], schema: pl.Schema) -> dict[str, ColumnMapping]:
    """Of each mapping the first alternative that a file with these columns can give; else the first of all."""
    return {
        name: next((given for given in mapping.alternatives() if _fits(name, given, schema)), mapping)
        for name, mapping in mappings.items()
    }


def _fits(name: str, mapping: ColumnMapping, schema: pl.Schema) -> bool:
    dtype = type_of(mapping.expr, schema)
    if dtype is None:
        return False
    try:
        convert(pl.col(""), dtype, FROM_SOURCE[name], mapping)
    except NotThis:
        return False
    return True


def type_of(text: str, schema: pl.Schema) -> pl.DataType | None:
    """The type that an expression gives over such columns; None if it gives none."""
    try:
        # A schema alone does not tell that a function refuses a type; run on no rows it does.
        read = {name: schema[name] for name in columns_of(text) if name in schema}
        return pl.DataFrame(schema=read).select(expression(text).alias("")).schema[""]
    except pl.exceptions.PolarsError:
        return None


def _no_list(source: Source, schema: pl.Schema, file: BatchFile) -> Unreadable:
    assert source.each  # noqa: S101  the caller has one
    dtype = type_of(source.each[0], schema)
    given = f"gives {named(dtype)}, and a list is needed" if dtype is not None else "reads what is not there"
    return Unreadable(
        f"source {source.name!r}, each: {source.each[0]!r} {given} ({file.path})",
        MISFIT,
        value="`each` gives no list",
        shown=f"; it has: {listed([name for name in schema if name != LINE])}",
    )
