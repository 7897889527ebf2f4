"""Where bytes live: objects that are put once, under a name, and never changed."""

import json
import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError

_SYNCING = ThreadPoolExecutor(4, thread_name_prefix="fsync")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class LocalStore:
    """A store in a folder. An object appears whole or not at all, and never replaces another.

    Bytes are first written under `tmp/` and then linked to their name, which fails where the name is taken:
    the same meaning as a conditional put on an object store. What a killed run leaves in `tmp/` is never read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._unsettled: deque[Future[None]] = deque()

    def path(self, key: str) -> Path:
        """The file behind `key`."""
        return self.root / key

    def uri(self, key: str) -> str:
        """What `polars.scan_parquet` reads."""
        return str(self.path(key))

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
            kept = json.loads(self.path(_memo(key)).read_bytes())
            return kept["value"] if kept["digest"] == digest(kept["value"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, key: str, value: Any) -> None:
        """Remember a JSON value: what was computed before, under the digest of all it was computed from."""
        self.put(_memo(key), canonical_json({"digest": digest(value), "value": value}), durable=False)

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


def _memo(key: str) -> str:
    return f"memo/{key[:2]}/{key}.json"
