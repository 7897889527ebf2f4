"""What follows a release, in a real Dagster instance: the models trained on it, and its approval."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_project import dagster, latest, opened, stale

from feedback_assets import open_store
from feedback_assets.errors import FeedbackError
from feedback_assets.orchestration.after_release import observe_approval, report_training_run
from feedback_assets.orchestration.build import build_definitions
from feedback_assets.orchestration.lineage import materialization_of
from feedback_assets.provenance.names import approve
from feedback_assets.provenance.release import find, folder
from feedback_assets.provenance.training_run import record_training_run, training_runs


def test_the_model_leads_back_to_the_training_set_it_was_made_from(sample: Path) -> None:
    project = opened(sample)
    release = find(project.store, "latest")
    commit = record_training_run(project.store, release, "rm-7", parent="rm-6")
    with dagster(sample) as instance:
        report_training_run(project, commit)
        event = latest(instance, "training_run").asset_materialization
        training_set = project.commits.latest("training_set")
        assert training_set is not None
        assert event.tags["dagster/data_version"] == commit.data_version
        assert event.tags["dagster/input_data_version/training_set"] == training_set.data_version
        pointer = materialization_of(instance, "training_set", training_set.number)
        assert event.tags["dagster/input_event_pointer/training_set"] == str(pointer)
        shown = {name: value.value for name, value in event.metadata.items()}
        assert (shown["model"], shown["parent"], shown["release"]) == ("rm-7", "rm-6", release.id)
        assert json.loads(Path(shown["manifest"]).read_text())["id"] == release.id
        assert stale(sample, instance) == {}
    graph = build_definitions(project).get_repository_def().asset_graph
    node = graph.get(dg.AssetKey("training_run"))
    assert node.is_external
    assert node.parent_keys == {dg.AssetKey("training_set")}


def test_what_the_trainer_dropped_is_the_last_fate_of_its_row(sample: Path, tmp_path: Path) -> None:
    release = open_store(sample).release()
    store = release.store
    exported = release.frame(text=False).filter(pl.col("kind") == "preference", pl.col("label") != "tie")["row_id"]
    dropped = tmp_path / "dropped.txt"
    dropped.write_text(f"{exported[0]}\n\n{exported[1]}\n")
    commit = record_training_run(store, find(store, "latest"), "rm-7", dropped=dropped)
    fates = {(entry["fate"], entry["rule"]): entry["rows"] for entry in commit.content["fates"]}
    total = release.manifest["content"]["annotations"]["records"]
    assert fates == {
        ("kept", None): len(exported) - 2,
        ("dropped", "dropped-by-trainer"): 2,
        ("dropped", "not-in-export"): total - len(exported),
    }
    assert commit.content["rows_out"] == commit.snapshot.tables["rows"].rows == len(exported) - 2

    def last(row_id: str) -> tuple[Any, ...]:
        step = release.trace(row_id)[0]["steps"][-1]
        return step["stage"], step["model"], step["fate"], step["rule"]

    assert last(exported[0]) == ("training_run", "rm-7", "dropped", "dropped-by-trainer")
    assert last(exported[2]) == ("training_run", "rm-7", "kept", None)
    assert [run.id for run in training_runs(store)] == [commit.id]
    assert training_runs(store, "0" * 64) == []


def test_a_trainer_that_dropped_everything_is_recorded(sample: Path, tmp_path: Path) -> None:
    release = open_store(sample).release()
    dropped = tmp_path / "dropped.txt"
    dropped.write_text("\n".join(release.frame(text=False)["row_id"]))
    commit = record_training_run(release.store, find(release.store, "latest"), "rm-0", dropped=dropped)
    assert commit.content["rows_out"] == commit.snapshot.tables["rows"].rows == 0
    assert sum(entry["rows"] for entry in commit.content["fates"]) == commit.content["rows_in"]


def test_what_cannot_be_recorded_is_one_line_and_leaves_nothing(sample: Path, tmp_path: Path) -> None:
    store = open_store(sample).store
    release = find(store, "latest")
    dropped = tmp_path / "dropped.txt"
    dropped.write_text("\nnobody\n")
    with pytest.raises(FeedbackError, match=r"dropped.txt:2: 'nobody' is no row_id of release"):
        record_training_run(store, release, "rm-7", dropped=dropped)
    with pytest.raises(FeedbackError, match="has no export 'kto'; it has: preferences"):
        record_training_run(store, release, "rm-7", export="kto")
    with pytest.raises(FeedbackError, match="a model has a name"):
        record_training_run(store, release, " ")
    assert training_runs(store) == []


def test_no_model_descends_from_itself(sample: Path) -> None:
    store = open_store(sample).store
    release = find(store, "latest")
    with pytest.raises(FeedbackError, match=r"^--parent rm-7: rm-7 would descend from itself \(rm-7 ← rm-7\); give"):
        record_training_run(store, release, "rm-7 ", parent=" rm-7")
    for model, parent in (("rm-7", "rm-6"), ("rm-8", "rm-7"), ("rm-7", "rm-5")):
        record_training_run(store, release, model, parent=parent)
    for first in ("rm-6", "rm-5"):
        with pytest.raises(FeedbackError, match=rf"itself \({first} ← rm-8 ← rm-7 ← {first}\)"):
            record_training_run(store, release, first, parent="rm-8")
    assert [run.content["model"] for run in training_runs(store)] == ["rm-7", "rm-8", "rm-7"]


def test_an_approval_is_shown_at_the_training_set(sample: Path) -> None:
    project = opened(sample)
    release = find(project.store, "latest")
    said = approve(project.store, folder(release.id), release.id, by="ines", note="read the report")
    observe_approval(project, said)
    with dagster(sample) as instance:
        (record,) = instance.fetch_observations(dg.AssetKey("training_set"), limit=5).records
        assert record.asset_observation is not None
        shown = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert (shown["release"], shown["approved_by"], shown["note"]) == (release.id, "ines", "read the report")
