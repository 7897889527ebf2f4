"""Batch files of a bucket: fetched once, known from then on by what the bucket says of them, read from a copy."""

import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from feedback_assets.digests import digest, file_digest
from feedback_assets.snapshots.store import LocalStore, Store
from feedback_assets.sources.files import BatchFile, Changed
from feedback_assets.sources.objects import Found, list_objects
from feedback_assets.sources.source import Source
from feedback_assets.threads import each


def downloads(store: Store, source: Source, now: datetime, *, may_be_empty: bool) -> list[BatchFile]:
    """The batch files of a source in a bucket, sorted by name.

    An object is fetched to learn its digest, unless one with the same key, size and ETag was before; one that waits
    is not, or changes meanwhile, and its digest is then that of nothing.

    Raises:
        FeedbackError: there is none and there may not be, or the bucket cannot be asked.
    """
    return each(partial(_file, store, source.name), list_objects(source, now, may_be_empty=may_be_empty))


def _file(store: Store, source: str, found: Found) -> BatchFile:
    copy = Copy(store.here, found)
    name = digest(["object", found.uri, found.object.bytes, found.object.etag])
    known, grew = store.recall(name), False
    if known is None and not found.waits:
        try:
            copy.fetch()
        except Changed:
            grew = True
        else:
            known = file_digest(copy.path)
            store.remember(name, known)
    waits = found.waits or grew
    return BatchFile(
        source, found.name, copy.path, known or "", found.object.bytes, waits, copy.at_hand, found.uri, grew
    )


class Copy:
    """A copy of an object for this process, gone when nobody needs it any more."""

    def __init__(self, here: LocalStore, found: Found) -> None:
        self.found = found
        folder = here.root / "tmp" / f"{os.getpid()}-{secrets.token_hex(8)}"
        self.path = folder / found.name.rsplit("/", 1)[-1]
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def fetch(self) -> None:
        """Bring it to `path`.

        Raises:
            Changed: the object is not as it was listed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = self.found.object
        if not self.found.bucket.fetch(found.key, self.path, etag=found.etag, size=found.bytes):
            raise Changed(self.found.uri)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Within, it lies at `path`."""
        if not self.path.exists():
            self.fetch()
        try:
            yield
        finally:
            self.path.unlink(missing_ok=True)
