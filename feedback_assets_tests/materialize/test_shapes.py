"""Sources of which a line is several records, through the whole graph to a release, and traced back to their line."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.trace import trace
from feedback_assets_tests.sources import shapes

POLICY = """
ingested:
  max_quarantined_share: 0.5
  sources:
    - { name: pairs, path: export.json, preset: label-studio-pairwise }
    - name: rankings
      path: data.jsonl
      each: ranking
      columns:
        feedback_id: id || '#' || __position
        group_id: id
        kind: "'rating'"
        aspect: "'overall'"
        prompt: question
        response_a: each.text
        score: each.rank
        score_min: "1"
        score_max: "9"
        annotator_id: who
guidelines: { path: null }
"""


@pytest.fixture
def released(tmp_path: Path) -> Project:
    shapes.as_json(tmp_path, shapes.LABEL_STUDIO)
    ranking = [
        {"text": f"Quite another answer, {word}.", "rank": n + 1} for n, word in enumerate(("one", "two", "six"))
    ]
    lines = [{"id": f"q{n}", "question": f"What of {n}?", "who": "w", "ranking": ranking} for n in range(3)]
    shapes.as_jsonl(tmp_path, lines)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    project = Project.open(tmp_path / "policy.yaml", tmp_path / "store")
    for stage in STAGES:
        commit = materialize(project, stage.name, run_id="r", now=datetime(2100, 1, 1, tzinfo=UTC))
        wrong = [check["meaning"] for check in commit.checks if check["status"] in ("failed", "error")]
        assert not wrong, (stage.name, wrong)
    return project


def test_every_entry_reaches_the_training_set_in_the_order_of_its_line(released: Project):
    commit = released.commits.latest("training_set")
    assert commit is not None
    out = rows(released, commit).collect()
    assert out.select("source", "line", "position").rows() == [
        *(("pairs", 1, 1), ("pairs", 1, 2), ("pairs", 2, 1)),
        *(("rankings", line, place) for line in (1, 2, 3) for place in (1, 2, 3)),
    ]
    assert out.filter(source="rankings")["group_id"].to_list() == [f"q{n}" for n in (0, 0, 0, 1, 1, 1, 2, 2, 2)]


def test_a_line_is_traced_to_all_its_records_kept_or_in_quarantine(released: Project):
    found = trace(released, "export.json:2")
    told = sorted((d["position"], d["fate"], d["rule"]) for entry in found for d in entry["deliveries"])
    assert told == [(1, "kept", None), (2, "quarantined", "cancelled")]
    (nothing,) = trace(released, "export.json:3")
    assert [(d["position"], d["rule"]) for d in nothing["deliveries"]] == [(None, "no-entry")]
    (one,) = trace(released, "q1#3")
    assert (one["record"]["line"], one["record"]["position"], one["in_release"]) == (2, 3, True)
    assert json.dumps(found)
