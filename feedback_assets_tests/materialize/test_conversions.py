"""Ratings, rankings and thumbs that become pairs: through the whole graph to a release, and traced both ways."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from feedback_assets import open_store
from feedback_assets.materialize.materialize import chain, content_parts, materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import upstream
from feedback_assets.provenance.release import annotations_of, release, training_files
from feedback_assets.provenance.trace import trace
from feedback_assets.record import row_ids
from feedback_assets.snapshots.snapshot import scan
from feedback_assets_tests import independent_reading as raw
from feedback_assets_tests.sources import shapes

NOW = datetime(2100, 1, 1, tzinfo=UTC)
SOURCES = """
ingested:
  sources:
    - name: rankings
      path: rankings-*.jsonl
      each: ranking
      columns:
        feedback_id: id || '#' || __position
        group_id: id
        kind: "'rating'"
        prompt: question
        response_a: each.text
        score: each.rank
        annotator_id: who
        annotator_kind: CASE WHEN who LIKE 'gpt%' THEN 'model' ELSE 'human' END
guidelines: { path: null }
"""
CONVERTED = """
converted:
  conversions:
    - { id: pairs, version: 3, reason: trainers read pairs, kind: rankings_to_pairs, better: lower }
filtered:
  rules:
    - id: six-or-ten
      version: 1
      reason: a rule reads both texts of a pair
      drop_when: >-
        (response_a LIKE '%six%' OR response_b LIKE '%six%') AND (response_a LIKE '%ten%' OR response_b LIKE '%ten%')
deduplicated: { near_duplicates: false }
reweighted:
  factors:
    - { id: share, version: 1, reason: one ranking is one judgment, kind: ranking_share }
training_set:
  exports:
    - { name: preferences, conversational: false }
