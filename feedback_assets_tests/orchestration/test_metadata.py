"""What the UI shows of the batches."""

import math
from dataclasses import replace
from pathlib import Path

import dagster as dg
import yaml
from dagster_project import dagster, latest, start

from feedback_assets.materialize.commit import Commits
from feedback_assets.orchestration.drift_metadata import tables
from feedback_assets.snapshots.store import LocalStore


def test_the_table_of_batches_says_what_became_of_each_and_what_waits(sample: Path) -> None:
    policy = yaml.safe_load((sample / "policy.yaml").read_text())
    policy["ingested"]["sources"][0]["complete"] = {"marker": "{name}.done"}
    (sample / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    first, second, *_ = sorted((sample / "batches").glob("preferences-*.jsonl"))
    (sample / "batches" / "preferences-2026-W99.jsonl").write_text("{half a li")
    first.rename(first.with_name("preferences-renamed.jsonl"))
    (sample / "batches" / "preferences-renamed.jsonl.done").touch()
    second.unlink()
    with dagster(sample) as instance:
        assert start(sample, instance, "ingested").success
        metadata = latest(instance, "ingested").asset_materialization.metadata
    table, compared = metadata["batches"], metadata["drift_of_newest_batches"]
    columns = {(record.data["source"], record.data["column"]) for record in compared.records}
    assert {("arena", "outcome"), ("panel", "score"), ("app", "category")} <= columns
    numbers = {name: value.value for name, value in metadata.items() if name.startswith("psi_newest_")}
    assert numbers.keys() >= {"psi_newest_outcome", "psi_newest_score", "psi_newest_response_chars"}
    assert all(isinstance(value, float) and math.isfinite(value) for value in numbers.values())
    counted = ["records", "rows", "quarantined", "redelivered", "superseded", "withdrawn"]
    columns = ["arrival", "source", "batch", "digest", *counted, "state", "arrived"]
    assert [column.name for column in table.schema.columns] == columns
    shown = {record.data["batch"]: record.data for record in table.records}
    states = {name: data["state"] for name, data in shown.items() if data["state"] not in ("current", "redelivered")}
    assert states == {first.name: "renamed", second.name: "removed", "preferences-2026-W99.jsonl": "waiting"}
    assert shown["preferences-2026-W99.jsonl"]["arrival"] == ""
    assert len(shown[first.name]["digest"]) == 12
    assert shown[first.name]["rows"] > 0


def test_the_ui_shows_what_a_stage_did_in_place_and_leads_to_the_report(sample_run: Path, sample: Path) -> None:
    with dagster(sample) as instance:
        reweighted = latest(instance, "reweighted").asset_materialization.metadata
        training_set = latest(instance, "training_set").asset_materialization.metadata
    assert len(reweighted["picture"].value) < 1000  # more than that the UI shows only after a click
    assert len(reweighted["picture_in_full"].value) > 1000
    report = Path(str(training_set["report"].value))
    assert report.is_relative_to(sample_run)
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert report.with_name("manifest.json").exists()


def test_the_table_of_a_comparison_leads_with_what_moved_then_with_warnings(sample_run: Path) -> None:
    commit = Commits(LocalStore(sample_run / "store")).latest("reweighted")
    assert commit is not None
    names = {"category": "inconclusive", "kind": "stable", "outcome": "moved", "source": "stable"}
    drift = [
        {**entry, "verdict": names[entry["column"]], "warning": entry["column"] == "kind", "psi": 0.3}
        for entry in commit.content["drift"]
        if entry["column"] in names
    ]
    told = tables(replace(commit, content={**commit.content, "drift": drift}))["drift_against_input"]
    assert [entry["column"] for entry in told] == ["outcome", "kind", "category", "source"]


def test_a_check_has_its_value_and_its_limit_as_numbers_over_time(sample_run: Path, sample: Path) -> None:
    del sample_run

    def numbers(instance: dg.DagsterInstance, asset: str, check: str) -> dict[str, object]:
        key = dg.AssetCheckKey(dg.AssetKey(asset), check)
        (record, *_) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        return {
            name: value.value
            for name, value in evaluation.metadata.items()
            if isinstance(value, (dg.FloatMetadataValue, dg.IntMetadataValue))
        }

    with dagster(sample) as instance:
        drift = numbers(instance, "reweighted", "drift")
        share = numbers(instance, "ingested", "quarantined_share")
        expected = numbers(instance, "training_set", "baseline__category")
    assert drift["psi"] > drift["limit_psi"] == 0.25
    assert 0 < share["value"] < share["limit"] == 0.2
    assert {"psi", "kl", "js", "limit_psi"} <= expected.keys()
