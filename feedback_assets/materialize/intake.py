"""What comes from outside: batch files become parts once, and the order in which they arrived is kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, fingerprint
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.arrivals import Arrivals, Key, arrivals, grown
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.keys import CheckValues, check_values
from feedback_assets.materialize.landing import land
from feedback_assets.materialize.withdrawn import withdraw
from feedback_assets.record import TIME
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import (
    Memo,
    Part,
    Snapshot,
    Table,
    joined,
    schema_of,
    write_part,
    write_rows,
    write_table,
)
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.files import BatchFile, Changed, read
from feedback_assets.sources.guidelines import GuidelinesSection, read_guidelines
from feedback_assets.sources.mapping import MISFIT, MISSING_COLUMN, map_records, unread
from feedback_assets.sources.place import Place
from feedback_assets.sources.raw import Unreadable
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import (
    DELIVERY,
    ERASED,
    IngestedSection,
    Intake,
    decide,
    retract,
    settle,
    to_records,
)
from feedback_assets.threads import each

CONTENT_PART_ROWS = 50_000
PART_ROWS = 8_192
BATCHES = pl.Schema(
    {
        "arrival": pl.Int64,
        "source": pl.String,
        "batch": pl.String,
        "digest": pl.String,
        "records": pl.Int64,
        "rows": pl.Int64,
        "quarantined": pl.Int64,
        "redelivered": pl.Int64,
        "superseded": pl.Int64,
        "withdrawn": pl.Int64,
        "state": pl.String,
        "stands": pl.Boolean,
    }
)
"""The table of batches.

