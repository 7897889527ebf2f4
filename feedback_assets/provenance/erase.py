"""Erase: a record, or all records of an annotator, are withdrawn, and their text leaves every byte of the store.

What goes: the text of the records wherever it lies (parts of text, rows landed from a database, training files), the
names in their rows (feedback_id, group_id, annotator_id), what quarantine shows of them, remembered values and counts
that name the annotator, scratch files, and text that nothing refers to. A text that a record of someone else holds,
too, stays in that record. What stays of an erased record is its row_id, where it came from, and numbers.

History is not rewritten: snapshots, commits and manifests keep the digests they had, and a tombstone leads from there
to what is now. First the new objects are put, beside the old; then the tombstone, from which moment readers see the
new; then the old ones go. Interrupted before the tombstone, nothing has happened; after it, the next `erase` goes on.
Of a store elsewhere, the copies on this machine go with it; those on others go when these next use the store.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.digests import file_digest, text_id
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.landing import landed, landed_key
from feedback_assets.materialize.project import Project
from feedback_assets.materialize.withdrawn import identified
from feedback_assets.provenance.release import ANNOTATIONS, Release, folder, listed, read
from feedback_assets.provenance.remembered import batches_on, named_in, names
from feedback_assets.provenance.rewrite import Erased, emptied, without
from feedback_assets.provenance.sought import Request, Sought, batch_files, sought, theirs_of
from feedback_assets.snapshots.erasures import Annotator, Erasure, done_key, erasure_key, rewritten_key
from feedback_assets.snapshots.leases import ALONE, alone
from feedback_assets.snapshots.overlay import HYBRIDS
from feedback_assets.snapshots.snapshot import Snapshot, write_frame
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.landed import json_columns, write_landed
from feedback_assets.threads import each

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
    store, such as the text of a policy, that name the annotator and are never rewritten. `alike` are names that stay
    and differ from the annotator's in case or blanks around them alone.
    """

    row_ids: tuple[str, ...]
    changes: dict[str, Change] = field(default_factory=dict)
    releases: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)
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
        FeedbackError: nothing is known of it, sources disagree on whose id it is, a run is at work, or the store keeps
            old versions of what is taken away.
    """
    store = project.store
    if not do:
        return _Erasing(project, request, listener).run(None)
    with alone(store, "an erasure") as sure:
        _refuse_versions(store, [ALONE])
        continued = finish(store, sure)
        plan = _Erasing(project, request, listener).run(now or datetime.now(UTC))
        finish(store, sure)
        plan.done, plan.continued = True, continued
        return plan


def finish(store: Store, sure: Callable[[], None]) -> bool:
    """Take away what erasures have replaced, as far as that was not done yet; whether there was anything.

    `sure` raises when a run could be at work.
    """
    found = False
    for erasure in store.erasures.all():
        if store.stands(done_key(erasure.number)):
            continue
        found = True
        for path, (old, new) in erasure.replaced.items():
            if _digest(store, path) == old:
                store.replace(path, store.path(rewritten_key(path, new)))
        sure()
        store.delete(*erasure.moved, *erasure.dropped)
        store.put(done_key(erasure.number), b"")
    return found


def _digest(store: Store, key: str) -> str | None:
    try:
        with store.at_rest(key) as place:
            return file_digest(place)
    except FileNotFoundError:
        return None


def _refuse_versions(store: Store, keys: Sequence[str]) -> None:
    for key, keeps in zip(keys, each(store.keeps_versions, keys, 16, waits=True), strict=True):
        if keeps:
            raise FeedbackError(
                f"{store.place}: the bucket keeps old versions of what is deleted, such as {key}, so the text stays; "
                "copy the store to a bucket without versioning, delete this one with all its versions, and erase there"
            )


def erased_releases(store: Store) -> dict[str, str]:
    """The releases of which something was erased: id → when. They cannot be replayed."""
    return {release: erasure.at for erasure in reversed(store.erasures.all()) for release in erasure.releases}


def erased_records(store: Store) -> dict[str, Erasure]:
    """The records that were erased by request: row_id → the erasure."""
    return {row_id: erasure for erasure in store.erasures.all() for row_id in erasure.row_ids}


class _Erasing:
    def __init__(self, project: Project, request: Request, listener: Listener) -> None:
        self.project, self.request, self.listener = project, request, listener
        self.store = project.store
        self.touched: set[str] = set()
        self.moved: dict[str, str] = {}
        self.replaced: dict[str, tuple[str, str]] = {}
        self.dropped: list[str] = []
        self.lines: dict[str, dict[str, list[str]]] = {}
        self.taken: list[str] = []  # what is to be deleted or replaced

    def run(self, now: datetime | None) -> Plan:
        found = sought(self.project, self.request)
        erased = found.erased
        plan = Plan(tuple(sorted(erased.row_ids)), alike=[*found.alike])
        self._parts(plan, found, do=now is not None)
        for key in found.orphans:
            self._drop(plan, "text that nothing refers to", key, found.parts[key].stat().st_size)
        self._landed(plan, erased, do=now is not None)
        self._training_files(plan, erased, do=now is not None)
        self._remembered(plan, found)
        here = self.store.here
        for key in [key for prefix in ("tmp", HYBRIDS) for key, _, _ in here.objects(prefix)]:
            if now is not None:
                here.delete(key)
            plan.count("scratch files", 0, 0)
        plan.sources = self._of_the_team(erased.lines)
        if self.request.annotator is not None:
            plan.named = named_in(self.store, self.request.annotator)
        known = self.request.asked_before(self.store) if self.request.annotator is not None else True
        known = known and erased.row_ids <= erased_records(self.store).keys()
        _refuse_versions(self.store, self.taken)
        if now is not None and not (known and not self.moved and not self.replaced and not self.dropped):
            self._publish(plan, found, now)
        return plan

    def _parts(self, plan: Plan, asked: Sought, *, do: bool) -> None:
        for place, (key, path) in enumerate(asked.parts.items()):
            self.listener("parts", place, len(asked.parts))
            found = emptied(path, key, asked.erased)
            if found is None:
                continue
            frame, rows, what = found
            plan.count(what, path.stat().st_size, rows)
            self.touched.add(key)
            self.taken.append(key)
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
                key = landed_key(file)
                lines = erased.lines.filter((pl.col("source") == source.name) & (pl.col("batch") == file.name))
                if lines.is_empty() or not self.store.stands(key):
                    continue
                with file.at_hand():
                    records = identified(file, source)
                if records is None:
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
                self.taken.append(key)
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
        released = [read(self.store, release_id) for release_id in dict.fromkeys(e["id"] for e in listed(self.store))]
        for key in self._exports(released):
            with self.store.scratch() as scratch:
                path = self.store.path(key)
                rows = without(path, path.suffix, erased.ids, scratch)
                if not rows:
                    continue
                plan.count("training files", path.stat().st_size, rows)
                self.taken.append(key)
                old, new = Path(key).stem, file_digest(scratch)
                done[old] = (new, rows)
                if do:
                    self.moved[key] = rewritten_key(key, new)
                    self.store.put_file(self.moved[key], scratch)
        for made in released:
            for file in made.circumstances["files"]:
                path = f"{folder(made.id)}/{file['path']}"
                with suppress(FileNotFoundError), self.store.at_rest(path) as place:  # it may be collected
                    self._released(plan, erased, made.id, path, place, done, do=do)
            if made.id not in plan.releases and self._stands_on_touched(made.circumstances):
                plan.releases.append(made.id)

    def _exports(self, released: Sequence[Release]) -> list[str]:
        """The keys of the training files: those of a listing, and those of releases that it does not have yet."""
        keys = {key for key, _, _ in self.store.objects("exports")}
        known = self.store.erasures.written()
        for made in released:
            known |= {
                rewritten_key(f"{folder(made.id)}/{file['path']}", file["digest"])
                for file in made.circumstances["files"]
            }
        unlisted = {key for key in known - keys if key.startswith("exports/") and self.store.stands(key)}
        return sorted(keys | unlisted)

    def _released(
        self,
        plan: Plan,
        erased: Erased,
        release_id: str,
        path: str,
        place: Path,
        done: Mapping[str, tuple[str, int]],
        *,
        do: bool,
    ) -> None:
        old = file_digest(place)
        rows = 0
        with self.store.scratch() as scratch:
            if f"/{ANNOTATIONS}/" in path:
                found = emptied(place, path, erased)
                if found is not None:
                    rows = found[1]
                    write_frame(scratch, found[0])
            elif old in done:
                new, rows = done[old]
            else:
                rows = without(place, Path(path).suffix, erased.ids, scratch)
            if not rows:
                return
            if release_id not in plan.releases:
                plan.releases.append(release_id)
            plan.count("files of releases", place.stat().st_size, rows)
            self.taken.append(path)
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

    def _remembered(self, plan: Plan, asked: Sought) -> None:
        for key, memo in asked.memos.items():
            if self.request.annotator is not None and names(memo, self.request.annotator):
                self._drop(plan, "remembered values", key, len(memo))

    def _drop(self, plan: Plan, kind: str, key: str, size: int) -> None:
        plan.count(kind, size, 0)
        self.dropped.append(key)
        self.taken.append(key)

    def _of_the_team(self, lines: pl.DataFrame) -> list[str]:
        held = set(lines.select("source", "batch").unique().iter_rows())
        return sorted(
            file.uri or str(file.path)
            for source, file in batch_files(self.project)
            if not source.in_database and (source.name, file.name) in held
        )

    def _publish(self, plan: Plan, asked: Sought, now: datetime) -> None:
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
            batches=tuple(batches_on(self.store, asked.memos, self.touched)),
            lines=self.lines,
            releases=tuple(plan.releases),
            rows={kind: change.rows for kind, change in plan.changes.items()},
        )
        if not self.store.put(erasure_key(number), erasure.as_bytes()):
            raise FeedbackError(f"{self.store.place}: another erasure came first; run it again")
        self.store.look_again()
