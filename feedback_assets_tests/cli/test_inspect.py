"""`inspect`: what it proposes for a file loads, runs, and gives the records that it showed."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from feedback_assets.cli.inspect import inspected, show_inspected
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan
from feedback_assets_tests.sources import shapes

POLICIES = Path(__file__).parent.parent / "policies"
DATA = POLICIES / "../../../shared/data"
REAL = {  # file: records, quarantined, preset
    "hh_rlhf/harmless-base-test.jsonl.gz": (2_307, 5, "anthropic-hh"),
    "mtbench/human.jsonl": (2_249, 0, None),
    "mtbench/gpt4_pair.jsonl": (1_600, 0, None),
    "tulu1_human_eval/eval_annotations_tulu_1.xlsx": (1_150, 152, None),
    # instances without a judgment: there is nothing to take
    "tulu1_human_eval/eval_instances_tulu_1.jsonl": (0, 996, None),
    "ukpconvarg1/2016-W04.parquet": (2_143, 0, None),
}


def ingested(folder: Path, section: str) -> tuple[int, int]:
    """The section in a policy of its own, run: records and quarantined."""
    policy = folder / "policy.yaml"
    policy.write_text(section, encoding="utf-8")
    project = Project.open(policy, folder / "store")
    commit = materialize(project, "ingested", run_id="test", inputs={}, now=datetime(2100, 1, 1, tzinfo=UTC))
    conserved = next(check for check in commit.checks if check["name"] == "conservation")
    assert conserved["status"] == "passed", conserved["meaning"]
    tables = commit.snapshot.tables
    return tables["rows"].rows, scan(project.store, tables["quarantine"]).select(pl.len()).collect().item()


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
@pytest.mark.parametrize("name", REAL)
def test_what_is_proposed_for_a_real_set_runs_and_gives_its_records(name, tmp_path):
    found = inspected((DATA / name).resolve(), None)
    assert (found["records"], sum(row["records"] for row in found["quarantined"]), found["preset"]) == REAL[name]
    assert ingested(tmp_path, found["section"]) == REAL[name][:2]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_what_is_proposed_for_ukp_is_what_its_policy_says():
    def columns(text: str) -> dict[str, object]:
        return yaml.safe_load(text)["ingested"]["sources"][0]["columns"]

    proposed = columns(inspected(DATA / "ukpconvarg1/2016-W08.parquet", "ukp")["section"])
    own = columns((POLICIES / "ukp.yaml").read_text(encoding="utf-8"))
    same = ("label", "gold", "response_a", "response_b", "annotator_id", "started_at", "collected_at", "category")
    assert {name: proposed[name] for name in same} == {name: own[name] for name in same}


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_known_shape_is_recognised_and_its_section_has_three_lines(shape, tmp_path):
    preset, rows, write, kept = shapes.SHAPES[shape]
    found = inspected(write(tmp_path, rows), "s")
    source = yaml.safe_load(found["section"])["ingested"]["sources"][0]
    assert (source.keys(), source["preset"]) == ({"name", "path", "preset"}, preset)
    assert found["records"] == kept
    assert ingested(tmp_path, found["section"]) == (kept, sum(row["records"] for row in found["quarantined"]))


def of(folder: Path, rows: list[dict[str, object]]) -> tuple[dict[str, object], list[str], int]:
    """For a file of our own: the proposed source, what is open, and the number of records."""
    folder.mkdir(exist_ok=True)
    found = inspected(shapes.as_jsonl(folder, rows), "s")
    assert ingested(folder, found["section"])[0] == found["records"]
    return yaml.safe_load(found["section"])["ingested"]["sources"][0], found["open"], found["records"]


def test_ratings_thumbs_and_times_are_recognised_and_what_is_uncertain_is_said(tmp_path):
    rows = [
        {"uuid": f"u{n}", "question": "q", "reply": f"r{n}", "stars": n, "rater": "w", "created_at": 1_700_000_000 + n}
        for n in (1, 5, 3)
    ]
    source, _, records = of(tmp_path, rows)
    columns = source["columns"]
    assert (columns["kind"], columns["score"], columns["score_min"], columns["score_max"]) == (
        "'rating'",
        "stars",
        "1",
        "5",
    )
    assert columns["collected_at"] == {"expr": "created_at", "unit": "s"}
    assert (columns["feedback_id"], columns["annotator_id"], records) == ("uuid", "rater", 3)
    text = inspected(tmp_path / "data.jsonl", "s")["section"]
    assert "is it the end of the scale?" in text
    thumbs, _, records = of(
        tmp_path / "thumbs", [{"prompt": "p", "output": "o", "feedback": word} for word in ("up", "down")]
    )
    assert (thumbs["columns"]["kind"], records) == ("'thumbs'", 2)


def test_a_list_of_judgments_becomes_a_record_each_in_one_group(tmp_path):
    ranking = [{"text": "x", "rank": 1}, {"text": "y", "rank": 2}]
    source, _, records = of(tmp_path, [{"id": "q1", "prompt": "p", "candidates": ranking}])
    assert source["each"] == "candidates"
    assert source["columns"]["feedback_id"] == "id || '#' || __position"
    assert source["columns"]["group_id"] == "id"
    assert (source["columns"]["response_a"], source["columns"]["score"], records) == ("each.text", "each.rank", 2)


def test_what_cannot_be_known_is_a_line_to_fill_in(tmp_path):
    source, asked, records = of(tmp_path, [{"foo bar": "x", "n": 1}])
    assert (source["columns"], records) == ({"kind": "'rating'"}, 0)
    assert [line.split(":")[0] for line in asked if "FILL IN" in line] == [
        *("response_a", "prompt", "score", "annotator_id", "collected_at", "feedback_id"),
    ]


def test_a_value_whose_side_is_unclear_is_quarantined_and_named(tmp_path):
    rows = [{"q_id": n, "prompt": "p", "answer1": f"x{n}", "answer2": "y", "choice": c} for n, c in enumerate("12?")]
    found = inspected(shapes.as_jsonl(tmp_path, rows), "s")
    assert 'unclear, and quarantined: "?"' in found["section"]
    assert [(row["reason"], row["first_line"], row["value"]) for row in found["quarantined"]] == [
        ("outside-vocabulary", 3, "?")
    ]


def test_a_blank_is_no_side_of_a_label(tmp_path):
    rows = [
        {"prompt": f"p {n}", "response_a": f"aa {n}", "response_b": f"bb {n}", "winner": ["a", "b", "", " "][n % 4]}
        for n in range(8)
    ]
    found = inspected(shapes.as_jsonl(tmp_path, rows), "s")
    assert "quarantined: " not in found["section"]
    assert (found["records"], [row["column"] for row in found["quarantined"]]) == (4, ["label"])
    assert ingested(tmp_path, found["section"]) == (4, 4)


def test_a_side_written_in_two_cases_is_one_side(tmp_path):
    rows = [
        {"prompt": "p", "left": f"x{n}", "right": f"y{n}", "choice": word}
        for n, word in enumerate(("left", "Left", "right"))
    ]
    assert of(tmp_path, rows)[2] == 3


def test_beside_a_preset_what_else_the_file_has_is_proposed(tmp_path):
    more = {"annotator_id": "w", "created_at": "2026-01-02T03:04:05Z", "category": "c", "guideline_version": "1.0.0"}
    rows = [{"id": f"r{n}", "prompt": "p", "chosen": f"x{n}", "rejected": "y", **more} for n in range(3)]
    source, asked, records = of(tmp_path, rows)
    assert source["preset"] == "trl-preference"
    assert source["columns"] == {
        "feedback_id": "id",
        "category": "category",
        "annotator_id": "annotator_id",
        "collected_at": "created_at",
        "guideline_version": "guideline_version",
    }
    assert (asked, records) == ([], 3)


def test_ratings_in_text_are_ratings(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("prompt,response,rating\np,x,5\np,y, 1\np,z,\np,v,4.5\n", encoding="utf-8")
    found = inspected(path, "s")
    columns = yaml.safe_load(found["section"])["ingested"]["sources"][0]["columns"]
    assert [columns[name] for name in ("kind", "score", "score_min", "score_max")] == ["'rating'", "rating", "1", "5"]
    source, _, records = of(tmp_path, [{"prompt": "p", "response": f"{n}", "score": f"{n}"} for n in (2, 5)])
    assert (source["columns"]["score"], records) == ("score", 2)
    source, _, _ = of(tmp_path / "ids", [{"prompt": "p", "response": f"{n}", "score": f"{n}"} for n in (2, 10**9)])
    assert "score" not in source["columns"]


def test_a_dictionary_of_texts_is_text(tmp_path):
    rows = {"prompt": ["p", "p"], "answer_1": ["x", "y"], "answer_2": ["v", "w"], "winner": ["1", "2"]}
    rows["task"] = ["t", "t"]
    path = tmp_path / "data.parquet"
    pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.Categorical)).write_parquet(path)
    found = inspected(path, "s")
    columns = yaml.safe_load(found["section"])["ingested"]["sources"][0]["columns"]
    assert [columns[name] for name in ("prompt", "response_a", "response_b", "task")] == [
        *("prompt", "answer_1", "answer_2", "task"),
    ]
    assert "WHEN '1' THEN 'a'" in columns["label"]
    assert found["records"] == 2
    assert ingested(tmp_path, found["section"]) == (2, 0)


def test_a_column_named_response_goes_before_a_pair_of_columns_that_look_alike(tmp_path):
    rows = pl.DataFrame({"prompt": "p", "response": ["r", "q"], "rating": [4, 5], "user": "u"})
    rows = rows.with_columns(pl.lit("some words").alias(f"f{n}") for n in range(300))
    rows.write_csv(tmp_path / "data.csv")
    found = inspected(tmp_path / "data.csv", "s")
    columns = yaml.safe_load(found["section"])["ingested"]["sources"][0]["columns"]
    assert (columns["kind"], columns["response_a"], columns["score"]) == ("'rating'", "response", "rating")
    assert "response_b" not in columns
    assert found["records"] == 2
    row = {"prompt": "p", "x1": "0.25", "x2": "0.75", "response_a": "r", "response_b": "q", "winner": "a"}
    source, _, _ = of(tmp_path / "pair", [row, {**row, "winner": "b"}])
    assert (source["columns"]["response_a"], source["columns"]["response_b"]) == ("response_a", "response_b")


@pytest.mark.parametrize(
    ("column", "values", "label", "kept"),
    [
        ("helpful?", ["Yes", "No", "", "yes"], "WHEN 'No' THEN 'down'", 3),
        ("thumbs", ["up", None, "down"], "WHEN 'up' THEN 'up'", 2),
        ("feedback", ["like", "like"], "WHEN 'like' THEN 'up'", 2),
        ("label", [0.0, 1.0], "WHEN '1.0' THEN 'up'", 2),
    ],
)
def test_thumbs_are_recognised_in_whatever_they_are_written(column, values, label, kept, tmp_path):
    rows = [{"prompt": "p", "response": f"r{n}", column: value} for n, value in enumerate(values)]
    source, _, records = of(tmp_path, rows)
    assert source["columns"]["kind"] == "'thumbs'"
    assert label in source["columns"]["label"]
    assert records == kept


@pytest.mark.parametrize(("value", "label"), [("left", "a"), ("model_b", "b"), ("1", None), ("1.0", None)])
def test_one_value_alone_says_a_side_if_it_is_a_word(value, label, tmp_path):
    rows = [{"prompt": "p", "response_a": f"x{n}", "response_b": "y", "winner": value} for n in range(2)]
    source, asked, _ = of(tmp_path, [*rows, {**rows[0], "response_a": "z", "winner": "tie"}])
    if label is None:
        assert "label" not in source["columns"]
        assert any(line.startswith("label: FILL IN") for line in asked)
    else:
        assert f"WHEN '{value}' THEN '{label}'" in source["columns"]["label"]


def test_sides_that_are_floats_are_sides(tmp_path):
    rows = [{"prompt": "p", "response_a": f"x{n}", "response_b": "y", "choice": float(n % 2)} for n in range(4)]
    source, _, records = of(tmp_path, rows)
    assert "WHEN '0.0' THEN 'a' WHEN '1.0' THEN 'b'" in source["columns"]["label"]
    assert records == 4


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_found_and_written(delimiter, tmp_path):
    path = tmp_path / "data.csv"
    rows = [("prompt", "response", "rating"), ("a, b", "x", "1"), ("p", "y, z", "5")]
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows), encoding="utf-8")
    found = inspected(path, "s")
    assert yaml.safe_load(found["section"])["ingested"]["sources"][0]["delimiter"] == delimiter
    assert found["records"] == 2
    assert ingested(tmp_path, found["section"]) == (2, 0)


def test_the_line_that_tells_excel_the_delimiter_tells_it_here(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("sep=;\nprompt;response;rating\np;x;1\n", encoding="utf-8")
    found = inspected(path, "s")
    assert "delimiter" not in yaml.safe_load(found["section"])["ingested"]["sources"][0]
    assert (found["columns"], found["records"]) == (["prompt", "response", "rating"], 1)
    assert ingested(tmp_path, found["section"]) == (1, 0)


def test_of_a_folder_the_first_data_file_is_looked_at(tmp_path, capsys):
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    (folder / "dataset_dict.json").write_text("{}")
    shapes.as_parquet(folder / "train", shapes.TRL)
    found = inspected(folder, "s")
    source = yaml.safe_load(found["section"])["ingested"]["sources"][0]
    assert (source["path"], source["preset"], found["format"]) == (folder.as_posix(), "trl-preference", "parquet")
    assert ingested(tmp_path, found["section"]) == (1, 0)
    show_inspected(found)
    assert "train/train-00000-of-00001.parquet was looked at" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "empty", "no file in it"), (tmp_path / "absent", "no such file")):
        with pytest.raises(FeedbackError, match=said):
            inspected(path, "s")


@pytest.mark.parametrize(("name", "data"), [("x.csv", "prompt,response\n"), ("x.jsonl", "")])
def test_of_a_file_without_rows_nothing_is_said_to_be_well(name, data, tmp_path, capsys):
    (tmp_path / name).write_text(data)
    show_inspected(inspected(tmp_path / name, "s"))
    said = capsys.readouterr().out
    assert "The file has no rows" in said
    assert "Nothing would be quarantined" not in said
