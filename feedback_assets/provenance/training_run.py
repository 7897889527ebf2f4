"""training_run: a model that was trained on a release, reported by whoever trained it; the last stage of a row.

It is a commit like that of every stage, so that lineage and trace lead on from the release to the model.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.exports.lines import eligible
from feedback_assets.materialize.commit import Commit, Commits
from feedback_assets.materialize.environment import environment
from feedback_assets.provenance.release import Release, commit_of
from feedback_assets.snapshots.snapshot import Snapshot, scan, write_fates, write_rows
from feedback_assets.snapshots.store import Store
from feedback_assets.stages.stage import fates

ASSET = "training_run"
DESCRIPTION = (
    "A model that was trained on a release, reported by `feedback-assets record-training-run`: nothing is trained "
    "here. From the model's node the lineage leads back to the annotations; what the trainer dropped is recorded."
)
NOT_EXPORTED = "not-in-export"
BY_TRAINER = "dropped-by-trainer"


def code_version() -> str:
    """That of recording a run; what trained the model is not known here."""
    return f"{ASSET}-v1-{code_digest(__name__)[:16]}"


def training_runs(store: Store, training_set: str | None = None) -> list[Commit]:
    """The training runs recorded in a store, oldest first; with the id of a commit of `training_set`, those on it."""
    found = Commits(store).all(ASSET)
    return [c for c in found if training_set is None or c.content["inputs"]["training_set"]["commit"] == training_set]


def record_training_run(
    store: Store,
    release: Release,
    model: str,
    *,
    parent: str | None = None,
    export: str | None = None,
    dropped: Path | None = None,
    now: datetime | None = None,
) -> Commit:
    """Record that `model` was trained on a release; gives the commit.

    Args:
        store: where the release lies.
        release: what the model was trained on.
        model: its name.
        parent: the model that training began with.
        export: the export that was read; default: all of the release.
        dropped: a file of row_ids, one a line, that the trainer left out.
        now: the time to record.

    Raises:
        FeedbackError: a name is empty, the model would descend from itself, there is no such export, a line is no
            row_id of the release, or the parts of the release are gone.
    """
    if not model.strip() or (parent is not None and not parent.strip()):
        raise FeedbackError("a model has a name; `--model` and `--parent` cannot be empty")
    model, parent = model.strip(), parent.strip() if parent else None
    if parent is not None:
        _descends(store, model, parent)
    exports = [entry for entry in release.content["exports"] if export in (None, entry["name"])]
    if not exports:
        known = ", ".join(entry["name"] for entry in release.content["exports"])
        raise FeedbackError(f"release {release.id[:16]} has no export {export!r}; it has: {known or 'none'}")
    source = commit_of(release, "training_set")
    before = source.snapshot.tables["rows"]
    try:
        came = scan(store, before).collect()
    except FileNotFoundError as error:
        raise FeedbackError(
            f"{store.place}: the parts of release {release.id[:16]} are gone, so that its rows cannot be followed: "
            f"{str(error).splitlines()[0]}"
        ) from None
    left_out = [] if dropped is None else _row_ids(dropped, set(came.get_column("row_id")), release.id)
    seen = pl.concat([eligible(came, entry).select("row_id") for entry in exports]).unique().collect()
    told = _fates(came, seen, left_out)
    kept = came.filter(told.get_column("fate") == "kept")
    tables = {
        "rows": write_rows(store, kept, came, before),
        "fates": write_fates(store, told, came, before),
    }
    snapshot = Snapshot(ASSET, tables)
    counted = told.group_by("fate", "rule", "rule_version").len("rows").sort("fate", "rule", nulls_last=True)
    content = {
        "asset": ASSET,
        "data_version": snapshot.data_version,
        "code_version": code_version(),
        "model": model,
        "parent": parent,
        "release": release.id,
        "exports": [entry["name"] for entry in exports],
        "inputs": {"training_set": {"commit": source.id, "data_version": source.data_version}},
        "rows_in": came.height,
        "rows_out": kept.height,
        "fates": counted.to_dicts(),
        "tables": {
            name: {
                "schema": list(map(list, table.schema.items())),
                "rows": table.rows,
                "fingerprints": [part.fingerprint for part in table.parts],
            }
            for name, table in tables.items()
        },
        "checks": [],
    }
    return Commits(store).add(content, _circumstances(source, snapshot, now or datetime.now(UTC)))


def _descends(store: Store, model: str, parent: str) -> None:
    """Refuse a parent that is the model itself, or that was trained from it, as recorded."""
    runs = [run.content for run in training_runs(store)]
    ways, pending = {parent: (model, parent)}, [parent]
    while pending and model not in ways:
        name = pending.pop()
        before = [run["parent"] for run in runs if run["model"] == name and run["parent"]]
        new = {other: (*ways[name], other) for other in before if other not in ways}
        ways, pending = ways | new, [*pending, *new]
    if model in ways:
        said = " ← ".join(ways[model])
        raise FeedbackError(f"--parent {parent}: {model} would descend from itself ({said}); give it another name")


def _circumstances(source: Commit, snapshot: Snapshot, now: datetime) -> Mapping[str, Any]:
    return {
        "run_id": "",
        "made_at": now.isoformat(timespec="seconds"),
        "environment": environment(),
        "inputs": {"training_set": {"number": source.number}},
        "snapshot": snapshot.as_json(),
    }


def _fates(came: pl.DataFrame, seen: pl.DataFrame, left_out: list[str]) -> pl.DataFrame:
    """What the trainer did to each row; what no export holds it never saw."""
    row_id = pl.col("row_id")
    unseen = ~row_id.is_in(seen.get_column("row_id").implode())
    by_trainer = row_id.is_in(left_out)
    rule = pl.when(unseen).then(pl.lit(NOT_EXPORTED)).when(by_trainer).then(pl.lit(BY_TRAINER))
    gone = unseen | by_trainer
    fate = pl.when(gone).then(pl.lit("dropped")).otherwise(pl.lit("kept"))
    return fates(came, fate, rule=rule, copies=pl.when(gone).then(0).otherwise(1)).collect()


def _row_ids(file: Path, known: set[str], release_id: str) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FeedbackError(f"{file}: cannot be read: {error}") from None
    named = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    wrong = next(((number, row_id) for number, row_id in named if row_id not in known), None)
    if wrong is not None:
        raise FeedbackError(
            f"{file}:{wrong[0]}: {wrong[1][:40]!r} is no row_id of release {release_id[:16]}; expected one a line"
        )
    return [row_id for _, row_id in named]