`records` is what the file held: the sum of `rows`, which were kept, and of those with another fate; `withdrawn` are
retracted or erased. `state`: "current"; "redelivered", if the same bytes of the source arrived before; "retracted";
"mapped earlier", if its file is gone and the mapping or the code has changed since it was read; "quarantined", if
nothing of it could be used, "mended", if so and its file came again; or "empty". `stands`: it is neither retracted nor
redelivered nor replaced by another delivery under its name, so that its quarantine counts.
"""
_FATES = ("quarantined", "redelivered", "superseded", "withdrawn")


@dataclass(frozen=True)
class Taken:
    """What intake brought: the snapshot, how many records came, and by arrival what is not of the data.

    That is its `source`, `batch` and `digest`; `at`, when the batch arrived (ISO 8601); `mapped`, the name under which
    the store remembers what it became; and `state`, whether its file is there ("current", "renamed", "replaced",
    "removed"). `noticed` are sentences on what is no batch now.
    """

    snapshot: Snapshot
    rows_in: int
    arrived: Mapping[str, Any]
    noticed: tuple[str, ...] = ()


def read_registry(folder: Any, store: Store, section: GuidelinesSection) -> Taken:
    """Read the guideline registry into a snapshot."""
    registry = read_guidelines(section, folder)
    return Taken(Snapshot("guidelines", {"rows": write_table(store, registry)}), registry.height, {})


def read_batches(
    folder: Any,
    held: Held,
    section: IngestedSection,
    previous: Commit | None,
    now: datetime,
    ahead: Callable[[], None],
) -> Taken:
    """Read all batches into a snapshot: those of the `previous` commit in their order, then what is new, by name.

    What a query brings is landed first. A batch is read once for each version of its mapping; what it became is
    remembered. One that cannot be read or does not fit the mapping is one row in quarantine; one whose file is gone
    goes on as it was mapped last. While new ones are mapped, `ahead` reads what the next stages will ask for.

    Raises:
        FeedbackError: no file matches, none of a source that can be read fits its mapping, a database cannot be read,
            or the policy retracts a batch that never arrived.
    """
    store = held.store
    check_values(section, previous)
    for source in section.sources:
        if source.in_database:
            land(store, source)
    found = arrivals(folder, store, section, previous, now)
    with ThreadPoolExecutor(1) as beside:
        if found.new:
            beside.submit(ahead)
        return take(held, section, found, now)


def take(held: Held, section: IngestedSection, found: Arrivals, now: datetime) -> Taken:
    """Make a snapshot of these batches, in this order; one that is written to while it is read is left for later.

    Raises:
        FeedbackError: as `read_batches`.
    """
    store = held.store
    memo, keys = Memo(store), check_values(section)
    sources = {source.name: source for source in section.sources}
    mappings = {name: _mapping(source) for name, source in sources.items()}

    def mapped_of(key: Key) -> Mapped | None:
        name = digest(["file", *mappings[key[0]], key, *([keys[key[0]]] if key[0] in keys else [])])
        return _mapped(held, memo, name, key, found.files.get(key), sources[key[0]], found.known.get(key), keys)

    tried = each(mapped_of, found.order)
    changed = {key for key, one in zip(found.order, tried, strict=True) if one is None}
    noticed = (*found.noticed, *(grown(*key[:2]) for key in found.order if key in changed))
    found = replace(found, new=[key for key in found.new if key not in changed])
    mapped = [one for one in tried if one is not None]
    if not mapped:
        raise FeedbackError("no source has a complete batch yet; run again when one has arrived")
    silent = sorted(source.name for source in section.sources if not source.excerpts)
    taken = [one.snapshot for one in mapped]
    arrived = {
        key: {
            **dict(zip(("source", "batch", "digest"), key, strict=True)),
            "at": found.known[key]["at"] if key in found.known else now.isoformat(timespec="seconds"),
            "mapped": one.name,
            "state": found.states.get(key) or found.known.get(key, {}).get("state", "current"),
        }
        for key, one in zip(found.order, mapped, strict=True)
    }
    _refuse_wrong_mappings(found.order, taken)
    batches = _batches(found.order, mapped, [told["state"] for told in arrived.values()])
    not_after = [section.as_of or datetime.fromisoformat(told["at"]) for told in arrived.values()]
    limits = batches.select(
        "arrival",
        pl.Series("not_after", not_after, TIME),
        pl.col("arrival").first().over("source", "batch").alias("first"),
    )
    retracted = _retractions(section, batches)
    deliveries = _numbered(held, taken, "rows", range(len(taken)), DELIVERY)
    unusual = decide(deliveries.join(retracted, on="arrival", how="anti", maintain_order="left"), limits)
    blocks = each(
        lambda block: _block(held, memo, taken, block, unusual, retracted, silent),
        _blocks([one.tables["rows"].rows for one in taken]),
    )
    whole = joined("ingested", blocks)
    tables = {
        **whole.tables,
        "content": _content(taken),
        "batches": write_table(store, _settled(batches, unusual, retracted)),
    }
    return Taken(
        Snapshot("ingested", tables, {**whole.facts, **({"pseudonyms": keys} if keys else {})}),
        whole.tables["fates"].rows,
        {str(place): told for place, told in enumerate(arrived.values())},
        noticed,
    )


@dataclass(frozen=True)
class Mapped:
    """What a batch became, the name under which that is remembered, and whether an earlier mapping made it."""

    snapshot: Snapshot
    name: str
    earlier: bool = False


def _refuse_wrong_mappings(arrivals: list[Key], taken: list[Snapshot]) -> None:
    """A column that one file lacks is the file's fault; one that every file of a source lacks is the mapping's."""
    of_source: dict[str, list[Snapshot]] = {}
    for key, snapshot in zip(arrivals, taken, strict=True):
        says_something = snapshot.tables["rows"].rows or snapshot.tables["quarantine"].rows
        if says_something and snapshot.facts.get("unread") != "file":
            of_source.setdefault(key[0], []).append(snapshot)
    for snapshots in of_source.values():
        if all(snapshot.facts.get("unread") == "mapping" for snapshot in snapshots):
            raise FeedbackError(snapshots[-1].facts["error"])


def _mapping(source: Source) -> list[Any]:
    """What makes records of a source's files: the code, and its section, but for where they lie."""
    modules = ("stages.ingested", "sources.files", "sources.mapping")
    code = [code_digest(f"feedback_assets.{name}") for name in modules]
    pinned = {name: value for name, value in source.pinned().items() if name not in Place.model_fields}
    return [code, pinned, CONTENT_PART_ROWS]


