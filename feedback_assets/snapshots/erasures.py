"""Erasures: the tombstones of what was rewritten because someone asked for it, and who is not to come back.

Each is a numbered record, put conditionally. It names the old and the new object, the ids (digests) of the erased
records and, for an annotator, a salted digest of the name; it holds no text. From the moment it stands, a reader that
asks for an old object gets the new one, and intake withdraws what is asked for again.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, Protocol

import polars as pl

from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError


@dataclass(frozen=True)
class Annotator:
    """An annotator that is not to come back: SHA-256 (HMAC, keyed by `salt`) of the id; `source` None: in any."""

    salt: str
    digest: str
    source: str | None = None

    @classmethod
    def of(cls, annotator: str, source: str | None = None) -> "Annotator":
        """Of an annotator's id, with a new salt."""
        salt = secrets.token_hex(16)
        return cls(salt, _keyed(salt, annotator), source)

    def means(self, annotator: str) -> bool:
        """Whether this is that annotator."""
        return hmac.compare_digest(self.digest, _keyed(self.salt, annotator))


def _keyed(salt: str, annotator: str) -> str:
    return hmac.new(bytes.fromhex(salt), annotator.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Erasure:
    """One erasure, as it is stored.

    `moved`: key of an old object → key of the one that stands for it; `replaced`: path of a release's file, which keeps
    its path → digests of its old and its new bytes, which lie as an object, too (`rewritten_key`); `dropped`: keys of
    what nothing needs (text that nothing refers to, remembered values); `row_ids` and `annotator`: who is not to come
    back; `batches`: names under which is remembered what a batch became, of which something was emptied; `lines`: key
    of a landed object → its emptied rows (number from 1 → row_ids); `releases`: ids of those that hold something of
    it; `rows`: how many rows were emptied or taken out, by what they were in.
    """

    number: int
    at: str
    reason: str | None
    row_ids: tuple[str, ...]
    annotator: Annotator | None
    moved: Mapping[str, str]
    replaced: Mapping[str, tuple[str, str]]
    dropped: tuple[str, ...]
    batches: tuple[str, ...]
    lines: Mapping[str, Mapping[str, list[str]]]
    releases: tuple[str, ...]
    rows: Mapping[str, int]

    def as_bytes(self) -> bytes:
        """The record as it is stored."""
        value = asdict(self)
        return canonical_json({"digest": digest(value), "erasure": value})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Erasure":
        """The inverse of `as_bytes`.

        Raises:
            ValueError: it is not what was written.
        """
        try:
            kept = json.loads(data)
            value: dict[str, Any] = kept["erasure"]
            if kept["digest"] != digest(value) or data != canonical_json(kept):
                raise ValueError("its digest is another")
            value["annotator"] = Annotator(**value["annotator"]) if value["annotator"] else None
            value |= {name: tuple(value[name]) for name in ("row_ids", "dropped", "batches", "releases")}
            return cls(**value)
        except (KeyError, TypeError) as error:
            raise ValueError(f"it lacks {error}") from None


def rewritten_key(path: str, digest: str) -> str:
    """Where the new bytes of a release's file lie."""
    kind = "parts" if "/annotations/" in path else "exports"
    return f"{kind}/{digest[:2]}/{digest}{PurePosixPath(path).suffix}"


def erasure_key(number: int) -> str:
    """Where the record of an erasure lies."""
    return f"erasures/{number:010d}.json"


def done_key(number: int) -> str:
    """What says that an erasure took away all that it replaced."""
    return f"erasures/{number:010d}.done"


class Objects(Protocol):
    """What reading the records takes."""

    def stands(self, key: str) -> bool:
        """Whether an object lies under `key` itself."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes under `key`."""
        ...

    def uri(self, key: str) -> str:
        """Where that is, for a person."""
        ...

    def erased(self, erasure: Erasure) -> None:
        """Is told of each erasure that is noticed."""
        ...


class Erasures:
    """The erasures of a store, read once; a new one is noticed when something is asked.

    Where asking costs a request, that is done after `pause` seconds at the earliest, or when it is to `look_again`.
    """

    def __init__(self, objects: Objects, *, pause: float = 0.0) -> None:
        self._objects, self._pause = objects, pause
        self._next_look = 0.0  # of the clock that only goes on
        self._all: list[Erasure] = []
        self._moved: dict[str, str] = {}
        self._one_at_a_time = Lock()

    def all(self) -> list[Erasure]:
        """All erasures, oldest first.

        Raises:
            FeedbackError: a record is not what was written.
        """
        with self._one_at_a_time:
            if time.monotonic() < self._next_look:
                return self._all
            while self._objects.stands(key := erasure_key(len(self._all) + 1)):
                try:
                    erasure = Erasure.from_bytes(self._objects.get(key))
                except ValueError:
                    raise FeedbackError(
                        f"{self._objects.uri(key)}: this record of an erasure was changed after it was written; "
                        "restore it from a backup"
                    ) from None
                self._objects.erased(erasure)
                self._moved |= erasure.moved
                self._all.append(erasure)
            self._next_look = time.monotonic() + self._pause
        return self._all

    def look_again(self) -> None:
        """Ask for new ones when something is asked next."""
        self._next_look = 0.0

    def current(self, key: str) -> str:
        """The key of the object that stands for `key` now: itself, unless it was rewritten.

        Another may bring the very same text of its own later: then it stands again.
        """
        self.all()
        while key in self._moved and not self._objects.stands(key):
            key = self._moved[key]
        return key

    def written(self) -> set[str]:
        """The keys of all objects that erasures put in place of others."""
        return {
            key
            for erasure in self.all()
            for key in (
                *erasure.moved.values(),
                *(rewritten_key(path, new) for path, (_, new) in erasure.replaced.items()),
            )
        }

    def withdrawn_lines(self, key: str) -> dict[int, list[str]]:
        """The rows of a landed object that were emptied: number from 1 → row_ids of the records that it was."""
        found: dict[int, list[str]] = {}
        for erasure in self.all():
            found |= {int(line): ids for line, ids in erasure.lines.get(key, {}).items()}
        return found

    def renewed(self, name: str) -> str:
        """The name under which to remember what a batch became, after all erasures of something in it."""
        emptied = {name for erasure in self.all() for name in erasure.batches}
        while name in emptied:
            name = digest(["erased", name])
        return name

    def withdrawn(self, rows: pl.DataFrame) -> pl.Series:
        """For each row (`source`, `row_id`, `annotator_id`) whether its record was erased by request."""
        row_ids = {row_id for erasure in self.all() for row_id in erasure.row_ids}
        return rows.select(
            gone=pl.col("row_id").is_in(pl.Series(sorted(row_ids), dtype=pl.String).implode())
            | self.annotated(pl.col("source"), rows.select("source", "annotator_id"))
        ).to_series()

    def annotated(self, source: pl.Expr, rows: pl.DataFrame) -> pl.Expr:
        """Whether a row (`source`, `annotator_id`) is of an annotator that was erased."""
        names = rows.get_column("annotator_id").drop_nulls().unique().to_list()
        return pl.any_horizontal(
            pl.lit(value=False),
            *(
                pl.col("annotator_id").is_in(found).fill_null(value=False)
                & (pl.lit(value=True) if asked.source is None else source == asked.source)
                for asked in self._annotators()
                if (found := [name for name in names if asked.means(name)])
            ),
        )

    def _annotators(self) -> Iterable[Annotator]:
        return [erasure.annotator for erasure in self.all() if erasure.annotator is not None]
