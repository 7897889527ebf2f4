"""Profiles of what is in the store: counted once a part, remembered, and merged."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.signal.columns import signal_of, signals_of, watched
from feedback_assets.signal.monitor import SAMPLE_UNITS, SampleSize, effective_sample_size
from feedback_assets.signal.profile import COUNTS, Cells, Profile, merged, needed
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Memo, Part, Snapshot, Table, scan, write_table
from feedback_assets.threads import each


def profile_of(held: Held, table: Table, weight: str | None, columns: Sequence[str]) -> Profile:
    """The profile of a table.

    Without weights it is merged from those of the parts, so that a new batch costs its own rows. A weight may change
    in every row with each batch, and a copy lies in another part than its original: then all rows are counted.
    """
    whole = ["profile", code_digest("feedback_assets.signal.columns"), weight, sorted(columns), list(table.schema)]
    fingerprints = [part.fingerprint for part in table.parts]
    known = _recalled(held, digest([*whole, fingerprints]))
    if known is not None:
        return known
    if weight is not None or "copy_index" in table.schema:
        return _kept(held, digest([*whole, fingerprints]), _weighed(held, table, weight, columns))
    ends = range(len(table.parts) - 1, 0, -1)  # what stood before the newest batches was merged with them
    before = ((end, _recalled(held, digest([*whole, fingerprints[:end]]))) for end in ends)
    end, earlier = next(((end, known) for end, known in before if known), (0, None))
    parts = _of_parts(held, table, table.parts[end:], columns, whole)
    return _kept(held, digest([*whole, fingerprints]), merged([earlier, *parts] if earlier else parts))


def _weighed(held: Held, table: Table, weight: str | None, columns: Sequence[str]) -> Profile:
    """The profile of weighted or copied rows. The same records in the next stage are only weighed again."""
    frame, key = held.rows(table), digest(["cells", sorted(columns)])
    entries = watched(frame.collect_schema(), columns)
    rows, mass = needed(frame, entries, weight)
    cells = Cells.of(rows, entries, held.value(key))
    held.keep_value(key, cells)
    return cells.weighed(mass)


def _of_parts(
    held: Held, table: Table, parts: Sequence[Part], columns: Sequence[str], whole: list[object]
) -> list[Profile]:
    keys = [digest([*whole, "part", part.fingerprint]) for part in parts]
    found: dict[str, Any] = dict(zip(keys, each(lambda key: _recalled(held, key), keys), strict=True))
    new = {key: part for key, part in zip(keys, parts, strict=True) if found[key] is None}
    if new:
        rows = held.rows(Table(table.schema, tuple(new.values())))
        counted = signals_of(rows, [part.rows for part in new.values()], columns)
        found |= zip(new, each(lambda one: _kept(held, *one), zip(new, counted, strict=True)), strict=True)
    return [found[key] for key in keys]


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
        return known or _kept(held, key, signal_of(rows, None, columns))

    found = [profile_of(held, Table(table.schema, tuple(whole)), None, columns)] if whole else []
    return found[0] if found and not partly else merged([*found, *each(lambda one: counted(*one), partly)])


def _recalled(held: Held, key: str) -> Profile | None:
    here = held.value(key)
    if here is not None:
        return here
    known = Memo(held.store).get(key)
    if known is None:
        return None
    counts = scan(held.store, known.tables["counts"]).collect()
    found = Profile(counts, known.facts["kinds"], known.facts["squares"])
    held.keep_value(key, found)
    return found


def _kept(held: Held, key: str, found: Profile) -> Profile:
    # In the order in which it is recalled, so that a first run and a later one tell the columns alike.
    found = Profile(found.counts, dict(sorted(found.kinds.items())), dict(sorted(found.squares.items())))
    held.keep_value(key, found)
    table = write_table(held.store, found.counts.cast(dict(COUNTS)), part_rows=max(found.counts.height, 1))  # type: ignore[arg-type]
    Memo(held.store).put(key, Snapshot("profile", {"counts": table}, {"kinds": found.kinds, "squares": found.squares}))
    return found


def sizes_of(held: Held, table: Table, weight: str | None, came: Table | None) -> list[SampleSize]:
    """Effective sample sizes of a table; without weights they are those of `came` where the same rows went on."""

    def key(of: Table) -> str:
        units = [column for _, column in SAMPLE_UNITS if column in table.schema]
        return digest(["sizes", weight, units, [part.fingerprint for part in of.parts]])

    same = weight is None and came is not None and _went_on(came, table)
    known = held.value(key(came)) if came is not None and same else None
    found = known or effective_sample_size(held.rows(table), weight)
    held.keep_value(key(table), found)
    return found


def _went_on(came: Table, table: Table) -> bool:
    """Whether `table` has the same rows as `came`, with further columns beside them or none."""
    return len(came.parts) == len(table.parts) and all(
        part.files == after.files[: len(part.files)] for part, after in zip(came.parts, table.parts, strict=True)
    )


def lost_of(rows: pl.LazyFrame, fates: pl.DataFrame, lost: Sequence[str]) -> Profile | None:
    """The profile of those of `rows` whose fate is among `lost`, by group; None if there is none."""
    gone = fates.filter(pl.col("fate").is_in(lost)).get_column("row_id")
    if not gone.len():
        return None
    if "copy_index" in rows.collect_schema():
        rows = rows.filter(pl.col("copy_index") == 0).drop("copy_index")
    return signal_of(rows.filter(pl.col("row_id").is_in(gone.implode())))
