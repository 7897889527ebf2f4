"""Narrow tables in memory: files that a stage kept, and the next one reads again, are read once a process."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, groupby
from threading import Lock
from typing import Any

import polars as pl

from feedback_assets.snapshots.snapshot import File, Part, Table, scan, scan_part, side_by_side
from feedback_assets.snapshots.store import Store

HELD_BYTES = 256 * 2**20  # of Parquet: about three million narrow rows; what is larger is scanned
HELD_TEXT = 512 * 2**20  # in memory: the first that is read; what does not fit is read as often as it is asked for
HELD_TABLES = 5
MOST_HELD = 10  # a table of which less than this part is missing is read whole
HELD_VALUES = 64


class Held:
    """Reads tables and keeps the files read last, so that a stage, its checks and the next stage share them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._files: OrderedDict[str, _Held] = OrderedDict()
        self._tables: OrderedDict[tuple[str, ...], tuple[Table, pl.DataFrame]] = OrderedDict()
        self._values: OrderedDict[str, Any] = OrderedDict()
        self._texts: dict[tuple[str, ...], pl.DataFrame] = {}
        self._lock = Lock()
        self._adding_text = Lock()  # of its own: what is read ahead holds the other for long

    def value(self, key: str) -> Any:
        """What was made from tables before, by the digest of all it was made from; None if it is not held."""
        with self._lock:
            return self._values.get(key)

    def keep_value(self, key: str, value: Any) -> None:
        """Hold what was made from tables."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > HELD_VALUES:
                self._values.popitem(last=False)

    def keep(self, table: Table, rows: pl.DataFrame) -> None:
        """Hold `rows`, which were written as `table`."""
        if table.bytes <= HELD_BYTES:
            if len(set(rows.n_chunks("all"))) > 1:  # columns cut at different places are cut anew by each operation
                rows = rows.rechunk()
            with self._lock:
                self._keep(table, rows)

    def rows(self, table: Table) -> pl.LazyFrame:
        """The rows of `table`, from memory where they fit; of further copies few columns are asked for, once."""
        if table.further.parts and table.records.parts:
            return pl.concat([self.rows(table.records), scan(self.store, table.further)])
        if table.bytes > HELD_BYTES:
            return scan(self.store, table)
        with self._lock:
            rows = self._piece(table)
            if rows is None:
                whole, rows = self._tables.get(table.digests) or (table, self._side_by_side(table))
                self._keep(whole, rows)
        return rows.lazy() if rows.columns == [*table.schema] else rows.lazy().select(list(table.schema))

    def _piece(self, table: Table) -> pl.DataFrame | None:
        """The rows of `table` where it is some consecutive parts of a table that is held."""
        first, count = table.parts[0].files, len(table.parts)
        for whole, rows in reversed(self._tables.values()):
            if count < len(whole.parts) and whole.schema == table.schema:
                at = next((place for place, part in enumerate(whole.parts) if part.files == first), count)
                if whole.parts[at : at + count] == table.parts:
                    return rows.slice(sum(part.rows for part in whole.parts[:at]), table.rows)
        return None

    def some(self, table: Table, columns: Sequence[str]) -> pl.LazyFrame:
        """`columns` of `table`, from memory where most of it is held; else nothing is held for them."""
        with self._lock:
            missing = sum(file.bytes for part in table.parts for file in part.files if file.digest not in self._files)
        whole = self.rows(table) if missing * MOST_HELD <= table.bytes else scan(self.store, table)
        return whole.select(columns)

    def ahead(self, table: Table) -> None:
        """Read `table`, most of which is asked for soon, where it fits; what cannot be read is said when it is."""
        if table.bytes <= HELD_BYTES:
            with suppress(OSError, pl.exceptions.PolarsError), self._lock:
                self._read(table.parts)

    def text(self, part: Part) -> pl.LazyFrame:
        """The rows of a part of text: near-duplicates and exports read those of a new batch one after the other."""
        key = tuple(self.store.erasures.current(file.key) for file in part.files)
        known = self._texts.get(key)
        if known is None:
            if self._room() <= 0:
                return scan_part(self.store, part)
            known = scan_part(self.store, part).collect()
            self._keep_text(key, known)
        return known.lazy()

    def keep_text(self, part: Part, rows: pl.DataFrame) -> None:
        """Hold `rows`, which were written as this part of text, if there is room."""
        self._keep_text(tuple(self.store.erasures.current(file.key) for file in part.files), rows)

    def _keep_text(self, key: tuple[str, ...], rows: pl.DataFrame) -> None:
        with self._adding_text:
            if rows.estimated_size() <= self._room():
                self._texts[key] = rows

    def _room(self) -> int:
        """How many more bytes of text can be held; other threads may be adding to them."""
        return HELD_TEXT - sum(int(text.estimated_size()) for text in [*self._texts.values()])

    def _keep(self, table: Table, rows: pl.DataFrame) -> None:
        self._tables[table.digests] = (table, rows)
        self._tables.move_to_end(table.digests)
        while len(self._tables) > HELD_TABLES:
            self._tables.popitem(last=False)

    def _side_by_side(self, table: Table) -> pl.DataFrame:
        """The rows of a table, each column in one chunk: of many, each operation would make one first."""
        self._read(table.parts)
        runs = []
        for _, run in groupby(table.parts, key=lambda part: [file.columns for file in part.files]):
            beside = [self._one_below_the_other(column) for column in zip(*(part.files for part in run), strict=True)]
            runs.append(pl.concat(beside, how="horizontal").select(list(table.schema)))
        self._forget()
        return runs[0] if len(runs) == 1 else pl.concat(runs, rechunk=True)

    def _one_below_the_other(self, files: Sequence[File]) -> pl.DataFrame:
        """The rows of files with the same columns; what another table joined already is not copied."""
        held = [self._files[file.digest] for file in files]
        frame, first = held[0].frame, held[0].start
        *starts, end = accumulate((one.rows for one in held), initial=first)
        if frame.n_chunks() == 1 and all(
            one.frame is frame and one.start == start for one, start in zip(held, starts, strict=True)
        ):
            return frame.slice(first, end - first)
        whole = pl.concat([one.frame.slice(one.start, one.rows) for one in held], rechunk=True)
        for file, one, start in zip(files, held, starts, strict=True):
            self._files[file.digest] = _Held(one.bytes, whole, start - first, one.rows)
        return whole

    def _read(self, parts: Sequence[Part]) -> None:
        """Read the files that are not held, those with the same columns in one scan."""
        wanted = {file.digest: (file, part.rows) for part in parts for file in part.files}
        missing = [entry for name, entry in wanted.items() if name not in self._files]
        for _, run in groupby(sorted(missing, key=lambda entry: entry[0].columns), key=lambda entry: entry[0].columns):
            listed = list(run)
            frame = side_by_side(self.store, [Part(rows, (file,)) for file, rows in listed]).collect()
            starts = accumulate((rows for _, rows in listed), initial=0)
            for (file, rows), start in zip(listed, starts, strict=False):
                self._files[file.digest] = _Held(file.bytes, frame, start, rows)
        for name in wanted:
            self._files.move_to_end(name)

    def _forget(self) -> None:
        held = sum(one.bytes for one in self._files.values())
        while held > HELD_BYTES:
            held -= self._files.popitem(last=False)[1].bytes


@dataclass(frozen=True)
class _Held:
    """The rows of a file, from `start` on in a frame that may hold those of others; `bytes` is the file's size."""

    bytes: int
    frame: pl.DataFrame
    start: int
    rows: int
