"""Profiles of what is in the store: counted once a part, remembered, and merged."""

from collections.abc import Sequence

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.signal.columns import signal_of
from feedback_assets.signal.profile import COUNTS, Profile, merged
from feedback_assets.snapshots.snapshot import Memo, Part, Snapshot, Table, scan, write_table
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each


def profile_of(store: Store, table: Table, rows: pl.LazyFrame, weight: str | None, columns: Sequence[str]) -> Profile:
    """The profile of a table and its `rows`.

    Without weights it is merged from those of the parts, so that a new batch costs its own rows. A weight may change
    in every row with each batch, and a copy lies in another part than its original: then all rows are counted.
    """
    whole = ["profile", code_digest("feedback_assets.signal.columns"), weight, sorted(columns)]
    key = digest([*whole, list(table.schema), [part.fingerprint for part in table.parts]])
    known = _recalled(store, key)
    if known is not None:
        return known
    if weight is None and "copy_index" not in table.schema:
        parts = [Table(table.schema, (part,)) for part in table.parts]
        counted = each(lambda part: _of_part(store, part, columns, [*whole, list(table.schema)]), parts)
        found = counted[0] if len(counted) == 1 else merged(counted)
    else:
        found = signal_of(rows, weight, columns)
    return _kept(store, key, found)


def _of_part(store: Store, part: Table, columns: Sequence[str], whole: list[object]) -> Profile:
    key = digest([*whole, "part", part.parts[0].fingerprint])
    known = _recalled(store, key)
    return known or _kept(store, key, signal_of(scan(store, part), None, columns))


def profile_of_arrivals(store: Store, table: Table, arrivals: Sequence[int], columns: Sequence[str]) -> Profile:
    """The profile of the rows of some arrivals: a part that holds others too is read, and remembered with them."""
    whole = ["profile", code_digest("feedback_assets.signal.columns"), None, sorted(columns), list(table.schema)]
    wanted = set(arrivals)

    def counted(part: Part) -> Profile:
        first, last = part.arrivals or (0, -1)
        mine = sorted(wanted & set(range(first, last + 1)))
        one = Table(table.schema, (part,))
        if len(mine) == last - first + 1:
            return _of_part(store, one, columns, whole)
        key = digest([*whole, "arrivals", part.fingerprint, mine])
        known = _recalled(store, key)
        rows = scan(store, one).filter(pl.col("arrival").is_in(mine))
        return known or _kept(store, key, signal_of(rows, None, columns))

    held = [
        part for part in table.parts if part.arrivals and wanted & set(range(part.arrivals[0], part.arrivals[1] + 1))
    ]
    return merged(each(counted, held))


def _recalled(store: Store, key: str) -> Profile | None:
    known = Memo(store).get(key)
    if known is None:
        return None
    counts = scan(store, known.tables["counts"]).collect()
    return Profile(counts, known.facts["kinds"], known.facts["squares"])


def _kept(store: Store, key: str, found: Profile) -> Profile:
    table = write_table(store, found.counts.cast(dict(COUNTS)), part_rows=max(found.counts.height, 1))  # type: ignore[arg-type]
    Memo(store).put(key, Snapshot("profile", {"counts": table}, {"kinds": found.kinds, "squares": found.squares}))
    return found


def lost_of(rows: pl.LazyFrame, fates: pl.DataFrame, lost: Sequence[str]) -> Profile | None:
    """The profile of those of `rows` whose fate is among `lost`, by group; None if there is none."""
    gone = fates.filter(pl.col("fate").is_in(lost)).get_column("row_id")
    if not gone.len():
        return None
    if "copy_index" in rows.collect_schema():
        rows = rows.filter(pl.col("copy_index") == 0).drop("copy_index")
    return signal_of(rows.filter(pl.col("row_id").is_in(gone.implode())))
