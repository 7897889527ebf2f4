"""Three things changed at once: which of them moved a metric, and what carries it."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from feedback_assets.cli.main import main
from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.bisect import Bisected, bisect
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.conftest import FLIPPED, history, release_of

BATCH = f"batch arena/{FLIPPED}"
GUIDELINE, RULE = "guideline helpfulness 1.1.0", "filtered.rules/no-guideline"
THUMBS = "SUM(CASE WHEN kind = 'thumbs' THEN 1 ELSE 0 END)"


def search(folder: Path, metric: str, threshold: float | None = None, good: int = 1, bad: int = 2) -> Bisected:
    releases = release_of(folder, good), release_of(folder, bad)
    return bisect(LocalStore(folder / "store"), releases, metric, threshold=threshold, folder=folder)


def ids(found: Bisected) -> list[str]:
    return [change.id for change in found.found]


def test_the_batch_with_flipped_labels_moved_the_share_of_longer_responses(project: Path) -> None:
    before = history(project)
    found = search(project, "chosen-longer")
    assert [change.id for change in found.candidates] == [BATCH, GUIDELINE, RULE]
    assert ids(found) == [BATCH]
    assert found.good["recorded"] == found.good["rebuilt"]
    assert found.bad["recorded"] == found.bad["rebuilt"]
    assert found.carriers is not None
    assert found.carriers.stage == "ingested"
    batches = [segment for segment in found.carriers.segments if segment.column == "batch"]
    assert batches[0].value == FLIPPED
    assert batches[0].share is not None
    assert batches[0].share > 0.5
    assert history(project) == before


def test_a_rule_and_a_date_that_act_only_together_are_both_found(project: Path) -> None:
    found = search(project, THUMBS)
    assert ids(found) == [GUIDELINE, RULE]
    assert found.carriers is not None
    assert found.carriers.stage == "filtered"
    (went,) = (moved for moved in found.carriers.moved if moved.what == "went" and moved.stage == "filtered")
    assert (went.was, went.became, went.cause) == ("kept", "dropped: no-guideline v1", RULE)
    assert found.good["rebuilt"] is not None
    assert found.value == found.good["rebuilt"] - went.rows
    alone = {trial.changes: trial.outcome for trial in found.trials}
    assert {alone[(GUIDELINE,)], alone[(RULE,)]} == {"good"}


def test_a_second_search_says_the_same_from_what_was_remembered_or_anew(project: Path) -> None:
    def told(found: Bisected) -> object:
        trials = [(trial.changes, trial.value, trial.outcome) for trial in found.trials]
        return trials, ids(found), found.value, dataclasses.astuple(found.carriers) if found.carriers else None

    first = told(search(project, "effective-sample-size"))
    assert told(search(project, "effective-sample-size")) == first
    shutil.rmtree(project / "store" / "hybrids")
    assert told(search(project, "effective-sample-size")) == first


def test_a_batch_whose_file_is_gone_is_taken_as_it_was_mapped(project: Path) -> None:
    shutil.rmtree(project / "batches")
    assert ids(search(project, "chosen-longer")) == [BATCH]


def test_a_metric_that_did_not_move_has_nothing_to_find(project: Path) -> None:
    found = search(project, "MAX(score)")
    assert ids(found) == []
    assert found.sentence == "MAX(score) is 5 in both releases: nothing moved it"


def test_a_threshold_that_does_not_lie_between_is_refused(project: Path) -> None:
    with pytest.raises(FeedbackError, match="--threshold 7 does not lie between"):
        search(project, "chosen-longer", threshold=7)


def test_what_cannot_be_built_is_unresolved_and_the_search_goes_on(project: Path) -> None:
    """A target over the column of a factor, which is not there without the factor."""
    good = release_of(project, 1)
    policy = json.loads(json.dumps(good.content["policy"]))
    about = {"id": "tone", "version": 1, "reason": "why"}
    policy["reweighted"]["factors"].append({**about, "kind": "origin_discount", "origins": {"model:birch-*": 0.5}})
    policy["upsampled"]["targets"].append({**about, "column": "w_tone", "shares": {"0.5": 0.9}, "max_copies": 30})
    bad = dataclasses.replace(good, content={**good.content, "policy": policy})
    found = bisect(LocalStore(project / "store"), (good, bad), "SUM(copies)", folder=project)
    assert ids(found) == ["reweighted.factors/tone", "upsampled.targets/tone"]
    (alone,) = (trial for trial in found.trials if trial.changes == ("upsampled.targets/tone",))
    assert alone.outcome == "unresolved"
    assert alone.problem is not None
    assert "there is no column 'w_tone'" in alone.problem


def test_a_boundary_between_guidelines_moves_as_one_and_no_record_falls_into_a_gap(project: Path) -> None:
    good = release_of(project, 1)
    guidelines = json.loads(json.dumps(good.content["guidelines"]))
    guidelines[0]["effective_to"] = guidelines[1]["effective_from"] = "2026-08-20T00:00:00.000000+00:00"
    bad = dataclasses.replace(good, content={**good.content, "guidelines": guidelines})
    found = bisect(LocalStore(project / "store"), (good, bad), "SUM(CASE WHEN guideline = '1.0.0' THEN 1 ELSE 0 END)")
    assert ids(found) == ["guideline helpfulness 1.0.0, 1.1.0"]
    gap = bisect(LocalStore(project / "store"), (good, bad), "SUM(CASE WHEN guideline IS NULL THEN 1 ELSE 0 END)")
    assert gap.sentence is not None
    assert gap.sentence.endswith("in both releases: nothing moved it")


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["feedback-assets", *map(str, words)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capfd.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, said.out, said.err


def test_on_the_command_line(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("bisect", "--good", "1", "--bad", "latest", "--policy", project)
    code, out, err = call(monkeypatch, capfd, *words, "--metric", THUMBS)
    assert (code, err) == (0, "")
    for said in ("These changes together move it", GUIDELINE, RULE, "+ effective_from: 2026-08-20", "filtered"):
        assert said in out
    code, out, _ = call(monkeypatch, capfd, *words, "--metric", "MAX(score)", "--json")
    told = json.loads(out)
    assert (code, told["found"], told["builds"]) == (1, [], 2)
    assert told["candidates"] == [BATCH, GUIDELINE, RULE]
    (project / "mine.py").write_text("def m(frame): return frame.height\n")
    monkeypatch.syspath_prepend(str(project))
    assert call(monkeypatch, capfd, *words, "--metric", "mine:m")[1].startswith("mine:m: ")  # and no picture of an m
    code, out, err = call(monkeypatch, capfd, *words, "--metric", "SUM(nowhere)")
    assert (code, out) == (2, "")
    assert err.startswith("feedback-assets: --metric SUM(nowhere): ")
    assert call(monkeypatch, capfd, "bisect", "--good", "1", "--policy", project)[0] == 2
