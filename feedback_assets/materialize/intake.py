"""What comes from outside: batch files become parts once, and the order in which they arrived is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, fingerprint
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.record import TIME
from feedback_assets.snapshots.snapshot import (
    Memo,
    Part,
    Snapshot,
    Table,
    scan,
    schema_of,
    write_part,
    write_table,
)
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.sources.files import BatchFile, list_files, read
from feedback_assets.sources.guidelines import GuidelinesSection, read_guidelines
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import IngestedSection, Intake, resolve, to_records
from feedback_assets.threads import each

CONTENT_PART_ROWS = 50_000
PART_ROWS = 8_192
BATCHES = pl.Schema(
    {
        "arrival": pl.Int64,
        "source": pl.String,
        "batch": pl.String,
        "digest": pl.String,
        "rows": pl.Int64,
        "quarantined": pl.Int64,
    }
)


@dataclass(frozen=True)
class Taken:
    """What intake brought: the snapshot, how many records came, and when each batch arrived (ISO 8601, by arrival)."""

    snapshot: Snapshot
    rows_in: int
    arrived: Mapping[str, str]


def read_registry(folder: Any, store: LocalStore, section: GuidelinesSection) -> Taken:
    """Read the guideline registry into a snapshot."""
    registry = read_guidelines(section, folder)
    return Taken(Snapshot("guidelines", {"rows": write_table(store, registry)}), registry.height, {})


def read_batches(
    folder: Any, store: LocalStore, section: IngestedSection, previous: Commit | None, now: datetime
) -> Taken:
    """Read all batches into a snapshot: those of the `previous` commit in their order, then what is new, by name.

    A file is read once for each version of its mapping; what it became is remembered.

    Raises:
        FeedbackError: no file matches, or a file cannot be read or mapped at all.
    """
    memo = Memo(store)
    known, arrived = _known(store, previous)
    present = {
        (file.source, file.name, file.digest): file for source in section.sources for file in list_files(source, folder)
    }
    sources = {source.name: source for source in section.sources}
    new = sorted(key for key in present if key not in known)
    arrivals = [key for key in known if key[0] in sources] + new
    taken = each(lambda key: _read_file(store, memo, key, present.get(key), sources[key[0]]), arrivals)
    order = {key: place for place, key in enumerate(arrivals)}
    arrived = {key: arrived.get(key, now.isoformat(timespec="seconds")) for key in arrivals}
    rows = _numbered(store, taken, "rows")
    quarantined = _numbered(store, taken, "quarantine")
    limits = pl.DataFrame(
        {
            "arrival": list(range(len(arrivals))),
            "not_after": [section.as_of or datetime.fromisoformat(arrived[key]) for key in arrivals],
        },
        schema={"arrival": pl.Int64, "not_after": TIME},
    )
    resolved = resolve(rows, quarantined, limits)
    batches = _batches(arrivals, rows, resolved.quarantined)
    tables = {
        "rows": write_table(store, resolved.rows, last_arrivals=_block_ends(batches)),
        "content": _content(taken),
        "batches": write_table(store, batches),
        "quarantine": write_table(store, resolved.quarantined),
        "fates": write_table(store, resolved.fates),
    }
    return Taken(
        Snapshot("ingested", tables, resolved.facts),
        resolved.fates.height,
        {str(order[key]): arrived[key] for key in arrivals},
    )


Key = tuple[str, str, str]


def _known(store: LocalStore, previous: Commit | None) -> tuple[list[Key], dict[Key, str]]:
    if previous is None:
        return [], {}
    batches = scan(store, previous.snapshot.tables["batches"]).collect()
    keys = [(row["source"], row["batch"], row["digest"]) for row in batches.iter_rows(named=True)]
    times = previous.circumstances["arrived"]
    return keys, {key: times[str(place)] for place, key in enumerate(keys)}


def _read_file(store: LocalStore, memo: Memo, key: Key, file: BatchFile | None, source: Source) -> Snapshot:
    mapping = source.pinned()
    # Where the file lies does not change what is in it.
    mapping.pop("path")
    code = [
        code_digest(name)
        for name in (
            "feedback_assets.stages.ingested",
            "feedback_assets.sources.files",
            "feedback_assets.sources.mapping",
        )
    ]
    name = digest(["file", code, key, mapping, CONTENT_PART_ROWS])
    known = memo.get(name)
    if known is not None:
        return known
    if file is None:
        raise FeedbackError(
            f"batch {key[1]!r} of source {key[0]!r} is no longer where it was, and its mapping or the code has changed "
            "since; put the file back, or restore the mapping"
        )
    raw = read(file, source)
    mapped = map_records(raw, source, file)
    intake = to_records(mapped.records, source.name)
    content = [
        _content_part(store, intake, slice(start, start + CONTENT_PART_ROWS))
        for start in range(0, max(intake.content.height, 1), CONTENT_PART_ROWS)
    ]
    fingerprints = pl.Series("content_part", [part.fingerprint for part in content], pl.String)
    rows = intake.rows.with_columns(
        fingerprints.gather((intake.rows.get_column("content_row") // CONTENT_PART_ROWS).cast(pl.UInt32)).alias(
            "content_part"
        ),
        pl.col("content_row") % CONTENT_PART_ROWS,
    )
    quarantined = pl.concat([mapped.quarantined, intake.quarantined]).sort(
        "line", "position", "reason", nulls_last=True
    )
    snapshot = Snapshot(
        f"{source.name}/{file.name}",
        {
            "rows": write_table(store, rows),
            "content": Table(schema_of(intake.content), tuple(content)),
            "quarantine": write_table(store, quarantined),
        },
    )
    memo.put(name, snapshot)
    return snapshot


def _content_part(store: LocalStore, intake: Intake, piece: slice) -> Part:
    content = intake.content[piece]
    # The ids are SHA-256 digests of these very texts, so a fingerprint of them is one of the texts.
    ids = intake.rows[piece].select("prompt_id", "response_a_id", "response_b_id")
    return write_part(store, content, known_fingerprint=fingerprint(ids.hstack(content.select("extra"))))


def _numbered(store: LocalStore, snapshots: list[Snapshot], table: str) -> pl.DataFrame:
    frames = [
        scan(store, snapshot.tables[table]).with_columns(pl.lit(arrival, pl.Int64).alias("arrival"))
        for arrival, snapshot in enumerate(snapshots)
    ]
    return pl.concat(frames).collect()


def _batches(arrivals: list[Key], rows: pl.DataFrame, quarantined: pl.DataFrame) -> pl.DataFrame:
    named = pl.DataFrame(
        [(place, *key) for place, key in enumerate(arrivals)],
        schema={"arrival": pl.Int64, "source": pl.String, "batch": pl.String, "digest": pl.String},
        orient="row",
    )
    counts = rows.group_by("arrival").agg(pl.len().cast(pl.Int64).alias("rows"))
    bad = quarantined.group_by("arrival").agg(pl.len().cast(pl.Int64).alias("quarantined"))
    return (
        named.join(counts, on="arrival", how="left")
        .join(bad, on="arrival", how="left")
        .with_columns(pl.col("rows", "quarantined").fill_null(0))
        .select(BATCHES.names())
        .sort("arrival")
    )


def _block_ends(batches: pl.DataFrame) -> list[int]:
    """The last arrival of each part: parts hold whole batches, and a new batch never changes an earlier part."""
    ends: list[int] = []
    held = 0
    for arrival, rows in batches.select("arrival", "rows").iter_rows():
        held += rows
        if held >= PART_ROWS:
            ends.append(arrival)
            held = 0
    last = batches.get_column("arrival").max()
    if last is not None and (not ends or ends[-1] != last):
        ends.append(int(last))  # type: ignore[arg-type]
    return ends


def _content(snapshots: list[Snapshot]) -> Table:
    tables = [snapshot.tables["content"] for snapshot in snapshots]
    seen: dict[str, Part] = {}
    for table in tables:
        for part in table.parts:
            seen.setdefault(part.fingerprint, part)
    return Table(dict(tables[0].schema), tuple(seen.values()))
