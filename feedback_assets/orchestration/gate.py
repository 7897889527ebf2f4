"""The gate's second opinion: what Dagster itself has recorded of the checks of exactly the versions to be released."""

from collections.abc import Mapping

import dagster as dg

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.examine import required_checks
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.lineage import materialization_of
from feedback_assets.pipeline import stage


def failed_in_dagster(instance: dg.DagsterInstance, project: Project, inputs: Mapping[str, Commit]) -> tuple[str, ...]:
    """Blocking checks that Dagster has as failed for the materializations behind `inputs`, as reasons to refuse.

    The commit records are what the gate goes by; a check that is missing here (a deleted run) is no reason by itself.
    """
    reasons = []
    for asset, commit in chain(project, inputs).items():
        storage_id = materialization_of(instance, asset, commit.number)
        if storage_id is None:
            continue
        for name, check in required_checks(stage(asset), project.policy).items():
            if check.blocking and _held(instance, asset, name, storage_id) is False:
                reasons.append(f"{asset}: Dagster has the check {name} of this version as failed")
    return tuple(reasons)


def _held(instance: dg.DagsterInstance, asset: str, check: str, storage_id: int) -> bool | None:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=100):
        evaluation = (
            record.event.dagster_event.asset_check_evaluation_data
            if record.event and record.event.dagster_event
            else None
        )
        target = evaluation.target_materialization_data if evaluation else None
        if evaluation and target and target.storage_id == storage_id:
            return evaluation.passed or evaluation.severity != dg.AssetCheckSeverity.ERROR
    return None
