"""A release's manifest answers alone: whole, held to its schema, and questioned where all else is gone."""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from feedback_assets import open_store
from feedback_assets.digests import canonical_json, digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.environment import environment, unpinned
from feedback_assets.provenance.manifest import Circumstances, CommitContent, Content, schema, validate
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, _with_row_ids

OPEN = {"policy", "facts", "kwargs", "observed", "trainer"}
"""What people, stages and checks name by themselves."""
BY_NAME = {
    *("commits", "inputs", "tables", "environment", "arrived", "effective_sample_size", "distribution", "expected"),
    *("shares", "quantiles", "records", "lost", "allowed", "splits", "left_out", "by"),
}
"""Mappings from names: of assets, of columns, of values."""


def levels(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every mapping of a manifest whose keys are ours, with the way to it; what is named on the way is "*"."""
    if isinstance(value, list):
        for entry in value:
            yield from levels(entry, path)
    elif isinstance(value, dict) and not (path and path[-1] in OPEN):
        named = bool(path) and path[-1] in BY_NAME
        if not named and path[-2:] != ("expected", "*"):
            yield path, value
        for key, entry in value.items():
            yield from levels(entry, (*path, "*" if named else key))


@pytest.fixture(scope="module")
def manifest(sample_run: Path) -> dict[str, Any]:
    (path,) = (sample_run / "store" / "releases").glob("*/manifest.json")
    return json.loads(path.read_text())


def changed(manifest: dict[str, Any], edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Release:
    """The release that the manifest would tell of, had things been otherwise."""
    value = json.loads(json.dumps(manifest))
    edit(value["content"], value["circumstances"])
    value["id"] = digest(value["content"])
    return Release.from_json(value, "edited")


def test_a_manifest_is_canonical_json_and_its_id_the_digest_of_its_content(sample_run: Path) -> None:
    (path,) = (sample_run / "store" / "releases").glob("*/manifest.json")
    value = json.loads(path.read_bytes())
    assert path.read_bytes() == canonical_json(value)
    assert value["id"] == digest(value["content"])


@pytest.mark.parametrize("category", ["chat", "@1", '","row_ids":"@0', {"row_ids": "@0"}, {"row_ids": 0}])
def test_row_ids_are_written_where_they_stand_whatever_else_is_said(category: Any) -> None:
    groups = [
        {"batch": str(place), "row_ids": packed, "task": category} for place, packed in enumerate(("AA==", "/+8="))
    ]
    content = {"annotations": {"groups": groups, "records": 3}, "policy": {"value": category}}
    assert _with_row_ids(content) == canonical_json(content)


def test_the_schema_that_ships_is_the_one_of_the_code_and_the_manifest_fits_it(manifest: dict[str, Any]) -> None:
    shipped = json.loads(files("feedback_assets.provenance").joinpath("manifest.schema.json").read_text())
    assert shipped == json.loads(json.dumps(schema())), "write it anew: feedback_assets.provenance.manifest.schema()"
    jsonschema.Draft202012Validator.check_schema(shipped)
    jsonschema.validate(manifest, shipped)


def test_the_schema_knows_every_key_of_a_manifest(manifest: dict[str, Any]) -> None:
    assert set(manifest["content"]) == set(Content.model_fields)
    assert set(manifest["circumstances"]) == set(Circumstances.model_fields)
    for commit in manifest["content"]["commits"].values():
        assert set(commit) == set(CommitContent.model_fields)


def test_a_key_that_nobody_declared_is_refused_at_every_level_where_the_keys_are_ours(two_releases: Path) -> None:
    value = json.loads(json.dumps(open_store(two_releases).release("latest").manifest))
    seen = dict(levels(value))
    assert {
        (),
        ("content", "commits", "*", "drift", "cells"),
        ("content", "commits", "*", "checks", "definition"),
        ("content", "exports", "predicted_drops"),
        ("circumstances", "commits", "*", "snapshot", "tables", "*", "parts", "files"),
        ("circumstances", "commits", "*", "against_previous", "columns"),
    } <= seen.keys()
    for level in seen.values():
        level["unheard-of"] = 1
        with pytest.raises(FeedbackError, match=r"unheard-of: unknown key; not a release manifest"):
            validate(value, "here")
        del level["unheard-of"]
    validate(value, "here")
    closed = [entry for entry in schema()["$defs"].values() if "properties" in entry]
    assert all(entry["additionalProperties"] is False for entry in [schema(), *closed])


@pytest.mark.parametrize("key", ["gate", "waivers", "annotations", "commits", "expected"])
def test_a_manifest_that_lacks_a_part_is_refused_in_one_line(manifest: dict[str, Any], key: str) -> None:
    value = json.loads(json.dumps(manifest))
    del value["content"][key]
    with pytest.raises(FeedbackError, match=rf"^here: content\.{key}: field required; not a release manifest"):
        validate(value, "here")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema())


def test_the_chain_can_be_followed_inside_the_manifest(manifest: dict[str, Any]) -> None:
    commits = manifest["content"]["commits"]
    assert manifest["id"] == digest(manifest["content"])
    for commit in commits.values():
        for asset, read in commit["inputs"].items():
            assert read == {"commit": digest(commits[asset]), "data_version": commits[asset]["data_version"]}


def test_each_guideline_says_how_many_records_stand_under_it_and_how_that_is_known(manifest: dict[str, Any]) -> None:
    annotations = manifest["content"]["annotations"]
    texts = {entry["digest"] for entry in manifest["content"]["guidelines"]}
    assert {entry["guideline_digest"] for entry in annotations["by_guideline"]} <= texts
    counted = sum(sum(entry["records"].values()) for entry in annotations["by_guideline"])
    assert counted == annotations["records"] > 0


def test_the_environment_holds_every_installed_distribution_and_no_two_machines_need_agree_for_one_id(
    manifest: dict[str, Any],
) -> None:
    recorded = manifest["circumstances"]["environment"]
    assert recorded == environment()
    assert {"python", "platform", "feedback-assets", "polars", "typer", "pydantic-core"} <= recorded.keys()
    assert "environment" not in json.dumps(manifest["content"]["commits"])


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({"python": "CPython 3.11.7", "feedback-assets": "0.1.0", "polars": "2.1.0"}, []),
        ({}, ["the environment was not recorded"]),
        (
            {"python": "3", "feedback-assets": "0.1.0", "mine": "0.1 @ file:///home/me/mine", "odd": "unknown"},
            ["mine came from 0.1 @ file:///home/me/mine", "the version of odd is not known"],
        ),
        ({"python": "3", "feedback-assets": "0.1.0", "theirs": "1 @ git+https://host/theirs@0123abc"}, []),
    ],
)
def test_what_nobody_could_install_again_is_not_pinned(recorded: dict[str, str], said: list[str]) -> None:
    assert unpinned(recorded) == said


def test_the_release_of_the_sample_is_complete(manifest: dict[str, Any]) -> None:
    answered = questions(Release.from_json(manifest, "sample"))
    assert answered["complete"]
    assert answered["distribution"]["matches"]
    assert answered["distribution"]["verdict"].startswith("yes: all 12 columns")


def _unguided(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
    group = content["annotations"]["groups"][0]
    group["guideline"] = group["guideline_digest"] = None
    group["guideline_status"] = "unmatched"


def _undeclared(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
    del content["expected"]["language"]
    held = content["commits"]["training_set"]["baseline"]
    held[:] = [entry for entry in held if entry["column"] != "language"]


def _too_few(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
    content["commits"]["training_set"]["baseline"][0]["verdict"] = "inconclusive"


def _not_computed(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
    held = content["commits"]["training_set"]["baseline"]
    told = ("column", "kind", "warning", "held", "because", "fallen", "adjusted", "clusters", "limits")
    held[0] = {key: held[0][key] for key in told} | {"verdict": "error", "problem": "the data has it numeric"}


def _unpinned(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
    circumstances["commits"]["filtered"]["environment"]["polars"] = "unknown"


@pytest.mark.parametrize(
    ("edit", "answer", "said"),
    [
        (_unguided, "annotations", "guideline unknown: none in force by date, and none declared"),
        (_undeclared, "distribution", "nobody declared what language should look like"),
        (_too_few, "distribution", "category: there is too little data to tell"),
        (_not_computed, "distribution", "category: it could not be computed"),
        (_unpinned, "transformations", "filtered: the version of polars is not known"),
    ],
)
def test_what_cannot_be_answered_is_said(manifest: dict[str, Any], edit: Any, answer: str, said: str) -> None:
    answered = questions(changed(manifest, edit))
    assert not answered["complete"]
    assert [name for name in ("annotations", "transformations", "distribution") if answered[name]["incomplete"]] == [
        answer
    ]
    (sentence,) = answered[answer]["incomplete"]
    assert said in sentence
    assert answered[answer]["verdict"].endswith("; 1 thing not answered")


def test_a_stage_that_ran_elsewhere_is_told(manifest: dict[str, Any]) -> None:
    def elsewhere(content: dict[str, Any], circumstances: dict[str, Any]) -> None:
        circumstances["commits"]["filtered"]["environment"]["polars"] = "1.9.0"

    answered = questions(changed(manifest, elsewhere))
    assert answered["complete"]
    assert answered["transformations"]["other_environments"] == {"filtered": {"polars": "1.9.0"}}


def test_a_release_is_questioned_from_python_with_parts_and_dagster_gone(sample: Path) -> None:
    release = open_store(sample).release("latest")
    before, whole = release.questions(), release.frame()
    for gone in ("parts", "dagster", "commits", "memo"):
        shutil.rmtree(sample / "store" / gone)
    again = open_store(sample / "store").release(release.id[:9])
    assert again.questions() == before
    assert again.frame(text=False).equals(whole.drop("prompt", "response_a", "response_b"))
    with pytest.raises(FeedbackError, match=r"frame\(text=False\)"):
        again.frame()


def test_the_frame_has_the_texts_the_weights_and_the_splits_that_the_trainer_gets(sample_run: Path) -> None:
    import polars as pl

    release = open_store(sample_run / "policy.yaml").release()
    frame = release.frame()
    assert frame.columns[:4] == ["row_id", "split", "training_weight", "copies"]
    assert frame.height == release.manifest["content"]["annotations"]["records"]
    folder = sample_run / "store" / "releases" / release.id[:16] / "preferences"
    for split in ("train", "eval"):
        exported = pl.read_parquet(sorted((folder / split).glob("*.parquet"))).with_columns(
            pl.col("chosen", "rejected").list.first().struct.field("content").name.keep()
        )
        weights = pl.read_parquet(sorted((folder / f"weights-{split}").iterdir()))
        mine = exported.select("row_id").join(frame, on="row_id", how="left", maintain_order="left")
        assert mine.select("row_id", weight="training_weight").equals(weights)
        first = pl.when(label="a")
        assert mine.select(
            chosen=first.then("response_a").otherwise("response_b"),
            rejected=first.then("response_b").otherwise("response_a"),
        ).equals(exported.select("chosen", "rejected"))
        assert set(mine["split"]) == {split}