"""
WORDS = ("one", "two", "six", "ten")


def deliver(folder: Path, week: int, questions: range, who: str = "ann") -> None:
    ranking = [{"text": f"The answer {word}.", "rank": rank} for rank, word in enumerate(WORDS, 1)]
    lines = [{"id": f"q{n}", "question": f"What of {n}?", "who": who, "ranking": ranking} for n in questions]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"rankings-{week}.jsonl").write_text(text, encoding="utf-8")


def opened(folder: Path, policy: str) -> Project:
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    return Project.open(folder / "policy.yaml", folder / "store")


def build(project: Project, *stages: str):
    commits = {}
    for name in stages or upstream("training_set"):
        commits[name] = materialize(project, name, run_id="r", now=NOW)
        assert not commits[name].failed, (name, commits[name].failed)
    return commits


@pytest.fixture
def built(tmp_path: Path):
    deliver(tmp_path, 1, range(5))
    deliver(tmp_path, 2, range(5, 6), who="gpt-4")
    project = opened(tmp_path, SOURCES + CONVERTED)
    commits = build(project)
    commit, made = release(project, run_id="r", now=NOW)
    assert made is not None
    return project, {**commits, "training_set": commit}, made


def test_a_ranking_reaches_the_trainer_as_pairs_of_the_texts_that_were_ranked(built):
    project, _, made = built
    (folder,) = training_files(project.store, made)
    found = pl.concat([pl.read_parquet(file) for file in sorted(Path(folder).glob("*.parquet"))])
    better = [f"The answer {word}." for word in WORDS]
    wanted = Counter(
        (f"What of {n}?\n\n", chosen, rejected)
        for n in range(6)
        for chosen, rejected in combinations(better, 2)
        if {chosen, rejected} != {"The answer six.", "The answer ten."}
    )
    assert Counter(found.select("prompt", "chosen", "rejected").iter_rows()) == wanted
    weights = pl.read_parquet(sorted((Path(folder).parent / "weights-train").iterdir()))
    assert weights["weight"].to_list() == pytest.approx([1 / 3] * found.height)
    assert weights["row_id"].to_list() == found["row_id"].to_list()


def test_the_frame_of_a_release_has_the_texts_of_its_pairs(built):
    project, _, made = built
    frame = open_store(project.store.place).release().frame()
    assert frame.height == made.content["annotations"]["records"] == 30
    won = pl.col("label") == "a"
    read = frame.select(
        "row_id",
        prompt=pl.col("prompt").list.first().struct.field("text") + "\n\n",
        chosen=pl.when(won).then("response_a").otherwise("response_b"),
        rejected=pl.when(won).then("response_b").otherwise("response_a"),
    )
    (folder,) = training_files(project.store, made)
    exported = pl.concat([pl.read_parquet(file) for file in sorted(Path(folder).glob("*.parquet"))])
    assert read.null_count().sum_horizontal().item() == 0
    assert read.sort("row_id").equals(exported.select(read.columns).sort("row_id"))


def test_every_parent_and_every_pair_is_in_the_commit_and_in_the_release(built):
    project, commits, made = built
    told = commits["converted"].content["fates"]
    assert told == [{"fate": "converted", "rule": "pairs", "rule_version": 3, "rows": 24}]
    assert (commits["converted"].content["rows_in"], commits["converted"].content["rows_out"]) == (24, 36)
    counts = {"records": 24, "groups": 6, "compared": 36, "decided": 36, "pairs": 36, "unpaired": 0}
    assert commits["converted"].content["facts"] == {"conversions": {"pairs": counts}}
    named = annotations_of(project.store, made).select("parents").explode("parents").collect().to_series()
    ingested = rows(project, commits["ingested"]).collect()["row_id"]
    assert set(named) == set(ingested)
    (pinned,) = [entry for entry in made.content["transformations"] if entry["asset"] == "converted"]
    assert [(entry["id"], entry["version"]) for entry in pinned["pinned"]] == [("pairs", 3)]


def test_a_pair_that_a_model_made_is_known_as_a_models(built):
    project, commits, _ = built
    kinds = (
        rows(project, commits["training_set"]).group_by("annotator_id", "annotator_kind").len().sort("len").collect()
    )
    assert kinds.rows()[0][:2] == ("gpt-4", "model")
    assert kinds.rows()[1][:2] == ("ann", "human")


def test_a_record_leads_to_its_pairs_and_a_pair_to_its_records(built):
    project, *_ = built
    (parent,) = trace(project, "q0#3")
    assert len(found := row_ids(["rankings", "another"], "q0#3")) == 2 and parent["row_id"] in found
    assert [(s["stage"], s["fate"], s["rule"], s["rule_version"]) for s in parent["steps"]] == [
        ("guideline_joined", "kept", None, None),
        ("converted", "converted", "pairs", 3),
    ]
    assert not parent["in_release"]
    assert parent["parents"] == []
    assert len(parent["children"]) == 3
    ends = {child["feedback_id"]: (child["stage"], child["in_release"]) for child in parent["children"]}
    assert Counter(ends.values()) == {("training_set", True): 2, ("filtered", False): 1}

    child = parent["children"][0]
    for name in (child["feedback_id"], child["row_id"]):
        (pair,) = trace(project, name)
        assert pair["row_id"] == child["row_id"]
        first = pair["steps"][0]
        assert (first["stage"], first["fate"], first["rule"], first["rule_version"]) == (
            "converted",
            "made",
            "pairs",
            3,
        )
        named = [entry["feedback_id"] for entry in pair["parents"]]
        assert child["feedback_id"] == f"pairs:{named[0]}+{named[1]}"
        assert {entry["fate"] for entry in pair["parents"]} == {"converted"}
        assert pair["in_release"] == child["in_release"]
    assert json.dumps([parent, pair])


def test_a_late_batch_pairs_with_what_came_before_and_changes_no_pair_that_was_made(tmp_path: Path):
    policy = SOURCES + CONVERTED.replace("rankings_to_pairs", "ratings_to_pairs")
    deliver(tmp_path, 1, range(3))
    before = build(opened(tmp_path, policy))
    project = opened(tmp_path, policy)
    first = rows(project, before["converted"]).collect()
    late = {"id": "q0b", "question": "What of 0?", "who": "ann", "ranking": [{"text": "Quite late.", "rank": 9}]}
    (tmp_path / "rankings-9.jsonl").write_text(json.dumps(late) + "\n", encoding="utf-8")
    after = build(project)
    whole = rows(project, after["converted"]).collect()
    new = whole.join(first, on="row_id", how="anti")
    assert new.height == 4
    assert new["arrival"].unique().to_list() == [1]
    same = ["row_id", "parents", "label", "content_part", "content_row", "arrival", "line"]
    kept = whole.join(first, on="row_id", how="semi", maintain_order="left")
    assert kept.select(same).equals(first.select(same))


def test_without_conversions_the_stage_passes_on_what_came_and_writes_nothing(tmp_path: Path):
    deliver(tmp_path, 1, range(3))
    project = opened(tmp_path, SOURCES)
    commits = build(project, "ingested", "guidelines", "guideline_joined")
    files = set((tmp_path / "store/parts").rglob("*.parquet"))
    commit = materialize(project, "converted", run_id="r", now=NOW)
    assert commit.data_version == commits["guideline_joined"].data_version
    assert commit.snapshot.tables["rows"] == commits["guideline_joined"].snapshot.tables["rows"]
    assert set((tmp_path / "store/parts").rglob("*.parquet")) == files
    assert commit.content["fates"] == [{"fate": "kept", "rule": None, "rule_version": None, "rows": 12}]
    assert not commit.failed


ULTRAFEEDBACK = """
ingested:
  sources:
    - { name: overall, path: data.jsonl, preset: ultrafeedback }
    - name: honesty
      path: data.jsonl
      preset: ultrafeedback
      quarantine_when: { not-rated: "TRY_CAST(each.annotations.honesty.\\"Rating\\" AS DOUBLE) IS NULL" }
      columns: { aspect: "'honesty'", score: "TRY_CAST(each.annotations.honesty.\\"Rating\\" AS DOUBLE)" }
  max_quarantined_share: 0.5
