"""What was collected as garbage, so that what is gone on purpose is told from what was lost."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.store import Store


@dataclass(frozen=True)
class Collection:
    """One collection: its number, when, the releases that were kept and those that lost their data, the keys."""

    number: int
    at: str
    kept: tuple[str, ...]
    given_up: tuple[str, ...]
    keys: tuple[str, ...]

    def as_bytes(self) -> bytes:
        """The record as it is stored."""
        value = asdict(self)
        return canonical_json({"digest": digest(value), "collection": value})


def collection_key(number: int) -> str:
    """Where the record of a collection lies."""
    return f"collections/{number:010d}.json"


def collected(store: Store) -> list[Collection]:
    """All collections, oldest first.

    Raises:
        FeedbackError: a record is not what was written.
    """
    found: list[Collection] = []
    while store.exists(key := collection_key(len(found) + 1)):
        try:
            kept = json.loads(store.get(key))
            value: dict[str, Any] = kept["collection"]
            if kept["digest"] != digest(value):
                raise ValueError
            value |= {name: tuple(value[name]) for name in ("kept", "given_up", "keys")}
            found.append(Collection(**value))
        except (ValueError, KeyError, TypeError):
            raise FeedbackError(
                f"{store.uri(key)}: this record of a collection was changed after it was written; "
                "restore it from a backup"
            ) from None
    return found


def given_up(collections: Sequence[Collection], releases: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The `releases` (as `release.listed`) of which only the manifest is left: id → when the rest was collected."""
    made = {entry["id"]: entry["made_at"] for entry in releases}  # the last time; all in UTC, to the second
    found = {release: entry.at for entry in collections for release in entry.given_up}
    return {release: at for release, at in found.items() if release in made and made[release] <= at}