def _mapped(
    held: Held,
    memo: Memo,
    first: str,
    key: Key,
    file: BatchFile | None,
    source: Source,
    told: Mapping[str, str] | None,
    keys: CheckValues,
) -> Mapped | None:
    """What a batch became, remembered as `first`; None if it is new and its file changes while it is read."""
    name = held.store.erasures.renewed(first)
    known = memo.get(name)
    if known is not None:
        return Mapped(known, name)
    snapshot = None
    if file is not None:
        try:
            with file.at_hand():
                snapshot = _read_file(held, file, source, _private_facts(source, keys))
        except Changed:
            if told is None:
                return None
    if snapshot is None:
        earlier = memo.get(told["mapped"]) if told else None
        if told is None or earlier is None:
            raise FeedbackError(
                f"batch {key[1]!r} of source {key[0]!r} is no longer where it was, and the store has forgotten what it "
                "became; put the file back"
            )
        private = _private_facts(source, keys)
        if any(earlier.facts.get(fact) != value for fact, value in private.items()):
            raise FeedbackError(
                f"batch {key[1]!r} of source {key[0]!r} is no longer where it was, and was taken in before "
                f"`pseudonymise` and `never_store` were as they are now; put the file back, so that it can be read anew"
            )
        return Mapped(earlier, told["mapped"], earlier=told["mapped"] not in (first, name))
    memo.put(name, snapshot)
    return Mapped(snapshot, name)


def _private_facts(source: Source, keys: CheckValues) -> dict[str, Any]:
    facts: dict[str, Any] = {"never_store": sorted(source.never_store)} if source.never_store else {}
    return {**facts, "pseudonyms": keys[source.name]} if source.name in keys else facts


def _read_file(held: Held, file: BatchFile, source: Source, private: Mapping[str, Any]) -> Snapshot:
    store = held.store
    facts: dict[str, Any] = {**private}
    try:
        mapped = map_records(read(file, source), source, file)
    except Unreadable as found:
        error = found if source.quotes else found.unquoted()
        mapped = unread(error, file)
        facts |= {
            "unread": "mapping" if error.reason in (MISSING_COLUMN, MISFIT) else "file",
            "error": file.named(error),
        }
    records = to_records(mapped.records, source.name, source.hidden)
    intake = withdraw(store, records, mapped.quarantined, file, source)
    content = [
        _content_part(held, intake, slice(start, start + CONTENT_PART_ROWS))
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
        .sort("line", "position", "row_id")
    )
    quarantined = intake.quarantined
    if not source.excerpts:
        quarantined = quarantined.with_columns(pl.lit(None, pl.String).alias("value"))
    return Snapshot(
        f"{source.name}/{file.name}",
        {
            "rows": write_table(store, rows, lengths=[rows.height]),
            "content": Table(schema_of(intake.content), tuple(content)),
            "quarantine": write_table(store, quarantined),
        },
        facts,
    )


def _content_part(held: Held, intake: Intake, piece: slice) -> Part:
    content = intake.content[piece]
    # The ids are SHA-256 digests of these very texts, so a fingerprint of them is one of the texts.
    there = pl.when(pl.col("record_digest") != ERASED)
    ids = intake.rows[piece].select(
        there.then(name).alias(name) for name in ("prompt_id", "response_a_id", "response_b_id")
    )
    part = write_part(held.store, content, known_fingerprint=fingerprint(ids.hstack(content.select("extra"))))
    held.keep_text(part, content)
    return part


def _numbered(
    held: Held, snapshots: list[Snapshot], name: str, arrivals: Iterable[int], columns: Sequence[str] = ()
) -> pl.DataFrame:
    """A table of the batches with these arrivals, one after the other, with their `arrival`."""
    tables = {arrival: snapshots[arrival].tables[name] for arrival in arrivals}
    schema = next(iter(tables.values())).schema
    table = Table(schema, tuple(part for one in tables.values() for part in one.parts))
    wanted = [name for name in columns or schema if name in schema]
    arrival = pl.concat(pl.repeat(place, one.rows, dtype=pl.Int64, eager=True) for place, one in tables.items())
    return held.some(table, wanted).collect().with_columns(arrival.alias("arrival"))


