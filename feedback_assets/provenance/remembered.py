"""What a store holds as JSON: which files of text its records refer to, and where a name stands in it."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from feedback_assets.materialize.commit import Commits
from feedback_assets.pipeline import STAGES
from feedback_assets.snapshots.snapshot import File, Snapshot
from feedback_assets.snapshots.store import Store, holder
from feedback_assets.threads import each

RECORDS = ("commits", "releases", "landings", "collections", "dagster")
"""Where a name can stand that is never rewritten: what people wrote into a policy, for one."""


def memos(store: Store) -> dict[str, bytes]:
    """All that is remembered, by key."""
    keys = [key for key, _, _ in store.objects("memo")]
    found = each(store.find, keys, 16, waits=True)
    return {key: data for key, data in zip(keys, found, strict=True) if data is not None}


def referred(store: Store, memos: Mapping[str, bytes]) -> tuple[dict[str, set[str]], set[str]]:
    """The keys of the files to which commits and `memos` refer, by what stands for them now.

    Returns:
        those of text, by the fingerprint under which rows refer to them (`content_part`); and all.
    """
    texts: dict[str, set[str]] = {}
    parts: set[str] = set()
    for tables in _tables(store, memos):
        for name, table in tables.items():
            for file in (file for part in table.get("parts", ()) for file in part["files"]):
                key = store.erasures.current(f"parts/{file['digest'][:2]}/{file['digest']}.parquet")
                parts.add(key)
                if name == "content":
                    texts.setdefault(file["fingerprint"], set()).add(key)
    return texts, parts


def _tables(store: Store, memos: Mapping[str, bytes]) -> Iterator[Any]:
    commits = Commits(store)
    for stage in STAGES:
        for commit in commits.all(stage.name):
            yield commit.circumstances["snapshot"]["tables"]
    for value in map(value_of, memos.values()):
        if isinstance(value, dict) and isinstance(value.get("tables"), dict):
            yield value["tables"]


def batches_on(store: Store, memos: Mapping[str, bytes], keys: Collection[str]) -> list[str]:
    """The names under which is remembered what a batch became, where one of `keys` is among its files."""
    found = []
    for key, data in memos.items():
        value = value_of(data)
        tables = value.get("tables") if isinstance(value, dict) else None
        is_batch = isinstance(tables, dict) and {"rows", "content", "quarantine"} <= tables.keys()
        if is_batch and any(store.erasures.current(name) in keys for name in files_of(value)):
            found.append(PurePosixPath(key).stem)
    return found


def value_of(memo: bytes | None) -> Any:
    """The value of a memo, or None if it cannot be read."""
    try:
        return json.loads(memo or b"")["value"]
    except (ValueError, KeyError, TypeError):
        return None


def files_of(value: Any) -> Iterator[str]:
    """The keys of the objects that a remembered value refers to: a snapshot, one file, or training files."""
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict):
            continue
        if "key" in entry:
            yield entry["key"]
        elif isinstance(entry.get("tables"), dict):
            yield from (file.key for file in Snapshot.from_json(entry).files)
        elif {"digest", "fingerprint"} <= entry.keys():
            yield File(**entry).key


def named_in(store: Store, name: str) -> list[str]:
    """The records in which an annotator is named, by key."""
    found: list[str] = []
    for prefix in RECORDS:
        place = holder(store, prefix)
        keys = [key for key, _, _ in place.objects(prefix) if not key.endswith((".parquet", ".jsonl"))]
        held = each(lambda key, place=place: names(place.find(key) or b"", name), keys, 16, waits=True)
        found += [key for key, holds in zip(keys, held, strict=True) if holds]
    return found


def names(data: bytes, name: str) -> bool:
    """Whether `name` stands there as a whole JSON string, or as a word in quotes."""
    signs = (f'"{name}"', json.dumps(name), f"'{name}'", f'\\"{name}\\"')
    return any(sign.encode() in data for sign in signs)
