"""Changes planted in the data, the mapping or the policy: which check fails on the whole job, and what it says."""

import json
import random
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from feedback_assets.errors import FeedbackError, Refused
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.at_a_glance import since_previous
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, release
from feedback_assets.provenance.report import report, told
from feedback_assets.snapshots.snapshot import scan

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge"]
BATCHES, EACH = 3, 400
PAIRS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "task": "'chat'",
    "category": "category",
    "prompt": "prompt",
    "response_a": "one",
    "response_b": "two",
    "label": "label",
    "annotator_id": "who",
}
POINTS = {
    "feedback_id": "id",
    "kind": "'rating'",
    "task": "'chat'",
    "prompt": "prompt",
    "response_a": "one",
    "score": "points",
    "score_min": "1",
    "score_max": "10",
    "annotator_id": "who",
}


class Plant:
    """A project with three sources, of which `small` is small; its files and policy can be changed before a run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.draw, self.runs = folder, random.Random(4), 0
        folder.mkdir()
        self.policy = {
            "ingested": {
                "sources": [
                    {"name": "pairs", "path": "pairs-*.jsonl", "columns": PAIRS},
                    {"name": "small", "path": "small-*.jsonl", "columns": PAIRS},
                    {"name": "points", "path": "points-*.jsonl", "columns": POINTS},
                ]
            },
            "filtered": {"rules": []},
            "deduplicated": {"eval_share": 0.1, "split_key": "planted"},
            "training_set": {"exports": [{"name": "pairs", "format": "preference", "file": "jsonl"}]},
        }
        for number in range(BATCHES):
            self.write(f"pairs-{number}", [self.pair(f"p{number}-{i}") for i in range(EACH)])
            self.write(f"points-{number}", [self.point(f"s{number}-{i}") for i in range(EACH)])
        self.write("small-0", [self.pair(f"t{i}", words=1) for i in range(40)])

    def text(self, words: int) -> str:
        return " ".join(self.draw.choices(WORDS, k=words)) + f" {self.draw.random()}"

    def pair(self, name: str, *, words: int = 12, category: str | None = None) -> dict:
        kinds = ["chat", "writing", "coding"]
        return {
            "id": name,
            "category": category or self.draw.choices(kinds, [0.5, 0.38, 0.12])[0],
            "prompt": self.text(9),
            "one": self.text(self.draw.randint(words, 2 * words)),
            "two": self.text(self.draw.randint(words, 2 * words)),
            "label": self.draw.choice("ab"),
            "who": f"w{self.draw.randrange(60)}",
        }

    def point(self, name: str) -> dict:
        made = {key: value for key, value in self.pair(name).items() if key in ("id", "prompt", "one", "who")}
        return made | {"points": self.draw.choices([1, 3, 5, 7, 9, 10], [30, 10, 20, 20, 15, 5])[0]}

    def write(self, name: str, lines: list[dict]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def table(self, commit: Commit, name: str) -> pl.DataFrame:
        project = Project.open(self.folder / "policy.yaml", self.folder / "store")
        return scan(project.store, commit.snapshot.tables[name]).collect()

    def run(self) -> tuple[dict[str, Commit], Release | None, str]:
        """Commits by stage, the release if there is one, and why the gate refused if it did."""
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(self.policy), encoding="utf-8")
        project = Project.open(path, self.folder / "store")
        self.runs += 1
        commits: dict[str, Commit] = {}
        for stage in STAGES[:-1]:
            inputs = {name: commits[name] for name in stage.inputs}
            commits[stage.name] = materialize(project, stage.name, run_id=f"r{self.runs}", inputs=inputs)
        try:
            commit, made = release(project, run_id=f"r{self.runs}", inputs={"upsampled": commits["upsampled"]})
        except Refused as error:
            return commits, None, str(error)
        return {**commits, "training_set": commit}, made, ""


@pytest.fixture
def plant(tmp_path) -> Plant:
    return Plant(tmp_path / "plant")


def failed(commits: dict[str, Commit]) -> dict[str, str]:
    """What the checks that did not pass say, by stage and name."""
    return {
        f"{asset}/{check['name']}": check["meaning"]
        for asset, commit in commits.items()
        for check in commit.checks
        if check["status"] in ("failed", "error")
    }


def test_where_nothing_is_wrong_no_check_fails_and_the_manifest_counts_what_was_decided(plant):
    commits, made, _ = plant.run()
    assert failed(commits) == {}
    decisions = made.content["decisions"]
    assert (decisions["moved"], decisions["method"]) == (0, "Benjamini-Yekutieli")
    assert decisions["decisions"] == decisions["stable"] + decisions["inconclusive"] > 40


def test_a_rule_that_kills_one_small_source_is_named_with_its_version(plant):
    rule = {"id": "short-response", "version": 2, "reason": "says little", "drop_when": "response_a_chars < 40"}
    plant.policy["filtered"]["rules"].append(rule)
    commits, made, why = plant.run()
    assert made is None
    said = failed(commits)["filtered/loss_by_group"]
    assert said.startswith("source=small lost 40 of 40 rows (rule `short-response` v2 removed 40); batch=small-0.jsonl")
    assert why.startswith("the gate refuses: filtered: the check loss_by_group failed: source=small lost")


def test_a_mapping_that_turns_1_into_10_breaks_the_baseline_of_an_approved_release(plant):
    _, approved, _ = plant.run()
    plant.policy["monitoring"] = {"baseline": {"release": approved.id}}
    commits, again, _ = plant.run()
    assert again is not None, failed(commits)
    assert questions(again)["distribution"]["columns"]["category"]["expected"].keys() == {
        "(null)",
        "chat",
        "coding",
        "writing",
    }
    plant.policy["ingested"]["sources"][2]["columns"] = POINTS | {
        "score": "CASE WHEN points > 1 THEN points ELSE 10 * points END"
    }
    commits, made, _ = plant.run()
    assert made is None
    assert set(failed(commits)) == {"training_set/baseline__score"}
    said = failed(commits)["training_set/baseline__score"]
    assert "beyond the limit of 0.25" in said
    assert "`score=< 0.222222` is 0.0 %, expected 31.8 %; so since `ingested`" in said
    moved = [e for e in commits["ingested"].circumstances["against_previous"]["columns"] if e["verdict"] == "moved"]
    assert [entry["column"] for entry in moved] == ["score"]


@pytest.mark.parametrize(("chars", "so"), [(140, "a value kept 60 % of its share or less"), (155, "beyond the limit")])
def test_a_failed_baseline_names_the_stage_and_the_rule_that_did_it(plant, chars, so):
    _, approved, _ = plant.run()
    plant.policy["monitoring"] = {"baseline": {"release": approved.id}}
    rule = {"id": "short-text", "version": 2, "reason": "says little"}
    rule["drop_when"] = f"category = 'writing' AND response_a_chars < {chars}"
    plant.policy["filtered"]["rules"].append(rule)
    commits, made, _ = plant.run()
    assert made is None
    said = failed(commits)["training_set/baseline__category"]
    assert so in said
    (lost,) = (loss for loss in commits["filtered"].content["losses"] if loss["value"] == "writing")
    assert re.search(r": `category=writing` is [\d.]+ %, expected 19.2 %;", said)
    assert "; so since `filtered`: `category=writing` went from 19.2 % to " in said
    assert said.endswith(f"; rule `short-text` v2 removed {100 * lost['share']:.0f} % of it.")


def test_a_mapping_that_turns_every_label_leads_the_report_though_no_baseline_is_declared(plant):
    shown = PAIRS | {"shown_order": "'ab'"}
    plant.policy["ingested"]["sources"][0]["columns"] = shown
    _, first, _ = plant.run()
    assert "since the previous materialization" not in report(first)
    plant.policy["ingested"]["sources"][0]["columns"] = shown | {"label": "'a'"}
    plant.policy["ingested"]["sources"][2]["columns"] = POINTS | {
        "score": "CASE WHEN points > 1 THEN points ELSE 10 * points END"
    }
    commits, made, _ = plant.run()
    assert made is not None, failed(commits)
    (said,) = since_previous({name: commit.circumstances for name, commit in commits.items()})
    assert said.startswith("moved since the previous materialization, at `ingested` first: ")
    assert "position_win, PSI " in said
    assert "`score=< 0.222222` went from 31.8 % to 0.0 %" in said
    verdict = told(made)["verdict"]
    assert verdict["level"] == "look"
    assert said in [point["says"] for point in verdict["points"] if point["level"] == "warning"]


def test_a_batch_in_which_1_became_10_differs_from_the_earlier_ones_and_blocks_only_if_the_policy_says_so(plant):
    lines = [json.loads(line) for line in (plant.folder / "points-2.jsonl").read_text().splitlines()]
    plant.write("points-2", [line | {"points": line["points"] if line["points"] > 1 else 10} for line in lines])
    commits, made, _ = plant.run()
    assert made is not None
    assert set(failed(commits)) == {"ingested/input_drift"}
    said = failed(commits)["ingested/input_drift"]
    assert said.startswith("The PSI of score in batch points-2.jsonl of points against the earlier batches is ")
    assert " went from " in said
    compared = {(e["source"], e["batch"]) for e in commits["ingested"].content["input"]}
    assert compared == {("pairs", "pairs-2.jsonl"), ("points", "points-2.jsonl")}
    plant.policy["monitoring"] = {"gating": ["input"]}
    assert plant.run()[2].startswith("the gate refuses: ingested: the check input_drift failed: The PSI of score in")


def test_a_batch_that_came_again_is_compared_as_it_stands_with_the_rows_that_stayed(plant):
    plant.run()
    lines = [json.loads(line) for line in (plant.folder / "points-2.jsonl").read_text().splitlines()]
    plant.write("points-2", [line | {"one": f"{line['one']}!"} if line["points"] == 1 else line for line in lines])
    more = [json.loads(line) for line in (plant.folder / "small-0.jsonl").read_text().splitlines()]
    plant.write("small-0", more + [plant.pair(f"u{i}") for i in range(80)])
    commits, _, _ = plant.run()
    assert "ingested/input_drift" not in failed(commits)
    compared = commits["ingested"].content["input"]
    sizes = {(entry["source"], entry["column"]): (entry["n_reference"], entry["n_current"]) for entry in compared}
    assert sizes["points", "score"] == (800, 400)
    # All of `small` is one file: what it brought is held against what it had.
    assert sizes["small", "category"] == (40, 80)


def test_a_category_halved_by_deduplication_is_named_with_the_rule_that_did_it(plant):
    coding = [plant.pair(f"c{i}", category="coding") for i in range(150)]
    again = [line | {"id": f"{line['id']}-{n}"} for line in coding for n in range(3)]
    plant.write("pairs-3", again)
    commits, made, _ = plant.run()
    assert made is not None
    assert "deduplicated/drift" in failed(commits)
    said = failed(commits)["deduplicated/drift"]
    assert "`category=coding` went from " in said
    assert "rule `resubmission` v1 merged away " in said


def test_what_was_said_again_and_again_is_named_by_the_row_that_stands_for_it(plant):
    lines = [plant.pair(f"c{i}", category="coding") | {"who": f"w{i % 60}"} for i in range(60)]
    same = lines[0] | {"who": "w7"}
    plant.write("pairs-3", lines + [same | {"id": f"same-{n}"} for n in range(200)])
    commits, _, _ = plant.run()
    said = failed(commits)["deduplicated/drift"]
    fates = plant.table(commits["deduplicated"], "fates")
    (into,) = fates.filter(pl.col("fate") == "merged").get_column("into").unique()
    assert "; rule `resubmission` v1 merged away " in said
    assert said.endswith(f" % of it, 100 % of that from `cluster={into}`")


def test_a_large_category_of_which_deduplication_takes_half_is_a_warning_that_names_it_and_what_took_it(plant):
    for number in range(BATCHES):
        lines = [json.loads(line) for line in (plant.folder / f"pairs-{number}.jsonl").read_text().splitlines()]
        again = [line | {"id": f"{line['id']}-again"} for line in lines if line["category"] == "chat"]
        plant.write(f"pairs-{number}", lines + again)
    commits, made, _ = plant.run()
    assert made is not None
    assert "heavy_loss_by_group" not in commits["deduplicated"].failed
    said = failed(commits)
    assert set(said) == {"deduplicated/heavy_loss_by_group"}
    chat = said["deduplicated/heavy_loss_by_group"]
    assert re.match(
        r"category=chat lost (\d+) of (1,\d+) rows \(rule `resubmission` v1 merged away \1\); if this is meant", chat
    )
    plant.policy["monitoring"] = {
        "allowed_losses": [{"column": "category", "value": "chat", "stage": "deduplicated", "reason": "sent twice"}]
    }
    assert failed(plant.run()[0]) == {}


def test_a_factor_and_a_target_that_move_a_column_are_named(plant):
    plant.policy["reweighted"] = {
        "factors": [
            {"id": "share", "version": 1, "reason": "why", "kind": "replicate_share"},
            {"id": "birch", "version": 3, "reason": "why", "kind": "origin_discount", "origins": {"model:birch": 0.1}},
        ]
    }
    origin = "CASE WHEN category = 'chat' THEN 'model:birch' ELSE 'human' END"
    plant.policy["ingested"]["sources"][0]["columns"] = PAIRS | {"origin_a": origin, "origin_b": origin}
    plant.policy["upsampled"] = {
        "targets": [{"id": "coding", "version": 2, "reason": "why", "shares": {"coding": 0.6}, "max_copies": 9}]
    }
    commits, _, _ = plant.run()
    said = failed(commits)
    assert "factor `birch` v3 weighs it 0.1 on average, all others 1" in said["reweighted/drift"]
    assert "target `coding` v2 let it stand " in said["upsampled/drift"]


def test_a_baseline_release_that_is_not_there_is_one_line_that_says_where_to_look(plant):
    plant.policy["monitoring"] = {"baseline": {"release": "0" * 16}}
    with pytest.raises(
        FeedbackError, match=r"monitoring\.baseline\.release: no release 0{16} in .*`feedback-assets rele"
    ):
        plant.run()
