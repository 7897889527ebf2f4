"""The baseline can be the release that people approved; which one that was is pinned in what is made against it."""

from pathlib import Path

import pytest
import yaml

from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.names import approve, tag
from feedback_assets.provenance.release import Release, folder
from feedback_assets_tests.provenance.votes import Votes, vote


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    votes = Votes(tmp_path)
    votes.put("1.jsonl", *(vote(f"a{n}", "ann", f"Tea {n}", "one" if n % 4 else "tie") for n in range(600)))
    return votes


def baseline(votes: Votes, named: str) -> None:
    path = votes.folder / "policy.yaml"
    policy = yaml.safe_load(path.read_text()) | {"monitoring": {"baseline": {"release": named}}}
    path.write_text(yaml.safe_dump(policy))


def expected(made: Release) -> object:
    return made.content["policy"]["monitoring"]["baseline"]


def test_the_approved_release_is_the_baseline_from_its_approval_on(votes: Votes) -> None:
    baseline(votes, "approved")
    first = votes.run()
    assert expected(first) is None
    approve(votes.project.store, folder(first.id), first.id, by="ines", note="read the report")
    votes.put("2.jsonl", *(vote(f"b{n}", "ben", f"Rye {n}", "one" if n % 4 else "tie") for n in range(60)))
    second = votes.run()
    assert expected(second) == {"release": first.id}
    held = {entry["column"]: entry for entry in second.content["commits"]["training_set"]["baseline"]}
    assert held["outcome"]["verdict"] == "stable"
    approve(votes.project.store, folder(second.id), second.id, by="ines", note="this, too")
    assert expected(votes.run()) == {"release": second.id}


def test_a_release_that_moved_away_from_the_approved_one_is_refused(votes: Votes) -> None:
    baseline(votes, "approved")
    first = votes.run()
    approve(votes.project.store, folder(first.id), first.id, by="ines", note="read the report")
    votes.put("2.jsonl", *(vote(f"b{n}", f"ben{n}", f"Rye {n}", "tie") for n in range(2_000)))
    with pytest.raises(AssertionError):  # no release
        votes.run()
    commit = votes.project.commits.latest("training_set")
    assert commit is not None
    assert "baseline__outcome" in commit.failed
    said = next(check["meaning"] for check in commit.checks if check["name"] == "baseline__outcome")
    assert "`outcome=decided` is 17.3 %, expected 75.0 %" in said


def test_a_tag_names_the_baseline_and_one_that_names_nothing_is_an_error(votes: Votes) -> None:
    first = votes.run()
    tag(votes.project.store, first.id, "v1")
    baseline(votes, "v1")
    assert expected(votes.run()) == {"release": first.id}
    baseline(votes, "v2")
    with pytest.raises(FeedbackError, match=r"policy\.yaml: monitoring\.baseline\.release: no release 'v2' in"):
        votes.run()
