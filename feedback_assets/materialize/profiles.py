"""Profiles of what is in the store: counted once a part, remembered, and merged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.materialize.kept import went_on
from feedback_assets.signal.columns import signal_of, signals_of, watched
from feedback_assets.signal.losses import LOSS_COLUMNS
from feedback_assets.signal.monitor import SAMPLE_UNITS, Grouped, SampleSize, effective_sample_size
from feedback_assets.signal.profile import COUNTS, Profile, merged, profile
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Memo, Part, Snapshot, Table, scan, write_table
from feedback_assets.threads import each


def profile_of(held: Held, table: Table, weight: str | None, columns: Sequence[str]) -> Profile:
    """The profile of the records of a table: merged from those of its parts, so that a new batch costs its own rows."""
    parts = table.records.parts
    code = code_digest("feedback_assets.signal.columns")
    whole: list[object] = ["profile", code, weight, sorted(columns), list(table.schema)]

    def key(end: int) -> str:
        return digest([*whole, [part.fingerprint for part in parts[:end]]])

    ends = range(len(parts), 0, -1)  # what stood before the newest batches was merged with them
    before = ((end, _recalled(held, key(end))) for end in ends)
    end, earlier = next(((end, known) for end, known in before if known), (0, None))
    if earlier and end == len(parts):
        return earlier
    known, counted = _of_parts(held, table, parts[end:], weight, columns, whole)
    total = merged([*([earlier] if earlier else ()), *known, *counted.values()])
    return _kept(held, {**counted, key(len(parts)): total})[key(len(parts))]


def _of_parts(
    held: Held, table: Table, parts: Sequence[Part], weight: str | None, columns: Sequence[str], whole: list[object]
) -> tuple[list[Profile], dict[str, Profile]]:
    """The profiles of parts: those that are remembered, and those counted now, by the keys to remember them under."""
    keys = [digest([*whole, "part", part.fingerprint]) for part in parts]
    known = each(lambda key: _recalled(held, key), keys)
    new = {key: part for key, part, found in zip(keys, parts, known, strict=True) if found is None}
    counted: dict[str, Profile] = {}
    if new:
        rows = held.rows(Table(table.schema, tuple(new.values())))
        profiles = signals_of(rows, [part.rows for part in new.values()], weight, columns)
        counted = dict(zip(new, profiles, strict=True))
    return [found for found in known if found is not None], counted


def profile_of_arrivals(held: Held, table: Table, arrivals: Sequence[int], columns: Sequence[str]) -> Profile:
    """The profile of the rows of some arrivals: a part that holds others too is read, and remembered with them."""
    wanted = set(arrivals)
    whole, partly = [], []
    for part in table.parts:
        first, last = part.arrivals or (0, -1)
        mine = sorted(wanted & set(range(first, last + 1)))
        if mine and len(mine) == last - first + 1:
            whole.append(part)
        elif mine:
            partly.append((part, mine))

    def counted(part: Part, mine: list[int]) -> Profile:
        code = code_digest("feedback_assets.signal.columns")
        key = digest(["profile", code, sorted(columns), list(table.schema), "arrivals", part.fingerprint, mine])
        known = _recalled(held, key)
        rows = held.rows(Table(table.schema, (part,))).filter(pl.col("arrival").is_in(mine))
        return known or _kept(held, {key: signal_of(rows, None, columns)})[key]

    found = [profile_of(held, Table(table.schema, tuple(whole)), None, columns)] if whole else []
    return merged([*found, *each(lambda one: counted(*one), partly)])


def _recalled(held: Held, key: str) -> Profile | None:
    here = held.value(key)
    if here is not None:
        return here
    known = Memo(held.store).get(key)
    if known is None:
        return None
    mine = pl.col("profile") == known.facts["profile"]
    counts = scan(held.store, known.tables["counts"]).filter(mine).drop("profile").collect()
    found = Profile(counts, known.facts["kinds"], known.facts["squares"])
    held.keep_value(key, found)
    return found


def _kept(held: Held, found: Mapping[str, Profile]) -> dict[str, Profile]:
    """Remember profiles by their keys; the counts of all lie in one file, because one each would take longer."""
    # In the order in which they are recalled, so that a first run and a later one tell the columns alike.
    kept = {
        key: Profile(one.counts.cast(COUNTS), dict(sorted(one.kinds.items())), dict(sorted(one.squares.items())))
        for key, one in found.items()
    }
    counts = pl.concat(
        one.counts.select(pl.lit(n, pl.Int32).alias("profile"), pl.all()) for n, one in enumerate(kept.values())
    )
    table = write_table(held.store, counts, part_rows=max(counts.height, 1))
    for number, (key, one) in enumerate(kept.items()):
        held.keep_value(key, one)
        facts = {"profile": number, "kinds": one.kinds, "squares": one.squares}
        Memo(held.store).put(key, Snapshot("profile", {"counts": table}, facts))
    return kept


def sizes_of(held: Held, table: Table, weight: str | None, came: Table | None, seen: Profile) -> list[SampleSize]:
    """Effective sample sizes of a table with the profile `seen`.

    Where it has the rows of `came`, they are grouped as those were, and with neither weights nor copies their sizes
    are the same.
    """
    same = came.records if came is not None and went_on(came.records, table.records) else None

    def once(what: list[Any], make: Callable[[], Any]) -> Any:
        known = held.value(digest([what, same.digests])) if same else None
        held.keep_value(digest([what, table.records.digests]), found := known or make())
        return found

    def grouped(ids: pl.Series) -> Grouped:
        return once(["grouped", ids.name], lambda: Grouped.by(ids))

    def sizes() -> list[SampleSize]:
        return effective_sample_size(held.rows(table.records), weight, seen, grouped)

    if weight is not None or "copy_index" in table.schema:
        return sizes()
    return once(["sizes", [column for _, column in SAMPLE_UNITS if column in table.schema]], sizes)


def lost_of(rows: pl.LazyFrame, fates: pl.DataFrame, lost: Sequence[str]) -> Profile | None:
    """The profile of those of `rows` whose fate is among `lost`, by what losses are told of; None if there is none."""
    gone = fates.filter(pl.col("fate").is_in(lost)).get_column("row_id")
    if not gone.len():
        return None
    told = [entry for entry in watched(rows.collect_schema()) if entry.name in (*LOSS_COLUMNS, "annotator_id")]
    return profile(rows.filter(pl.col("row_id").is_in(gone.implode())), told)
