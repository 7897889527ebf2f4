"""The way of a person past a failed check: write who, why and until when into the policy, and go on."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_project import dagster, opened, refusal, start

from feedback_assets.cli.tables import run_as_json, show_run
from feedback_assets.errors import Refused
from feedback_assets.orchestration.run import run
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, listed, read, release
from feedback_assets.provenance.report import report, report_key

LOSES_A_BATCH = "batch = 'thumbs-2026-W31.jsonl.gz'"
TODAY = datetime.now(UTC).date()
BELOW = ("deduplicated", "reweighted", "upsampled")


def edited(folder: Path, **sections: Any) -> None:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}, sort_keys=False))


def waiver(folder: Path, **other: Any) -> dict[str, Any]:
    """A waiver of what failed, as the refusal says it, written by dana until today."""
    version = opened(folder).commits.latest("filtered").data_version[:12]
    told = {"id": "old-app", "stage": "filtered", "check": "loss_by_group", "data_version": version}
    return {**told, "who": "dana", "why": "that app was another one", "until": TODAY, **other}


def latest(folder: Path) -> Release:
    store = opened(folder).store
    return read(store, listed(store)[-1]["id"])


@pytest.fixture(scope="module")
def failed_run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which `filtered` lost a batch and the stages below were made from it all the same."""
    folder = Path(shutil.copytree(sample_run, tmp_path_factory.mktemp("failed") / "project"))
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    rule = {"id": "old-app", "version": 1, "reason": "a test", "drop_when": LOSES_A_BATCH}
    edited(folder, filtered={"rules": [rule, *policy["filtered"]["rules"]]})
    with dagster(folder) as instance:
        assert not start(folder, instance, "filtered", *BELOW).success
        for asset in BELOW:
            assert start(folder, instance, asset).success
    return folder


