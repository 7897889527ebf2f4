"""Which project a person means: a policy and a store, from options, from the environment, or the synthetic sample."""

import os
from pathlib import Path

from feedback_assets.materialize.project import Project

POLICY = "FEEDBACK_ASSETS_POLICY"
STORE = "FEEDBACK_ASSETS_STORE"
SAMPLE = Path(".feedback_assets/sample")


def open_project(policy: Path | None, store: Path | None) -> Project:
    """Open a project: by default the synthetic sample, written on first use, and `store` beside the policy.

    Raises:
        FeedbackError: the policy is missing or does not fit.
    """
    if policy is None:
        from feedback_assets.sample.generate import write_sample

        policy = write_sample(SAMPLE)
    if policy.is_dir():
        policy = policy / "policy.yaml"
    return Project.open(policy, store or policy.parent / "store")


def project_from_environment() -> Project:
    """The project that the environment names."""
    policy, store = os.environ.get(POLICY), os.environ.get(STORE)
    return open_project(Path(policy) if policy else None, Path(store) if store else None)


def is_sample(project: Project) -> bool:
    """Whether this is the synthetic sample."""
    return project.folder == SAMPLE.resolve()
