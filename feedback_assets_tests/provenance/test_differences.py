"""Two releases beside each other: causes first, then what they did, also when only the manifests are left."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feedback_assets import open_store
from feedback_assets.cli.diff import show_diff
from feedback_assets.provenance.changes import changes, hybrid, tree_of
from feedback_assets.provenance.differences import diff
from feedback_assets.provenance.effects import cause_of
from feedback_assets.provenance.recipe import Recipe, recipe
from feedback_assets.provenance.release import annotations_of
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.conftest import FLIPPED, history, release_of
from feedback_assets_tests.provenance.votes import Votes, vote

CAUSES = [f"batch arena/{FLIPPED}", "guideline helpfulness 1.1.0", "filtered.rules/no-guideline"]


def compare(folder: Path) -> dict[str, Any]:
    store = LocalStore(folder / "store")
    return json.loads(json.dumps(diff(store, release_of(folder, 1), release_of(folder, 2)), allow_nan=False))


def test_causes_come_first_each_as_a_diff_then_effects_with_what_did_them(project: Path) -> None:
    before = history(project)
    found = compare(project)
    assert [cause["id"] for cause in found["causes"]] == CAUSES
    assert [cause["what"] for cause in found["causes"]] == ["added", "changed", "added"]
    assert found["causes"][1]["lines"][:2] == [
        "- effective_from: 2026-08-12T00:00:00.000000+00:00",
        "+ effective_from: 2026-08-20T00:00:00.000000+00:00",
    ]
    stages = {stage["stage"]: stage for stage in found["stages"]}
    (rule,) = (fate for fate in stages["filtered"]["fates"] if fate["rule"] == "no-guideline")
    assert (rule["before"], rule["rule_version"]) == (0, 1)
    drift = {entry["column"]: entry for entry in stages["guideline_joined"]["drift"]}
    assert drift["guideline"]["psi"] > 0.1 > drift["language"]["psi"]
    assert drift["response_chars"]["ks"] is not None
    store = LocalStore(project / "store")
    index = [annotations_of(store, release_of(project, number)).collect() for number in (1, 2)]
    came = index[1].join(index[0], on="row_id", how="anti")
    both = index[0].join(index[1], on="row_id", suffix="_after")
    rows = found["rows"]
    assert rows["came"] == came.height == came.filter(pl.col("batch") == FLIPPED).height
    assert rows["changed_weight"] == both.filter(pl.col("training_weight") != pl.col("training_weight_after")).height
    moved = {(entry["what"], entry["became"]): entry for entry in rows["moved"]}
    assert moved["came", f"in arena/{FLIPPED}"]["rows"] == came.height
    assert moved["came", f"in arena/{FLIPPED}"]["cause"] == CAUSES[0]
    gone = moved["went", "dropped: no-guideline v1"]
    assert (gone["rows"], gone["cause"]) == (rule["after"], CAUSES[2])
    assert sum(entry["rows"] for entry in rows["moved"] if entry["what"] == "went") == rows["went"]
    assert found["untold"] == []
    opened = open_store(project)
    assert json.loads(json.dumps(opened.release("1").diff(opened.release("2")))) == found
    assert history(project) == before


def test_what_the_manifests_hold_is_told_when_the_parts_are_gone(project: Path) -> None:
    whole = compare(project)
    shutil.rmtree(project / "store" / "parts")
    found = compare(project)
    assert found["causes"] == whole["causes"]
    assert {key: found["rows"][key] for key in ("came", "went")} == {
        key: whole["rows"][key] for key in ("came", "went")
    }
    assert found["rows"]["moved"] is None
    category = [
        next(entry for entry in told["stages"][-1]["drift"] if entry["column"] == "category") for told in (found, whole)
    ]
    assert abs(category[0]["psi"] - category[1]["psi"]) < 1e-6
    assert (
        "what each record that came, went or changed weight owes that to: parts of a release are gone"
        in found["untold"]
    )
    assert "how the distributions of filtered differ: parts of it are gone" in found["untold"]


def test_a_release_differs_from_itself_in_nothing(project: Path) -> None:
    store = LocalStore(project / "store")
    found = diff(store, release_of(project, 1), release_of(project, 1))
    assert found["causes"] == []
    assert all(stage["same"] for stage in found["stages"])
    assert (found["rows"]["came"], found["rows"]["went"], found["rows"]["changed_weight"]) == (0, 0, 0)


def test_with_all_changes_a_hybrid_is_the_other_release(project: Path) -> None:
    store = LocalStore(project / "store")
    before, after = (recipe(store, release_of(project, number)) for number in (1, 2))
    found = changes(before, after)
    assert tree_of(hybrid(before, after, found)) == tree_of(after)
    assert tree_of(hybrid(before, after, [])) == tree_of(before)
    assert hybrid(before, after, found).arrivals == after.arrivals


def test_a_batch_that_came_again_with_other_bytes_was_not_added(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    votes = Votes(tmp_path / "votes")
    lines = [vote(f"v{n}", f"ann-{n}", f"matter {n}") for n in range(5)]
    votes.put("week-1.jsonl", *lines)
    first = votes.run()
    votes.put("week-1.jsonl", *lines[:3], *(line | {"choice": "two"} for line in lines[3:]), vote("v5", "eve", "x"))
    votes.put("week-2.jsonl", vote("w0", "bob", "weather"))
    second = votes.run()
    store = LocalStore(votes.folder / "store")
    found = diff(store, first, second)
    again, added = found["causes"]
    assert (again["id"], again["what"]) == ("batch votes/week-1.jsonl", "delivered again")
    assert again["rows"] == {"revised": 2, "new": 1, "unchanged": 3}
    assert (added["id"], added["what"], "rows" in added) == ("batch votes/week-2.jsonl", "added", False)
    assert [cause["what"] for cause in diff(store, second, first)["causes"]] == ["delivery removed", "removed"]
    show_diff(found)
    assert "batch votes/week-1.jsonl  delivered again: 2 revised, 1 new, 3 unchanged" in capfd.readouterr().out
    shutil.rmtree(votes.folder / "store" / "parts")
    assert [cause["what"] for cause in diff(store, first, second)["causes"]] == ["delivered again", "added"]


def _version(version: str, start: str, end: str | None, text: str = "as it was", **more: Any) -> dict[str, Any]:
    told = {"task": "tone", "aspect": None, "version": version, "effective_from": start, "effective_to": end}
    digest = f"{start} {end} {text}"
    return {**told, "supersedes": None, "note": None, "digest": digest, "text": text, **more}


def _with(*guidelines: dict[str, Any]) -> Recipe:
    return Recipe({}, guidelines, {}, {}, {}, {})


def test_a_boundary_between_two_guideline_versions_is_one_change_and_each_edited_text_another() -> None:
    before = _with(_version("1.0.0", "01", "03"), _version("1.1.0", "03", "05"), _version("2.0.0", "05", None))
    after = _with(
        _version("1.0.0", "01", "04", "other"), _version("1.1.0", "04", "05", "other"), _version("2.0.0", "05", None)
    )
    boundary, *texts = changes(before, after)
    assert (boundary.id, boundary.what) == ("guideline tone 1.0.0, 1.1.0", "changed")
    assert boundary.lines() == [
        "- 1.0.0: effective_to: 03",
        "+ 1.0.0: effective_to: 04",
        "- 1.1.0: effective_from: 03",
        "+ 1.1.0: effective_from: 04",
    ]
    assert [change.id for change in texts] == ["text of guideline tone 1.0.0", "text of guideline tone 1.1.0"]
    moved = hybrid(before, after, [boundary]).guidelines
    assert [(entry["effective_from"], entry["effective_to"]) for entry in moved] == [
        ("01", "04"),
        ("04", "05"),
        ("05", None),
    ]
    assert {entry["text"] for entry in moved} == {"as it was"}
    assert hybrid(before, after, [boundary, *texts]).guidelines == [*after.guidelines]


def test_a_new_guideline_version_goes_with_the_end_of_the_one_before_and_with_no_other() -> None:
    aspect = {"aspect": "warmth"}
    first = _version("1.0.0", "01", None)
    before = _with(first, _version("1.0.0", "02", None, **aspect))
    after = _with(_version("1.0.0", "01", "03"), _version("1.1.0", "03", None), _version("1.0.0", "01", None, **aspect))
    found = {change.id: change for change in changes(before, after)}
    assert [*found] == ["guideline tone 1.0.0, 1.1.0", "guideline tone warmth 1.0.0"]
    assert hybrid(before, after, [found["guideline tone warmth 1.0.0"]]).guidelines == [first, after.guidelines[2]]
    assert [(change.id, change.what) for change in changes(_with(), before)] == [
        ("guideline tone 1.0.0", "added"),
        ("guideline tone warmth 1.0.0", "added"),
    ]
    (ended,) = changes(_with(first), _with(_version("1.0.0", "01", "03")))
    assert ended.id == "guideline tone 1.0.0"
    assert ended.lines()[:2] == ["- effective_to: null", "+ effective_to: 03"]


def _recipe(factor: dict[str, Any], code: str) -> Recipe:
    return Recipe({}, [], {"reweighted": {"factors": [factor]}}, {"reweighted": code}, {"reweighted": code}, {})


def test_a_pair_is_owed_to_the_conversion_that_made_it() -> None:
    def converted(least: float) -> Recipe:
        conversion = {"id": "by-score", "version": 1, "reason": "why", "least_margin": least}
        rules = [{"id": "fast", "version": 1, "reason": "why", "drop_when": str(least)}]
        return Recipe({}, [], {"converted": {"conversions": [conversion]}, "filtered": {"rules": rules}}, {}, {}, {})

    found = changes(converted(0.1), converted(0.2))
    assert [change.id for change in found] == ["converted.conversions/by-score", "filtered.rules/fast"]
    assert cause_of("converted", "by-score", found) == "converted.conversions/by-score"


@pytest.mark.parametrize(
    ("factor", "code", "cause"),
    [
        ({"reason": "said otherwise"}, "2", "code of reweighted"),
        ({"floor": 0.5}, "1", "reweighted.factors/strength"),
        ({"floor": 0.5}, "2", None),
        ({"id": "other"}, "2", "reweighted.factors/strength"),
    ],
)
def test_a_weight_is_owed_to_what_can_have_moved_it(factor: dict[str, Any], code: str, cause: str | None) -> None:
    strength = {"id": "strength", "version": 1, "reason": "a sure answer says more", "floor": 0.2}
    found = changes(_recipe(strength, "1"), _recipe({**strength, **factor}, code))
    assert cause_of("reweighted", "strength", found) == cause
