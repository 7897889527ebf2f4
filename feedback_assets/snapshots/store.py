"""Where bytes live: objects that are put once, under a name, and never changed."""

import json
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError

_SYNCING = ThreadPoolExecutor(4, thread_name_prefix="fsync")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class Store(Protocol):
    """Objects under names (`keys`), each put once, whole or not at all, and never replaced."""

    @property
    def place(self) -> str:
        """Where it is, as a person names it."""
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

    def holds(self, keys: Iterable[str]) -> bool:
        """Whether an object stands under each key."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            FeedbackError: nothing stands there.
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

    def put_again(self, key: str, to: str) -> bool:
        """Put the object under `key` under `to`, too, if nothing is there; True if it was put now."""
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
        return LocalStore(Path(place))
    from feedback_assets.snapshots.bucket import Bucket
    from feedback_assets.snapshots.s3_store import S3Store

    return S3Store(Bucket(str(place)), folder / ".feedback_assets" / "s3")


class LocalStore:
    """A store in a folder. An object appears whole or not at all, and never replaces another.

    Bytes are first written under `tmp/` and then linked to their name, which fails where the name is taken:
    the same meaning as a conditional put on an object store. What a killed run leaves in `tmp/` is never read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._unsettled: deque[Future[None]] = deque()

    @property
    def place(self) -> str:
        """See `Store`."""
        return str(self.root)

    @property
    def here(self) -> "LocalStore":
        """See `Store`."""
        return self

    def path(self, key: str) -> Path:
        """The file behind `key`."""
        return self.root / key

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
        return self.path(key).exists()

    def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            FeedbackError: nothing stands there.
        """
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            raise FeedbackError(f"{self.root}: the store lacks {key}; it was deleted or belongs elsewhere") from None

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

    def put_again(self, key: str, to: str) -> bool:
        """See `Store`."""
        return self.put_file(to, self.path(key))

    def keep(self, key: str, scratch: Path) -> None:
        """Put a copy of what another store has under `key`."""
        _sync(scratch)  # first, lest a power cut leave half of it under its name
        self._link(key, scratch)

    def _link(self, key: str, scratch: Path) -> bool:
        target = self.path(key)
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
        try:
            return recalled(self.path(memo_key(key)).read_bytes())
        except OSError:
            return None

    def remember(self, key: str, value: Any) -> None:
        """Remember a JSON value: what was computed before, under the digest of all it was computed from."""
        self.put(memo_key(key), remembered(value), durable=False)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new file name to write to, gone afterwards."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
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


def remembered(value: Any) -> bytes:
    """A value as it is remembered."""
    return canonical_json({"digest": digest(value), "value": value})


def recalled(data: bytes) -> Any:
    """The value of what `remembered` made; None if that was damaged."""
    try:
        kept = json.loads(data)
        return kept["value"] if kept["digest"] == digest(kept["value"]) else None
    except (ValueError, KeyError, TypeError):
        return None