guidelines: { path: null }
converted:
  conversions:
    - id: better
      version: 1
      reason: half a point apart is a difference that a second look confirms
      kind: ratings_to_pairs
      where: aspect = 'overall'
      margin: 0.5
    - { id: honesty, version: 1, reason: same, kind: ratings_to_pairs, where: aspect = 'honesty', unpaired: drop }
"""


def test_completions_that_a_model_rated_by_aspect_become_pairs_within_their_instruction_and_aspect(tmp_path: Path):
    shapes.as_jsonl(tmp_path, shapes.ULTRAFEEDBACK_RATED)
    project = opened(tmp_path, ULTRAFEEDBACK)
    asked = ("ingested", "guidelines", "guideline_joined", "converted")
    commits = {name: materialize(project, name, run_id="r", now=NOW) for name in asked}
    ingested = rows(project, commits["ingested"]).collect()
    assert Counter(ingested["aspect"]) == {"overall": 8, "honesty": 5}
    assert set(ingested["annotator_kind"]) == {"model"}
    out = rows(project, commits["converted"]).filter(pl.col("conversion").is_not_null()).collect()
    won = pl.when(pl.col("label") == "a").then("origin_a").otherwise("origin_b").str.strip_prefix("model:")
    lost = pl.when(pl.col("label") == "a").then("origin_b").otherwise("origin_a").str.strip_prefix("model:")
    found = out.select("line", won.alias("won"), lost.alias("lost"), "margin", "aspect", "annotator_kind")
    alpaca, gpt, llama, starchat = "alpaca-7b", "gpt-4", "llama-2-7b-chat", "starchat"
    assert sorted(found.filter(line=1).select("won", "lost", "margin").iter_rows()) == [
        (gpt, alpaca, 3.75),
        (gpt, llama, 0.5),
        (gpt, starchat, 0.5),
        (llama, alpaca, 3.25),
        (starchat, alpaca, 3.25),
    ]
    assert set(found["aspect"]) == {"overall"}
    assert set(found["annotator_kind"]) == {"model"}
    told = {(fate["fate"], fate["rule"]): fate["rows"] for fate in commits["converted"].content["fates"]}
    assert told == {("converted", "better"): 8, ("dropped", "honesty"): 5}
    failed = {check["name"]: check["blocking"] for check in commits["converted"].checks if not check["passed"]}
    assert failed["loss_by_group"], "a source of which nothing became a pair is a loss that stops the release"
    assert failed["expect_column_distinct_values_to_contain_set__conversion"] is False, "honesty made none"


TULU = """
ingested:
  max_quarantined_share: 0.2
  sources:
    - name: tulu
      path: {data}/tulu1_human_eval/eval_annotations_tulu_1.xlsx
      each: STRING_TO_ARRAY('a,b', ',')       # each row judges two completions: is it acceptable?
      columns:
        feedback_id: CAST(id AS VARCHAR) || '/' || each
        kind: "'thumbs'"
        aspect: "'acceptable'"
        prompt: prompt
        response_a: CASE each WHEN 'a' THEN completion_a ELSE completion_b END
        label: >-
          CASE CASE each WHEN 'a' THEN completion_a_is_acceptable ELSE completion_b_is_acceptable END
          WHEN 'yes' THEN 'up' WHEN 'no' THEN 'down' END
        annotator_id: evaluator
        annotator_kind: "'human'"
