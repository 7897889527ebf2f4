"""Postgres as a source: what a query holds, read in one transaction that sees one moment.

A row is known by its key. Of each the server gives, beside its columns, what tells whether it was read before:
`position` (its watermark as a number: microseconds since 1970-01-01 UTC, or the integer itself), `digest` (of all
that is in it), `place` (of key and watermark), and `bucket` (of the key, one of 4,096), by which a difference is
found without reading the rest.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.place import seconds
from feedback_assets.sources.quarantine import EXCERPT
from feedback_assets.sources.raw import one_line
from feedback_assets.sources.source import Source

INSTALL = "pip install 'feedback-assets[postgres]'"
MARKS = pl.Schema({"key": pl.String, "position": pl.Int64, "digest": pl.String, "place": pl.Int64, "bucket": pl.Int32})
"""What is kept of each row that was read."""

_MARK = "__mark_"
_MICROSECONDS = 1_000_000
_POSITIONS = {  # type of the watermark: its position, and a position as a value of that type
    "timestamptz": (
        "(extract(epoch FROM {}) * 1000000)::bigint",
        "timestamptz 'epoch' + {} * interval '1 microsecond'",
    ),
    "timestamp": ("(extract(epoch FROM {}) * 1000000)::bigint", "timestamp 'epoch' + {} * interval '1 microsecond'"),
    **dict.fromkeys(("int2", "int4", "int8"), ("({})::bigint", "{}")),
}
_SESSION = (
    # The first must be the first: one moment for all that is read, and nothing is written.
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    # The text of a row, and so its digest, depends on these.
    "SET LOCAL client_encoding = 'UTF8'",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
)
_NO_SERVER = r"refused|No such file|timeout|timed out|translate host|resolve|unreachable|No route|closed the connection"
_NO_ENTRY = r"authentication failed|no password supplied|role .* does not exist|no pg_hba\.conf entry|not permitted"


@dataclass(frozen=True)
class Seen:
    """What a query held at a moment: how many rows, and the highest position among them."""

    rows: int
    position: int | None


@dataclass(frozen=True)
class Read:
    """Some rows: their own columns, and the marks (MARKS) that go with them, line by line."""

    rows: pl.DataFrame
    marks: pl.DataFrame


@dataclass(frozen=True)
class Window:
    """A source's query within one transaction.

    `columns` are its expressions, `json` the names of those that hold JSON as text, `kind` the watermark's type.
    `compared` are the columns by which a row is known to be the same; none: all. What is private is not among them, as
    a digest of little can be tried out.
    """

    source: Source
    cursor: Any
    columns: Sequence[str]
    json: Sequence[str]
    kind: str
    compared: Sequence[str] = ()

    def seen(self) -> Seen:
        """How many rows there are, and how far they go.

        Raises:
            FeedbackError: a row has no key.
        """
        position, _ = self._positions()
        key = _quoted(self.source.key or "")
        rows, without, highest = self._one(
            f"SELECT count(*) AS rows, count(*) FILTER (WHERE {key} IS NULL) AS without, max({position}) AS highest "
            f"FROM {_from(self.source)}"
        )
        if without:
            raise FeedbackError(
                f"source {self.source.name!r}: {without:,} rows have no {self.source.key!r}; name as `key` a column "
                "that is never null, or leave those rows out of the query"
            )
        return Seen(rows, highest)

    def floor(self, position: int) -> int:
        """What lies `overlap` below a position.

        Raises:
            FeedbackError: the overlap is a time and the watermark is not, or the other way round.
        """
        overlap = self.source.overlap
        time = seconds(overlap)
        if overlap and (time is None) != self.kind.startswith("int"):
            meant = "a number" if self.kind.startswith("int") else "a time such as '1 day'"
            raise FeedbackError(
                f"source {self.source.name!r}: the watermark is of type {self.kind}, so `overlap` must be {meant}"
            )
        return position - (int(overlap) if time is None else time * _MICROSECONDS)

    def sums(self, floor: int) -> pl.DataFrame:
        """By bucket, the rows that are not above `floor`: `bucket`, `rows`, and `sum`, of what is compared of them."""
        compared = _number(self._digest()) if self.source.compare == "rows" else _number(self._place())
        table = self._table(
            f"SELECT {self._bucket()} AS bucket, count(*) AS rows, sum({compared})::text AS sum "
            f"FROM {_from(self.source)} WHERE {self._below(floor)} GROUP BY 1"
        )
        return table.cast({"bucket": pl.Int32, "rows": pl.Int64, "sum": pl.String})

    def read(self, floor: int | None, buckets: Sequence[int]) -> Iterator[Read]:
        """The rows above `floor` and all of these buckets, in pieces, by watermark and key; without a floor, all."""
        where = "true"
        if floor is not None:
            inside = f" OR {self._bucket()} IN ({', '.join(map(str, buckets))})" if buckets else ""
            where = f"NOT ({self._below(floor)}){inside}"
        position, _ = self._positions()
        key = f"{_quoted(self.source.key or '')}::text"
        expressions = {
            "key": key,
            "position": position,
            "digest": self._digest(),
            "place": _number(self._place()),
            "bucket": self._bucket(),
        }
        told = ", ".join(f"{expression} AS {_MARK}{name}" for name, expression in expressions.items())
        statement = (
            f"SELECT {', '.join(self.columns)}, {told} FROM {_from(self.source)} WHERE {where} "
            f'ORDER BY {_quoted(self.source.watermark or "")}, {key} COLLATE "C"'
        )
        for frame in self._pieces(statement):
            own = [name for name in frame.columns if not name.startswith(_MARK)]
            marks = frame.select(pl.col(_MARK + name).cast(dtype).alias(name) for name, dtype in MARKS.items())
            yield Read(frame.select(own), _copied(marks))

    def _positions(self) -> tuple[str, str]:
        column = _quoted(self.source.watermark or "")
        position, value = _POSITIONS[self.kind]
        finite = "true" if self.kind.startswith("int") else f"isfinite({column})"
        return f"CASE WHEN {finite} THEN {position.format(column)} END", value

    def _below(self, floor: int) -> str:
        _, value = self._positions()
        column = _quoted(self.source.watermark or "")
        # An infinite or missing watermark is never above: such a row is found by its bucket.
        finite = "" if self.kind.startswith("int") else f" AND {column} < 'infinity'"
        return f"({column} > {value.format(floor)}{finite}) IS NOT TRUE"

    def _digest(self) -> str:
        row = f"ROW({', '.join(map(_quoted, self.compared))})" if self.compared else _ROW
        return f"md5({row}::text)"

    def _place(self) -> str:
        position, _ = self._positions()
        return f"md5({_quoted(self.source.key or '')}::text || '|' || coalesce(({position})::text, ''))"

    def _bucket(self) -> str:
        return f"('x' || substr(md5({_quoted(self.source.key or '')}::text), 1, 3))::bit(12)::int"

    def _one(self, statement: str) -> tuple[Any, ...]:
        return self._table(statement).row(0)

    def _table(self, statement: str) -> pl.DataFrame:
        return pl.concat(list(self._pieces(statement)))

    def _pieces(self, statement: str) -> Iterator[pl.DataFrame]:
        with _told(self.source):
            self.cursor.execute(statement)
            reader = self.cursor.fetch_record_batch()
            yield _frame(reader.schema.empty_table())
            for batch in reader:
                batch.validate(full=True)  # a database that does not know its encoding sends what is no UTF-8
                yield _frame(batch)


def number_of(digest: pl.Expr) -> pl.Expr:
    """The number (Int64) that the server makes of a digest (hexadecimal), to add them up."""
    return digest.str.slice(0, 15).str.to_integer(base=16, dtype=pl.Int64)


@contextmanager
def window(source: Source) -> Iterator[Window]:
    """Open the source's query: one connection, one REPEATABLE READ, READ ONLY transaction.

    Raises:
        FeedbackError: the driver or the environment variable is missing, no server answers, it refuses the user or the
            query, or a column is missing or unfit; one line, which never holds the URI.
    """
    connection = _connect(source)
    try:
        with connection.cursor() as cursor:
            with _told(source):
                for statement in _SESSION:
                    cursor.execute(statement)
                cursor.execute(f"SELECT * FROM {_from(source)} LIMIT 0")
                schema = cursor.fetch_record_batch().schema
            _check(source, schema.names)
            types = {field.name: _type(field) for field in schema}
            kind = types[source.watermark or ""]
            if kind not in _POSITIONS:
                raise FeedbackError(
                    f"source {source.name!r}: the watermark {source.watermark!r} is of type {kind}; "
                    "it must be timestamptz, timestamp or an integer"
                )
            private = source.of_annotators().union(source.never_store)
            json = [name for name, type_ in types.items() if type_ in ("json", "jsonb") and name not in private]
            columns = [_column(field) for field in schema if field.name not in source.never_store]
            compared = [name for name in schema.names if name not in private] if private else []
            yield Window(source, cursor, columns, json, kind, compared)
    finally:
        _close(connection)


_ROW = "__row"


def _from(source: Source) -> str:
    # On lines of its own: a query may end in a comment.
    return f"(\n{_query(source)}\n) AS {_ROW}"


def _query(source: Source) -> str:
    return source.query or f"SELECT * FROM {'.'.join(_quoted(part) for part in (source.table or '').split('.'))}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _number(digest: str) -> str:
    return f"('x' || substr({digest}, 1, 15))::bit(60)::bigint"


def _type(field: Any) -> str:
    return (field.metadata or {}).get(b"POSTGRESQL:type", str(field.type).encode()).decode()


def _column(field: Any) -> str:
    """As it is where Polars has that type; else as the server writes it, such as numeric, json, uuid, interval."""
    import pyarrow as pa

    def plain(dtype: Any) -> bool:
        known = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_date)
        return any(is_(dtype) for is_ in (*known, pa.types.is_timestamp, pa.types.is_time, pa.types.is_binary))

    name, dtype = _quoted(field.name), field.type
    if plain(dtype) or (pa.types.is_list(dtype) and plain(dtype.value_type) and dtype.value_type != pa.binary()):
        return name
    return f"{name}::text[] AS {name}" if pa.types.is_list(dtype) else f"{name}::text AS {name}"


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  a table is no series
    return frame


def _copied(frame: pl.DataFrame) -> pl.DataFrame:
    """In memory of its own: one column of what the driver gave would keep all of it."""
    return pl.read_ipc(frame.write_ipc(None, compat_level=pl.CompatLevel.oldest()).getvalue())


def _check(source: Source, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FeedbackError(
            f"source {source.name!r}: the query gives two columns called {twice[0]!r}; name one of them with AS"
        )
    ours = [name for name in names if name.startswith("__")]
    if ours:
        raise FeedbackError(f"source {source.name!r}: the column name {ours[0]} is ours; rename it with AS")
    for role, wanted in (
        ("key", source.key),
        ("watermark", source.watermark),
        *(("never_store", name) for name in source.never_store),
    ):
        if wanted not in names:
            close = get_close_matches(wanted or "", names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise FeedbackError(
                f"source {source.name!r}: its `{role}` is {wanted!r}, which the query does not give; "
                f"{hint}it gives: {', '.join(names)}"
            )


def _connect(source: Source) -> Any:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise FeedbackError(f"source {source.name!r}: the driver for Postgres is missing; {INSTALL}") from None
    variable = source.connection or ""
    uri = os.environ.get(variable)
    if not uri:
        raise FeedbackError(
            f"source {source.name!r}: the environment variable {variable} is not set; "
            "it must hold the database's URI, postgresql://user:password@host/name"
        )
    if uri.startswith(("postgresql://", "postgres://")) and "connect_timeout" not in uri:
        uri += ("&" if "?" in uri else "?") + "connect_timeout=10"
    try:
        return dbapi.connect(uri)
    except dbapi.Error as error:
        raise FeedbackError(f"source {source.name!r}: {_no_connection(str(error), variable)}") from None


def _no_connection(said: str, variable: str) -> str:
    # libpq repeats pieces of a URI that it does not understand, the password among them: nothing of it is shown.
    if re.search(_NO_ENTRY, said):
        return f"the server refuses the user; correct user and password in {variable}"
    if re.search(r"FATAL: .*database .* does not exist", said):
        return f"the server has no such database; correct its name in {variable}"
    if busy := re.search(r"starting up|shutting down|too many|reserved|recovery mode", said):
        return f"the server takes no connection now ({busy[0]}); run again later"
    if re.search(_NO_SERVER, said):
        return f"no server answers; start it, or correct host and port in {variable}"
    return f"no connection; {variable} must be a URI that psql understands, postgresql://user:password@host/name"


@contextmanager
def _told(source: Source) -> Iterator[None]:
    """What a server or the way to it can do wrong, in one line."""
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    try:
        yield
    except dbapi.Error as error:
        state = error.sqlstate or ""
        if state[:2] in ("", "08", "40", "53", "57", "58"):
            raise _broken_off(source, error) from None
        said = dict(_details(error)).get("PG_DIAG_MESSAGE_PRIMARY", str(error))
        shown = f": {_excerpt(said)}" if source.quotes else f" (SQLSTATE {state})"
        raise FeedbackError(
            f"source {source.name!r}: the server refuses the query{shown}; correct "
            f"{'`query`' if source.query else '`table`'}, or let the user read it"
        ) from None
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise _broken_off(source, error) from None
        raise FeedbackError(
            f"source {source.name!r}: the database sends text that is not UTF-8; convert it in the query, "
            "as in convert_from(column::bytea, 'LATIN1')"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise _broken_off(source, error) from None


def _details(error: Any) -> Iterator[tuple[str, str]]:
    for pair in error.details or ():
        name, value = (part.decode(errors="replace") if isinstance(part, bytes) else part for part in pair)
        yield name, value


def _broken_off(source: Source, error: Exception) -> FeedbackError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = _excerpt(lines[0].removeprefix("IO: ")) if lines and source.quotes else type(error).__name__
    return FeedbackError(
        f"source {source.name!r}: the read broke off ({said}); nothing of it was kept, "
        "run again when the server answers"
    )


def _excerpt(text: str) -> str:
    return one_line(text, 2 * EXCERPT)


def _close(connection: Any) -> None:
    from adbc_driver_postgresql import dbapi

    try:
        connection.close()
    except dbapi.Error:  # the server is gone
        return
