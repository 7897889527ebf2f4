"""The gate's second opinion: what Dagster itself has recorded of the checks of exactly the versions to be released."""

from collections.abc import Mapping
from datetime import datetime

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.lineage import commit_number
from feedback_assets.provenance.gate import waived_in

FAILED = {AssetCheckExecutionRecordStatus.FAILED}
PAGE = 100


def failed_in_dagster(
    instance: dg.DagsterInstance, project: Project, inputs: Mapping[str, Commit], now: datetime
) -> tuple[str, ...]:
    """Blocking checks that Dagster has as failed for the materializations behind `inputs`, as reasons to refuse.

    The commit records are what the gate goes by; a check that is missing here (a deleted run) is no reason by itself.
    One that failed stays failed, whatever is reported of it by hand later; one that is waived is let through.
    """
    reasons = []
    for asset, commit in chain(project, inputs).items():
        waived = waived_in(project, commit, now)
        for name, check in project.policy.required_checks(asset).items():
            if check.blocking and name not in waived and _failed(instance, asset, name, commit.number):
                reasons.append(f"{asset}: Dagster has the check {name} of this version as failed")
    return tuple(reasons)


def _failed(instance: dg.DagsterInstance, asset: str, check: str, number: int) -> bool:
    """Whether a materialization that recorded commit `number` has a failed result of severity ERROR."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    failed: set[int] = set()
    cursor: int | None = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(key, PAGE, cursor, FAILED)
        for record in page:
            event = record.event.dagster_event if record.event else None
            evaluation = event.asset_check_evaluation_data if event else None
            target = evaluation.target_materialization_data if evaluation else None
            if evaluation and target and evaluation.severity == dg.AssetCheckSeverity.ERROR:
                failed.add(target.storage_id)
        if len(page) < PAGE:
            break
        cursor = page[-1].id
    # From the results to their materializations: of those that name this commit the latest may be reported by hand.
    chosen = dg.AssetRecordsFilter(dg.AssetKey(asset), storage_ids=sorted(failed))
    found = instance.fetch_materializations(chosen, limit=len(failed)).records if failed else ()
    return any(commit_number(record) == number for record in found)
