"""The weeks of a real crowd, delivered one after the other: topics come and go, and nothing is wrong."""

import shutil
from pathlib import Path

import pytest

from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets_tests.independent_reading import DATA

UKP = DATA / "ukpconvarg1"
POLICY = Path(__file__).parents[1] / "policies/ukp.yaml"


@pytest.mark.skipif(not UKP.is_dir(), reason=f"{UKP} is not there")
def test_no_week_of_a_real_crowd_makes_a_check_cry_though_its_topics_change(tmp_path):
    (tmp_path / "batches").mkdir()
    text = POLICY.read_text(encoding="utf-8").replace("../../../shared/data/ukpconvarg1", "batches")
    policy = tmp_path / "policy.yaml"
    policy.write_text(text.replace("path: guidelines/", f"path: {POLICY.parent}/guidelines/"), encoding="utf-8")
    cries, other_topics, judged = [], 0, 0
    weeks = sorted(UKP.glob("*.parquet"))
    for week in weeks:
        shutil.copy(week, tmp_path / "batches")
        commit = materialize(Project.open(policy, tmp_path / "store"), "ingested", run_id=week.stem)
        cries += [check["meaning"] for check in commit.checks if check["status"] in ("failed", "error")]
        entries = {entry["column"]: entry for entry in commit.content["input"]}
        other_topics += "category" in entries and entries["category"]["verdict"] == "moved"
        judged += sum(entry["held"] and entry["verdict"] == "stable" for entry in entries.values())
        previous = commit.circumstances["against_previous"]["columns"]
        assert all(entry["verdict"] != "moved" for entry in previous if entry["column"] in ("outcome", "chosen_longer"))
    assert cries == []
    # Six weeks follow another; in five the topics are others, and in each three columns of answers could be told.
    assert (len(weeks), other_topics, judged) == (7, 5, 18)
