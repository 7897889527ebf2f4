"""Which batches there are: those that arrived before, in that order, and those that are new.

A batch is known by its source, its name and the digest of its bytes. What arrived once stays, whatever becomes of its
file; the same bytes under another name, where the old name is gone, are the same batch.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from feedback_assets.digests import digest, file_digest
from feedback_assets.materialize.commit import CONCURRENT, Commit, Commits
from feedback_assets.materialize.downloads import downloads
from feedback_assets.materialize.landing import landed
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.files import BatchFile, NotRead, list_files, not_read
from feedback_assets.sources.objects import objects_not_read
from feedback_assets.sources.raw import one_line
from feedback_assets.stages.ingested import IngestedSection

EXAMPLES = 3
SETTLED = 2.0  # seconds: more than the tick of any file system's clock
Key = tuple[str, str, str]
"""Source, name, digest."""


@dataclass(frozen=True)
class Arrivals:
    """All batches.

    `known` are those that arrived before, in their order, each with what was recorded of it (`at`: when, ISO 8601;
    `mapped`: under which name the memory has what it became); `new` are the others, by source and name;
    `files` is where each can be read now, under the name that it arrived with; `states` says of each known batch
    "current", "renamed", "replaced" (other bytes lie under its name, or did before they were removed) or "removed";
    `noticed` are sentences on what lies in the sources and is no batch now.
    """

    known: Mapping[Key, Mapping[str, str]]
    new: list[Key]
    files: Mapping[Key, BatchFile]
    states: Mapping[Key, str]
    noticed: tuple[str, ...] = ()

    @property
    def order(self) -> list[Key]:
        """All batches in order of arrival."""
        return [*self.known, *self.new]


def arrivals(folder: Path, store: Store, section: IngestedSection, previous: Commit | None, now: datetime) -> Arrivals:
    """Look at what lies in the sources and at what the store knows. A file that waits is new when it is complete.

    Raises:
        FeedbackError: a source has no file and never had one, or a place cannot be looked into.
    """
    recorded = _recorded(store, previous)
    present: dict[Key, BatchFile] = {}
    noticed: list[str] = []
    for source in section.sources:
        had = any(key[0] == source.name for key in recorded)
        files = (
            landed(store, source)
            if source.in_database
            else downloads(store, source, now, may_be_empty=had)
            if source.in_bucket
            else list_files(source, folder, now, may_be_empty=had, digest_of=partial(digest_of, store.here))
        )
        present |= {(file.source, file.name, file.digest): file for file in files}
        noticed += [grown(source.name, file.name) for file in files if file.grew]
        if not source.in_database:
            left = objects_not_read(source) if source.in_bucket else not_read(source, folder)
            noticed += _left(source.name, left)
    sources = {source.name for source in section.sources}
    known = {key: told for key, told in recorded.items() if key[0] in sources}
    # Within a source in the order in which they are listed: files by name, windows as they were landed.
    unseen = (key for key, file in present.items() if key not in known and not file.waits)
    new = sorted(unseen, key=lambda key: key[0])
    names = {key[:2] for key in present}
    states: dict[Key, str] = {}
    for key, told in known.items():
        replaced = key[:2] in names or told["state"] == "replaced"
        states[key] = "current" if key in present else "replaced" if replaced else "removed"
    for key in [key for key in known if key not in present]:
        other = next((other for other in new if (other[0], other[2]) == (key[0], key[2])), None)
        if other is not None:
            new.remove(other)
            present[key] = replace(present[other], name=key[1])
            states[key] = "renamed"
    return Arrivals(known, new, present, states, tuple(noticed))


def grown(source: str, name: str) -> str:
    """What is said of a file that somebody wrote to while it was read."""
    return f"file {name!r} of source {source!r} waits: it changed while it was read; the next run takes it"


def _left(source: str, files: Sequence[NotRead]) -> list[str]:
    """One sentence on the files that are not read, if there are any."""
    by_why: dict[str, list[str]] = {}
    for file in files:
        by_why.setdefault(file.why, []).append(file.name)
    told: list[str] = []
    for why, names in by_why.items():
        more = f" and {len(names) - EXAMPLES:,} more" if len(names) > EXAMPLES else ""
        told.append(f"{len(names):,} {why} ({', '.join(map(one_line, names[:EXAMPLES]))}{more})")
    return [f"source {source!r} does not read all that lies where it looks: {'; '.join(told)}"] if told else []


def digest_of(store: Store, path: Path) -> str:
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


def in_commit(store: Store, commit: Commit | None) -> dict[Key, Mapping[str, str]]:
    """The batches of a commit of `ingested`, in order of arrival, with what was recorded of each."""
    if commit is None:
        return {}
    batches = scan(store, commit.snapshot.tables["batches"]).select("source", "batch", "digest").collect()
    told: Mapping[str, Any] = commit.circumstances["arrived"]
    return {key: told[str(place)] for place, key in enumerate(batches.iter_rows())}


def _recorded(store: Store, previous: Commit | None) -> dict[Key, Mapping[str, str]]:
    """The batches of the latest commit, then those that only runs beside it committed."""
    found = in_commit(store, previous)
    if previous is None:
        return found
    commits = Commits(store)
    for number in range(max(previous.number - CONCURRENT, 1), previous.number):
        for key, told in in_commit(store, commits.read(previous.asset, number)).items():
            found.setdefault(key, told)
    return found
