"""Leases: who writes to a store now, and who must be alone with it.

A writer holds a lease from before it looks up what is there until it has published. Collecting garbage and erasing take
objects away, so they are alone: they refuse while a lease lives, and writers wait for them. Each puts its own record
first and looks for the other's afterwards, so that of two at the same time at least one sees the other. A lease lies in
one of SLOTS places, of which each is looked at: no listing is trusted.
"""

import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from feedback_assets.digests import canonical_json
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each

BEAT = 20.0  # seconds between two signs of life
LAPSE = 180.0  # seconds without one after which a writer on another machine counts as dead
PATIENCE = 600.0  # seconds that a writer waits for one that is alone
ALONE = "leases/alone.json"
SLOTS = 64
_held: Counter[str] = Counter()
_kept_now: set[str] = set()  # the names of the leases that this process keeps
_left: dict[str, set[str]] = {}  # by place: keys of leases that could not be given back
_guard = Lock()


@contextmanager
def writing(store: Store, what: str) -> Iterator[None]:
    """Hold a lease: nothing that is in the store now goes away meanwhile. A process holds one, however often it asks.

    Raises:
        FeedbackError: garbage is being collected, or records erased, for longer than PATIENCE; or what was written may
            not be whole, since this run counted as dead for a while.
    """
    place = store.place
    with _guard:
        _held[place] += 1
        first = _held[place] == 1
    try:
        if not first:
            _look_again(store)
            yield
            return
        until = time.monotonic() + PATIENCE
        while True:
            with _kept(store, *_taken(store, what)):
                if (other := _living(store, ALONE)) is None:
                    _look_again(store)
                    yield
                    return
            if time.monotonic() > until:
                raise FeedbackError(f"{place}: {other['what']} takes very long (process {other['pid']}); try again")
            time.sleep(0.2)
    finally:
        with _guard:
            _held[place] -= 1


@contextmanager
def alone(store: Store, what: str) -> Iterator[Callable[[], None]]:
    """Be alone with the store. What is given raises when that can no longer be sure: call it before taking away.

    Raises:
        FeedbackError: a run writes to it, or another is alone with it.
    """
    lease = _new(what)
    while not _put(store, ALONE, lease):
        if (other := _living(store, ALONE)) is not None:
            raise _busy(store, other)
        store.delete(ALONE)
    with _kept(store, ALONE, lease) as sure:
        for key, other in zip(_slots(), _leases(store), strict=True):
            if other is None:
                continue
            if _lives(other):
                raise _busy(store, other)
            store.delete(key)
        _look_again(store)
        yield sure


def live(store: Store) -> list[dict[str, Any]]:
    """The leases of runs that are alive."""
    return [lease for lease in _leases(store) if lease is not None and _lives(lease)]


def _slots() -> list[str]:
    return [f"leases/{slot:03d}.json" for slot in range(SLOTS)]


def _leases(store: Store) -> list[dict[str, Any] | None]:
    """What lies in each slot."""
    return each(lambda key: _read(store, key), _slots(), most=16, waits=True)


def _taken(store: Store, what: str) -> tuple[str, dict[str, Any]]:
    """A slot, and the lease of our own that lies in it now."""
    _give_back_left(store)
    lease = _new(what)
    slots, start = _slots(), secrets.randbelow(SLOTS)
    for key in (*slots[start:], *slots[:start]):
        if _put(store, key, lease):
            return key, lease
    raise FeedbackError(
        f"{store.place}: {SLOTS} leases lie there; `feedback-assets gc --yes` takes away those of runs that were killed"
    )


def _look_again(store: Store) -> None:
    store.look_again()
    store.erasures.all()


def _busy(store: Store, lease: dict[str, Any]) -> FeedbackError:
    return FeedbackError(
        f"{store.place}: {lease['what']} is at work there (process {lease['pid']} on {lease['host']}); "
        "try again when it is done"
    )


def _give_back_left(store: Store) -> None:
    left = _left.setdefault(store.place, set())
    for key in sorted(left):
        lease = _read(store, key)
        ours = (socket.gethostname(), os.getpid())
        if lease is not None and (lease["host"], lease["pid"]) == ours and not _lives(lease):
            store.delete(key)
        left.discard(key)


@contextmanager
def _kept(store: Store, key: str, lease: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Keep a lease that was put alive, and take it away in the end. What is given raises if it may count as dead."""
    ended = Event()
    beats, lost = [time.monotonic()], Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(FeedbackError):  # such as a bucket that does not answer: it may the next time
                if not store.replace(key, _told(lease)):
                    lost.set()
                beats.append(time.monotonic())

    def is_ours() -> bool:
        there = _read(store, key)
        return there is not None and there["name"] == lease["name"]

    def sure() -> None:
        if lost.is_set() or time.monotonic() - beats[-1] > LAPSE - 2 * BEAT or not is_ours():
            raise FeedbackError(
                f"{store.place}: {lease['what']} gave no sign of life for too long, and may count as dead there; "
                "run it again, then `feedback-assets verify`"
            )

    thread = Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield sure
        sure()
    finally:
        ended.set()
        thread.join()
        _kept_now.discard(lease["name"])
        _left.setdefault(store.place, set()).add(key)
        if is_ours():
            store.delete(key)
        _left[store.place].discard(key)


def _new(what: str) -> dict[str, Any]:
    """A lease of this process, under a name of its own."""
    pid = os.getpid()
    return {"what": what, "name": secrets.token_hex(8), "host": socket.gethostname(), "pid": pid, "began": _began(pid)}


def _told(lease: dict[str, Any]) -> bytes:
    return canonical_json({**lease, "at": round(time.time(), 3)})


def _put(store: Store, key: str, lease: dict[str, Any]) -> bool:
    put = False
    _kept_now.add(lease["name"])
    _left.setdefault(store.place, set()).add(key)  # for where no answer says whether it was put
    try:
        put = store.put(key, _told(lease), durable=False)
        _left[store.place].discard(key)
    finally:
        if not put:
            _kept_now.discard(lease["name"])
    return put


def _living(store: Store, key: str) -> dict[str, Any] | None:
    """The lease under `key`, if whoever took it lives."""
    lease = _read(store, key)
    return lease if lease is not None and _lives(lease) else None


def _read(store: Store, key: str) -> dict[str, Any] | None:
    """The lease under `key`; None if it was given back, or never taken."""
    data = store.find(key)
    if data is None:
        return None
    try:
        lease = json.loads(data)
        return {"name": lease.get("name"), **{name: lease[name] for name in ("what", "host", "pid", "began", "at")}}
    except (ValueError, KeyError, TypeError):
        raise FeedbackError(f"{store.uri(key)}: this lease cannot be read; delete it if no run is at work") from None


def _lives(lease: dict[str, Any]) -> bool:
    if lease["host"] == socket.gethostname():
        if lease["pid"] == os.getpid():
            return lease["name"] in _kept_now
        return _began(lease["pid"]) == lease["began"]
    return time.time() - lease["at"] < LAPSE


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
