"""Which project a person means: a policy and a store, from options, from the environment, or the synthetic sample."""

import os
from pathlib import Path

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.store import LocalStore, Store, store_at

POLICY = "FEEDBACK_ASSETS_POLICY"
STORE = "FEEDBACK_ASSETS_STORE"
_OF_A_RUN = ("commits", "releases", "parts", "dagster")
SAMPLE = Path(".feedback_assets/sample")


def open_project(policy: Path | None, store: Path | str | None) -> Project:
    """Open a project: without a policy the synthetic sample, written on first use; its store lies beside the policy.

    Raises:
        FeedbackError: the policy is missing or does not fit.
    """
    if policy is None:
        from feedback_assets.sample.generate import write_sample

        write_sample(SAMPLE)
    return _opened(policy, store)


def open_made(policy: Path | None, store: Path | str | None) -> Project:
    """Open a project to look at what it made: the synthetic sample is not written anew.

    Raises:
        FeedbackError: the policy is missing or does not fit.
    """
    if not _file(policy).exists() and policy is None:
        raise FeedbackError(f"{SAMPLE}: the synthetic sample was never run here; `feedback-assets run` does it")
    return _opened(policy, store)


def open_store(policy: Path | None, store: Path | str | None) -> Store:
    """The store of a project; the policy, which may have changed since or be gone, is not read.

    Raises:
        FeedbackError: no run has made a store there.
    """
    opened = store_at(_store(policy, store), _file(policy).resolve().parent)
    if isinstance(opened, LocalStore) and not any((opened.root / name).is_dir() for name in _OF_A_RUN):
        raise FeedbackError(f"{opened.place}: no run has made a store here; correct --policy or --store")
    return opened


def policy_folder(policy: Path | None) -> Path | None:
    """The folder where relative paths of the policy start; None if it is gone."""
    folder = _file(policy).parent
    return folder.resolve() if folder.is_dir() else None


def _opened(policy: Path | None, store: Path | str | None) -> Project:
    from feedback_assets.provenance.baseline import with_baseline

    return with_baseline(Project.open(_file(policy), _store(policy, store)))


def _file(policy: Path | None) -> Path:
    if policy is None:
        return SAMPLE / "policy.yaml"
    return policy / "policy.yaml" if policy.is_dir() else policy


def _store(policy: Path | None, store: Path | str | None) -> Path | str:
    return store or _file(policy).parent / "store"


def project_from_environment() -> Project:
    """The project that the environment names."""
    policy, store = os.environ.get(POLICY), os.environ.get(STORE)
    return open_project(Path(policy) if policy else None, store or None)


def is_sample(project: Project) -> bool:
    """Whether this is the synthetic sample."""
    return project.folder == SAMPLE.resolve()
