"""Collecting garbage: what neither a kept release, nor the latest materializations, nor a run needs goes.

What is kept is marked, from the releases that are kept, the latest commit of each asset with all it was made from, what
became of each batch that ever arrived, and the values remembered and used of late. The rest is swept, but for what is
younger than a grace period. Commit records, manifests, landings and erasures are provenance, and stay: a release that
is given up still answers from its manifest, and `verify` says of what it stood on that it was collected.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import CONCURRENT, Commit, Commits
from feedback_assets.materialize.landing import landed_keys
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.collected import Collection, collected, collection_key, given_up
from feedback_assets.provenance.names import tags
from feedback_assets.provenance.release import folder, listed, read
from feedback_assets.provenance.remembered import files_of, value_of
from feedback_assets.provenance.training_run import training_runs
from feedback_assets.snapshots.leases import alone
from feedback_assets.snapshots.snapshot import File, Snapshot, Table
from feedback_assets.snapshots.store import Store, holder
from feedback_assets.threads import each

SWEPT = {"memo": "remembered values", "exports": "training files", "releases": "files of releases", "parts": "parts"}
SWEPT |= {"landed": "landed rows", "hybrids": "what searches built", "tmp": "scratch files"}
"""What is swept, in this order: what refers to others first."""
AT_A_TIME = 1_000
NO_LOSS = ("memo/", "hybrids/", "tmp/")  # what goes without being written down


@dataclass(frozen=True)
class Keep:
    """Which releases are kept: all, or the last `number`, those younger than `age`, and those with one of `tags`.

    The latest always is.
    """

    number: int | None = None
    age: timedelta | None = None
    grace: timedelta = timedelta(hours=1)
    unused: timedelta = timedelta(days=30)
    tags: tuple[str, ...] = ()


@dataclass
class Sweep:
    """What goes: objects and bytes by kind, their keys, and the releases kept and given up."""

    kept: list[str]
    given_up: list[str]
    objects: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    done: bool = False


def gc(store: Store, keep: Keep, *, do: bool, now: datetime | None = None) -> Sweep:
    """Collect garbage, or with `do` False only say what that would be.

    Raises:
        FeedbackError: a run is at work, or a record that says what is needed cannot be read: then nothing goes.
    """
    now = now or datetime.now(UTC)
    if not do:
        return _sweep(store, keep, now)
    with alone(store, "a collection of garbage") as sure:
        sweep = _sweep(store, keep, now)
        noted = tuple(key for key in sweep.keys if not key.startswith(NO_LOSS))
        number = len(collected(store)) + 1
        given_up, kept = tuple(sweep.given_up), tuple(sweep.kept)
        if noted and not store.put(
            collection_key(number),
            Collection(number, now.isoformat(timespec="seconds"), kept, given_up, noted).as_bytes(),
        ):
            raise FeedbackError(f"{store.place}: another collection came first; run it again")
        for prefix, keys in groupby(sweep.keys, key=_kind):
            swept = list(keys)
            for start in range(0, len(swept), AT_A_TIME):
                sure()
                holder(store, prefix).delete(*swept[start : start + AT_A_TIME])
        sweep.done = True
        return sweep


def kept_releases(store: Store, keep: Keep, now: datetime) -> list[str]:
    """Ids of the releases that are kept, oldest first."""
    known = listed(store)
    gone = given_up(collected(store), known)
    entries = [entry for entry in known if entry["id"] not in gone]
    ids = list(dict.fromkeys(entry["id"] for entry in entries))
    if keep.number is None and keep.age is None and not keep.tags:
        return ids
    named = tags(store)
    for name in keep.tags:
        if name not in named:
            raise FeedbackError(
                f"{store.place}: no release has the tag {name!r}; `feedback-assets releases` lists them"
            )
    latest = list(dict.fromkeys(entry["id"] for entry in reversed(entries)))
    wanted = set(latest[: max(keep.number or 0, 1)]) | {named[name] for name in keep.tags}
    if keep.age is not None:
        wanted |= {e["id"] for e in entries if now - datetime.fromisoformat(e["made_at"]) <= keep.age}
    return [release for release in ids if release in wanted]


def _sweep(store: Store, keep: Keep, now: datetime) -> Sweep:
    kept = kept_releases(store, keep, now)
    known = listed(store)
    gone = given_up(collected(store), known)
    ids = dict.fromkeys(entry["id"] for entry in known)
    sweep = Sweep(kept, [release for release in ids if release not in kept and release not in gone])
    marked = set(_marked(store, keep, kept, now))
    whole = tuple(f"{folder(release)}/" for release in kept)
    young = (now - keep.grace).timestamp()
    for prefix, kind in SWEPT.items():
        for key, size, changed in holder(store, prefix).objects(prefix):
            if key not in marked and changed <= young and not key.startswith(whole) and not _is_record(key):
                sweep.objects[kind] += 1
                sweep.bytes[kind] += size
                sweep.keys.append(key)
    return sweep


def _kind(key: str) -> str:
    return key.split("/", 1)[0]


def _is_record(key: str) -> bool:
    """Whether this is a manifest, what was said beside it, a tag, or an entry of the list of releases."""
    if not key.startswith("releases/"):
        return False
    return (
        key.startswith(("releases/log/", "releases/tags/"))
        or "/approvals/" in key
        or "/manifest." in key
        or key.endswith("/report.html")
    )


def _marked(store: Store, keep: Keep, releases: list[str], now: datetime) -> Iterator[str]:
    """The keys of all that is needed, but for what lies in the folders of `releases`."""
    current = store.erasures.current
    for release_id in releases:
        made = read(store, release_id)
        for commit in made.circumstances["commits"].values():
            yield from (current(file.key) for file in Snapshot.from_json(commit["snapshot"]).files)
    mapped: set[str] = set()
    for commit, whole in _commits(store, keep, now):
        tables = commit.snapshot.tables
        needed = tables if whole else {name: tables[name] for name in ("batches",) if name in tables}
        yield from (current(file.key) for file in _files(needed))
        mapped |= {told["mapped"] for told in commit.circumstances.get("arrived", {}).values()}
    for source in _landed(store):
        yield from (current(key) for key, _, _ in landed_keys(store, source))
    used = (now - keep.unused).timestamp()
    needed = [
        key
        for key, _, changed in store.objects("memo")
        if changed > used or key.rsplit("/", 1)[-1].removesuffix(".json") in mapped
    ]
    for key, memo in zip(needed, each(store.find, needed, 16, waits=True), strict=True):
        yield key
        yield from (current(name) for name in files_of(value_of(memo)))


def _landed(store: Store) -> list[str]:
    """The sources of which something was landed: by a listing, and by the policy that was in force last."""
    latest = Commits(store).latest("ingested")
    sources = () if latest is None else latest.content["policy"]["sources"]
    return sorted({*store.names("landings"), *(source["name"] for source in sources)})


def _commits(store: Store, keep: Keep, now: datetime) -> Iterator[tuple[Commit, bool]]:
    """The commits that are needed, and whether as a whole or only for the batches that they knew."""
    commits = Commits(store)
    yield from ((commit, True) for commit in training_runs(store))
    pending: list[tuple[str, int]] = []
    for stage in STAGES:
        latest = commits.latest(stage.name)
        if latest is None:
            continue
        pending.append((stage.name, latest.number))
        for number in range(latest.number - 1, max(latest.number - CONCURRENT, 1) - 1, -1):
            commit = commits.read(stage.name, number)
            if now - datetime.fromisoformat(commit.circumstances["made_at"]) <= keep.grace:
                pending.append((stage.name, number))
            elif stage.name == "ingested":
                yield commit, False
    seen: set[tuple[str, int]] = set()
    while pending:
        asset, number = pending.pop()
        if (asset, number) not in seen:
            seen.add((asset, number))
            commit = commits.read(asset, number)
            yield commit, True
            pending += [(name, told["number"]) for name, told in commit.circumstances["inputs"].items()]


def _files(tables: Mapping[str, Table]) -> Iterator[File]:
    return (file for table in tables.values() for part in table.parts for file in part.files)
