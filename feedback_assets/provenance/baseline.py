"""Which release is the baseline. A policy may name it by a tag, or as the approved one; a project works with its id."""

import re
from dataclasses import replace

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.names import APPROVED
from feedback_assets.provenance.release import approved_release, listed, meant
from feedback_assets.signal.section import BaselineRelease


def with_baseline(project: Project) -> Project:
    """The project with the id of the release that its `monitoring.baseline` names.

    `approved` is the release that was approved last; as long as none is, there is no baseline.

    Raises:
        FeedbackError: it names no release of the store.
    """
    policy = project.policy
    named = policy.monitoring.baseline
    if named is None or re.fullmatch(r"[0-9a-f]{16,64}", named.release):
        return project
    try:
        found = (
            approved_release(project.store)
            if named.release == APPROVED
            else meant(project.store, listed(project.store), named.release)
        )
    except FeedbackError as error:
        raise FeedbackError(f"{project.path}: monitoring.baseline.release: {error}") from None
    baseline = BaselineRelease(release=found) if found else None
    monitoring = policy.monitoring.model_copy(update={"baseline": baseline})
    return replace(project, policy=policy.model_copy(update={"monitoring": monitoring}))
