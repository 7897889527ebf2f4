"""Windows of a database, landed: read once, kept for good, and from then on batch files like others.

Each landing of a source is a numbered record, put conditionally; only a record publishes. It lists the batches (objects
named by their digest) and the marks of their rows, by which the next landing knows what it need not read again.

No row is lost, however late: what lies above the floor (the highest watermark less the overlap) is read and compared
row by row; of what lies below it, the server adds up keys and watermarks by bucket, and a bucket whose sum is not that
of what was landed is read again. Rows that were landed as they are now are left out. What stays unseen is a change
below the floor that leaves key and watermark as they are; with `compare: rows` the sums are of all that is in a row.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from feedback_assets.digests import canonical_json, digest, file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.withdrawn import withdrawn_lines
from feedback_assets.record import FROM_SOURCE
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.conversion import NotThis, convert
from feedback_assets.sources.files import BatchFile
from feedback_assets.sources.landed import Landed, write_landed
from feedback_assets.sources.postgres import MARKS, Read, Seen, Window, number_of, window
from feedback_assets.sources.privacy import ANNOTATOR, pseudonyms
from feedback_assets.sources.source import ColumnMapping, Source

BATCH_BYTES = 64 * 2**20
"""A batch ends when its rows take so much memory."""
_ATTEMPTS = 20  # how many landings of other runs may come first


@dataclass(frozen=True)
class Batch:
    """Rows that were landed: `name` is their lowest and highest watermark, `digest` that of the object's bytes."""

    name: str
    digest: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Landing:
    """One landing: its batches, the digest of the object with their marks (MARKS), what the query held then.

    A mark without a digest says that its row was there and is there no more; `gone` counts these.
    """

    batches: tuple[Batch, ...]
    marks: str
    seen: Seen
    gone: int


def landings(store: Store, source: str) -> list[Landing]:
    """All landings of a source, oldest first.

    Raises:
        FeedbackError: a record is not what was written.
    """
    found: list[Landing] = []
    while store.exists(key := _record(source, len(found) + 1)):
        try:
            kept = json.loads(store.get(key))
            if kept["digest"] != digest(kept["landing"]):
                raise ValueError
            found.append(_from_json(kept["landing"]))
        except (ValueError, KeyError, TypeError):
            raise FeedbackError(
                f"{store.uri(key)}: this record of a landing was changed after it was written; restore it from a backup"
            ) from None
    return found


def landed(store: Store, source: Source) -> list[BatchFile]:
    """The batches of a source that were landed, as files, oldest first."""
    return [_file(store, source.name, batch) for landing in landings(store, source.name) for batch in landing.batches]


def landed_key(file: BatchFile) -> str:
    """The key of the object that is such a file."""
    return f"landed/{file.path.parent.name}/{file.path.name}"


def _file(store: Store, source: str, batch: Batch) -> BatchFile:
    first = _object(batch.digest)
    key = store.erasures.current(first)
    path, size = store.here.path(key), batch.bytes
    if key != first and store.stands(key):  # an erasure changes its size
        size = store.path(key).stat().st_size
    return BatchFile(source, batch.name, path, batch.digest, size, at_hand=partial(_at_hand, store, key))


def landed_keys(store: Store, source: str) -> list[tuple[str, str, str]]:
    """Key, digest, and what it is, of each object that the landings of a source refer to."""
    return [
        entry
        for number, landing in enumerate(landings(store, source), 1)
        for entry in (
            *((_object(batch.digest), batch.digest, f"{source}, {batch.name}") for batch in landing.batches),
            (_object(landing.marks), landing.marks, f"{source}, marks of landing {number}"),
        )
    ]


@contextmanager
def _at_hand(store: Store, key: str) -> Iterator[None]:
    store.path(key)
    yield


def unlanded(store: Store, source: Source) -> Seen | None:
    """What the query holds, if that is not what the latest landing saw: a count and a maximum, no more.

    Raises:
        FeedbackError: as `sources.postgres.window`.
    """
    with window(source) as opened:
        seen = opened.seen()
    before = landings(store, source.name)
    return None if before and before[-1].seen == seen else seen