guidelines: {{ path: null }}
converted:
  conversions:
    - {{ id: acceptable, version: 1, reason: an acceptable completion before one that is not, kind: thumbs_to_pairs }}
"""


@pytest.mark.skipif(not raw.DATA.is_dir(), reason=f"the real data sets are not at {raw.DATA}")
def test_thumbs_of_real_evaluators_become_the_pairs_that_plain_python_makes_of_the_spreadsheet(tmp_path: Path):
    project = opened(tmp_path, TULU.format(data=raw.DATA.resolve()))
    commits = build(project, "ingested", "guidelines", "guideline_joined", "converted")
    given = defaultdict(list)
    for row in raw.tulu().values():
        for side in "ab" if row else "":
            given[row["evaluator"], row["prompt"]].append(
                (row[f"completion_{side}"], row[f"completion_{side}_is_acceptable"])
            )
    assert sum(map(len, given.values())) == 2_300 == commits["converted"].content["rows_in"]
    wanted = Counter(
        (*where, chosen, rejected)
        for where, thumbs in given.items()
        for chosen, up in thumbs
        for rejected, other in thumbs
        if (up, other) == ("yes", "no") and chosen != rejected
    )
    pairs = rows(project, commits["converted"]).filter(pl.col("conversion").is_not_null()).collect()
    behind = chain(project, {"converted": commits["converted"]})
    texts = [
        part.frame.with_row_index("content_row").with_columns(content_part=pl.lit(part.digest)).collect()
        for part in content_parts(project.held, behind["ingested"], behind["converted"])
    ]
    read = pairs.join(pl.concat(texts), on=["content_part", "content_row"], how="left", maintain_order="left")
    won = pl.col("label") == "a"
    found = Counter(
        read.select(
            "annotator_id",
            pl.col("prompt").list.first().struct.field("text"),
            pl.when(won).then("response_a").otherwise("response_b"),
            rejected=pl.when(won).then("response_b").otherwise("response_a"),
        ).iter_rows()
    )
    assert found.total() == wanted.total() > 300
    assert (found - wanted).total() == 0
    used = {parent for parents in pairs["parents"] for parent in parents}
    fates = scan(project.store, commits["converted"].snapshot.tables["fates"]).collect()
    assert set(fates.filter(fate="converted")["row_id"]) == used
