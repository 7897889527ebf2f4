"""Erase: a record, or all records of an annotator, are withdrawn, and their text leaves every byte of the store.

What goes: the text of the records wherever it lies (parts of text, rows landed from a database, training files), the
names in their rows (feedback_id, group_id, annotator_id), what quarantine shows of them, remembered values and counts
that name the annotator, scratch files, and text that nothing refers to. A text that a record of someone else holds,
too, stays in that record. What stays of an erased record is its row_id, where it came from, and numbers.

History is not rewritten: snapshots, commits and manifests keep the digests they had, and a tombstone leads from there
to what is now. First the new objects are put, beside the old; then the tombstone, from which moment readers see the
new; then the old ones go. Interrupted before the tombstone, nothing has happened; after it, the next `erase` goes on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.digests import file_digest, text_id
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.landing import landed
from feedback_assets.materialize.project import Project
from feedback_assets.materialize.withdrawn import identified
from feedback_assets.provenance.release import folder, listed, read
from feedback_assets.provenance.remembered import batches_on, named_in
from feedback_assets.provenance.rewrite import Erased, emptied, without
from feedback_assets.provenance.sought import Request, batch_files, sought, theirs_of
from feedback_assets.snapshots.erasures import Annotator, Erasure, done_key, erasure_key, rewritten_key
from feedback_assets.snapshots.leases import alone
from feedback_assets.snapshots.overlay import HYBRIDS
from feedback_assets.snapshots.snapshot import Snapshot, write_frame
from feedback_assets.snapshots.store import LocalStore, Store, in_folder
from feedback_assets.sources.landed import json_columns, write_landed

Listener = Callable[[str, int, int], None]


@dataclass
class Change:
    """What is rewritten of one kind: files, their bytes before, and the rows concerned."""

    files: int = 0
    bytes: int = 0
    rows: int = 0


@dataclass
class Plan:
    """What an erasure does, or did: records, changes by kind, releases, batches in the team's folder, what stays.

    `sources` are files of the team that hold the records: they are not ours to change. `named` are records of the
    store, such as the text of a policy, that name the annotator and are never rewritten.
    """

    row_ids: tuple[str, ...]
    changes: dict[str, Change] = field(default_factory=dict)
    releases: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    done: bool = False
    continued: bool = False

    def count(self, kind: str, bytes_: int, rows: int) -> None:
        """Count one file."""
        change = self.changes.setdefault(kind, Change())
        change.files, change.bytes, change.rows = change.files + 1, change.bytes + bytes_, change.rows + rows


def erase(
    project: Project, request: Request, *, do: bool, now: datetime | None = None, listener: Listener = lambda *_: None
) -> Plan:
    """Erase what is asked for, or with `do` False only say what that would be.

    Raises:
        FeedbackError: nothing is known of it, sources disagree on whose id it is, or a run is at work.
    """
    store = in_folder(project.store, "erase")
    if not do:
        return _Erasing(project, request, listener).run(None)
    with alone(store, "an erasure"):
        continued = finish(store)
        plan = _Erasing(project, request, listener).run(now or datetime.now(UTC))
        finish(store)
        plan.done, plan.continued = True, continued
        return plan


def finish(store: LocalStore) -> bool:
    """Take away what erasures have replaced, as far as that was not done yet; whether there was anything."""
    found = False
    for erasure in store.erasures.all():
        if store.stands(done_key(erasure.number)):
            continue
        found = True
        for path, (old, new) in erasure.replaced.items():
            place = store.root / path
            if place.exists() and file_digest(place) == old:
                store.replace(path, store.path(rewritten_key(path, new)))
        for key in (*erasure.moved, *erasure.dropped):
            store.delete(key)
        store.put(done_key(erasure.number), b"")
    return found


def erased_releases(store: Store) -> dict[str, str]:
    """The releases of which something was erased: id → when. They cannot be replayed."""
    return {release: erasure.at for erasure in reversed(store.erasures.all()) for release in erasure.releases}


def erased_records(store: Store) -> dict[str, Erasure]:
    """The records that were erased by request: row_id → the erasure."""
    return {row_id: erasure for erasure in store.erasures.all() for row_id in erasure.row_ids}


class _Erasing:
    def __init__(self, project: Project, request: Request, listener: Listener) -> None:
        self.project, self.request, self.listener = project, request, listener
        self.store = in_folder(project.store, "erase")
        self.touched: set[str] = set()
        self.moved: dict[str, str] = {}
        self.replaced: dict[str, tuple[str, str]] = {}
        self.dropped: list[str] = []
        self.lines: dict[str, dict[str, list[str]]] = {}
        self.parts = [(key, size) for key, size, _ in self.store.objects("parts")]

    def run(self, now: datetime | None) -> Plan:
        erased, orphans = sought(self.project, self.request)
        plan = Plan(tuple(sorted(erased.row_ids)))
        self._parts(plan, erased, do=now is not None)
        for key in orphans:
            self._drop(plan, "text that nothing refers to", key)
        self._landed(plan, erased, do=now is not None)
        self._training_files(plan, erased, do=now is not None)
        self._remembered(plan)
        for key in [key for prefix in ("tmp", HYBRIDS) for key, _, _ in self.store.objects(prefix)]:
            if now is not None:
                self.store.delete(key)
            plan.count("scratch files", 0, 0)
        plan.sources = self._of_the_team(erased.lines)
        if self.request.annotator is not None:
            plan.named = named_in(self.store, self.request.annotator)
        known = self.request.asked_before(self.store) if self.request.annotator is not None else True
        known = known and erased.row_ids <= erased_records(self.store).keys()
        if now is not None and not (known and not self.moved and not self.replaced and not self.dropped):
            self._publish(plan, now)
        return plan

    def _parts(self, plan: Plan, erased: Erased, *, do: bool) -> None:
        for place, (key, size) in enumerate(self.parts):
            self.listener("parts", place, len(self.parts))
            path = self.store.root / key
            found = emptied(path, key, erased)
            if found is None:
                continue
            frame, rows, what = found
            plan.count(what, size, rows)
            self.touched.add(key)
            if do:
                self._moved(key, lambda scratch, frame=frame: write_frame(scratch, frame))

    def _moved(self, key: str, write: Callable[[Path], Any]) -> str:
        """Put the new object that stands for `key`, and return its own key."""
        with self.store.scratch() as scratch:
            write(scratch)
            new = file_digest(scratch)
            name = f"{key.split('/', 1)[0]}/{new[:2]}/{new}{Path(key).suffix}"
            self.store.put_file(name, scratch)
        if name != key:  # what stands for itself must not be taken away
            self.moved[key] = name
        return name

    def _landed(self, plan: Plan, erased: Erased, *, do: bool) -> None:
        """Empty the rows of landed windows, columns of all; where they stood is in the tombstone."""
        for source in self.project.policy.ingested.sources:
            if not source.in_database:
                continue
            for file in landed(self.store, source):
                key = f"landed/{file.path.parent.name}/{file.path.name}"
                records = identified(file, source) if file.path.exists() else None
                lines = erased.lines.filter((pl.col("source") == source.name) & (pl.col("batch") == file.name))
                if records is None or lines.is_empty():
                    continue
                before = self.store.erasures.withdrawn_lines(key)
                here = set(lines.get_column("line")) - before.keys()
                mine = records.filter(pl.col("line").is_in(sorted(here)))
                theirs = theirs_of(erased.row_ids, erased.annotator)
                others = mine.filter(pl.col("row_id").is_not_null() & ~theirs)
                mine = mine.filter(~pl.col("line").is_in(others.get_column("line").implode()))
                if mine.is_empty():
                    continue
                plan.count("rows landed from a database", file.bytes, mine.height)
                if do:
                    rows = pl.read_parquet(file.path, glob=False, hive_partitioning=False)
                    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
                    stays = ~number.is_in(mine.get_column("line").implode())
                    blank = rows.select(pl.when(stays).then(pl.all()))
                    new = self._moved(key, lambda s, b=blank, f=file: write_landed(b, s, json_columns(f.path)))
                    unnamed = text_id(pl.col("source"), pl.lit(file.name), pl.col("line").cast(pl.String))
                    named = mine.with_columns(pl.col("row_id").fill_null(unnamed))
                    of_line = named.group_by("line", maintain_order=True).agg("row_id")
                    self.lines[new] = {str(line): ids for line, ids in (*before.items(), *of_line.iter_rows())}

    def _training_files(self, plan: Plan, erased: Erased, *, do: bool) -> None:
        done: dict[str, tuple[str, int]] = {}
        for key, size, _ in list(self.store.objects("exports")):
            with self.store.scratch() as scratch:
                rows = without(self.store.root / key, erased.ids, scratch)
                if not rows:
                    continue
                plan.count("training files", size, rows)
                old, new = Path(key).stem, file_digest(scratch)
                done[old] = (new, rows)
                if do:
                    self.moved[key] = rewritten_key(key, new)
                    self.store.put_file(self.moved[key], scratch)
        for release_id in dict.fromkeys(entry["id"] for entry in listed(self.store)):
            made = read(self.store, release_id)
            for file in made.circumstances["files"]:
                path = f"{folder(release_id)}/{file['path']}"
                if (self.store.root / path).exists():
                    self._released(plan, erased, release_id, path, done, do=do)
            if release_id not in plan.releases and self._stands_on_touched(made.circumstances):
                plan.releases.append(release_id)

    def _released(
        self, plan: Plan, erased: Erased, release_id: str, path: str, done: Mapping[str, tuple[str, int]], *, do: bool
    ) -> None:
        place = self.store.root / path
        old = file_digest(place)
        rows = 0
        with self.store.scratch() as scratch:
            if path.endswith("/annotations.parquet"):
                found = emptied(place, path, erased)
                if found is not None:
                    rows = found[1]
                    write_frame(scratch, found[0])
            elif old in done:
                new, rows = done[old]
            else:
                rows = without(place, erased.ids, scratch)
            if not rows:
                return
            if release_id not in plan.releases:
                plan.releases.append(release_id)
            plan.count("files of releases", place.stat().st_size, rows)
            new = file_digest(scratch) if scratch.exists() else done[old][0]
            if do:
                self.replaced[path] = (old, new)
                if scratch.exists():
                    self.store.put_file(rewritten_key(path, new), scratch)

    def _stands_on_touched(self, circumstances: Mapping[str, Any]) -> bool:
        """Whether a release stands on a file in which something is erased, though none of it was trained on."""
        return any(
            self.store.erasures.current(file.key) in self.touched
            for commit in circumstances["commits"].values()
            for file in Snapshot.from_json(commit["snapshot"]).files
        )

    def _remembered(self, plan: Plan) -> None:
        if self.request.annotator is not None:
            for key in named_in(self.store, self.request.annotator, ("memo",)):
                self._drop(plan, "remembered values", key)

    def _drop(self, plan: Plan, kind: str, key: str) -> None:
        plan.count(kind, (self.store.root / key).stat().st_size, 0)
        self.dropped.append(key)

    def _of_the_team(self, lines: pl.DataFrame) -> list[str]:
        held = set(lines.select("source", "batch").unique().iter_rows())
        return sorted(
            str(file.path)
            for source, file in batch_files(self.project)
            if not source.in_database and (source.name, file.name) in held
        )

    def _publish(self, plan: Plan, now: datetime) -> None:
        request = self.request
        number = len(self.store.erasures.all()) + 1
        erasure = Erasure(
            number=number,
            at=now.isoformat(timespec="seconds"),
            reason=request.reason,
            row_ids=plan.row_ids,
            annotator=None if request.annotator is None else Annotator.of(request.annotator, request.source),
            moved=self.moved,
            replaced=self.replaced,
            # What an erasure that was cut short put already, no record referred to.
            dropped=tuple(key for key in self.dropped if key not in self.moved.values()),
            batches=tuple(batches_on(self.store, self.touched)),
            lines=self.lines,
            releases=tuple(plan.releases),
            rows={kind: change.rows for kind, change in plan.changes.items()},
        )
        if not self.store.put(erasure_key(number), erasure.as_bytes()):
            raise FeedbackError(f"{self.store.root}: another erasure came first; run it again")
