"""What comes from outside: batch files become parts once, and the order in which they arrived is kept."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, file_digest, fingerprint
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.record import TIME
from feedback_assets.snapshots.snapshot import (
    Memo,
    Part,
    Snapshot,
    Table,
    joined,
    scan,
    schema_of,
    write_part,
    write_rows,
    write_table,
)
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.sources.files import BatchFile, list_files, read
from feedback_assets.sources.guidelines import GuidelinesSection, read_guidelines
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import DELIVERY, UNUSUAL, IngestedSection, Intake, decide, settle, to_records
from feedback_assets.threads import each

CONTENT_PART_ROWS = 50_000
PART_ROWS = 8_192
SETTLED = 2.0  # seconds: more than the tick of any file system's clock
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
        (file.source, file.name, file.digest): file
        for source in section.sources
        for file in list_files(source, folder, partial(digest_of, store))
    }
    sources = {source.name: source for source in section.sources}
    new = sorted(key for key in present if key not in known)
    arrivals = [key for key in known if key[0] in sources] + new
    taken = each(lambda key: _read_file(store, memo, key, present.get(key), sources[key[0]]), arrivals)
    order = {key: place for place, key in enumerate(arrivals)}
    arrived = {key: arrived.get(key, now.isoformat(timespec="seconds")) for key in arrivals}
    limits = pl.DataFrame(
        {
            "arrival": list(range(len(arrivals))),
            "not_after": [section.as_of or datetime.fromisoformat(arrived[key]) for key in arrivals],
        },
        schema={"arrival": pl.Int64, "not_after": TIME},
    )
    unusual = decide(_numbered(store, taken, "rows", range(len(taken)), DELIVERY), limits)
    held = unusual.partition_by("arrival", as_dict=True, maintain_order=True)
    blocks = each(
        lambda block: _block(store, memo, taken, block, [held[(at,)] for at in block if (at,) in held]),
        _blocks([one.tables["rows"].rows for one in taken]),
    )
    bad = dict(unusual.filter(pl.col("fate") == "quarantined").get_column("arrival").value_counts().iter_rows())
    batches = pl.DataFrame(
        [
            (at, *key, one.tables["rows"].rows, one.tables["quarantine"].rows + bad.get(at, 0))
            for at, (key, one) in enumerate(zip(arrivals, taken, strict=True))
        ],
        schema=BATCHES,
        orient="row",
    )
    whole = joined("ingested", blocks)
    return Taken(
        Snapshot(
            "ingested",
            {**whole.tables, "content": _content(taken), "batches": write_table(store, batches)},
            whole.facts,
        ),
        whole.tables["fates"].rows,
        {str(order[key]): arrived[key] for key in arrivals},
    )


def digest_of(store: LocalStore, path: Path) -> str:
    """SHA-256 of a file, remembered for as long as the file system says that it did not change."""
    found = path.stat()
    key = digest(["file", str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])
    known = store.recall(key)
    if known is None:
        known = file_digest(path)
        # A file that changes again within one tick of the clock would keep its times.
        if time.time() - found.st_ctime > SETTLED:
            store.remember(key, known)
    return known


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
    # Which delivery counts, and as what revision, is decided among all batches.
    rows = (
        intake.rows.drop("arrival", "revision", "supersedes")
        .with_columns(
            fingerprints.gather((intake.rows.get_column("content_row") // CONTENT_PART_ROWS).cast(pl.UInt32)).alias(
                "content_part"
            ),
            pl.col("content_row") % CONTENT_PART_ROWS,
        )
        .sort("line", "row_id")
    )
    quarantined = pl.concat([mapped.quarantined, intake.quarantined]).sort("line", "reason", nulls_last=True)
    snapshot = Snapshot(
        f"{source.name}/{file.name}",
        {
            "rows": write_table(store, rows, lengths=[rows.height]),
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


def _numbered(
    store: LocalStore, snapshots: list[Snapshot], table: str, arrivals: Iterable[int], columns: Sequence[str] = ()
) -> pl.DataFrame:
    """A table of the batches with these arrivals, one after the other, with their `arrival`."""
    held = {arrival: snapshots[arrival].tables[table] for arrival in arrivals}
    schema = next(iter(held.values())).schema
    rows = scan(store, Table(schema, tuple(part for one in held.values() for part in one.parts)))
    wanted = [name for name in columns or schema if name in schema]
    arrival = pl.concat(pl.repeat(place, one.rows, dtype=pl.Int64, eager=True) for place, one in held.items())
    return rows.select(wanted).collect().with_columns(arrival.alias("arrival"))


def _block(
    store: LocalStore, memo: Memo, taken: list[Snapshot], block: Sequence[int], unusual: Sequence[pl.DataFrame]
) -> Snapshot:
    """Rows, quarantine and fates of some consecutive arrivals; remembered as long as they are told the same of them."""
    told = pl.concat([UNUSUAL.to_frame(), *unusual])
    held = [
        [arrival, *(part.fingerprint for name in ("rows", "quarantine") for part in taken[arrival].tables[name].parts)]
        for arrival in block
    ]
    key = digest(["block", code_digest("feedback_assets.stages.ingested"), held, fingerprint(told)])
    known = memo.get(key)
    if known is not None:
        return known
    came = _numbered(store, taken, "rows", block)
    resolved = settle(came, _numbered(store, taken, "quarantine", block), told)
    before = taken[block[0]].tables["rows"] if len(block) == 1 else None
    snapshot = Snapshot(
        "ingested",
        {
            "rows": write_rows(store, resolved.rows, came.drop("arrival"), before)
            if before is not None
            else write_table(store, resolved.rows, lengths=[resolved.rows.height]),
            "quarantine": write_table(store, resolved.quarantined),
            "fates": write_table(store, resolved.fates),
        },
        resolved.facts,
    )
    memo.put(key, snapshot)
    return snapshot


def _blocks(rows: Sequence[int]) -> list[list[int]]:
    """Arrivals by part: parts hold whole batches, and a new batch never changes an earlier part."""
    blocks: list[list[int]] = []
    held = PART_ROWS
    for arrival, more in enumerate(rows):
        if held >= PART_ROWS:
            blocks.append([])
            held = 0
        blocks[-1].append(arrival)
        held += more
    return blocks


def _content(snapshots: list[Snapshot]) -> Table:
    tables = [snapshot.tables["content"] for snapshot in snapshots]
    seen: dict[str, Part] = {}
    for table in tables:
        for part in table.parts:
            seen.setdefault(part.fingerprint, part)
    return Table(dict(tables[0].schema), tuple(seen.values()))
