"""Nothing is released past a failed check, whoever starts `training_set`, and from wherever."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster_project import DROPS_APP, KEEPS_ALL, add_rule, dagster, opened, start, why_failed

from feedback_assets.provenance.release import listed

CHECK = "conservation"


@pytest.fixture
def instance(sample: Path) -> Iterator[dg.DagsterInstance]:
    with dagster(sample) as found:
        yield found


def refusal(sample: Path, instance: dg.DagsterInstance) -> str:
    """Start `training_set` in a new run of its own; return the line with which it refuses."""
    before = listed(opened(sample).store)
    result = start(sample, instance, "training_set")
    assert not result.success
    assert listed(opened(sample).store) == before
    line = why_failed(result)
    assert "\n" not in line
    return line


def failed_in_dagster(instance: dg.DagsterInstance, storage_id: int) -> None:
    target = AssetCheckEvaluationTargetMaterializationData(storage_id=storage_id, run_id="", timestamp=0.0)
    instance.report_runless_asset_event(
        AssetCheckEvaluation(
            asset_key=dg.AssetKey("filtered"),
            check_name=CHECK,
            passed=False,
            target_materialization_data=target,
            blocking=True,
        )
    )


def test_a_new_run_of_training_set_alone_is_released_when_all_checks_passed(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    assert start(sample, instance, "training_set").success
    first, second = listed(opened(sample).store)
    assert first["id"] == second["id"]


def test_a_new_run_of_training_set_alone_refuses_after_an_upstream_check_failed(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    add_rule(sample, DROPS_APP)
    assert not start(sample, instance, "filtered", "deduplicated").success
    assert opened(sample).commits.latest("deduplicated").number == 1, "the check held back what is below it"
    for asset in ("deduplicated", "reweighted", "upsampled"):
        start(sample, instance, asset)  # a run of its own: here Dagster's blocking does not reach
    line = refusal(sample, instance)
    assert "the gate refuses: " in line
    assert "filtered: the check loss_by_group failed: " in line
    assert "source=app" in line


def test_training_set_refuses_after_an_upstream_policy_edit_and_says_what_to_do(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    add_rule(sample, KEEPS_ALL)
    assert refusal(sample, instance) == (
        "the gate refuses: filtered was made under other code or another policy than today's; materialize it again"
    )


def test_training_set_refuses_while_the_stages_between_still_stand_on_the_earlier_version(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    """Dagster calls them fresh, since the rows are the same; the release would name the old rules."""
    add_rule(sample, KEEPS_ALL)
    assert start(sample, instance, "filtered").success
    line = refusal(sample, instance)
    assert line.endswith("materialize deduplicated, reweighted, upsampled again")
    assert start(sample, instance, "deduplicated", "reweighted", "upsampled", "training_set").success


def test_training_set_refuses_when_a_check_has_no_result(sample: Path, instance: dg.DagsterInstance) -> None:
    commits = opened(sample).commits
    upsampled = commits.latest("upsampled")
    kept = [check for check in upsampled.checks if check["name"] != "conservation"]
    commits.add({**upsampled.content, "checks": kept}, upsampled.circumstances)
    assert "upsampled: the check conservation has no result for this version" in refusal(sample, instance)


def test_training_set_refuses_when_a_limit_was_tightened_since(sample: Path, instance: dg.DagsterInstance) -> None:
    path = sample / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["monitoring"]["limits"]["lost_share"] = 0.9
    path.write_text(yaml.safe_dump(policy, sort_keys=False))
    assert "the check loss_by_group ran with another limit than today's" in refusal(sample, instance)


def test_a_check_that_dagster_has_as_failed_for_this_version_is_a_reason_to_refuse(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    record = instance.fetch_materializations(dg.AssetKey("filtered"), limit=1).records[0]
    failed_in_dagster(instance, record.storage_id)
    assert f"filtered: Dagster has the check {CHECK} of this version as failed" in refusal(sample, instance)


def test_a_check_that_dagster_has_as_failed_for_another_version_is_none(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    failed_in_dagster(instance, storage_id=10**9)
    assert start(sample, instance, "training_set").success


def test_a_release_does_not_need_the_runs_that_dagster_has_forgotten(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    for record in instance.get_run_records():
        instance.delete_run(record.dagster_run.run_id)
    assert start(sample, instance, "training_set").success
