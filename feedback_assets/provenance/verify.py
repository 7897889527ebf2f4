"""Verify: recompute every digest and follow every reference, from the releases down to the bytes.

release entry → manifest → commit records → snapshots → parts → files, and beside them the release's own files, the
guideline texts, what was landed from databases, and the records of erasures. The store is not trusted in anything: what
a record says of another is compared with what lies there. What was rewritten by an erasure is told from damage.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from feedback_assets.digests import canonical_json, digest, file_digest, fingerprint
from feedback_assets.errors import FeedbackError, OutOfReach, Refused
from feedback_assets.materialize.commit import Commit, Commits
from feedback_assets.materialize.landing import landed_keys
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.collected import collected, given_up
from feedback_assets.provenance.names import TAGS, approvals_of
from feedback_assets.provenance.release import ANNOTATIONS, LOG, Release, folder, meant
from feedback_assets.provenance.report import is_whole, report_key
from feedback_assets.provenance.signature import ENVELOPE, MANIFEST, check, public_key, statement, unsigned
from feedback_assets.provenance.training_run import ASSET as TRAINING_RUN
from feedback_assets.snapshots.erasures import Erasure, done_key, erasure_key
from feedback_assets.snapshots.snapshot import Snapshot
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each

MISSING = "missing"
AT_A_TIME = 64
"""Files that are read before progress is told."""
_OF_A_RELEASE = {"id", "made_at", "run_id", "manifest"}


@dataclass(frozen=True)
class Use:
    """Where a file belongs: the stage, table and part (from 0) of a snapshot, and the releases built on it."""

    what: str
    where: str
    releases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Damage:
    """One thing that is not what was written: what it is, its path, which place it has, and the releases concerned."""

    what: str
    path: str
    where: str
    expected: str
    found: str
    releases: tuple[str, ...] = ()

    def sentence(self) -> str:
        """One line for a person."""
        place = f" ({self.where})" if self.where else ""
        found = "is missing" if self.found == MISSING else f"expected {self.expected[:16]}, found {self.found[:200]}"
        hit = f"; releases {', '.join(release[:16] for release in self.releases)}" if self.releases else ""
        return f"{self.what}{place}: {self.path}: {found}{hit}"


@dataclass
class Verified:
    """What was looked at (`objects`, `bytes`), what is damaged, erased by request, and collected as garbage (paths)."""

    objects: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "damages": [asdict(damage) for damage in self.damages]}


Listener = Callable[[str, int, int], None]
"""Called with what is being verified, how many objects are done, and of how many."""


def verify(
    store: Store,
    release: str | None = None,
    *,
    logical: bool = False,
    public_keys: Sequence[str] = (),
    listener: Listener = lambda *_: None,
) -> Verified:
    """Verify a store: one release and all that stands behind it, or everything, what no release stands on included.

    Args:
        store: the store.
        release: an id, the beginning of one, a number, a tag, or "latest".
        logical: fingerprint the values of each part anew, too, which reads every part; those of text have none.
        public_keys: Ed25519 keys, PEM or paths of PEM files, of which one must have signed each release. Without any,
            an envelope must still hold the manifest beside it.
        listener: is told how far it is.

    Raises:
        FeedbackError: there is no such release, or several; a key cannot be read; or the store is out of reach.
    """
    for key in public_keys:
        public_key(key)
    store.look_again()
    return _Verifier(store, logical, public_keys, listener).run(release)


class _Verifier:
    def __init__(self, store: Store, logical: bool, public_keys: Sequence[str], listener: Listener) -> None:
        self.store, self.logical, self.public_keys, self.listener = store, logical, public_keys, listener
        self.found = Verified()
        self.files: dict[str, tuple[str, Use]] = {}  # path → expected digest, and where it belongs
        self.fingerprints: dict[str, str] = {}  # path → fingerprint of its values
        self.optional: set[str] = set()  # what was collected may be missing, unless it is needed
        self.needed: set[str] = set()
        self.given_up: set[str] = set()
        self.moved: dict[str, str] = {}  # by the erasures that can be read; the store refuses if one cannot
        self.replaced: dict[tuple[str, str], str] = {}

    def run(self, release: str | None) -> Verified:
        self._erasures()
        entries = self._log("release entry", LOG)
        try:
            collections = collected(self.store)
            self.optional = {key for collection in collections for key in collection.keys}
            self.given_up = set(given_up(collections, entries))
        except FeedbackError as error:
            self._damage("collection", "collections", "", "the digest it holds", _line(error), ())
        for release_id, manifest in _chosen(entries, release, self.store).items():
            self._release(release_id, manifest)
        if release is None:
            self._log("tag", TAGS)
            self._history()
            self._landed()
            self._by_name()
        self._bytes()
        self.found.damages.sort(key=lambda damage: (damage.path, damage.where))
        return self.found

    def _damage(self, what: str, path: str, where: str, expected: str, found: str, releases: tuple[str, ...]) -> None:
        self.found.damages.append(Damage(what, path, where, expected, found, releases))

    def _get(self, what: str, path: str, releases: tuple[str, ...] = ()) -> bytes | None:
        data = self.store.find(path)
        if data is None:
            self._damage(what, path, "", "", MISSING, releases)
            return None
        self.found.objects += 1
        self.found.bytes += len(data)
        return data

    def _erasures(self) -> None:
        number = 1
        while self.store.exists(key := erasure_key(number)):
            data = self._get("erasure", key) or b""
            number += 1
            try:
                erasure = Erasure.from_bytes(data)
            except ValueError as error:
                self._damage("erasure", key, "", "the digest it holds", _line(error), ())
                continue
            self.moved |= erasure.moved
            self.replaced |= {(path, old): new for path, (old, new) in erasure.replaced.items()}
            if not self.store.stands(done_key(erasure.number)):
                where = "it was interrupted; `erase` for the same goes on with it"
                self._damage("erasure", key, where, "done", "not done", erasure.releases)

    def _log(self, what: str, log: str, releases: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """The entries of a log that are whole, each with its number."""
        entries = []
        for number in range(1, self._last(log) + 1):
            key = f"{log}/{number:010d}.json"
            data = self._get(what, key, releases)
            if data is None:
                continue
            try:
                entry = json.loads(data)
                told = {name: value for name, value in entry.items() if name != "digest"}
                if entry["digest"] != digest(told) or canonical_json(entry) != data:
                    raise ValueError("its digest is another")
                if log == LOG and told.keys() != _OF_A_RELEASE:
                    raise ValueError("its keys are others")
                entries.append({"number": number, **entry})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._damage(what, key, "", "the digest it holds", _line(error), releases)
        return entries

    def _report(self, made: Release) -> None:
        key = report_key(made)
        data = self._get("report", key, (made.id,)) if self.store.exists(key) else None
        if data is not None and not is_whole(data):
            self._damage("report", key, "", "the digest it ends with", "another", (made.id,))

    def _last(self, records: str) -> int:
        """The number of the last of these records; a listing may not have it yet, and gaps may be before it."""
        names = (name for name in self.store.names(records) if name[:10].isdigit())
        last = max((int(name[:10]) for name in names), default=0)
        while self.store.exists(f"{records}/{last + 1:010d}.json"):
            last += 1
        return last

    def _release(self, release_id: str, expected: str) -> None:
        key, releases = f"{folder(release_id)}/manifest.json", (release_id,)
        data = self._get("manifest", key, releases)
        if data is None:
            return
        found = hashlib.sha256(data).hexdigest()
        if found != expected:  # what it says of others cannot be held against them
            self._damage("manifest", key, "", expected, found, releases)
            return
        try:
            self._manifest(Release.from_json(json.loads(data), self.store.uri(key)), key)
        except (FeedbackError, ValueError, KeyError, TypeError) as error:
            self._damage("manifest", key, "", release_id, _line(error), releases)

    def _manifest(self, made: Release, key: str) -> None:
        releases = (made.id,)
        for name, content in made.content["commits"].items():
            for upstream, pinned in content["inputs"].items():
                there = digest(made.content["commits"][upstream])
                if pinned["commit"] != there:
                    self._damage("manifest", key, f"{name} reads {upstream}", pinned["commit"], there, releases)
            self._commit(name, made.circumstances["commits"][name]["number"], digest(content), releases)
            snapshot = Snapshot.from_json(made.circumstances["commits"][name]["snapshot"])
            if snapshot.data_version != content["data_version"]:
                self._damage("snapshot", key, name, content["data_version"], snapshot.data_version, releases)
            self._snapshot(snapshot, releases, needed=made.id not in self.given_up)
        self._log("approval", approvals_of(folder(made.id)), releases)
        self._report(made)
        for file in made.circumstances["files"]:
            what = "annotations" if file["path"].startswith(f"{ANNOTATIONS}/") else "export"
            path = f"{folder(made.id)}/{file['path']}"
            self._expect(path, file["digest"], Use(what, file["path"], releases), needed=made.id not in self.given_up)
        self._signature(made.id)

    def _signature(self, release_id: str) -> None:
        key = f"{folder(release_id)}/{ENVELOPE}"
        if not self.store.exists(key):
            if self.public_keys:
                self._damage("signature", key, "", "one by a key that was given", MISSING, (release_id,))
            return
        try:
            envelope = json.loads(self.store.get(key))
            told = check(envelope, self.public_keys) if self.public_keys else unsigned(envelope)
            if told != statement(self.store.get(f"{folder(release_id)}/{MANIFEST}")):
                raise Refused("it was made of another manifest")
        except (Refused, FeedbackError, ValueError) as error:
            self._damage("signature", key, "", "what was signed", _line(error), (release_id,))

    def _commit(self, asset: str, number: int, expected: str, releases: tuple[str, ...]) -> Commit | None:
        """Look at one commit record; gives it if it is whole."""
        key = f"commits/{asset}/{number:010d}.json"
        data = self._get("commit", key, releases)
        if data is None:
            return None
        where = f"{asset} number {number}"
        try:
            commit = Commits(self.store).read(asset, number)
            if canonical_json(commit.as_json()) != data:
                raise FeedbackError("its bytes are not those that were written")
            if not expected or commit.id == expected:
                return commit
            self._damage("commit", key, where, expected, commit.id, releases)
        except FeedbackError as error:
            said = _line(error).removeprefix(f"{self.store.uri(key)}: ")
            self._damage("commit", key, where, expected or "the digest it holds", said, releases)
        return None

    def _history(self) -> None:
        for asset in (*(stage.name for stage in STAGES), TRAINING_RUN):
            last = self._last(f"commits/{asset}")
            for number in range(1, last + 1):
                commit = self._commit(asset, number, "", ())
                if commit is not None:
                    self._snapshot(commit.snapshot, (), needed=number == last)

    def _snapshot(self, snapshot: Snapshot, releases: tuple[str, ...], *, needed: bool) -> None:
        for table, held in snapshot.tables.items():
            for place, part in enumerate(held.parts):
                what = "guideline texts" if snapshot.asset == "guidelines" else "part"
                for file in part.files:
                    use = Use(what, f"{snapshot.asset}, {table}, part {place}", releases)
                    self._expect(file.key, file.digest, use, needed=needed)
                    if table != "content":  # its fingerprint is of the ids of its texts
                        self.fingerprints[file.key] = file.fingerprint

    def _landed(self) -> None:
        for source in self.store.names("landings"):
            for number, name in enumerate(self.store.names(f"landings/{source}"), 1):
                if name != f"{number:010d}.json":
                    self._damage("landing", f"landings/{source}/{number:010d}.json", source, "", MISSING, ())
            try:
                for key, expected, where in landed_keys(self.store, source):
                    self._expect(key, expected, Use("landed rows", where))
            except FeedbackError as error:
                self._damage("landing", f"landings/{source}", source, "the digest it holds", _line(error), ())

    def _by_name(self) -> None:
        """What nothing refers to yet, or no more: its name is the digest of its bytes."""
        for prefix in ("parts", "exports", "landed"):
            for key, _, _ in self.store.objects(prefix):
                if key not in self.files:
                    self._expect(key, _named(key), Use("object", "of no snapshot: remembered, or left over"))

    def _expect(self, path: str, expected: str, use: Use, *, needed: bool = False) -> None:
        if needed:
            self.needed.add(path)
        known = self.files.get(path)
        if known is None:
            self.files[path] = (expected, use)
            return
        if known[0] != expected:
            self._damage(use.what, path, use.where, expected, known[0], use.releases)
        releases = tuple(dict.fromkeys((*known[1].releases, *use.releases)))
        self.files[path] = (known[0], Use(known[1].what, known[1].where, releases))

    def _bytes(self) -> None:
        paths = sorted(self.files)
        for start in range(0, len(paths), AT_A_TIME):
            self.listener("files", start, len(paths))
            for verdict in each(self._file, paths[start : start + AT_A_TIME]):
                verdict()
        self.listener("files", len(paths), len(paths))

    def _file(self, path: str) -> Callable[[], None]:
        """Look at one file; what comes back writes down what was found."""
        expected, use = self.files[path]
        current, wanted = path, expected
        while current in self.moved and not self.store.stands(current):
            current = self.moved[current]
            wanted = _named(current)
        while (path, wanted) in self.replaced:
            wanted = self.replaced[path, wanted]
        values = None
        try:
            with self.store.at_rest(current) as place:
                found, size = file_digest(place), place.stat().st_size
                if found == wanted == expected and self.logical and path in self.fingerprints:
                    values = fingerprint(pl.read_parquet(place, glob=False, hive_partitioning=False))
        except FileNotFoundError:
            if path not in self.needed and (path in self.optional or current in self.optional):
                return lambda: self.found.collected.append(path)
            return lambda: self._damage(use.what, path, use.where, wanted, MISSING, use.releases)
        except OSError as error:
            said = f"cannot be read: {error.strerror}"
            return lambda: self._damage(use.what, path, use.where, wanted, said, use.releases)

        def told() -> None:
            self.found.objects += 1
            self.found.bytes += size
            if found != wanted:
                self._damage(use.what, path, use.where, wanted, found, use.releases)
            elif wanted != expected:
                self.found.erased.append(path)
            elif values is not None and values != self.fingerprints[path]:
                self._damage(f"{use.what}, values", path, use.where, self.fingerprints[path], values, use.releases)

        return told


def _chosen(entries: list[dict[str, Any]], name: str | None, store: Store) -> dict[str, str]:
    """The releases that are meant: id → digest of the manifest."""
    known = {entry["id"]: entry["manifest"] for entry in entries}
    if name is None:
        return known
    release_id = meant(store, entries, name)
    return {release_id: known[release_id]}


def _named(key: str) -> str:
    return key.rsplit("/", 1)[-1].split(".", maxsplit=1)[0]


def _line(error: Exception) -> str:
    """What is wrong; an error that says nothing of what the store holds is raised again."""
    if isinstance(error, OutOfReach):
        raise error
    return " ".join(str(error).split())
