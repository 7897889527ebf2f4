"""What a store holds as JSON: which files of text its records refer to, and where a name stands in it."""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from feedback_assets.materialize.commit import Commits
from feedback_assets.pipeline import STAGES
from feedback_assets.snapshots.snapshot import File, Snapshot
from feedback_assets.snapshots.store import LocalStore

RECORDS = ("commits", "releases", "landings", "collections", "dagster")
"""Where a name can stand that is never rewritten: what people wrote into a policy, for one."""


def texts_of(store: LocalStore) -> dict[str, set[str]]:
    """The files of text by the fingerprint under which rows refer to them (`content_part`): their keys."""
    found: dict[str, set[str]] = {}
    for tables in _tables(store):
        for part in tables.get("content", {}).get("parts", ()):
            for file in part["files"]:
                key = store.erasures.current(f"parts/{file['digest'][:2]}/{file['digest']}.parquet")
                found.setdefault(file["fingerprint"], set()).add(key)
    return found


def _tables(store: LocalStore) -> Iterator[Any]:
    commits = Commits(store)
    for stage in STAGES:
        for commit in commits.all(stage.name):
            yield commit.circumstances["snapshot"]["tables"]
    for key, _, _ in store.objects("memo"):
        value = remembered(store, key)
        if isinstance(value, dict) and isinstance(value.get("tables"), dict):
            yield value["tables"]


def batches_on(store: LocalStore, keys: Collection[str]) -> list[str]:
    """The names under which is remembered what a batch became, where one of `keys` is among its files."""
    found = []
    for key, _, _ in store.objects("memo"):
        value = remembered(store, key)
        tables = value.get("tables") if isinstance(value, dict) else None
        is_batch = isinstance(tables, dict) and {"rows", "content", "quarantine"} <= tables.keys()
        if is_batch and any(store.erasures.current(name) in keys for name in files_of(value)):
            found.append(PurePosixPath(key).stem)
    return found


def remembered(store: LocalStore, key: str) -> Any:
    """The value behind the key of a memo, or None if it cannot be read."""
    try:
        return json.loads((store.root / key).read_bytes())["value"]
    except (OSError, ValueError, KeyError, TypeError):
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


def named_in(store: LocalStore, name: str, where: Sequence[str] = RECORDS) -> list[str]:
    """The objects under `where` in which `name` stands as a whole JSON string, or as a word in quotes."""
    signs = [f'"{name}"', json.dumps(name), f"'{name}'", f'\\"{name}\\"']
    wanted = {sign.encode() for sign in signs}
    found = []
    for prefix in where:
        for key, _, _ in store.objects(prefix):
            if not key.endswith((".parquet", ".jsonl")):
                data = (store.root / key).read_bytes()
                if any(sign in data for sign in wanted):
                    found.append(key)
    return found
