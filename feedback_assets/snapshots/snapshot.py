"""Snapshots: ordered lists of immutable Parquet parts, addressed by what they hold.

A snapshot has tables (`rows`, `fates`, and what else a stage keeps); a table has parts; a part is one Parquet file, or
several side by side: the columns that came in, and in a file of their own those that a later stage added. So a stage
writes what is new and keeps the rest. Two digests stand beside each file: `fingerprint`, of its logical values, from
which the data version is made; and `digest`, of its bytes, which names the file and is what `verify` recomputes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from feedback_assets.digests import digest, file_digest, fingerprint, schema_of
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each

ROW_GROUP = 65_536  # fixed, so that Parquet bytes do not depend on chunking or threads
COPIED_TOGETHER = 4  # parts whose further copies lie in one file: few are written again, and few are small
ASIDE = ("fates", "quarantine")  # tables that explain the data and are not part of its version


@dataclass(frozen=True)
class File:
    """One Parquet file: some columns of the rows of a part."""

    digest: str
    fingerprint: str
    bytes: int
    columns: str  # digest of their names and dtypes: files with the same are read in one scan

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"parts/{self.digest[:2]}/{self.digest}.parquet"


@dataclass(frozen=True)
class Part:
    """Some rows: the files that hold their columns, side by side, and the arrivals (first, last) of the rows if any.

    `further` ones are copies of records that stand in other parts (`copy_index` above 0).
    """

    rows: int
    files: tuple[File, ...]
    arrivals: tuple[int, int] | None = None
    further: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Digest of its values."""
        return _of_all(tuple(file.fingerprint for file in self.files))

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """The part as plain JSON values."""
        files = [vars(file) for file in self.files]  # `asdict` copies each value, which takes ten times as long
        return {"rows": self.rows, "files": files, "arrivals": self.arrivals, "further": self.further}


@lru_cache(maxsize=65_536)
def _of_all(fingerprints: tuple[str, ...]) -> str:
    return fingerprints[0] if len(fingerprints) == 1 else digest(fingerprints)


@dataclass(frozen=True)
class Table:
    """An ordered list of parts with one schema (column name → dtype as text); their files may hold further columns."""

    schema: Mapping[str, str]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(part.bytes for part in self.parts)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Those of all its files, which say what is in it."""
        return tuple(file.digest for part in self.parts for file in part.files)

    @cached_property
    def records(self) -> "Table":
        """The parts that hold each record once."""
        return Table(self.schema, tuple(part for part in self.parts if not part.further))

    @cached_property
    def further(self) -> "Table":
        """The parts that hold further copies of records."""
        return Table(self.schema, tuple(part for part in self.parts if part.further))


@dataclass(frozen=True)
class Snapshot:
    """What one materialization produced."""

    asset: str
    tables: Mapping[str, Table]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def data_version(self) -> str:
        """Digest of the schema and the ordered fingerprints of all tables but those that only explain.

        Rows alone count, not where one part ends: the same rows in other parts are told apart, because parts
        follow the arrivals, which are an input.
        """
        return digest(
            {
                name: {
                    "schema": list(table.schema.items()),
                    "parts": [[part.fingerprint, part.rows] for part in table.parts],
                }
                for name, table in self.tables.items()
                if name not in ASIDE
            }
        )

    @property
    def files(self) -> list[File]:
        """All files of all parts."""
        return [file for table in self.tables.values() for part in table.parts for file in part.files]

    def as_json(self) -> dict[str, Any]:
        """The snapshot as plain JSON values."""
        tables = {
            name: {"schema": list(map(list, table.schema.items())), "parts": [part.as_json() for part in table.parts]}
            for name, table in self.tables.items()
        }
        version = self.data_version
        return {"asset": self.asset, "data_version": version, "facts": dict(self.facts), "tables": tables}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Snapshot":
        """The inverse of `as_json`."""
        return cls(value["asset"], tables_from_json(value["tables"]), value["facts"])


def tables_from_json(value: Mapping[str, Any]) -> dict[str, Table]:
    """Tables as `Snapshot.as_json` wrote them."""
    return {
        name: Table(
            dict(table["schema"]),
            tuple(_part(part) for part in table["parts"]),
        )
        for name, table in value.items()
    }


def _part(value: Mapping[str, Any]) -> Part:
    arrivals = tuple(value["arrivals"]) if value["arrivals"] else None
    files = tuple(File(**file) for file in value["files"])
    return Part(value["rows"], files, arrivals, value.get("further", False))


def write_part(store: Store, frame: pl.DataFrame, *, known_fingerprint: str | None = None) -> Part:
    """Write `frame` as a part of one file, if the store does not have one with the same values yet."""
    return Part(frame.height, (_write_file(store, frame, known_fingerprint),), _arrivals(frame))


def _arrivals(frame: pl.DataFrame) -> tuple[int, int] | None:
    if "arrival" not in frame.columns or not frame.height:
        return None
    first, last = frame.select(pl.col("arrival").min(), pl.col("arrival").max().alias("last")).row(0)
    return None if first is None else (first, last)


def _write_file(store: Store, frame: pl.DataFrame, known_fingerprint: str | None = None) -> File:
    values = known_fingerprint or fingerprint(frame)
    kept = _recalled(store, f"{values}-file")
    if kept is not None:
        return kept
    with store.scratch() as scratch:
        write_frame(scratch, frame)
        columns = digest(list(schema_of(frame).items()))[:16]
        file = File(digest=file_digest(scratch), fingerprint=values, bytes=scratch.stat().st_size, columns=columns)
        store.put_file(file.key, scratch)
    store.remember(f"{values}-file", asdict(file))
    return file


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write `frame` as Parquet, so that the same rows are the same bytes."""
    frame.write_parquet(path, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)


