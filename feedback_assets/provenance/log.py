"""Append-only logs in a store: numbered JSON records, put conditionally, so that two writers never take one number."""

import json
from typing import Any

from feedback_assets.digests import canonical_json, digest
from feedback_assets.snapshots.store import Store


def append(store: Store, log: str, entry: dict[str, Any]) -> int:
    """Add `entry`, with its digest, to the log under the prefix `log`; gives its number."""
    number = 1
    data = canonical_json({**entry, "digest": digest(entry)})
    while not store.put(f"{log}/{number:010d}.json", data):
        number += 1
    return number


def logged(store: Store, log: str) -> list[dict[str, Any]]:
    """All entries of a log, oldest first, each with its `number`."""
    found = []
    number = 1
    while store.exists(f"{log}/{number:010d}.json"):
        found.append({"number": number, **json.loads(store.get(f"{log}/{number:010d}.json"))})
        number += 1
    return found
