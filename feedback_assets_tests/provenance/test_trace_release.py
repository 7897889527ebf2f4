"""From an annotation to the release and back, also when only the release's own files are left."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from feedback_assets import open_store
from feedback_assets.cli.tables import show_example
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import upstream
from feedback_assets.provenance.release import Release
from feedback_assets.provenance.release import release as make
from feedback_assets.provenance.trace import trace


def rebuilt(folder: Path, first: str) -> Release:
    """The release under the policy as it is now; every stage from `first` on is made again."""
    project = Project.open(folder / "policy.yaml", folder / "store")
    for asset in upstream("training_set"):
        if asset == first or first in upstream(asset):
            materialize(project, asset, run_id="rebuilt")
    _, made = make(project, run_id="rebuilt")
    assert made is not None
    return made


def test_a_release_tells_the_same_of_an_annotation_as_the_latest_materializations(sample_run: Path) -> None:
    project = Project.open(sample_run / "policy.yaml", sample_run / "store")
    release = open_store(sample_run).release()
    (now,) = trace(project, "ar-000100")
    (then,) = release.trace("ar-000100")
    assert {key: then[key] for key in now} == now
    assert (then["release"], then["told_by"]) == (release.id, "snapshots")
    assert then["guideline"]["text"].startswith("# Helpfulness")
    assert then["guideline"]["digest"] == now["steps"][0]["added"]["guideline_digest"]


def test_a_later_run_changes_nothing_of_what_an_earlier_release_tells(sample: Path) -> None:
    before = open_store(sample).release("1").trace("ar-000100")
    path = sample / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    rule = {"id": "one-more", "version": 1, "reason": "a test", "drop_when": "feedback_id = 'ar-000100'"}
    policy["filtered"]["rules"].append(rule)
    path.write_text(yaml.safe_dump(policy, sort_keys=False))
    second = rebuilt(sample, "filtered")
    store = open_store(sample)
    assert store.release("1").trace("ar-000100") == before
    (gone,) = store.release("2").trace("ar-000100")
    assert (gone["steps"][-1]["fate"], gone["steps"][-1]["rule"], gone["in_release"]) == ("dropped", "one-more", False)
    everywhere = store.trace("ar-000100")
    assert {name: found[0]["in_release"] for name, found in everywhere.items()} == {
        store.release("1").id: True,
        second.id: False,
    }


def test_every_example_of_a_split_leads_to_the_line_it_was_made_of(sample_run: Path) -> None:
    release = open_store(sample_run).release()
    folder = sample_run / "store" / "releases" / release.id[:16] / "preferences" / "eval"
    exported = pl.read_parquet(sorted(folder.glob("*.parquet")))
    for number in (0, exported.height // 2, exported.height - 1):
        found = release.trace_example(number, split="eval")
        annotation = found["annotation"]
        assert annotation["row_id"] == exported["row_id"][number]
        record = annotation["record"]
        line = (sample_run / "batches" / record["batch"]).read_text().splitlines()[record["line"] - 1]
        assert f'"{record["feedback_id"]}"' in line
        assert f'"{record["annotator_id"]}"' in line
        own = pl.read_parquet(folder.parent.parent / found["file"])
        assert own["row_id"][found["line"] - 1] == annotation["row_id"]


def test_a_copy_in_a_jsonl_file_leads_to_its_original_and_says_which_copy_it_is(
    sample: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = sample / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["reweighted"]["factors"] = []
    policy["monitoring"]["expect"] = {}
    policy["training_set"] = {"realise": "copies", "exports": [{"name": "plain", "file": "jsonl"}]}
    path.write_text(yaml.safe_dump(policy, sort_keys=False))
    made = rebuilt(sample, "reweighted")
    release = open_store(sample).release(made.id)
    folder = sample / "store" / "releases" / made.id[:16] / "plain" / "train"
    row_ids = pl.concat([pl.read_ndjson(file).select("row_id") for file in sorted(folder.glob("*.jsonl"))])["row_id"]
    copied = next(place for place in range(1, len(row_ids)) if row_ids[place] == row_ids[place - 1])
    example = release.trace_example(copied)
    found = example["annotation"]
    assert found["row_id"] == row_ids[copied]
    step = next(step for step in found["steps"] if step["stage"] == "upsampled")
    assert (step["fate"], step["copies"]) == ("copied", example["copies"])
    told = pl.concat(pl.read_ndjson(file) for file in sorted((folder.parent / "provenance-train").iterdir()))
    assert example["copy_index"] == told["copy_index"][copied] == 1
    show_example(example)
    assert f"line {example['line']}, copy_index 1 of {step['copies']} copies)" in capfd.readouterr().out


def test_what_does_not_exist_is_said(sample_run: Path) -> None:
    release = open_store(sample_run).release()
    with pytest.raises(FeedbackError, match=r"no example 1000000: preferences/train has \d+, counted from 0 to \d+"):
        release.trace_example(1_000_000)
    with pytest.raises(FeedbackError, match="no example -1"):
        release.trace_example(-1)
    with pytest.raises(FeedbackError, match="has no split 'test' of an export 'preferences'; exports: preferences"):
        release.trace_example(0, split="test")
    with pytest.raises(FeedbackError, match="no annotation 'nobody'"):
        release.trace("nobody")


def test_with_the_parts_gone_the_files_of_the_release_tell_and_then_the_manifest(sample: Path) -> None:
    release = open_store(sample).release()
    whole = release.trace_example(5)["annotation"]
    row_id, record = whole["row_id"], whole["record"]
    for gone in ("parts", "dagster", "commits", "memo"):
        shutil.rmtree(sample / "store" / gone)
    for name in (row_id, record["feedback_id"], f"{record['batch']}:{record['line']}"):
        (entry,) = release.trace(name)
        assert (entry["row_id"], entry["told_by"], entry["in_release"]) == (row_id, "annotations", True)
        assert entry["guideline"] == whole["guideline"]
        assert entry["record"].items() <= record.items()
    assert release.trace_example(5)["annotation"]["deliveries"][0]["line"] == record["line"]
    (sample / "store" / "releases" / release.id[:16] / "annotations" / "part-00000.parquet").unlink()
    for name in (row_id, record["feedback_id"]):
        (entry,) = release.trace(name)
        assert (entry["row_id"], entry["told_by"]) == (row_id, "manifest")
        assert entry["deliveries"][0]["batch"] == record["batch"]
        assert entry["guideline"] == whole["guideline"]
    with pytest.raises(FeedbackError, match="the parts, which tell what was left out, are gone"):
        release.trace("nobody")


def test_a_release_made_again_is_one_release(sample: Path) -> None:
    project = Project.open(sample / "policy.yaml", sample / "store")
    store = open_store(sample)
    assert make(project, run_id="again")[1] is not None
    assert store.releases()["id"].n_unique() == 1
    assert list(store.trace("ar-000100")) == [store.release("1").id]