def _block(
    held: Held,
    memo: Memo,
    taken: list[Snapshot],
    block: Sequence[int],
    unusual: pl.DataFrame,
    retracted: pl.DataFrame,
    silent: Sequence[str],
) -> Snapshot:
    """Rows, quarantine and fates of some consecutive arrivals; remembered as long as they are told the same of them."""
    here = pl.col("arrival").is_in(list(block))
    parts = [
        [arrival, *(part.fingerprint for name in ("rows", "quarantine") for part in taken[arrival].tables[name].parts)]
        for arrival in block
    ]
    told = [said if said.is_empty() else said.filter(here) for said in (unusual, retracted)]
    said = [fingerprint(one) if one.height else None for one in told]
    key = digest(["block", code_digest("feedback_assets.stages.ingested"), parts, *said, *silent])
    known = memo.get(key)
    if known is not None:
        return known
    store = held.store
    came = _numbered(held, taken, "rows", block)
    left = retract(came, _numbered(held, taken, "quarantine", block), told[1])
    resolved = settle(left.rows, left.quarantined, told[0])
    shown = pl.when(~pl.col("source").is_in(list(silent))).then("value").alias("value")
    fates = pl.concat([resolved.fates, left.fates]).sort("arrival", "line", "position", "row_id")
    before = taken[block[0]].tables["rows"] if len(block) == 1 else None
    snapshot = Snapshot(
        "ingested",
        {
            "rows": write_rows(store, resolved.rows, came.drop("arrival"), before)
            if before is not None
            else write_table(store, resolved.rows, lengths=[resolved.rows.height]),
            "quarantine": write_table(store, resolved.quarantined.with_columns(shown)),
            "fates": write_table(store, fates),
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


def _batches(order: Sequence[Key], mapped: Sequence[Mapped], files: Sequence[str]) -> pl.DataFrame:
    """Each batch: arrival, source, batch, digest, `read` (records that a row was made of), `unread`, earlier, file."""
    return pl.DataFrame(
        [
            (
                *(place, *key, one.snapshot.tables["rows"].rows, one.snapshot.tables["quarantine"].rows),
                *(one.earlier, file),
            )
            for place, (key, one, file) in enumerate(zip(order, mapped, files, strict=True))
        ],
        schema={
            **{name: BATCHES[name] for name in ("arrival", "source", "batch", "digest")},
            **{"read": pl.Int64, "unread": pl.Int64, "earlier": pl.Boolean, "file": pl.String},
        },
        orient="row",
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


def _settled(batches: pl.DataFrame, unusual: pl.DataFrame, retracted: pl.DataFrame) -> pl.DataFrame:
    """The table of batches (BATCHES), of `_batches` and of what is decided across them."""
    gone = pl.col("arrival").is_in(retracted.get_column("arrival").implode())
    fate = pl.col("fate").replace("erased", "withdrawn")
    across = (
        unusual.select("arrival", fate)
        .filter(fate != "kept")
        .group_by("arrival")
        .agg((pl.col("fate") == name).sum().cast(pl.Int64).alias(name) for name in _FATES)
    )
    counted = batches.join(across, on="arrival", how="left", maintain_order="left").with_columns(
        pl.col(_FATES).fill_null(0), records=pl.col("read") + pl.col("unread")
    )
    nothing = (pl.col("quarantined") == pl.col("read")) & (pl.col("records") > 0)
    told = counted.with_columns(gone=gone, nothing=nothing, again=pl.int_range(pl.len()).over("source", "digest") > 0)
    in_place = (pl.col("file") != "replaced") & (pl.col("read") > 0) & ~pl.col("nothing") & ~pl.col("gone")
    replaced = (pl.col("file") == "replaced") & in_place.any().over("source", "batch")
    told = told.with_columns(replaced=replaced).with_columns(past=pl.col("gone") | pl.col("replaced"))
    first = pl.int_range(pl.len()).over("source", "digest", "past") == 0
    state = (
        pl.when("gone")
        .then(pl.lit("retracted"))
        .when(pl.col("nothing") & pl.col("replaced"))
        .then(pl.lit("mended"))
        .when("nothing")
        .then(pl.lit("quarantined"))
        .when("earlier")
        .then(pl.lit("mapped earlier"))
        .when("again")
        .then(pl.lit("redelivered"))
        .when(pl.col("records") == 0)
        .then(pl.lit("empty"))
        .otherwise(pl.lit("current"))
    )
    held = pl.when("gone").then(0).otherwise(pl.col("quarantined") + pl.col("unread"))
    return (
        told.with_columns(state=state, stands=first & ~pl.col("past"), quarantined=held)
        .with_columns(withdrawn=pl.when("gone").then("records").otherwise("withdrawn"))
        .with_columns(rows=pl.col("records") - pl.sum_horizontal(_FATES))
        .select(BATCHES.names())
    )


def _content(snapshots: list[Snapshot]) -> Table:
    tables = [snapshot.tables["content"] for snapshot in snapshots]
    seen: dict[str, Part] = {}
    for table in tables:
        for part in table.parts:
            seen.setdefault(part.fingerprint, part)
    return Table(dict(tables[0].schema), tuple(seen.values()))
