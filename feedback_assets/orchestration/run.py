"""The job in this process: what `feedback-assets run` does, with its events in the project's Dagster instance."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg

from feedback_assets.checks.waivers import Waiver
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.assets import REFUSED, Listener
from feedback_assets.orchestration.build import build_definitions, dagster_home
from feedback_assets.orchestration.jobs import JOB
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.gate import held_back, waived_in
from feedback_assets.provenance.release import Release, listed, read
from feedback_assets.snapshots.leases import writing
from feedback_assets.sources.raw import one_line

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster's own log stays in its event log; the terminal shows progress."""


@dataclass(frozen=True)
class Ran:
    """A run: its Dagster id, what it committed by asset in order, the release or None, and why it stopped.

    `refused`: a check or the gate stopped it, and not an error. `waived`: the waivers of failed checks, by asset and
    check.
    """

    run_id: str
    commits: dict[str, Commit]
    release: Release | None
    problems: list[str] = field(default_factory=list)
    refused: bool = False
    waived: Mapping[str, Mapping[str, Waiver]] = field(default_factory=dict)


def run(project: Project, listener: Listener | None = None) -> Ran:
    """Run the whole job and return what came of it; a refusal is in `problems`, not raised."""
    home = dagster_home(project)
    os.environ["DAGSTER_HOME"] = str(home)
    definitions = build_definitions(project, listener)
    with writing(project.store, "a run"), dg.DagsterInstance.from_config(str(home)) as instance:
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance, raise_on_error=False, run_config=QUIET
        )
    now = datetime.now(UTC)
    commits = {
        stage.name: commit
        for stage in STAGES
        if (commit := project.commits.of_run(stage.name, result.run_id)) is not None
    }
    stopped = [_why(event) for event in result.all_events if event.is_step_failure]
    others = [why for why in stopped if why is not None]
    mine = [entry["id"] for entry in listed(project.store) if entry["run_id"] == result.run_id]
    return Ran(
        result.run_id,
        commits,
        read(project.store, mine[-1]) if mine else None,
        [*(why for commit in commits.values() for why in held_back(project, commit, now)), *(why for why, _ in others)],
        refused=all(refused for _, refused in others),
        waived={name: waived_in(project, commit, now) for name, commit in commits.items()},
    )


def _why(event: dg.DagsterEvent) -> tuple[str, bool] | None:
    """Why a step failed, and whether that is a refusal; None for a blocking check, of which the commits say more."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None:
        told = failure.user_failure_data
        return told.description or "", bool(told.metadata[REFUSED].value) if REFUSED in told.metadata else False
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return f"{event.step_key} failed", False
    if error.cls_name == "DagsterAssetCheckFailedError":
        return None
    return f"{event.step_key}: internal error, please report it: {one_line(error.message)}", False
