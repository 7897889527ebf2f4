"""Materializing: what is computed again after a change, what is remembered, and what a commit record says."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize import materialize as module
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain, materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.snapshots.snapshot import Memo

NOW = datetime(2024, 3, 1, tzinfo=UTC)
EXAMINE = module.examine  # most tests do without the checks, which take longer than the work
ORDER = [stage.name for stage in STAGES]
POLICY: dict[str, Any] = {
    "ingested": {
        "sources": [
            {
                "name": "s",
                "path": "batches/*.jsonl",
                "columns": {
                    "feedback_id": "id",
                    "kind": "'preference'",
                    "prompt": "prompt",
                    "response_a": '"left"',
                    "response_b": '"right"',
                    "label": "label",
                    "annotator_id": "who",
                    "category": "category",
                    "collected_at": "at",
                },
            }
        ]
    },
    "filtered": {
        "rules": [
            {"id": "odd", "version": 1, "reason": "to see a drop", "drop_when": "category = 'odd'"},
            {"id": "nobody", "version": 1, "reason": "to see a drop", "drop_when": "annotator_id = 'w9'"},
        ]
    },
    "deduplicated": {"eval_share": 0.3, "missing_annotator": "distinct"},
    "reweighted": {"factors": [{"id": "share", "version": 1, "reason": "why", "kind": "replicate_share"}]},
}


def batch(number: int, n: int = 6) -> str:
    lines = [
        {
            "id": f"b{number}-{i}",
            "prompt": f"Question {number} {i}: " + f"tell me of {chr(97 + i) * 9}{number} " * 3,
            "left": f"An answer on {chr(107 + i) * 7}{number}, told at some length. " * 2,
            "right": f"Nothing is known about {chr(97 + i) * 5}{number} to anybody here, sadly. " * 2,
            "label": "ab"[i % 2],
            "who": f"w{i % 3}",
            "category": "odd" if i == 0 else "even",
            "at": f"2024-01-{number + 1:02d}T00:{i:02d}:00Z",
        }
        for i in range(n)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


class Workshop:
    """A project in a folder: change its policy or its batches, run it, and see what was computed."""

    def __init__(self, folder: Path, computed: list[str]) -> None:
        self.folder, self.computed = folder, computed
        self.policy = json.loads(json.dumps(POLICY))
        self.runs = 0
        (folder / "batches").mkdir(parents=True)

    def deliver(self, number: int) -> None:
        (self.folder / "batches" / f"week-{number}.jsonl").write_text(batch(number), encoding="utf-8")

    def project(self) -> Project:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(self.policy), encoding="utf-8")
        return Project.open(path, self.folder / "store")

    def run(self, *assets: str) -> dict[str, Commit]:
        """The commits of one run over `assets` (default: all); `computed` tells what was not remembered."""
        self.computed.clear()
        self.runs += 1
        project = self.project()
        return {a: materialize(project, a, run_id=f"run{self.runs}", now=NOW) for a in assets or ORDER}


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Callable[[str], Workshop]:
    computed: list[str] = []
    put = Memo.put

    def noted(self: Memo, key: str, snapshot: Any) -> None:
        computed.append(snapshot.asset)
        put(self, key, snapshot)

    monkeypatch.setattr(Memo, "put", noted)
    monkeypatch.setattr(module, "examine", lambda *_: {"checks": []})

    def made(name: str = "p") -> Workshop:
        shop = Workshop(tmp_path / name, computed)
        shop.deliver(0)
        shop.deliver(1)
        return shop

    return made


def versions(commits: dict[str, Commit]) -> dict[str, str]:
    return {name: commit.data_version for name, commit in commits.items()}


def stages_in(computed: list[str]) -> set[str]:
    return set(computed) & set(ORDER)


def test_a_run_without_a_change_computes_nothing_and_gives_the_same_versions(workshop):
    shop = workshop()
    first = shop.run()
    assert stages_in(shop.computed) == set(ORDER) - {"guidelines", "converted"}
    again = shop.run()
    assert shop.computed == []
    assert versions(again) == versions(first)
    assert {name: c.id for name, c in again.items()} == {name: c.id for name, c in first.items()}
    assert [again[name].number for name in ORDER] == [2] * len(ORDER)


def test_the_same_work_in_another_folder_gives_the_same_versions_and_commit_ids(workshop):
    one, other = workshop("one").run(), workshop("other").run()
    assert {name: c.id for name, c in one.items()} == {name: c.id for name, c in other.items()}


def test_batches_that_came_one_by_one_and_those_that_came_together_in_that_order_are_the_same(workshop):
    grown, whole = workshop("grown"), workshop("whole")
    grown.run()
    for shop in (grown, whole):
        shop.deliver(2)
    assert versions(grown.run()) == versions(whole.run())


def test_an_edited_rule_recomputes_its_stage_and_those_below_only(workshop):
    shop = workshop()
    before = shop.run()
    shop.policy["filtered"]["rules"][0].update(version=2, drop_when="category = 'even'")
    after = shop.run()
    assert stages_in(shop.computed) == {"filtered", "deduplicated", "reweighted", "upsampled", "training_set"}
    changed = {name for name in ORDER if before[name].data_version != after[name].data_version}
    assert changed == {"filtered", "deduplicated", "reweighted", "upsampled", "training_set"}
    assert before["filtered"].code_version != after["filtered"].code_version
    assert before["deduplicated"].code_version == after["deduplicated"].code_version


def test_an_edit_that_changes_no_row_recomputes_its_stage_alone(workshop):
    shop = workshop()
    before = shop.run()
    shop.policy["filtered"]["rules"][1].update(version=2, drop_when="annotator_id = 'w8'")
    after = shop.run()
    assert stages_in(shop.computed) == {"filtered"}
    assert versions(after) == versions(before)
    assert after["filtered"].id != before["filtered"].id


def test_a_rule_changed_under_its_old_version_is_told_and_changes_the_code_version(workshop):
    shop = workshop()
    before = shop.run()["filtered"]
    assert before.circumstances["unversioned_changes"] == []
    shop.policy["filtered"]["rules"][0]["drop_when"] = "category = 'even'"
    after = shop.run()["filtered"]
    assert after.circumstances["unversioned_changes"] == ["rules/odd v1: its content changed; raise its version"]
    assert after.code_version != before.code_version
    shop.policy["filtered"]["rules"][0]["reason"] = "put better"
    assert shop.run()["filtered"].circumstances["unversioned_changes"] == []


def test_a_new_batch_keeps_the_earlier_files_and_their_content(workshop):
    shop = workshop()
    before = shop.run("ingested", "guidelines", "guideline_joined", "converted", "filtered")
    shop.deliver(2)
    after = shop.run("ingested", "guidelines", "guideline_joined", "converted", "filtered")
    assert [name for name in shop.computed if name.startswith("s/")] == ["s/week-2.jsonl"]
    old, new = (run["ingested"].snapshot.tables["content"].parts for run in (before, after))
    assert new[: len(old)] == old
    assert len(new) == len(old) + 1
    assert after["ingested"].circumstances["arrived"].keys() == {"0", "1", "2"}


def test_a_new_batch_costs_its_own_parts_where_parts_are_full(workshop, monkeypatch):
    from feedback_assets.materialize import intake

    monkeypatch.setattr(intake, "PART_ROWS", 1)
    shop = workshop()
    before = shop.run("ingested", "guidelines", "guideline_joined", "converted", "filtered")
    shop.deliver(2)
    after = shop.run("ingested", "guidelines", "guideline_joined", "converted", "filtered")
    assert shop.computed.count("guideline_joined") == shop.computed.count("filtered") == 1
    for name in ("ingested", "guideline_joined", "filtered"):
        old, new = (run[name].snapshot.tables["rows"].parts for run in (before, after))
        assert (new[:2], len(new)) == (old, 3)
    rules = after["filtered"].snapshot.facts["rules"]
    assert rules["odd"] == {"dropped": 3, "alone": 3, "undecided": 0}


def test_an_edited_file_is_a_new_batch_and_revises_the_old_one(workshop):
    shop = workshop()
    shop.run("ingested")
    path = shop.folder / "batches" / "week-0.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"label": "b"', '"label": "a"'), encoding="utf-8")
    commit = shop.run("ingested")["ingested"]
    told = {(fate["fate"], fate["rows"]) for fate in commit.content["fates"]}
    assert told == {("kept", 12), ("superseded", 3), ("redelivered", 3)}
    assert commit.content["rows_in"] == 18
    assert rows(shop.project(), commit).collect()["revision"].sum() == 3


def test_every_batch_in_quarantine_is_still_a_table(workshop):
    shop = workshop()
    shop.policy["ingested"]["sources"][0]["columns"]["label"] = "'neither'"
    commits = shop.run("ingested", "guidelines", "guideline_joined", "converted", "filtered")
    assert commits["filtered"].content["rows_out"] == 0
    assert commits["ingested"].content["fates"] == [
        {"fate": "quarantined", "rule": "outside-vocabulary", "rule_version": None, "rows": 12}
    ]


def test_a_commit_says_what_was_read_and_what_became_of_it(workshop):
    shop = workshop()
    commits = shop.run()
    commit = commits["filtered"]
    assert commit.content["inputs"] == {
        "converted": {"commit": commits["converted"].id, "data_version": commits["converted"].data_version}
    }
    assert (commit.content["rows_in"], commit.content["rows_out"]) == (12, 10)
    assert commit.content["fates"] == [
        {"fate": "dropped", "rule": "odd", "rule_version": 1, "rows": 2},
        {"fate": "kept", "rule": None, "rule_version": None, "rows": 10},
    ]
    assert [rule["id"] for rule in commit.content["policy"]["rules"]] == ["odd", "nobody"]
    assert commit.circumstances["run_id"] == "run1"
    assert list(chain(shop.project(), {"training_set": commits["training_set"]})) == ORDER


def test_nothing_that_tells_when_or_where_enters_the_content_of_a_commit(workshop):
    shop = workshop()
    for commit in shop.run().values():
        text = json.dumps(commit.content)
        assert str(shop.folder) not in text
        assert "run1" not in text
        assert "tell me of" not in text, "text of a row"


def test_a_stage_whose_input_was_never_made_is_refused_in_one_line(workshop):
    with pytest.raises(FeedbackError, match="filtered reads converted, which was never materialized"):
        workshop().run("filtered")


def test_a_stage_reads_the_commit_it_is_given_though_a_later_one_exists(workshop):
    shop = workshop()
    asked = ("ingested", "guidelines", "guideline_joined", "converted")
    old = shop.run(*asked)["converted"]
    shop.deliver(2)
    shop.run(*asked)
    commit = materialize(shop.project(), "filtered", run_id="pinned", inputs={"converted": old}, now=NOW)
    assert commit.content["rows_in"] == 12
    assert commit.circumstances["inputs"] == {"converted": {"number": 1}}


def test_the_checks_find_the_category_that_a_rule_empties_and_nothing_else(workshop, monkeypatch):
    monkeypatch.setattr(module, "examine", EXAMINE)
    shop = workshop()
    assert {name: commit.failed for name, commit in shop.run().items() if commit.failed} == {
        "filtered": ["loss_by_group"]
    }
    loss = {"column": "category", "value": "odd", "stage": "filtered", "reason": "meant"}
    shop.policy["monitoring"] = {"allowed_losses": [loss]}
    assert [name for name, commit in shop.run().items() if commit.failed] == []
    assert stages_in(shop.computed) == set(), "a limit is no part of the work"
