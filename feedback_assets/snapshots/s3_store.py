"""A store in S3: the same objects under the same names, put once and never changed.

Whether an object stands is asked of S3. What it holds is read from a copy beside the project, since an object that
is named by its digest never becomes another; records that number themselves (commits, releases, landings) are read
from S3 each time. The copy may be removed at any time; it also holds the Dagster home, which does not come back.
What an erasure took away goes from the copies, too: on this machine at once, on another when it next uses the store.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.bucket import SCHEME, Bucket
from feedback_assets.snapshots.erasures import Erasure, Erasures, done_key
from feedback_assets.snapshots.store import REDIRECTED, LocalStore, memo_key, recalled, remembered

_AT_ONCE = 16
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})\.[a-z]+")
_MARK = ("store.json", b'{"store":"feedback_assets/1"}')
_COPIES = ("parts", "exports", "landed", "read", "memo")
_PAUSE = 5.0  # seconds for which a process that only reads may not know of a new erasure


class S3Store:
    """A store below `s3://bucket/prefix`, with a folder of this machine beside it."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket = bucket
        self.here = LocalStore(folder / bucket.url.removeprefix(SCHEME))
        self.erasures = Erasures(self, pause=_PAUSE)
        self._stand: set[str] = set()  # seen by this process
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3")

    @property
    def place(self) -> str:
        """See `Store`."""
        return self.bucket.url

    def uri(self, key: str) -> str:
        """See `Store`."""
        return f"{self.place}/{self._current(key)}"

    def path(self, key: str) -> Path:
        """A copy of the object; one that is named by its digest is fetched once and held against it.

        Raises:
            FeedbackError: nothing stands there, or not what its name says.
        """
        found = self._copied(self._current(key)) or self._copied(self._renewed(key))
        if found is None:
            raise self._lacks(key)
        return found

    def paths(self, keys: Iterable[str]) -> list[Path]:
        """See `Store`; what is not here yet is fetched side by side."""
        return list(self._pool.map(self.path, keys))

    def exists(self, key: str) -> bool:
        """See `Store`."""
        return self.stands(self._current(key))

    def stands(self, key: str) -> bool:
        """See `Store`."""
        if key in self._stand:
            return True
        stands = self.bucket.standing(key) is not None
        if stands:
            self._stand.add(key)
        return stands

    def holds(self, keys: Iterable[str]) -> bool:
        """See `Store`."""
        return all(self._pool.map(self.exists, keys))

    def get(self, key: str) -> bytes:
        """See `Store`."""
        data = self.find(key)
        if data is None:
            raise self._lacks(key)
        return data

    def find(self, key: str) -> bytes | None:
        """See `Store`."""
        data = self.bucket.get(self._current(key))
        return self.bucket.get(self._renewed(key)) if data is None and key.startswith(REDIRECTED) else data

    @contextmanager
    def at_rest(self, key: str) -> Iterator[Path]:
        """See `Store`; it is fetched, whatever copies there are."""
        with self.here.scratch() as scratch:
            if not self.bucket.fetch(key, scratch):
                raise FileNotFoundError(f"{self.place}/{key}")
            yield scratch

    def put(self, key: str, data: bytes, *, durable: bool = True) -> bool:  # noqa: ARG002  all that S3 has is durable
        """See `Store`."""
        self._conditions_hold  # noqa: B018
        return self.bucket.create(key, data)

    def put_file(self, key: str, scratch: Path) -> bool:
        """See `Store`."""
        self._conditions_hold  # noqa: B018
        named = _NAMED_BY_DIGEST.fullmatch(key) is not None
        put = self.bucket.create(key, scratch)
        if not put and named:
            self._refuse_other(key, scratch.stat().st_size)
        self._stand.add(key)
        if named:
            self.here.keep(key, scratch)
        return put

    def put_again(self, names: Mapping[str, str]) -> None:
        """See `Store`; side by side."""
        self._conditions_hold  # noqa: B018

        def copy(name: str) -> None:
            if not self.stands(name):
                self.bucket.copy(self._current(names[name]), name)

        list(self._pool.map(copy, names))

    def replace(self, key: str, data: bytes | Path) -> bool:
        """See `Store`."""
        self._conditions_hold  # noqa: B018
        return self.bucket.replace(key, data)

    def delete(self, *keys: str) -> None:
        """See `Store`."""
        self._stand.difference_update(keys)
        self.bucket.delete(keys)
        self.here.delete(*keys)

    def keeps_versions(self, key: str) -> bool:
        """See `Store`."""
        stands = self.bucket.standing(key)
        return stands is not None and stands.version is not None

    def objects(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """See `Store`."""
        for found in sorted(self.bucket.objects(prefix), key=lambda found: found.key):
            yield found.key, found.bytes, found.modified.timestamp()

    def look_again(self) -> None:
        """See `Store`."""
        self._stand.clear()
        self.erasures.look_again()

    def erased(self, erasure: Erasure) -> None:
        """See `Store`; no copy at all, since a bucket may have lost since what lies here.

        That it was done is noted beside the copies once nobody can fetch the old objects any more.
        """
        self._stand.clear()
        done = done_key(erasure.number)
        if self.here.stands(done):
            return
        finished = self.bucket.standing(done) is not None
        for prefix in _COPIES:
            self.here.delete(*(key for key, _, _ in self.here.objects(prefix)))
        if finished:
            self.here.put(done, b"")

    def recall(self, key: str) -> Any:
        """See `Store`."""
        known = self.here.recall(key)
        if known is None:
            data = self.bucket.get(memo_key(key))
            known = recalled(data) if data is not None else None
            if known is not None:
                self.here.remember(key, known)
        return known

    def remember(self, key: str, value: Any) -> None:
        """See `Store`."""
        if self.put(memo_key(key), remembered(value)):
            self.here.remember(key, value)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Store`."""
        with self.here.scratch() as path:
            yield path

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        return self.bucket.names(prefix)

    def _current(self, key: str) -> str:
        return self.erasures.current(key) if key.startswith(REDIRECTED) else key

    def _renewed(self, key: str) -> str:
        """What stands for `key` after a look at what was erased meanwhile."""
        self.look_again()
        return self._current(key)

    def _copied(self, key: str) -> Path | None:
        """A copy of what stands under `key`, if anything does."""
        named = _NAMED_BY_DIGEST.fullmatch(key)
        if named and self.here.exists(key):
            return self.here.path(key)
        with self.here.scratch() as scratch:
            if not self.bucket.fetch(key, scratch):
                return None
            found = file_digest(scratch)
            if named and found != named[1]:
                raise FeedbackError(f"{self.uri(key)}: damaged; its bytes have another digest, restore it")
            if named is None:
                key = f"read/{found}/{Path(key).name}"
            self.here.keep(key, scratch)
        return self.here.path(key)

    @cached_property
    def _conditions_hold(self) -> bool:
        """Asked once before the first write: where a second put replaces the first, two runs destroy each other's work.

        Raises:
            FeedbackError: the server does not keep conditions.
        """
        key, data = _MARK
        self.bucket.create(key, data)
        if self.bucket.replaces(key, data):
            raise FeedbackError(
                f"{self.place}: this server ignores `If-None-Match`, so that two runs could overwrite each other; "
                "use one with conditional writes"
            )
        return True

    def _refuse_other(self, key: str, size: int) -> None:
        stands = self.bucket.standing(key)
        if stands is not None and stands.bytes != size:
            raise FeedbackError(
                f"{self.uri(key)}: {stands.bytes:,} bytes stand there, {size:,} were to be put; "
                "another program put it: remove it and run again"
            )

    def _lacks(self, key: str) -> FeedbackError:
        return FeedbackError(f"{self.place}: the store lacks {key}; it was deleted or belongs elsewhere")
