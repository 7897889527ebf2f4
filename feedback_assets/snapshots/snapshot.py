"""Snapshots: ordered lists of immutable Parquet parts, addressed by what they hold.

A snapshot has tables (`rows`, `fates`, and what else a stage keeps); a table has parts. Two digests stand
beside each part: `fingerprint`, of its logical values, from which the data version is made; and `digest`, of
its file's bytes, which names the file and is what `verify` recomputes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from feedback_assets.digests import digest, file_digest, fingerprint, schema_of
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.threads import each

ROW_GROUP = 65_536  # fixed, so that Parquet bytes do not depend on chunking or threads
ASIDE = ("fates", "quarantine")  # tables that explain the data and are not part of its version


@dataclass(frozen=True)
class Part:
    """One Parquet file: where it is, what it holds, and the arrivals (first, last) of its rows if they have any."""

    digest: str
    fingerprint: str
    rows: int
    bytes: int
    arrivals: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"parts/{self.digest[:2]}/{self.digest}.parquet"


@dataclass(frozen=True)
class Table:
    """An ordered list of parts with one schema (column name → dtype as text)."""

    schema: Mapping[str, str]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)


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

    def as_json(self) -> dict[str, Any]:
        """The snapshot as plain JSON values."""
        return {
            "asset": self.asset,
            "data_version": self.data_version,
            "facts": dict(self.facts),
            "tables": {
                name: {"schema": list(map(list, table.schema.items())), "parts": [asdict(part) for part in table.parts]}
                for name, table in self.tables.items()
            },
        }

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
    return Part(**{**value, "arrivals": tuple(value["arrivals"]) if value["arrivals"] else None})


def write_part(store: LocalStore, frame: pl.DataFrame, *, known_fingerprint: str | None = None) -> Part:
    """Write `frame` as one part, if the store does not have one with the same values yet."""
    values = known_fingerprint or fingerprint(frame)
    name = f"{values}-part"
    kept = store.recall(name)
    if kept is not None and store.exists(_part(kept).key):
        return _part(kept)
    with store.scratch() as scratch:
        frame.write_parquet(scratch, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        arrivals = None
        if "arrival" in frame.columns and frame.height:
            first, last = frame.select(pl.col("arrival").min(), pl.col("arrival").max().alias("last")).row(0)
            arrivals = (first, last) if first is not None else None
        part = Part(
            digest=file_digest(scratch),
            fingerprint=values,
            rows=frame.height,
            bytes=scratch.stat().st_size,
            arrivals=arrivals,
        )
        store.put_file(part.key, scratch)
    store.remember(name, asdict(part))
    return part


def write_table(
    store: LocalStore, frame: pl.DataFrame, *, last_arrivals: Sequence[int] = (), part_rows: int = 65_536
) -> Table:
    """Write `frame` as a table.

    With `last_arrivals` (ascending; `frame` sorted by `arrival`) a part ends after each of them, so that a later
    batch leaves the earlier parts as they are; otherwise after every `part_rows` rows.
    """
    if last_arrivals:
        arrival = frame.get_column("arrival")
        ends = [int(arrival.search_sorted(last, side="right")) for last in last_arrivals[:-1]] + [frame.height]
    else:
        ends = [*range(part_rows, frame.height, part_rows), frame.height]
    starts = [0, *ends[:-1]]
    slices = [(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]
    # An empty table has one empty part: a reader finds its columns there.
    parts = each(lambda piece: write_part(store, frame.slice(*piece)), slices or [(0, 0)])
    return Table(schema_of(frame), tuple(parts))


def scan(store: LocalStore, table: Table) -> pl.LazyFrame:
    """Read a table lazily, its parts in order."""
    return pl.scan_parquet([store.uri(part.key) for part in table.parts], glob=False)


def scan_part(store: LocalStore, part: Part) -> pl.LazyFrame:
    """Read one part lazily."""
    return pl.scan_parquet(store.uri(part.key), glob=False)


class Memo:
    """What was computed before, by the digest of everything it was computed from."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def get(self, key: str) -> Snapshot | None:
        """The remembered tables, or None; one whose parts are gone counts as forgotten."""
        kept = self.store.recall(key)
        if kept is None:
            return None
        snapshot = Snapshot.from_json(kept)
        whole = all(self.store.exists(part.key) for table in snapshot.tables.values() for part in table.parts)
        return snapshot if whole else None

    def put(self, key: str, snapshot: Snapshot) -> None:
        """Remember `snapshot` under `key`."""
        self.store.remember(key, snapshot.as_json())
