"""A release from before an edit of policy, guidelines and batches, built again; and one made by other code."""

import shutil
from pathlib import Path

import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize import intake
from feedback_assets.pipeline import STAGES, load_policy
from feedback_assets.provenance.recipe import as_policy
from feedback_assets.provenance.replay import Replay, replay
from feedback_assets.snapshots.store import LocalStore
from feedback_assets_tests.provenance.conftest import history, release_of

POLICIES = Path(__file__).parent.parent / "policies"


def again(folder: Path, number: int, policy_folder: Path | None = None) -> Replay:
    return replay(LocalStore(folder / "store"), release_of(folder, number), policy_folder or folder)


def test_a_release_from_before_the_edits_is_built_again_identically_and_nothing_is_touched(project: Path) -> None:
    before = history(project)
    found = again(project, 1)
    assert found.verdict == "identical"
    assert [stage.stage for stage in found.stages] == [*(stage.name for stage in STAGES), "files"]
    assert {stage.verdict for stage in found.stages} == {"identical"}
    assert not any(stage.code_changed for stage in found.stages)
    assert (found.intake, found.sentence) == ("replayed", "intake was replayed: 12 batches were read again")
    assert found.environment == {}
    assert found.made_at == found.today
    assert history(project) == before
    assert not list((project / "store" / "tmp").iterdir())


def test_without_its_batches_intake_goes_on_from_what_they_became_then_from_the_snapshot(project: Path) -> None:
    shutil.rmtree(project / "batches")
    found = again(project, 1)
    assert (found.verdict, found.intake) == ("identical", "replayed")
    assert found.sentence.endswith("0 batches were read again, 12 taken as they had been mapped: their files are gone")
    shutil.rmtree(project / "store" / "memo")
    found = again(project, 1)
    assert (found.verdict, found.intake) == ("identical", "pinned")
    assert "12 of 12 batches are gone" in found.sentence
    shutil.rmtree(project / "store" / "parts")
    with pytest.raises(FeedbackError, match=r"cannot be replayed: batch .* is gone, and so is the recorded snapshot"):
        again(project, 1)


def test_other_parts_with_the_same_rows_are_logically_identical(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PART_ROWS", 300)
    found = again(project, 1)
    assert found.verdict == "logically identical"
    assert {stage.verdict for stage in found.stages} == {"identical", "logically identical"}
    assert next(stage for stage in found.stages if stage.stage == "files").verdict == "identical"


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recorded_policy_means_the_same_when_it_is_read_again(path: Path) -> None:
    policy = load_policy(path).policy
    assert as_policy(policy.pinned()) == policy


def test_a_recorded_policy_that_today_means_something_else_is_refused() -> None:
    pinned = load_policy(sorted(POLICIES.glob("*.yaml"))[0]).policy.pinned()
    del pinned["deduplicated"]["eval_share"]
    with pytest.raises(FeedbackError, match=r"deduplicated.eval_share: recorded is absent, today's code reads 0"):
        as_policy(pinned)
    with pytest.raises(FeedbackError, match=r"deduplicated.magic: Extra inputs are not permitted"):
        as_policy({**pinned, "deduplicated": {"magic": 1}})
