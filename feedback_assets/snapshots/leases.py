"""Leases: who writes to a store now, and who must be alone with it.

A writer holds a lease from before it looks up what is there until it has published. Collecting garbage and erasing take
objects away, so they are alone: they refuse while a lease lives, and writers wait for them. Each puts its own record
first and looks for the other's afterwards, so that of two at the same time at least one sees the other.
"""

import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from feedback_assets.digests import canonical_json
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.store import LocalStore, Store

BEAT = 20.0  # seconds between two signs of life
LAPSE = 180.0  # seconds without one after which a writer on another machine counts as dead
PATIENCE = 600.0  # seconds that a writer waits for one that is alone
ALONE = "leases/alone.json"
_held: Counter[str] = Counter()
_guard = Lock()


@contextmanager
def writing(store: Store, what: str) -> Iterator[None]:
    """Hold a lease: nothing that is in the store now goes away meanwhile. A process holds one, however often it asks.

    From a store that is not a folder nothing is ever taken away.

    Raises:
        FeedbackError: garbage is being collected, or records erased, for longer than PATIENCE.
    """
    if not isinstance(store, LocalStore):
        yield
        return
    root = str(store.root)
    with _guard:
        _held[root] += 1
        first = _held[root] == 1
    try:
        if not first:
            yield
            return
        key = f"leases/{secrets.token_hex(8)}.json"
        until = time.monotonic() + PATIENCE
        while True:
            with _record(store, key, what):
                if (other := _living(store, ALONE)) is None:
                    yield
                    return
            if time.monotonic() > until:
                raise FeedbackError(
                    f"{store.root}: {other['what']} takes very long (process {other['pid']}); try again"
                )
            time.sleep(0.2)
    finally:
        with _guard:
            _held[root] -= 1


@contextmanager
def alone(store: LocalStore, what: str) -> Iterator[None]:
    """Be alone with the store.

    Raises:
        FeedbackError: a run writes to it, or another is alone with it.
    """
    while not store.put(ALONE, _told(what)):
        if (other := _living(store, ALONE)) is not None:
            raise _busy(store, other)
        store.delete(ALONE)
    with _record(store, ALONE, what):
        for name in store.names("leases"):
            key = f"leases/{name}"
            if key == ALONE:
                continue
            if (other := _living(store, key)) is not None:
                raise _busy(store, other)
            store.delete(key)
        yield


def live(store: LocalStore) -> list[dict[str, Any]]:
    """The leases of runs that are alive."""
    keys = [f"leases/{name}" for name in store.names("leases")]
    return [lease for key in keys if key != ALONE and (lease := _living(store, key)) is not None]


def _busy(store: LocalStore, lease: dict[str, Any]) -> FeedbackError:
    return FeedbackError(
        f"{store.root}: {lease['what']} is at work there (process {lease['pid']} on {lease['host']}); "
        "try again when it is done"
    )


@contextmanager
def _record(store: LocalStore, key: str, what: str) -> Iterator[None]:
    """Keep a lease alive, and take it away in the end."""
    told = _told(what)
    store.replace(key, told)
    ended = Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            store.replace(key, _told(what))

    thread = Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.delete(key)


def _told(what: str) -> bytes:
    pid = os.getpid()
    return canonical_json(
        {"what": what, "host": socket.gethostname(), "pid": pid, "began": _began(pid), "at": round(time.time(), 3)}
    )


def _living(store: LocalStore, key: str) -> dict[str, Any] | None:
    """The lease under `key`, if whoever took it lives."""
    try:
        lease = json.loads(store.get(key))
        here = lease["host"] == socket.gethostname()
        lives = _began(lease["pid"]) == lease["began"] if here else time.time() - lease["at"] < LAPSE
    except FeedbackError:  # it was given back meanwhile
        return None
    except (ValueError, KeyError, TypeError):
        raise FeedbackError(f"{store.uri(key)}: this lease cannot be read; delete it if no run is at work") from None
    return lease if lives else None


def _began(pid: int) -> str | None:
    """When a process of this machine began, by its kernel's clock; "alive" where that is not told, None if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
