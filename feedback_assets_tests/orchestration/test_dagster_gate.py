"""Nothing is released past a failed check, whoever starts `training_set`, and from wherever."""

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster_project import DROPS_APP, KEEPS_ALL, add_rule, dagster, opened, refusal, start

from feedback_assets.digests import canonical_json, digest
from feedback_assets.materialize import examine
from feedback_assets.orchestration.assets import build_assets
from feedback_assets.orchestration.build import build_definitions
from feedback_assets.orchestration.jobs import JOB
from feedback_assets.orchestration.lineage import COMMIT
from feedback_assets.orchestration.run import QUIET
from feedback_assets.provenance.release import listed

CHECK = "conservation"
BELOW = ("deduplicated", "reweighted", "upsampled")


@pytest.fixture
def instance(sample: Path) -> Iterator[dg.DagsterInstance]:
    with dagster(sample) as found:
        yield found


def report_by_hand(instance: dg.DagsterInstance, storage_id: int, *, passed: bool, check: str = CHECK) -> None:
    target = AssetCheckEvaluationTargetMaterializationData(storage_id=storage_id, run_id="", timestamp=0.0)
    instance.report_runless_asset_event(
        AssetCheckEvaluation(
            asset_key=dg.AssetKey("filtered"),
            check_name=check,
            passed=passed,
            target_materialization_data=target,
            blocking=True,
        )
    )


def edited(sample: Path, **sections: Any) -> None:
    path = sample / "policy.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}, sort_keys=False))


def built_on_a_failure(sample: Path, instance: dg.DagsterInstance) -> None:
    """`filtered` with a failed check, and each stage below made from it in a run of its own."""
    add_rule(sample, DROPS_APP)
    assert not start(sample, instance, "filtered").success
    for asset in BELOW:
        assert start(sample, instance, asset).success


def record(sample: Path, asset: str) -> Path:
    """The file of the latest commit record."""
    commits = opened(sample).commits
    return commits.store.path(f"commits/{asset}/{commits.latest(asset).number:010d}.json")


def forge(sample: Path) -> None:
    """Write into the latest records from `filtered` on that all checks passed, with every digest as it should be."""
    behind: dict[str, str] = {}
    for asset in ("filtered", *BELOW):
        path = record(sample, asset)
        value = json.loads(path.read_bytes())
        for check in value["content"]["checks"]:
            check |= {"status": "passed", "passed": True}
        for name, read in value["content"]["inputs"].items():
            read["commit"] = behind.get(name, read["commit"])
        behind[asset] = digest(value["content"])
        value["digest"] = digest({"circumstances": value["circumstances"], "content": value["content"]})
        path.write_bytes(canonical_json(value))


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
    report_by_hand(instance, record.storage_id, passed=False)
    assert f"filtered: Dagster has the check {CHECK} of this version as failed" in refusal(sample, instance)


