"""A release that edited code made, questioned by this code: who is to blame is said, and nothing is blamed in vain."""

from pathlib import Path

from feedback_assets.provenance.bisect import bisect
from feedback_assets.provenance.differences import diff
from feedback_assets.provenance.replay import replay
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.conftest import release_of


def test_diff_names_the_stage_whose_code_was_edited(by_other_code: Path) -> None:
    store = LocalStore(by_other_code / "store")
    found = diff(store, release_of(by_other_code, 1), release_of(by_other_code, 2))
    told = [cause["id"] for cause in found["causes"] if cause["kind"] != "environment"]
    assert told == ["reweighted.factors/confidence", "code of reweighted"]
    assert [stage["same"] for stage in found["stages"]] == [True] * 6 + [False] * 3
    weights = [entry for entry in found["rows"]["moved"] if entry["stage"] == "reweighted"]
    assert [(entry["was"], entry["cause"]) for entry in weights] == [("by w_confidence", "code of reweighted")]


def test_replay_names_the_stages_whose_code_has_changed_and_the_first_that_differs(by_other_code: Path) -> None:
    store = LocalStore(by_other_code / "store")
    found = replay(store, release_of(by_other_code, 2), by_other_code)
    assert found.verdict == "different"
    assert found.first is not None
    assert found.first.stage == "reweighted"
    assert found.first.note is not None
    assert found.first.note.startswith("weight differs in ")
    assert [stage.stage for stage in found.stages if stage.code_changed] == ["reweighted"]
    assert replay(store, release_of(by_other_code, 1), by_other_code).verdict == "identical"


def test_bisect_names_code_where_only_code_remains(by_other_code: Path) -> None:
    releases = release_of(by_other_code, 1), release_of(by_other_code, 2)
    found = bisect(LocalStore(by_other_code / "store"), releases, "effective-sample-size", folder=by_other_code)
    assert list(found.found) == []
    assert found.bad["recorded"] != found.bad["rebuilt"] == found.good["rebuilt"]
    assert found.sentence is not None
    assert "but today's code gives" in found.sentence
    assert "code of reweighted" in found.sentence
