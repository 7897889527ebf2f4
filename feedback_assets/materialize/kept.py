"""Whether a stage passed every row on, as most do: files say so, and fates are read once a part."""

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Snapshot, Table


def all_kept(held: Held, came: Snapshot, after: Snapshot) -> bool:
    """Whether each row that came stands once, where it stood, was told kept, and no rule had to do with it.

    Of intake `came` is what it kept: whether it kept all.
    """
    rows, fates = came.tables["rows"].records, after.tables["fates"]
    same_parts = [part.rows for part in fates.parts] == [part.rows for part in rows.parts]
    if not (rows.rows and same_parts and went_on(rows, after.tables["rows"])):
        return False
    pairs = [[part.fingerprint, told.fingerprint] for part, told in zip(rows.parts, fates.parts, strict=True)]

    def key(end: int) -> str:
        return digest(["all kept", code_digest(__name__), pairs[:end]])

    ends = range(len(pairs), 0, -1)  # what stood before the newest batches was looked at with them
    done = next((end for end in ends if held.store.recall(key(end))), 0)
    if done < len(pairs):
        ids = held.rows(Table(rows.schema, rows.parts[done:])).select("row_id").collect()
        if not _kept(ids, held.rows(Table(fates.schema, fates.parts[done:])).collect()):
            return False
        held.store.remember(key(len(pairs)), True)
    return True


def went_on(came: Table, table: Table) -> bool:
    """Whether `table` has the same rows as `came`, with further columns beside them or none."""
    return len(came.parts) == len(table.parts) and all(
        part.files == after.files[: len(part.files)] for part, after in zip(came.parts, table.parts, strict=True)
    )


def _kept(ids: pl.DataFrame, told: pl.DataFrame) -> bool:
    kept = (pl.col("fate") == "kept") & (pl.col("copies") == 1)
    no_more = pl.all_horizontal(pl.col("rule", "rule_version", "into").is_null())
    told_so = told.select((kept.fill_null(value=False) & no_more).all()).item()
    return told_so and told.get_column("row_id").equals(ids.get_column("row_id"))