@pytest.fixture
def project(failed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Path(shutil.copytree(failed_run, tmp_path / "project"))


@pytest.fixture
def instance(project: Path) -> Iterator[dg.DagsterInstance]:
    with dagster(project) as found:
        yield found


def test_the_refusal_of_a_run_holds_the_lines_that_let_it_through_once_they_are_in_the_policy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = run(opened(project))
    assert held.release is None
    assert held.refused
    (line,) = held.problems
    entry = re.search(r"add to the policy's waivers: (\{.*\})$", line).group(1)
    for value in ("old-app", "dana", "that app was another one", str(TODAY)):
        entry = entry.replace("…", value, 1)
    edited(project, waivers=[yaml.safe_load(entry)])

    ran = run(opened(project))
    assert ran.problems == []
    assert ran.release is not None
    of_filtered = next(told for told in run_as_json(ran)["stages"] if told["asset"] == "filtered")["checks"]
    assert of_filtered["failed"] == []
    assert [told["who"] for told in of_filtered["waived"]] == ["dana"]
    show_run(opened(project), ran, sample=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "(waived)" in shown
    assert f"notice filtered: loss_by_group is waived by dana until {TODAY}: that app was another one" in shown

    commit = ran.commits["filtered"]
    said = next(check["meaning"] for check in commit.checks if check["name"] == "loss_by_group")
    (used,) = ran.release.content["waivers"]
    assert used == {
        **waiver(project, data_version=commit.data_version, until=str(TODAY)),
        "status": "failed",
        "meaning": said,
    }
    assert ran.release.circumstances["idle_waivers"] == []
    answered = questions(ran.release)["distribution"]
    assert answered["waivers"] == [used]
    assert "1 failed check was let through by dana" in answered["verdict"]
    page = report(ran.release)
    assert "Do not train" not in page
    assert f"(by dana until {TODAY}: that app was another one)" in page
    assert opened(project).store.exists(report_key(ran.release))


def test_in_dagster_the_waived_check_stays_failed_as_a_warning_that_says_by_whom_and_the_run_goes_on(
    project: Path, instance: dg.DagsterInstance
) -> None:
    edited(project, waivers=[waiver(project)])
    result = start(project, instance, "filtered", *BELOW, "training_set")
    assert result.success
    found = {one.check_name: one for one in result.get_asset_check_evaluations() if one.asset_key.path == ["filtered"]}
    check = found["loss_by_group"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description.endswith(f"(waived by dana until {TODAY}: that app was another one)")
    assert check.metadata["waiver"].value["id"] == "old-app"
    event = instance.get_latest_materialization_event(dg.AssetKey("training_set"))
    assert event is not None
    (shown,) = event.asset_materialization.metadata["waivers"].value.records
    assert (shown.data["who"], shown.data["check"]) == ("dana", "loss_by_group")


def test_without_running_the_failed_stage_again_training_set_alone_goes_on_with_the_waiver(
    project: Path, instance: dg.DagsterInstance
) -> None:
    """Dagster still has the check as failed with ERROR: its opinion gives way for that check and version."""
    key = dg.AssetCheckKey(dg.AssetKey("filtered"), "loss_by_group")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    shown = record.event.dagster_event.asset_check_evaluation_data
    assert (shown.passed, shown.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "mend it, or add to the policy's waivers: {id: …, stage: filtered, check: loss_by_gr" in shown.description
    assert "filtered: the check loss_by_group failed: " in refusal(project, instance)
    edited(project, waivers=[waiver(project)])
    assert start(project, instance, "training_set").success
    assert [used["id"] for used in latest(project).content["waivers"]] == ["old-app"]


@pytest.mark.parametrize(
    "other",
    [
        {"data_version": "0" * 12},
        {"stage": "deduplicated"},
        {"check": "conservation"},
        {"status": "error"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_waiver_for_another_version_stage_check_or_outcome_lets_nothing_through(
    project: Path, instance: dg.DagsterInstance, other: dict[str, str]
) -> None:
    edited(project, waivers=[waiver(project, **other)])
    assert "the gate refuses: filtered: the check loss_by_group failed: " in refusal(project, instance)


def test_an_expired_waiver_lets_nothing_through_and_the_refusal_names_it(
    project: Path, instance: dg.DagsterInstance
) -> None:
    yesterday = TODAY - timedelta(1)
    edited(project, waivers=[waiver(project, until=yesterday)])
    assert f"; the waiver old-app by dana expired after {yesterday}; mend it" in refusal(project, instance)


def test_what_was_let_through_once_is_not_for_ever(project: Path, instance: dg.DagsterInstance) -> None:
    edited(project, waivers=[waiver(project)])
    assert start(project, instance, "filtered", *BELOW, "training_set").success
    with pytest.raises(Refused, match=r"the waiver old-app by dana expired after"):
        release(opened(project), run_id="later", now=datetime.now(UTC) + timedelta(1))
    edited(project, waivers=[])
    assert "the gate refuses: filtered: the check loss_by_group failed: " in refusal(project, instance)


def test_a_rule_edited_after_the_waiver_makes_another_version_that_is_not_waived(
    project: Path, instance: dg.DagsterInstance
) -> None:
    edited(project, waivers=[waiver(project)])
    policy = yaml.safe_load((project / "policy.yaml").read_text())
    policy["filtered"]["rules"][0] |= {"version": 2, "drop_when": f"{LOSES_A_BATCH} OR source = 'app'"}
    edited(project, filtered=policy["filtered"])
    assert not start(project, instance, "filtered").success
    for asset in BELOW:
        assert start(project, instance, asset).success
    assert "filtered: the check loss_by_group failed: source=app lost " in refusal(project, instance)


def test_a_waiver_lets_nothing_through_that_has_no_result_another_limit_or_other_code(
    project: Path, instance: dg.DagsterInstance
) -> None:
    monitoring = yaml.safe_load((project / "policy.yaml").read_text())["monitoring"]
    edited(project, waivers=[waiver(project)], monitoring={**monitoring, "limits": {"lost_share": 0.9}})
    assert "the check loss_by_group ran with another limit than today's" in refusal(project, instance)
    edited(project, monitoring=monitoring, filtered={"rules": []})
    assert "filtered was made under other code or another policy than today's" in refusal(project, instance)


def test_waivers_that_nothing_needs_are_told_beside_the_manifest_and_make_no_other_release(
    sample: Path,
) -> None:
    before = latest(sample)
    codes = {name: opened(sample).code_version(name) for name in ("filtered", "training_set")}
    idle = [waiver(sample), waiver(sample, id="over", until=TODAY - timedelta(1))]
    edited(sample, waivers=idle)
    assert codes == {name: opened(sample).code_version(name) for name in codes}
    # The manifest of identical work is the first one's, so that this one must be another release's.
    policy = yaml.safe_load((sample / "policy.yaml").read_text())
    edited(sample, monitoring={**policy["monitoring"], "gating": ["baseline", "input"]})
    ran = run(opened(sample))
    assert ran.release is not None, ran.problems
    assert ran.release.id != before.id
    assert ran.release.content["waivers"] == []
    why = {entry["id"]: entry["idle"] for entry in ran.release.circumstances["idle_waivers"]}
    assert why["over"] == f"expired after {TODAY - timedelta(1)}"
    assert why["old-app"].startswith("no check of a version behind this release came out like this")
    edited(sample, waivers=[])
    assert run(opened(sample)).release.id == ran.release.id


def test_a_blocking_check_of_training_set_itself_holds_the_release_back_until_it_is_waived(sample: Path) -> None:
    monitoring = yaml.safe_load((sample / "policy.yaml").read_text())["monitoring"]
    expect = {**monitoring["expect"], "language": {"en": 0.1, "de": 0.9}}
    edited(sample, monitoring={**monitoring, "expect": expect})
    before = listed(opened(sample).store)
    held = run(opened(sample))
    assert held.release is None
    assert held.refused
    (line,) = held.problems
    assert line.startswith("training_set: the check baseline__language failed: ")
    assert listed(opened(sample).store) == before
    with dagster(sample) as instance:
        assert not start(sample, instance, "training_set").success
    assert listed(opened(sample).store) == before

    version = held.commits["training_set"].data_version
    assert f'data_version: "{version[:12]}"' in line
    told = waiver(sample, stage="training_set", check="baseline__language", data_version=version)
    edited(sample, waivers=[told])
    ran = run(opened(sample))
    assert ran.problems == []
    assert [used["check"] for used in ran.release.content["waivers"]] == ["baseline__language"]
    assert not questions(ran.release)["distribution"]["matches"], "a waiver changes what is let through, not what is so"
    assert json.loads(json.dumps(ran.release.content))["gate"]["opens"]
