"""Commit records: the durable provenance of each materialization, beside the data.

Only a commit record publishes. Each asset has a numbered sequence of them, put conditionally, so that two runs
cannot both write number n; the latest is the highest number without a gap.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.snapshot import Snapshot
from feedback_assets.snapshots.store import Store

HOLDS_BACK = ("failed", "error")  # an inconclusive check is counted and shown; it neither passes nor holds back
CONCURRENT = 20  # how many commits of other runs may come between two steps of one run


@dataclass(frozen=True)
class Commit:
    """One materialization.

    `content` is what was done to what, the same for the same work anywhere; `circumstances` is when, where and in which
    files. `number` is its place in the asset's sequence.
    """

    number: int
    content: Mapping[str, Any]
    circumstances: Mapping[str, Any]

    @property
    def asset(self) -> str:
        """The asset."""
        return self.content["asset"]

    @property
    def data_version(self) -> str:
        """Digest of the data."""
        return self.content["data_version"]

    @property
    def code_version(self) -> str:
        """Digest of code and policy section, behind a readable prefix."""
        return self.content["code_version"]

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """Results of the checks, each with its definition and that definition's digest."""
        return self.content["checks"]

    @cached_property
    def id(self) -> str:
        """Digest of `content`: what other records refer to."""
        return digest(self.content)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The data."""
        return Snapshot.from_json(self.circumstances["snapshot"])

    @property
    def failed(self) -> list[str]:
        """Names of the blocking checks that failed or could not be computed."""
        return [check["name"] for check in self.checks if check["blocking"] and check["status"] in HOLDS_BACK]

    def as_json(self) -> dict[str, Any]:
        """The record as it is stored."""
        return {
            "circumstances": self.circumstances,
            "content": self.content,
            "digest": digest({"circumstances": self.circumstances, "content": self.content}),
        }


class Commits:
    """The sequences of commit records in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[tuple[str, bytes], Commit] = {}

    def latest(self, asset: str) -> Commit | None:
        """The latest commit of `asset`, or None before the first."""
        number = self._next(asset) - 1
        return self.read(asset, number) if number > 0 else None

    def read(self, asset: str, number: int) -> Commit:
        """Commit `number` of `asset`.

        Raises:
            FeedbackError: it is missing, or is not what was written.
        """
        key = _key(asset, number)
        data = self.store.get(key)
        known = (key, hashlib.sha256(data).digest())
        if known not in self._known:
            self._known[known] = self._checked(asset, number, data)
        commit = self._known[known]
        if commit.data_version != commit.snapshot.data_version:
            raise FeedbackError(f"{self.store.uri(key)}: its data version is not its parts'; materialize {asset} again")
        return commit

    def _checked(self, asset: str, number: int, data: bytes) -> Commit:
        key = _key(asset, number)
        try:
            if data != _sealed(data[:-_SEAL] + b"}"):
                raise ValueError
            value = json.loads(data)
            return Commit(number, value["content"], value["circumstances"])
        except (ValueError, KeyError, TypeError):
            raise FeedbackError(
                f"{self.store.uri(key)}: this commit record was changed after it was written; "
                f"restore it from a backup, or delete it and materialize {asset} again"
            ) from None

    def of_run(self, asset: str, run_id: str) -> Commit | None:
        """The newest commit of `asset` that this run made, though another run may have committed since."""
        newest = self._next(asset) - 1
        for number in range(newest, max(newest - CONCURRENT, 0), -1):
            commit = self.read(asset, number)
            if commit.circumstances["run_id"] == run_id:
                return commit
        return None

    def all(self, asset: str) -> list[Commit]:
        """All commits of `asset`, oldest first."""
        return [self.read(asset, number) for number in range(1, self._next(asset))]

    def find(self, asset: str, content_id: str) -> Commit | None:
        """The newest commit of `asset` whose content has this id."""
        return next((commit for commit in reversed(self.all(asset)) if commit.id == content_id), None)

    def add(self, content: Mapping[str, Any], circumstances: Mapping[str, Any]) -> Commit:
        """Append a commit; if another run took the number meanwhile, the next one is taken."""
        asset = content["asset"]
        number = self._next(asset)
        # Through JSON and back, so that the commit held in memory is the one that a reader will see.
        value = json.loads(canonical_json({"circumstances": circumstances, "content": content}))
        data = _sealed(canonical_json(value))
        while not self.store.put(_key(asset, number), data):
            number += 1
        commit = Commit(number, **value)
        self._known[_key(asset, number), hashlib.sha256(data).digest()] = commit
        return commit

    def _next(self, asset: str) -> int:
        # The listing is a hint of where to begin; whether a record stands under a number decides.
        names = [name for name in self.store.names(f"commits/{asset}") if re.fullmatch(r"\d{10}\.json", name)]
        number = int(names[-1].removesuffix(".json")) + 1 if names else 1
        while self.store.exists(_key(asset, number)):
            number += 1
        return number


def _sealed(body: bytes) -> bytes:
    """The canonical JSON of a record, with its digest after all else."""
    return b'%b,"digest":"%b"}' % (body[:-1], hashlib.sha256(body).hexdigest().encode())


_SEAL = len(_sealed(b"{}")) - 1


def _key(asset: str, number: int) -> str:
    return f"commits/{asset}/{number:010d}.json"