def _recalled(store: Store, name: str) -> File | None:
    kept = store.recall(name)
    file = None if kept is None else File(**kept)
    return file if file is not None and store.stands(file.key) else None


def write_table(
    store: Store,
    frame: pl.DataFrame,
    *,
    last_arrivals: Sequence[int] = (),
    lengths: Sequence[int] = (),
    part_rows: int = 65_536,
) -> Table:
    """Write `frame` as a table.

    With `last_arrivals` (ascending; `frame` sorted by `arrival`) a part ends after each of them, so that a later
    batch leaves the earlier parts as they are; with `lengths` parts have these numbers of rows; otherwise one ends
    after every `part_rows` rows.
    """
    if last_arrivals:
        arrival = frame.get_column("arrival")
        ends = [int(arrival.search_sorted(last, side="right")) for last in last_arrivals[:-1]] + [frame.height]
    elif lengths:
        ends = list(accumulate(lengths))
    else:
        ends = [*range(part_rows, frame.height, part_rows), frame.height]
    starts = [0, *ends[:-1]]
    slices = [(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]
    # An empty table has one empty part: a reader finds its columns there.
    parts = each(lambda piece: write_part(store, frame.slice(*piece)), slices or [(0, 0)])
    return Table(schema_of(frame), tuple(parts))


def write_rows(
    store: Store, rows: pl.DataFrame, came: pl.DataFrame, before: Table, stands: pl.Series | None = None
) -> Table:
    """Write what a stage made of the rows `came`, which are the table `before`: only what is new.

    A part of `before` whose rows all stand keeps its files; one that lost rows is written without them, once for the
    same rows. Columns that the stage added go into a file beside it. Where the rows have a `copy_index`, which is 0,
    further ones of a row that has several `copies` are written, too, in parts of their own after all others. `stands`
    says which of the rows that came they are, where that is known and no column of theirs was rewritten: then nothing
    is compared.
    """
    parts = _write_records(store, rows, came, before, stands)
    further = _write_copies(store, rows, parts) if "copy_index" in rows.columns else []
    return Table(schema_of(rows), (*parts, *further))


def _write_records(
    store: Store, rows: pl.DataFrame, came: pl.DataFrame, before: Table, known: pl.Series | None
) -> Sequence[Part]:
    stands = _standing(rows, came) if known is None else known
    standing = int(stands.sum())
    ahead = bool(stands.head(standing).all())  # nothing is copied to leave out what comes last
    names = [name for name in came.columns if name in rows.columns]
    added = [name for name in rows.columns if name not in names]
    left_over, new = rows.select(names), rows.select(added)
    if known is None and not all(
        _alike(left_over[name], came[name].head(standing) if ahead else came[name].filter(stands)) for name in names
    ):
        # It moved rows or rewrote a column, so that nothing of what came can be kept.
        ends = [part.arrivals[1] for part in before.parts if part.arrivals]
        return write_table(store, rows, last_arrivals=ends).parts
    pieces: list[tuple[Part, pl.Series, int]] = []
    start = placed = 0
    for part in before.parts:
        stand = stands.slice(start, part.rows)
        pieces.append((part, stand, placed))
        start, placed = start + part.rows, placed + int(stand.sum())

    def written(piece: tuple[Part, pl.Series, int]) -> Part:
        part, stand, at = piece
        mine = left_over.slice(at, int(stand.sum()))
        files = part.files if stand.all() else (_shortened(store, mine, part, stand),)
        if added:
            files = (*files, _write_file(store, new.slice(at, mine.height)))
        return Part(mine.height, files, part.arrivals or _arrivals(rows.slice(at, mine.height)))

    left = [piece for piece in pieces if piece[1].any()]
    return each(written, left or pieces[:1])


def _write_copies(store: Store, rows: pl.DataFrame, parts: Sequence[Part]) -> list[Part]:
    """Write further copies of `rows`, which are `parts`, those of COPIED_TOGETHER parts in one.

    These determine them: the copies of earlier arrivals stay in the files that they lie in.
    """
    blocks = [parts[start : start + COPIED_TOGETHER] for start in range(0, len(parts), COPIED_TOGETHER)]
    starts = accumulate((sum(part.rows for part in block) for block in blocks), initial=0)

    def written(start: int, block: Sequence[Part]) -> Part | None:
        mine = rows.slice(start, sum(part.rows for part in block))
        again = mine.select("arrival", "copies").filter(pl.col("copies") > 1)
        if again.is_empty():
            return None
        name = ["copies", [part.fingerprint for part in block]]
        file = written_once(store, name, lambda: further_copies(mine))
        return Part(int((again["copies"] - 1).sum()), (file,), _arrivals(again), further=True)

    found = each(lambda block: written(*block), zip(starts, blocks, strict=False))
    return [part for part in found if part is not None]


def further_copies(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each of `rows`, one after the other, as many further ones as its `copies` ask for; `copy_index` from 1."""
    again = rows.get_column("copies").to_numpy() - 1
    index = np.arange(1, again.sum() + 1) - np.repeat(np.cumsum(again) - again, again)
    return rows[np.repeat(np.arange(rows.height), again)].with_columns(pl.Series("copy_index", index, pl.Int32))


def write_fates(store: Store, fates: pl.DataFrame, came: pl.DataFrame, before: Table) -> Table:
    """Write the fates of the rows `came`, which are the table `before`, part by part.

    The ids of a part's rows lie in a file of their own, which all stages share; what became of them stands beside it.
    """
    if not _alike(fates.get_column("row_id"), came.get_column("row_id")):
        return write_table(store, fates)
    starts = accumulate((part.rows for part in before.parts), initial=0)
    ids, told = fates.select("row_id"), fates.drop("row_id")
    all_alike = _told_alike(told)

    def written(part: Part, start: int) -> Part:
        of_ids = written_once(store, ["ids", part.fingerprint], ids.slice(start, part.rows))
        mine = told.slice(start, part.rows)
        alike = part.rows and (all_alike or _told_alike(mine))
        name = ["told alike", list(schema_of(mine).items()), mine.row(0), part.rows] if alike else None
        return Part(part.rows, (of_ids, written_once(store, name, mine) if name else _write_file(store, mine)))

    return Table(schema_of(fates), tuple(each(lambda piece: written(*piece), zip(before.parts, starts, strict=False))))


def _told_alike(told: pl.DataFrame) -> bool:
    """Whether the same is told of all rows, as if all are kept."""
    # The last column first: `copies` differs where anything does, but for rows that fare alike by different rules.
    nulls = ((column, column.null_count()) for column in reversed(told.get_columns()))
    return all(count == len(told) or (not count and column.min() == column.max()) for column, count in nulls)


def written_once(store: Store, name: list[Any], frame: pl.DataFrame | Callable[[], pl.DataFrame]) -> File:
    """The file of `frame`, which `name` determines: its values are not read, or made, where it is there."""
    known = f"{digest(name)}-file"
    file = _recalled(store, known)
    if file is None:
        file = _write_file(store, frame if isinstance(frame, pl.DataFrame) else frame())
        store.remember(known, asdict(file))
    return file


def passed_on(rows: pl.DataFrame, came: pl.DataFrame) -> bool:
    """Whether `rows` are those that came, in their order, with all their columns as they were."""
    return rows.height == came.height and all(
        name in rows.columns and _alike(rows[name], came[name]) for name in came.columns
    )


def _standing(rows: pl.DataFrame, came: pl.DataFrame) -> pl.Series:
    """For each row that came whether it is still there."""
    stands = pl.repeat(True, pl.len())
    if rows.height < came.height:
        # By hashes: what is said to stand is compared with what does.
        stands = pl.col("row_id").hash().is_in(rows.select(pl.col("row_id").hash()).to_series().implode())
    return came.select(stands=stands).to_series()


def _alike(one: pl.Series, other: pl.Series) -> bool:
    if isinstance(one.dtype, pl.List):  # value by value: Polars compares lists one after the other
        lengths, others = one.list.len(), other.list.len()
        return lengths.equals(others) and _alike(one.explode(empty_as_null=False), other.explode(empty_as_null=False))
    place = _lies_at(one)
    return one.dtype == other.dtype and ((place is not None and place == _lies_at(other)) or one.equals(other))


def _lies_at(column: pl.Series) -> list[int] | None:
    """Where in memory a column lies: one that a stage passed on lies where it lay, and need not be compared."""
    if column.n_chunks() != 1 or column.dtype.is_nested() or column.dtype in (pl.Categorical, pl.Enum):
        return None
    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return [len(array), array.offset, *(buffer.address if buffer else 0 for buffer in array.buffers())]


def _shortened(store: Store, left: pl.DataFrame, part: Part, stand: pl.Series) -> File:
    """The file of a part without the rows that do not stand."""
    return written_once(store, ["shortened", part.fingerprint, fingerprint(stand.to_frame()), left.columns], left)


def scan(store: Store, table: Table) -> pl.LazyFrame:
    """Read a table lazily, its parts in order."""
    runs = [list(run) for _, run in groupby(table.parts, key=lambda part: [file.columns for file in part.files])]
    return pl.concat([side_by_side(store, run).select(list(table.schema)) for run in runs])


def scan_part(store: Store, part: Part) -> pl.LazyFrame:
    """Read one part lazily, with all columns of its files."""
    return side_by_side(store, [part])


def side_by_side(store: Store, parts: Sequence[Part]) -> pl.LazyFrame:
    """Read parts whose files have the same columns, in one scan a column of files."""
    files = zip(*(part.files for part in parts), strict=True)
    beside = [pl.scan_parquet(store.paths(file.key for file in column), glob=False) for column in files]
    return beside[0] if len(beside) == 1 else pl.concat(beside, how="horizontal")


def joined(asset: str, snapshots: Sequence[Snapshot]) -> Snapshot:
    """One snapshot of several: their parts in order, their counts (`facts`) added up."""
    tables = {}
    for name, first in snapshots[0].tables.items():
        parts = [part for snapshot in snapshots for part in snapshot.tables[name].parts]
        # An empty table has one empty part.
        tables[name] = Table(first.schema, tuple([part for part in parts if part.rows] or parts[:1]))
    facts: Any = {}
    for snapshot in snapshots:
        facts = _added(facts, snapshot.facts)
    return Snapshot(asset, tables, facts)


def _added(left: Any, right: Any) -> Any:
    """Counts, added up key by key."""
    if isinstance(left, Mapping) or isinstance(right, Mapping):
        names = dict.fromkeys((*(left or ()), *(right or ())))
        return {name: _added((left or {}).get(name), (right or {}).get(name)) for name in names}
    return (left or 0) + (right or 0)


class Memo:
    """What was computed before, by the digest of everything it was computed from."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, key: str) -> Snapshot | None:
        """The remembered tables, or None; one whose parts are gone counts as forgotten."""
        kept = self.store.recall(key)
        if kept is None:
            return None
        snapshot = Snapshot.from_json(kept)
        whole = self.store.holds(file.key for file in snapshot.files)
        return snapshot if whole else None

    def put(self, key: str, snapshot: Snapshot) -> None:
        """Remember `snapshot` under `key`."""
        self.store.remember(key, snapshot.as_json())
