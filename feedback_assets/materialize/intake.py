"""What comes from outside: batch files become parts once, and the order in which they arrived is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, fingerprint
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.arrivals import Key, arrivals
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.landing import land
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
from feedback_assets.sources.files import BatchFile, read
from feedback_assets.sources.guidelines import GuidelinesSection, read_guidelines
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.place import Place
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import IngestedSection, Intake, resolve, retract, to_records
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
        "state": pl.String,
    }
)
"""The table of batches. `state`: "current"; "redelivered", if the same bytes of the source arrived before;
"retracted"; or "mapped earlier", if its file is gone and the mapping or the code has changed since it was read."""


@dataclass(frozen=True)
class Taken:
    """What intake brought: the snapshot, how many records came, and by arrival what is not of the data.

    That is `at`, when the batch arrived (ISO 8601); `mapped`, the name under which the store remembers what it became;
    and `state`, whether its file is there ("current", "renamed", "replaced", "removed").
    """

    snapshot: Snapshot
    rows_in: int
    arrived: Mapping[str, Any]


def read_registry(folder: Any, store: LocalStore, section: GuidelinesSection) -> Taken:
    """Read the guideline registry into a snapshot."""
    registry = read_guidelines(section, folder)
    return Taken(Snapshot("guidelines", {"rows": write_table(store, registry)}), registry.height, {})


def read_batches(
    folder: Any, store: LocalStore, section: IngestedSection, previous: Commit | None, now: datetime
) -> Taken:
    """Read all batches into a snapshot: those of the `previous` commit in their order, then what is new, by name.

    What a query brings is landed first. A batch is read once for each version of its mapping; what it became is
    remembered. One whose file is gone goes on as it was mapped last.

    Raises:
        FeedbackError: no file matches, a file cannot be read or mapped at all, a database cannot be read, or the
            policy retracts a batch that never arrived.
    """
    for source in section.sources:
        if source.in_database:
            land(store, source)
    found = arrivals(folder, store, section, previous, now)
    if not found.order:
        raise FeedbackError("no source has a complete batch yet; run again when one has arrived")
    memo = Memo(store)
    sources = {source.name: source for source in section.sources}
    mapped = each(
        lambda key: _mapped(store, memo, key, found.files.get(key), sources[key[0]], found.known.get(key)), found.order
    )
    taken = [one.snapshot for one in mapped]
    arrived = {
        key: {
            "at": found.known[key]["at"] if key in found.known else now.isoformat(timespec="seconds"),
            "mapped": one.name,
            "state": found.states.get(key, "current"),
        }
        for key, one in zip(found.order, mapped, strict=True)
    }
    limits = pl.DataFrame(
        {
            "arrival": list(range(len(found.order))),
            "not_after": [section.as_of or datetime.fromisoformat(told["at"]) for told in arrived.values()],
        },
        schema={"arrival": pl.Int64, "not_after": TIME},
    )
    rows, quarantined = _numbered(store, taken, "rows"), _numbered(store, taken, "quarantine")
    batches = _batches(found.order, [one.earlier for one in mapped], rows)
    retractions = _retractions(section, batches)
    left = retract(rows, quarantined, retractions)
    resolved = resolve(left.rows, left.quarantined, limits)
    fates = pl.concat([resolved.fates, left.fates]).sort("arrival", "line", "row_id")
    batches = _settled(batches, resolved.quarantined, retractions)
    tables = {
        "rows": write_table(store, resolved.rows, last_arrivals=_block_ends(batches)),
        "content": _content(taken),
        "batches": write_table(store, batches),
        "quarantine": write_table(store, resolved.quarantined),
        "fates": write_table(store, fates),
    }
    return Taken(
        Snapshot("ingested", tables, resolved.facts),
        fates.height,
        {str(place): told for place, told in enumerate(arrived.values())},
    )


@dataclass(frozen=True)
class Mapped:
    """What a batch became, the name under which that is remembered, and whether an earlier mapping made it."""

    snapshot: Snapshot
    name: str
    earlier: bool = False


def _mapped(
    store: LocalStore, memo: Memo, key: Key, file: BatchFile | None, source: Source, told: Mapping[str, str] | None
) -> Mapped:
    # Where the batches lie does not change what is in them.
    mapping = {name: value for name, value in source.pinned().items() if name not in Place.model_fields}
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
        return Mapped(known, name)
    if file is None:
        earlier = memo.get(told["mapped"]) if told else None
        if told is None or earlier is None:
            raise FeedbackError(
                f"batch {key[1]!r} of source {key[0]!r} is no longer where it was, and the store has forgotten what it "
                "became; put the file back"
            )
        return Mapped(earlier, told["mapped"], earlier=True)
    snapshot = _read_file(store, file, source)
    memo.put(name, snapshot)
    return Mapped(snapshot, name)


def _read_file(store: LocalStore, file: BatchFile, source: Source) -> Snapshot:
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
    quarantined = pl.concat([mapped.quarantined, intake.quarantined]).sort("line", "reason", nulls_last=True)
    return Snapshot(
        f"{source.name}/{file.name}",
        {
            "rows": write_table(store, rows),
            "content": Table(schema_of(intake.content), tuple(content)),
            "quarantine": write_table(store, quarantined),
        },
    )


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


def _batches(order: list[Key], earlier: list[bool], rows: pl.DataFrame) -> pl.DataFrame:
    """The batches, as long as nothing is resolved: without `quarantined`."""
    named = pl.DataFrame(
        [(place, *key, old) for place, (key, old) in enumerate(zip(order, earlier, strict=True))],
        schema={"arrival": pl.Int64, "source": pl.String, "batch": pl.String, "digest": pl.String, "old": pl.Boolean},
        orient="row",
    )
    counts = rows.group_by("arrival").agg(pl.len().cast(pl.Int64).alias("rows"))
    again = pl.int_range(pl.len()).over("source", "digest") > 0
    return named.join(counts, on="arrival", how="left", maintain_order="left").with_columns(
        pl.col("rows").fill_null(0),
        pl.when("old")
        .then(pl.lit("mapped earlier"))
        .when(again)
        .then(pl.lit("redelivered"))
        .otherwise(pl.lit("current"))
        .alias("state"),
    )


def _retractions(section: IngestedSection, batches: pl.DataFrame) -> pl.DataFrame:
    """Which arrivals are retracted, and by which entry of the policy: arrival, rule, rule_version."""
    found = [pl.DataFrame(schema={"arrival": pl.Int64, "rule": pl.String, "rule_version": pl.Int32})]
    for entry in section.retracted:
        named = (pl.col("source") == entry.source) & (pl.col("batch") == entry.batch)
        meant = batches.filter(named & pl.col("digest").str.starts_with(entry.digest or ""))
        if meant.is_empty():
            names = batches.filter(pl.col("source") == entry.source).get_column("batch").to_list()
            close = get_close_matches(entry.batch, names, n=1)
            raise FeedbackError(
                f"ingested.retracted, {entry.id!r}: no batch {entry.batch!r} of source {entry.source!r} ever arrived"
                + (f"; did you mean {close[0]!r}?" if close else "; correct it, or leave the entry out")
            )
        version = pl.lit(entry.version, pl.Int32).alias("rule_version")
        found.append(meant.select("arrival", pl.lit(entry.id).alias("rule"), version))
    return pl.concat(found).unique("arrival", keep="first", maintain_order=True)


def _settled(batches: pl.DataFrame, quarantined: pl.DataFrame, retractions: pl.DataFrame) -> pl.DataFrame:
    """The table of batches (BATCHES)."""
    bad = quarantined.group_by("arrival").agg(pl.len().cast(pl.Int64).alias("quarantined"))
    retracted = pl.col("arrival").is_in(retractions.get_column("arrival").implode())
    return (
        batches.join(bad, on="arrival", how="left", maintain_order="left")
        .with_columns(
            pl.col("quarantined").fill_null(0),
            pl.when(retracted).then(pl.lit("retracted")).otherwise("state").alias("state"),
        )
        .select(BATCHES.names())
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