def land(store: Store, source: Source) -> None:
    """Land what is new in a source, if anything is.

    Raises:
        FeedbackError: as `sources.postgres.window`; a key stands twice; or other runs land without end.
    """
    for _ in range(_ATTEMPTS):
        before = landings(store, source.name)
        with window(source) as opened:
            landing = _landing(store, opened, before)
        if landing is None:
            return
        value = asdict(landing)
        if store.put(
            _record(source.name, len(before) + 1), canonical_json({"digest": digest(value), "landing": value})
        ):
            return
        # Another run landed meanwhile: what it has need not be landed again.
    raise FeedbackError(f"source {source.name!r}: other runs land its rows without end; run again when they are done")


def _landing(store: Store, opened: Window, before: Sequence[Landing]) -> Landing | None:
    known = _known(store, before)
    seen = opened.seen()
    highest = known.get_column("position").max()
    floor = None if highest is None else opened.floor(int(highest))  # type: ignore[arg-type]
    buckets = [] if floor is None else _unlike(known, floor, opened)
    read: list[pl.DataFrame] = []
    fresh: list[pl.DataFrame] = []
    batches = [
        batch
        for piece in _batches(_new(opened.read(floor, buckets), known, read))
        for batch in _put(store, opened, piece, fresh)
    ]
    _refuse_repeated(opened.source, pl.concat(read))
    again = (pl.col("position") > floor) | pl.col("bucket").is_in(buckets) if floor is not None else pl.lit(value=True)
    gone = known.filter(again.fill_null(value=False)).join(pl.concat(read), on="key", how="anti")
    if not batches and gone.is_empty():
        return None
    marks = pl.concat([*fresh, gone.with_columns(pl.lit(None, pl.String).alias("digest"))]).sort("key")
    return Landing(tuple(batches), _put_frame(store, marks)[0], seen, gone.height)


def _known(store: Store, before: Sequence[Landing]) -> pl.DataFrame:
    """The mark of each row as it was landed last, without those that are gone."""
    if not before:
        return pl.DataFrame(schema=MARKS)
    marks = pl.scan_parquet(store.paths(_object(landing.marks) for landing in before), glob=False)
    latest = marks.unique("key", keep="last", maintain_order=True)
    return latest.filter(pl.col("digest").is_not_null()).collect()


def _unlike(known: pl.DataFrame, floor: int, opened: Window) -> list[int]:
    """The buckets in which the rows that are not above the floor are not those that were landed."""
    compared = number_of(pl.col("digest")) if opened.source.compare == "rows" else pl.col("place")
    above = (pl.col("position") > floor).fill_null(value=False)
    landed_sums = (
        known.filter(~above)
        .group_by("bucket")
        .agg(pl.len().cast(pl.Int64).alias("rows"), compared.cast(pl.Int128).sum().cast(pl.String).alias("sum"))
    )
    both = opened.sums(floor).join(landed_sums, on="bucket", how="full", coalesce=True, suffix="_landed")
    same = pl.col("rows").eq_missing(pl.col("rows_landed")) & pl.col("sum").eq_missing(pl.col("sum_landed"))
    return both.filter(~same).get_column("bucket").sort().to_list()


def _new(pieces: Iterator[Read], known: pl.DataFrame, read: list[pl.DataFrame]) -> Iterator[Read]:
    """Of each piece the rows that were not landed as they are now; `read` gets the keys of all."""
    as_now = known.select("key", "digest", landed=pl.lit(value=True))
    for piece in pieces:
        read.append(piece.marks.select("key"))
        was = piece.marks.join(as_now, on=["key", "digest"], how="left", maintain_order="left").get_column("landed")
        yield Read(piece.rows.filter(was.is_null()), piece.marks.filter(was.is_null()))


