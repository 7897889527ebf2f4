"""Building from a recipe, beside the history: the machinery of replay and bisect."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.arrivals import Arrivals, Key, digest_of
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.intake import take
from feedback_assets.materialize.landing import landed
from feedback_assets.materialize.project import Project
from feedback_assets.materialize.rebuild import Rebuilding, rebuild
from feedback_assets.pipeline import Policy
from feedback_assets.provenance.recipe import Recipe, as_policy, registry
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.overlay import Overlay
from feedback_assets.snapshots.snapshot import Snapshot, write_table
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.files import BatchFile, list_files

Files = Mapping[Key, BatchFile]


@contextmanager
def scratch(store: Store, *, forgetful: bool = False) -> Iterator[Overlay]:
    """An overlay that is gone afterwards: on the store's disk, unless that cannot be written to."""
    place = store.here.root / "tmp"
    if os.access(store.here.root, os.W_OK):
        place.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="overlay-", dir=place if os.access(place, os.W_OK) else None) as root:
        yield Overlay(store, Path(root), forgetful=forgetful)


def files_of(store: Store, folder: Path | None, policy: Policy, keys: Iterable[Key]) -> dict[Key, BatchFile]:
    """Which of these batches can be read now, and where: what was landed in the store, and files with the same bytes.

    `folder` is that of the policy, from where relative paths start; without it only absolute ones are followed.
    """
    found: dict[tuple[str, str], BatchFile] = {}
    for source in policy.ingested.sources:
        if source.in_database:
            files = landed(store, source)
        elif folder is None and not Path(source.path).expanduser().is_absolute():
            continue
        else:
            try:
                files = list_files(source, folder or Path("/"), may_be_empty=True, digest_of=partial(digest_of, store))
            except FeedbackError:  # the folder is gone
                continue
        found |= {(file.source, file.digest): file for file in files}
    at = {key: found[key[0], key[2]] for key in keys if (key[0], key[2]) in found}
    # Whatever it is called now, it counts under the name that it arrived with.
    return {key: replace(file, name=key[1]) for key, file in at.items()}


def ingest(store: Overlay, policy: Policy, arrivals: Mapping[Key, Mapping[str, str]], files: Files) -> Snapshot:
    """Take in these batches, in this order, under this policy.

    Raises:
        FeedbackError: a batch is neither in `files` nor remembered, or what is read does not fit the policy.
    """
    sources = {source.name for source in policy.ingested.sources}
    known = {key: told for key, told in arrivals.items() if key[0] in sources}
    return take(Held(store), policy.ingested, Arrivals(known, [], files, {}), datetime.now(UTC)).snapshot


def build(
    store: Overlay, recipe: Recipe, ingested: Snapshot, folder: Path | None, last: str = "upsampled"
) -> tuple[Project, Iterable[Commit]]:
    """The project of a recipe, and its stages up to `last`, each built when it is asked for.

    Raises:
        FeedbackError: the policy does not fit today's code; or, at its turn, a stage cannot be computed.
    """
    project = Rebuilding(as_policy(recipe.policy), (folder or store.here.root) / "policy.yaml", "", store)
    guidelines = Snapshot("guidelines", {"rows": write_table(store, registry(recipe.guidelines))})
    return project, rebuild(project, {"ingested": ingested, "guidelines": guidelines}, last)


def training_rows(project: Project, commit: Commit) -> pl.LazyFrame:
    """The rows of a commit as a trainer would weigh them: each record once, with `training_weight`.

    That is weight × copies as far as the stage has them, else 1: the same column at every stage.
    """
    frame = project.held.rows(commit.snapshot.tables["rows"].records)
    names = frame.collect_schema().names()
    factors = [pl.col(name) for name in ("weight", "copies") if name in names]
    weight = pl.lit(1.0)
    for factor in factors:
        weight = weight * factor
    return frame.drop("copy_index", strict=False).with_columns(weight.alias("training_weight"))
