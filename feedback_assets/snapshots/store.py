"""Where bytes live: objects that are put once, under a name, and never changed."""

import hashlib
import json
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol

from feedback_assets.digests import canonical_json
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.erasures import Erasure, Erasures

REDIRECTED = ("parts/", "exports/", "landed/")
"""Objects named by their digest, for which another stands once something in them was erased."""
OF_A_MACHINE = ("dagster", "hybrids", "tmp")
"""Folders that lie on each machine, wherever the store is."""
USED = 24 * 3600.0  # seconds: how exactly it is known when a remembered value was used last
_SYNCING = ThreadPoolExecutor(4, thread_name_prefix="fsync")


def _sync(*paths: Path) -> None:
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


class Store(Protocol):
    """Objects under names (`keys`), each put once, whole or not at all, and never replaced."""

    @property
    def place(self) -> str:
        """Where it is, as a person names it."""
        ...

    @property
    def erasures(self) -> Erasures:
        """What was erased from it by request."""
        ...

    @property
    def here(self) -> "LocalStore":
        """Its folder on this machine: copies, what is known of this machine's files, the Dagster home."""
        ...

    def uri(self, key: str) -> str:
        """Where an object is, as a person names it."""
        ...

    def path(self, key: str) -> Path:
        """A file with the bytes under `key`.

        Raises:
            FeedbackError: the store is elsewhere and nothing stands there.
        """
        ...

    def paths(self, keys: Iterable[str]) -> list[Path]:
        """A file for each key."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object stands under `key`."""
        ...

    def stands(self, key: str) -> bool:
        """Whether an object lies under `key` itself, and not another that stands for it."""
        ...

    def holds(self, keys: Iterable[str]) -> bool:
        """Whether an object stands under each key."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            FeedbackError: nothing stands there.
        """
        ...

    def find(self, key: str) -> bytes | None:
        """The bytes under `key`; None if nothing stands there."""
        ...

    def at_rest(self, key: str) -> AbstractContextManager[Path]:
        """A file, for this long, with the bytes that lie under `key` itself now, which no copy stands for.

        Raises:
            FileNotFoundError: nothing lies there.
        """
        ...

    def put(self, key: str, data: bytes, *, durable: bool = True) -> bool:
        """Put `data` under `key` if nothing is there; True if it was put now.

        `durable`: it outlives a power cut, and so does all that was put before it.
        """
        ...

    def put_file(self, key: str, scratch: Path) -> bool:
        """Put a file made in `scratch()` under `key` if nothing is there; True if it was put now.

        It is durable when the next `put` returns: what refers to it is put after it.
        """
        ...

    def put_again(self, names: Mapping[str, str]) -> None:
        """Put objects under further names, where nothing is there: `names` gives by name the key of the object."""
        ...

    def replace(self, key: str, data: bytes | Path) -> bool:
        """Put bytes, or those of a file, under `key` itself in place of what is there; True if something was.

        It is for leases, and for what an erasure rewrote.
        """
        ...

    def delete(self, *keys: str) -> None:
        """Remove what lies under `keys` themselves, and copies of it, as far as anything does."""
        ...

    def keeps_versions(self, key: str) -> bool:
        """Whether what lies under `key` stays, as an old version, when it is replaced or deleted."""
        ...

    def objects(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Key, bytes and time of each object under the folder `prefix`, by key, rewritten ones included.

        A hint of what could be swept, or is not accounted for; never the truth.
        """
        ...

    def look_again(self) -> None:
        """Count nothing that was seen until now: others may have put, erased or collected since."""
        ...

    def erased(self, erasure: Erasure) -> None:
        """Keep no copy of what an erasure, which was noticed just now, took away."""
        ...

    def recall(self, key: str) -> Any:
        """The JSON value remembered under `key`, or None; one that was damaged counts as forgotten."""
        ...

    def remember(self, key: str, value: Any) -> None:
        """Remember a JSON value: what was computed before, under the digest of all it was computed from."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A new file name to write to, gone afterwards."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted: a hint of where to look, never the truth."""
        ...


def store_at(place: Path | str, folder: Path) -> Store:
    """The store at a path or at `s3://bucket/prefix`; one that is elsewhere keeps its copies below `folder`.

    Raises:
        FeedbackError: it is neither.
    """
    if not str(place).startswith("s3:"):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(place)):
            raise FeedbackError(f"{place}: no store can be there; give a folder or s3://bucket/prefix")
        if Path(place).is_file():
            raise FeedbackError(f"{place}: is a file, and a store is a folder; correct --store")
        return LocalStore(Path(place))
    from feedback_assets.snapshots.bucket import Bucket
    from feedback_assets.snapshots.s3_store import S3Store

    return S3Store(Bucket(str(place)), folder / ".feedback_assets" / "s3")


def holder(store: Store, prefix: str) -> Store:
    """What holds the objects under a folder of a store: the store, or its folder on this machine."""
    return store.here if prefix in OF_A_MACHINE else store


class LocalStore:
    """A store in a folder. An object appears whole or not at all, and never replaces another.

    Bytes are first written under `tmp/` and then linked to their name, which fails where the name is taken:
    the same meaning as a conditional put on an object store. What a killed run leaves in `tmp/` is never read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._unsettled: deque[Future[None]] = deque()
        self.erasures = Erasures(self)

    @property
    def place(self) -> str:
        """See `Store`."""
        return str(self.root)

    @property
    def here(self) -> "LocalStore":
        """See `Store`."""
        return self

    def path(self, key: str) -> Path:
        """The file behind `key`; of what was rewritten by an erasure, the new one."""
        return self.root / self._current(key)

    def paths(self, keys: Iterable[str]) -> list[Path]:
        """See `Store`."""
        return [self.path(key) for key in keys]

    def uri(self, key: str) -> str:
        """See `Store`."""
        return str(self.path(key))

    def holds(self, keys: Iterable[str]) -> bool:
        """See `Store`."""
        return all(self.exists(key) for key in keys)

    def exists(self, key: str) -> bool:
        """Whether an object stands under `key`."""
        return self.stands(self._current(key))

    def stands(self, key: str) -> bool:
        """Whether an object lies under `key` itself, and not another that stands for it."""
        return self._lies(key)

    def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            FeedbackError: nothing stands there.
        """
        data = self.find(key)
        if data is None:
            raise FeedbackError(f"{self.root}: the store lacks {key}; it was deleted or belongs elsewhere")
        return data

    def find(self, key: str) -> bytes | None:
        """See `Store`."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def at_rest(self, key: str) -> Iterator[Path]:
        """See `Store`."""
        yield self.root / key

    def put(self, key: str, data: bytes, *, durable: bool = True) -> bool:
        """Put `data` under `key` if nothing is there; True if it was put now.

        `durable`: it outlives a power cut, and so does all that was put before it.
        """
        if durable:
            self._settle()
        with self.scratch() as scratch:
            scratch.write_bytes(data)
            if durable:
                _sync(scratch)
            return self._link(key, scratch)

    def put_file(self, key: str, scratch: Path) -> bool:
        """Put a file made in `scratch()` under `key` if nothing is there; True if it was put now.

        It is durable when the next `put` returns: what refers to it is put after it.
        """
        put = self._link(key, scratch)
        self._unsettled.append(_SYNCING.submit(_sync, self.path(key)))
        return put

    def put_again(self, names: Mapping[str, str]) -> None:
        """See `Store`."""
        for name, key in names.items():
            self._link(name, self.path(key))
        self._unsettled.append(_SYNCING.submit(_sync, *(self.root / name for name in names)))

    def keep(self, key: str, scratch: Path) -> None:
        """Put a copy of what another store has under `key`."""
        _sync(scratch)  # first, lest a power cut leave half of it under its name
        self._link(key, scratch)

    def replace(self, key: str, data: bytes | Path) -> bool:
        """See `Store`; a file is one of this store. All at once."""
        there = self.stands(key)
        with self.scratch() as scratch:
            if isinstance(data, bytes):
                scratch.write_bytes(data)
            else:
                scratch.hardlink_to(data)
            _sync(scratch)
            target = self.root / key
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.replace(target)
        return there

    def delete(self, *keys: str) -> None:
        """See `Store`."""
        for key in keys:
            (self.root / key).unlink(missing_ok=True)

    def keeps_versions(self, key: str) -> bool:  # noqa: ARG002
        """See `Store`."""
        return False

    def look_again(self) -> None:
        """See `Store`; a folder is looked at each time."""

    def erased(self, erasure: Erasure) -> None:
        """See `Store`; there are no copies."""

    def objects(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """See `Store`."""
        for path in sorted((self.root / prefix).rglob("*")):
            try:
                found = path.lstat()
            except FileNotFoundError:  # another process removed it meanwhile
                continue
            if S_ISREG(found.st_mode):
                yield path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime

    def _lies(self, key: str) -> bool:
        """Whether there is a file or folder in this very folder; of hundreds, and ten times as fast as Path.exists."""
        return os.access(f"{self.root}/{key}", os.F_OK)

    def _current(self, key: str) -> str:
        return self.erasures.current(key) if key.startswith(REDIRECTED) else key

    def _link(self, key: str, scratch: Path) -> bool:
        target = self.root / key
        if not self._lies(key.rpartition("/")[0]):
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(scratch)
        except FileExistsError:
            return False
        return True

    def _settle(self) -> None:
        while self._unsettled:
            self._unsettled.popleft().result()

    def recall(self, key: str) -> Any:
        """The JSON value remembered under `key`, or None; one that was damaged counts as forgotten."""
        place = memo_key(key)
        try:
            with FileIO(f"{self.root}/{place}") as file:  # hundreds in a run: buffers and paths take as long as reading
                found = recalled(file.readall())
                used = os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        if time.time() - used > USED:
            with suppress(OSError):  # such as a store that can only be read
                self.path(place).touch()  # what is not used for long is collected
        return found

    def remember(self, key: str, value: Any) -> None:
        """Remember a JSON value: what was computed before, under the digest of all it was computed from."""
        self.put(memo_key(key), remembered(value), durable=False)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new file name to write to, gone afterwards."""
        if not self._lies("tmp"):
            (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        path = self.root / f"tmp/{os.getpid()}-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted: a hint of where to look, never the truth."""
        folder = self.path(prefix)
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def memo_key(key: str) -> str:
    """Where what is remembered under `key` stands."""
    return f"memo/{key[:2]}/{key}.json"


_KEPT = re.compile(rb'\{"digest":"([0-9a-f]{64})","value":(.*)\}', re.DOTALL)


def remembered(value: Any) -> bytes:
    """A value as it is remembered: canonical JSON with the digest of its own."""
    data = canonical_json(value)
    return b'{"digest":"%b","value":%b}' % (hashlib.sha256(data).hexdigest().encode(), data)


def recalled(data: bytes) -> Any:
    """The value of what `remembered` made; None if that was damaged."""
    kept = _KEPT.fullmatch(data)
    if kept is None or hashlib.sha256(kept[2]).hexdigest().encode() != kept[1]:
        return None
    return json.loads(kept[2])
