"""What a release was made from, as its manifest says: batches in order, guidelines, policy, code, environment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import ValidationError

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.arrivals import Key, in_commit
from feedback_assets.pipeline import Policy
from feedback_assets.provenance.release import Release, commit_of, commits_of
from feedback_assets.provenance.tree import differences
from feedback_assets.snapshots.snapshot import Snapshot
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.guidelines import REGISTRY


@dataclass(frozen=True)
class Recipe:
    """What a release was made from.

    `arrivals`: the batches in order of arrival, each with what was recorded of it, None where that is lost;
    `guidelines`: rows of the registry, times as text; `policy`: in full, as plain JSON values; `code`: by stage the
    digest of its code, None where it was not recorded; `code_versions`: by stage; `environment`: by name.
    """

    arrivals: Mapping[Key, Mapping[str, str]] | None
    guidelines: Sequence[Mapping[str, Any]]
    policy: Mapping[str, Any]
    code: Mapping[str, str | None]
    code_versions: Mapping[str, str]
    environment: Mapping[str, str]


def recipe(store: Store, release: Release) -> Recipe:
    """Read what a release was made from out of its manifest; for an old one the order of batches out of a part."""
    content, commits = release.content, commits_of(release)
    return Recipe(
        arrivals=_arrivals(store, release),
        guidelines=content["guidelines"],
        policy=content["policy"],
        code={name: commit.circumstances.get("code") for name, commit in commits.items()},
        code_versions={name: commit.code_version for name, commit in commits.items()},
        environment=release.circumstances["environment"],
    )


def has_parts(store: Store, snapshot: Snapshot, *tables: str) -> bool:
    """Whether all files of these tables are in the store."""
    files = [file for name in tables for part in snapshot.tables[name].parts for file in part.files]
    return all(store.exists(file.key) for file in files)


def _arrivals(store: Store, release: Release) -> Mapping[Key, Mapping[str, str]] | None:
    ingested = commit_of(release, "ingested")
    arrived = ingested.circumstances["arrived"]
    told = [arrived[str(place)] for place in range(len(arrived))]
    if all("digest" in entry for entry in told):
        return {(entry["source"], entry["batch"], entry["digest"]): entry for entry in told}
    return in_commit(store, ingested) if has_parts(store, ingested.snapshot, "batches") else None


def as_policy(value: Mapping[str, Any]) -> Policy:
    """A recorded policy, for the product as it is today.

    Raises:
        FeedbackError: it does not fit today's code, or would mean something else.
    """
    try:
        policy = Policy.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the policy"
        raise FeedbackError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    for unlike in differences(dict(value), policy.pinned()):
        where = ".".join(unlike.path)
        raise FeedbackError(f"{where}: recorded is {_short(unlike.before)}, today's code reads {_short(unlike.after)}")
    return policy


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) <= 60 else f"{said[:57]}…"


def registry(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of the registry as the manifest holds them, in REGISTRY and its order."""
    times = ("effective_from", "effective_to")
    schema = {name: pl.String if name in times else dtype for name, dtype in REGISTRY.items()}
    frame = pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(
        pl.col(*times).str.to_datetime(time_unit="us", time_zone="UTC", format="%+")
    )
    return frame.cast(dict(REGISTRY)).sort(  # type: ignore[arg-type]
        "task", "aspect", "effective_from", "major", "minor", "patch", nulls_last=False
    )
