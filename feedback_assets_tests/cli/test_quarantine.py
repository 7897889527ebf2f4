"""`quarantine`: what could not be used, where it stands, and that it comes back when the mapping is mended."""

import json
from pathlib import Path

import pytest
import yaml

from feedback_assets_tests.cli.test_command_line import Call, call  # noqa: F401  a fixture

COLUMNS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "annotator_id": "id",
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Four records, of which two have a label that the mapping does not translate, and a line that is no JSON."""
    records = [
        {"id": f"r{n}", "p": f"question {n}?", "a": f"yes {n}", "b": f"no {n}", "w": label}
        for n, label in enumerate(["a", "left\x1b[31m", "left\x1b[31m", "b"])
    ]
    (tmp_path / "monday.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "tuesday.jsonl").write_text(json.dumps({**records[0], "id": "r9"}) + "\n{torn\n")
    return write(tmp_path, "w", limit=0.25)


def write(folder: Path, label: str, limit: float) -> Path:
    source = {"name": "s", "path": "*day.jsonl", "columns": {**COLUMNS, "label": label}}
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"ingested": {"max_quarantined_share": limit, "sources": [source]}}))
    return path


def test_each_row_in_quarantine_is_listed_with_file_line_and_value(call: Call, policy: Path) -> None:  # noqa: F811
    said = call("run", "--policy", policy)
    assert said.code == 1
    assert "quarantined_share" in said.line()
    said = call("quarantine", "--policy", policy, "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert (found["records"], found["arrived"], found["share"], found["limit"]) == (3, 6, 0.5, 0.25)
    assert [(r["reason"], r["records"], r["batches"]) for r in found["reasons"]] == [
        ("outside-vocabulary", 2, 1),
        ("malformed-json", 1, 1),
    ]
    assert [(r["batch"], r["line"], r["reason"], r["column"], r["value"]) for r in found["rows"]] == [
        ("monday.jsonl", 2, "outside-vocabulary", "label", "left�[31m"),
        ("monday.jsonl", 3, "outside-vocabulary", "label", "left�[31m"),
        ("tuesday.jsonl", 2, "malformed-json", None, None),
    ]
    shown = call("quarantine", "--policy", policy).out
    assert "3 of 6 records are in quarantine (50.00%; the policy allows 25.0%)" in shown
    assert "monday.jsonl line 2" in shown
    assert "\x1b" not in shown


def test_one_batch_can_be_listed_and_an_unknown_one_is_named(call: Call, policy: Path) -> None:  # noqa: F811
    call("run", "--policy", policy)
    for name in ("tuesday.jsonl", "s/tuesday.jsonl"):
        found = json.loads(call("quarantine", "--policy", policy, "--batch", name, "--json").out)
        assert (found["records"], found["arrived"]) == (1, 2)
    said = call("quarantine", "--policy", policy, "--batch", "tuesday")
    assert said.code == 2
    assert said.line() == "feedback-assets: no batch 'tuesday' ever arrived; did you mean 'tuesday.jsonl'?"


def test_before_the_first_run_it_says_what_to_do(call: Call, policy: Path) -> None:  # noqa: F811
    said = call("quarantine", "--policy", policy)
    assert said.code == 2
    assert "nothing is ingested yet; `feedback-assets run` does it" in said.line()


def test_the_same_rows_come_back_as_kept_when_the_mapping_is_mended(call: Call, policy: Path) -> None:  # noqa: F811
    call("run", "--policy", policy)
    write(policy.parent, "CASE WHEN STARTS_WITH(w, 'left') THEN 'a' ELSE w END", limit=0.25)
    said = call("run", "--policy", policy, "--json")
    assert said.code == 0, said.err
    ingested = json.loads(said.out)["stages"][0]
    assert ingested["fates"] == {"kept": 5, "quarantined:malformed-json": 1}
    assert "quarantined_share" not in ingested["checks"]["failed"]
    for name in ("r1", "r2"):
        assert "ingested          kept" in call("trace", name, "--policy", policy).out
    found = json.loads(call("quarantine", "--policy", policy, "--json").out)
    assert [r["reason"] for r in found["rows"]] == ["malformed-json"]


def test_all_lists_each_and_a_few_examples_differ(call: Call, policy: Path) -> None:  # noqa: F811
    records = [
        {"id": f"w{n}", "p": "why?", "a": f"x {n}", "b": f"y {n}", "w": "right" if n == 7 else "left"} for n in range(9)
    ]
    (policy.parent / "wednesday.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    call("run", "--policy", policy)
    few = call("quarantine", "--policy", policy, "--batch", "wednesday.jsonl").out
    assert "wednesday.jsonl line 8  label  right" in few
    assert "and 6 more" in few
    every = call("quarantine", "--policy", policy, "--batch", "wednesday.jsonl", "--all").out
    assert all(f"wednesday.jsonl line {n} " in every for n in range(1, 10))
    assert "more" not in every