def _batches(pieces: Iterator[Read]) -> Iterator[Read]:
    rows: list[pl.DataFrame] = []
    marks: list[pl.DataFrame] = []
    held = 0
    for piece in pieces:
        rows.append(piece.rows)
        marks.append(piece.marks)
        held += int(piece.rows.estimated_size())
        if held >= BATCH_BYTES:
            yield Read(pl.concat(rows), pl.concat(marks))
            rows, marks, held = [], [], 0
    if rows:
        yield Read(pl.concat(rows), pl.concat(marks))


def _put(store: Store, opened: Window, piece: Read, fresh: list[pl.DataFrame]) -> Iterator[Batch]:
    if piece.rows.is_empty():
        return
    fresh.append(piece.marks)
    rows, landed = _private(piece.rows, opened.source)
    rows = _without_erased(store, opened, rows, landed)
    if rows.is_empty():
        return
    name, bytes_ = _put_frame(store, rows, opened.json, landed)
    yield Batch(_name(piece.marks.get_column("position"), opened.kind), name, bytes_, rows.height)


def _without_erased(store: Store, opened: Window, rows: pl.DataFrame, landed: Landed | None) -> pl.DataFrame:
    """Rows without those of records that were erased by request: their marks say that they were seen, no more."""
    if not store.erasures.all():
        return rows
    with store.scratch() as scratch:
        write_landed(rows, scratch, opened.json, landed)
        file = BatchFile(opened.source.name, "", scratch, "", scratch.stat().st_size)
        lines = withdrawn_lines(store.erasures, file, opened.source.model_copy(update={"format": "parquet"}))
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return rows.filter(~number.is_in(pl.lit(pl.Series(lines, dtype=pl.Int64)).implode()))


def _private(rows: pl.DataFrame, source: Source) -> tuple[pl.DataFrame, Landed | None]:
    """`rows` with pseudonyms in place of ids of annotators, where the source asks for them."""
    made = pseudonyms(source.name, source)
    if made is None:
        return rows, None
    ids = sorted(source.of_annotators().intersection(rows.columns))
    column = ColumnMapping(expr=ANNOTATOR)
    try:
        values = [convert(pl.col(name), rows.schema[name], FROM_SOURCE[ANNOTATOR], column).value for name in ids]
    except NotThis:
        raise FeedbackError(
            f"source {source.name!r}: its annotator_id is no text and no number; let the query give one of them"
        ) from None
    # What does not convert is an id all the same.
    texts = rows.select(
        pl.coalesce(value, pl.col(name).cast(pl.String)).cast(pl.String).alias(name)
        for name, value in zip(ids, values, strict=True)
    )
    return rows.with_columns(made.of(text) for text in texts), Landed(tuple(ids), made.check)


def _put_frame(
    store: Store, frame: pl.DataFrame, json_columns: Sequence[str] = (), landed: Landed | None = None
) -> tuple[str, int]:
    with store.scratch() as scratch:
        write_landed(frame, scratch, json_columns, landed)
        name, size = file_digest(scratch), scratch.stat().st_size
        store.put_file(_object(name), scratch)
    return name, size


def _name(positions: pl.Series, kind: str) -> str:
    ends = (positions.min(), positions.max())
    return "..".join("" if end is None else _shown(int(end), kind) for end in ends)  # type: ignore[arg-type]


def _shown(position: int, kind: str) -> str:
    if kind.startswith("int"):
        return str(position)
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=position)
    except OverflowError:  # beyond the year 9999
        return str(position)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + ("Z" if kind == "timestamptz" else "")


def _refuse_repeated(source: Source, keys: pl.DataFrame) -> None:
    if keys.is_unique().all():
        return
    raise FeedbackError(
        f"source {source.name!r}: {keys.height - keys.n_unique():,} rows repeat the {source.key!r} of another; "
        "name as `key` a column that tells every row of the query apart"
    )


def _record(source: str, number: int) -> str:
    return f"landings/{source}/{number:010d}.json"


def _object(name: str) -> str:
    return f"landed/{name[:2]}/{name}.parquet"


def _from_json(value: Any) -> Landing:
    return Landing(
        tuple(Batch(**batch) for batch in value["batches"]), value["marks"], Seen(**value["seen"]), value["gone"]
    )