def test_a_check_that_dagster_has_as_failed_for_another_version_is_none(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    report_by_hand(instance, 10**9, passed=False)
    assert start(sample, instance, "training_set").success


def test_a_release_does_not_need_the_runs_that_dagster_has_forgotten(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    for record in instance.get_run_records():
        instance.delete_run(record.dagster_run.run_id)
    assert start(sample, instance, "training_set").success


def test_no_run_can_select_an_asset_without_its_checks(sample: Path, instance: dg.DagsterInstance) -> None:
    add_rule(sample, DROPS_APP)
    without = dg.AssetSelection.assets("filtered").without_checks()
    with pytest.raises(dg.DagsterInvalidDefinitionError):
        dg.materialize(build_assets(opened(sample)), instance=instance, selection=without)
    job = build_definitions(opened(sample)).resolve_job_def(JOB)
    with pytest.raises(dg.DagsterInvalidSubsetError):
        job.get_subset(asset_selection={dg.AssetKey("filtered")}, asset_check_selection=set())
    job.get_subset(asset_selection={dg.AssetKey("filtered")}).execute_in_process(
        instance=instance, raise_on_error=False, run_config=QUIET
    )
    assert opened(sample).commits.latest("filtered").failed == ["loss_by_group"]


def test_a_failed_check_is_not_forgotten_with_the_runs_that_dagster_had_of_it(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    built_on_a_failure(sample, instance)
    for run in instance.get_run_records():
        instance.delete_run(run.dagster_run.run_id)
    assert "filtered: the check loss_by_group failed: " in refusal(sample, instance)


def test_a_check_that_was_reported_by_hand_as_passed_has_still_failed(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    built_on_a_failure(sample, instance)
    storage_id = instance.fetch_materializations(dg.AssetKey("filtered"), limit=1).records[0].storage_id
    report_by_hand(instance, storage_id, passed=True, check="loss_by_group")
    assert "filtered: the check loss_by_group failed: " in refusal(sample, instance)


def test_records_forged_down_to_their_digests_contradict_dagster_whatever_is_reported_to_it_by_hand(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    built_on_a_failure(sample, instance)
    forge(sample)
    said = "the gate refuses: filtered: Dagster has the check loss_by_group of this version as failed"
    assert refusal(sample, instance) == said
    storage_id = instance.fetch_materializations(dg.AssetKey("filtered"), limit=1).records[0].storage_id
    report_by_hand(instance, storage_id, passed=True, check="loss_by_group")
    assert refusal(sample, instance) == said
    number = opened(sample).commits.latest("filtered").number
    instance.report_runless_asset_event(dg.AssetMaterialization("filtered", metadata={COMMIT: number}))
    assert refusal(sample, instance) == said


@pytest.mark.parametrize("right_digest", [False, True])
def test_an_edited_record_is_refused(sample: Path, instance: dg.DagsterInstance, right_digest: bool) -> None:
    built_on_a_failure(sample, instance)
    path = record(sample, "filtered")
    value = json.loads(path.read_bytes())
    value["content"]["checks"] = []
    if right_digest:
        value["digest"] = digest({"circumstances": value["circumstances"], "content": value["content"]})
    path.write_bytes(canonical_json(value))
    line = refusal(sample, instance)
    assert ("deduplicated was made from another filtered" if right_digest else "was changed after it was") in line


@pytest.mark.parametrize("then", ["nothing", "made again under the old number"])
def test_a_deleted_record_is_no_way_to_forget_what_failed(
    sample: Path, instance: dg.DagsterInstance, then: str
) -> None:
    built_on_a_failure(sample, instance)
    record(sample, "filtered").unlink()
    if then == "nothing":
        assert "commits/filtered/0000000002.json" in refusal(sample, instance)
        return
    policy = yaml.safe_load((sample / "policy.yaml").read_text())
    edited(sample, filtered={"rules": policy["filtered"]["rules"][:-1]})
    assert start(sample, instance, "filtered").success
    assert record(sample, "filtered").name == "0000000002.json"
    assert "made from another filtered than number 2" in refusal(sample, instance)


def test_a_failed_check_counts_though_a_newer_materialization_of_its_asset_has_passed(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    """The policy is the same: a batch was bad, and is mended; what stands below was made from the bad one."""
    batches = sample / "batches"
    line = gzip.decompress((batches / "thumbs-2026-W34.jsonl.gz").read_bytes()).decode().splitlines()[0]
    late = batches / "thumbs-2026-W35.jsonl.gz"
    late.write_bytes(gzip.compress(b"no JSON\n" * 200))
    assert not start(sample, instance, "ingested").success
    for asset in ("guideline_joined", "converted", "filtered", *BELOW):
        assert start(sample, instance, asset).success
    late.write_bytes(gzip.compress(json.dumps({**json.loads(line), "id": "late"}).encode()))
    assert start(sample, instance, "ingested").success
    assert opened(sample).commits.latest("ingested").failed == []
    assert "ingested: the check quarantined_" in refusal(sample, instance)


def test_a_check_that_failed_is_not_forgotten_when_the_policy_no_longer_asks_for_it(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    monitoring = yaml.safe_load((sample / "policy.yaml").read_text())["monitoring"]
    edited(sample, monitoring={**monitoring, "gating": ["baseline", "transformation"]})
    add_rule(sample, "source = 'app' AND batch <> 'thumbs-2026-W31.jsonl.gz' AND response_a_chars > 300")
    assert not start(sample, instance, "filtered").success
    failed = opened(sample).commits.latest("filtered").failed
    assert failed == ["drift"]
    for asset in BELOW:
        start(sample, instance, asset)
    edited(sample, monitoring={**monitoring, "gating": ["baseline"]})
    line = refusal(sample, instance)
    assert "filtered: the check drift failed when it was made, and today's policy does not ask for it" in line


def test_a_suite_that_gave_no_results_is_an_error_and_no_pass(
    sample: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "run_suite", lambda *_: [])
    add_rule(sample, "response_a_chars > 400")
    assert not start(sample, instance, "filtered", *BELOW, "training_set").success
    monkeypatch.undo()
    for asset in BELOW:
        assert start(sample, instance, asset).success
    line = refusal(sample, instance)
    assert "filtered: the check expect_" in line
    assert "could not be computed" in line
    assert "it gave no result" in line


def test_a_run_that_another_overtakes_is_released_from_what_it_made_itself(
    sample: Path, instance: dg.DagsterInstance
) -> None:
    """While the one waits before `training_set`, the other makes every stage anew under a rule whose check fails."""
    good = yaml.safe_load((sample / "policy.yaml").read_text())
    other: list[bool] = []

    def overtake(asset: str, moment: str, commit: object) -> None:
        if (asset, moment) == ("training_set", "started") and not other:
            other.append(True)
            worker = threading.Thread(target=lambda: built_on_a_failure(sample, instance))
            worker.start()
            worker.join()

    before = listed(opened(sample).store)
    result = start(sample, instance, "filtered", *BELOW, "training_set", listener=overtake)
    assert result.success
    commits = opened(sample).commits
    assert commits.latest("upsampled").circumstances["run_id"] != result.run_id
    assert listed(commits.store)[-1]["id"] == before[0]["id"], "the same work as before, and none of the other run's"
    assert "filtered: the check loss_by_group failed: " in refusal(sample, instance)
    edited(sample, **good)
    assert "made under other code or another policy" in refusal(sample, instance)
