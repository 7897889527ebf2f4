"""The command line as a person meets it: what it prints, how it exits, and the one line when something is wrong."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml

from feedback_assets.cli.main import main
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.snapshots.snapshot import scan
from feedback_assets_tests.sources import shapes

NAMES = [stage.name for stage in STAGES]
HEAVY = ("dagster", "great_expectations", "pandas", "scipy", "numba", "pyarrow", "fastexcel")


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def line(self) -> str:
        """The one line on standard error."""
        assert self.err.startswith("feedback-assets: ")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        return self.err.strip()


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The command line in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DAGSTER_HOME", "")

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["feedback-assets", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return Said(stopped.value.code, said.out, said.err)

    return run


def manifest(folder: Path) -> Path:
    (found,) = (folder / "store" / "releases").glob("*/manifest.json")
    return found


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    edit(policy)
    path.write_text(yaml.safe_dump(policy, sort_keys=False))
    return path


def test_without_a_command_the_help_is_shown(call: Call) -> None:
    for words in ((), ("--help",)):
        said = call(*words)
        assert said.code == (0 if words else 2)
        assert said.err == ""
        for command in ("run", "ui", "releases", "questions", "trace", "init"):
            assert f"\n│ {command} " in said.out


@pytest.mark.parametrize("words", [["fly"], ["run", "--fast"], ["questions"], ["trace"]])
def test_wrong_usage_exits_with_2(call: Call, words: list[str]) -> None:
    said = call(*words)
    assert said.code == 2
    said.line()


def test_run_as_json_has_the_release_and_every_stage(call: Call, sample: Path) -> None:
    said = call("run", "--policy", sample / "policy.yaml", "--json")
    assert (said.code, said.err) == (0, "")
    value = json.loads(said.out)
    assert value["release"] == json.loads(manifest(sample).read_text())["id"]
    assert sorted(stage["asset"] for stage in value["stages"]) == sorted(NAMES)
    for stage in value["stages"]:
        assert set(stage) == {
            "asset", "rows_in", "rows_out", "fates", "data_version", "code_version", "checks", "drift",
        }  # fmt: skip
        assert set(stage["checks"]) == {"passed", "failed", "waived"}
        assert stage["checks"]["waived"] == []
        assert stage["checks"]["failed"] == [] or stage["asset"] == "reweighted"
        assert all(set(drift) == {"psi", "kl", "ks"} for drift in stage["drift"].values())
    filtered = next(stage for stage in value["stages"] if stage["asset"] == "filtered")
    assert filtered["rows_in"] == sum(filtered["fates"].values())
    assert filtered["fates"]["kept"] == filtered["rows_out"]
    assert filtered["fates"]["dropped:too-fast@2"] > 0


def test_run_shows_a_table_and_where_everything_lies(call: Call, sample: Path) -> None:
    said = call("run", "--policy", sample)
    assert said.code == 0
    assert all(f"\n{name} " in said.out for name in NAMES)
    assert str(manifest(sample)) in said.out
    assert "dropped: too-fast v2" in said.out


def test_a_failed_check_exits_with_1_and_one_line_and_makes_no_release(call: Call, sample: Path) -> None:
    before = manifest(sample)
    rule = {"id": "no-app", "version": 1, "reason": "a test", "drop_when": "source = 'app'"}
    policy = edited(sample, lambda policy: policy["filtered"]["rules"].append(rule))
    said = call("run", "--policy", policy)
    assert said.code == 1
    assert "\nfiltered " in said.out
    assert said.line().startswith("feedback-assets: no release: filtered: the check loss_by_group failed: ")
    assert "source=app lost" in said.line()
    assert "deduplicated" not in said.out
    assert manifest(sample) == before
    assert len(json.loads(call("releases", "--policy", policy, "--json").out)) == 1


def test_a_missing_policy_is_said(call: Call) -> None:
    said = call("run", "--policy", "nowhere.yaml")
    assert said.code == 2
    assert said.line() == ("feedback-assets: nowhere.yaml: no such policy; `feedback-assets init DIR` writes a starter")


def test_a_yaml_mistake_is_said_with_its_line(call: Call) -> None:
    Path("policy.yaml").write_text("project: x\ningested: {sources: [\n")
    said = call("run", "--policy", "policy.yaml")
    assert said.code == 2
    assert said.line().startswith("feedback-assets: policy.yaml:3: not valid YAML: ")


def test_a_misspelt_key_is_said_with_what_was_meant(call: Call, sample: Path) -> None:
    policy = edited(sample, lambda policy: policy["deduplicated"].update(treshold=0.8))
    said = call("run", "--policy", policy)
    assert said.code == 2
    assert "deduplicated.treshold: unknown key; did you mean 'threshold'?" in said.line()


def test_no_matching_file_is_an_input_error(call: Call, sample: Path) -> None:
    shutil.rmtree(sample / "batches")
    said = call("run", "--policy", sample)
    assert said.code == 2
    assert "preferences-*.jsonl" in said.line()


def test_a_store_that_cannot_be_written_is_said(call: Call, sample: Path) -> None:
    Path("file").touch()
    said = call("run", "--policy", sample, "--store", "file/store")
    assert said.code == 2
    assert "file/store" in said.line()


def test_an_unknown_release_is_said(call: Call, sample: Path) -> None:
    said = call("questions", "ffff", "--store", sample / "store")
    assert said.code == 2
    assert "no release 'ffff'" in said.line()
    assert call("questions", "latest", "--store", "empty").code == 2


@pytest.mark.parametrize("command", ["releases", "verify", "gc"])
def test_a_store_that_no_run_made_is_said(command: str, call: Call) -> None:
    Path("file").write_text("x")
    for words, problem in (
        (("--store", "absent"), "no run has made a store here"),
        (("--policy", "absent.yaml"), "no run has made a store here"),
        (("--store", "file"), "is a file, and a store is a folder"),
        (("--store", "http://x/y"), "no store can be there; give a folder or s3://bucket/prefix"),
    ):
        said = call(command, *words)
        assert said.code == 2
        assert problem in said.line()


def test_a_run_makes_no_store_of_another_scheme(call: Call) -> None:
    said = call("run", "--store", "http://x/y")
    assert (said.code, Path("http:").exists()) == (2, False)
    assert "http://x/y: no store can be there" in said.line()


@pytest.mark.parametrize("name", ["latest", "1"])
def test_questions_as_json_has_the_three_answers(call: Call, sample_run: Path, name: str) -> None:
    said = call("questions", name, "--store", sample_run / "store", "--json")
    assert said.code == 0
    value = json.loads(said.out)
    assert {"annotations", "transformations", "distribution"} <= set(value)
    assert value["release"] == json.loads(manifest(sample_run).read_text())["id"]


def test_questions_are_answered_from_a_manifest_alone(call: Call, sample: Path) -> None:
    there = call("questions", "latest", "--policy", sample, "--json").out
    copied = Path(shutil.copy(manifest(sample), "elsewhere.json"))
    shutil.rmtree(sample)
    said = call("questions", copied, "--json")
    assert said.code == 0
    assert said.out == there
    assert "1. Which annotations are in it" in call("questions", copied).out


def test_questions_do_not_read_the_policy_which_may_be_gone(call: Call, sample: Path) -> None:
    (sample / "policy.yaml").unlink()
    assert call("questions", "latest", "--policy", sample / "policy.yaml").code == 0


def test_an_answer_that_is_incomplete_exits_with_1_and_says_so(call: Call, sample: Path) -> None:
    value = json.loads(manifest(sample).read_text())
    value["circumstances"]["environment"]["polars"] = "unknown"
    Path("edited.json").write_text(json.dumps(value))
    said = call("questions", "edited.json")
    assert (said.code, said.err) == (1, "")
    assert "not answered: the version of polars is not known" in said.out
    assert json.loads(call("questions", "edited.json", "--json").out)["complete"] is False


def test_a_release_is_tagged_approved_attested_and_trained_on(call: Call, sample: Path) -> None:
    assert call("tag", "latest", "v1", "--policy", sample).out.startswith("v1 names release ")
    assert call("approve", "v1", "--by", "ines", "--note", "read it", "--policy", sample).code == 0
    assert "approved by ines" in call("questions", "v1", "--policy", sample).out
    (entry,) = json.loads(call("releases", "--policy", sample, "--json").out)
    page = sample / "page.html"
    assert call("report", "v1", "--policy", sample, "-o", page).code == 0
    said = re.sub(r"<[^>]+>", "", page.read_text())
    assert f"approved by ines, {entry['approvals'][0]['at']}: read it" in said
    assert (entry["tags"], entry["approvals"][0]["note"]) == (["v1"], "read it")
    attested = call("attest", "v1", "--policy", sample)
    assert json.loads(attested.out)["signatures"] == []
    assert "not signed" in attested.line()
    trained = call("record-training-run", "--release", "v1", "--model", "rm-7", "--policy", sample)
    assert (trained.code, trained.err) == (0, "")
    assert trained.out.startswith("rm-7 was trained on ")
    example = call("trace", "--release", "v1", "--example", 3, "--policy", sample)
    assert "training_run      kept  by rm-7" in example.out
    assert "# Helpfulness" in example.out


def test_an_approval_stands_where_dagster_cannot_be_told(call: Call, sample: Path) -> None:
    (sample / "policy.yaml").unlink()
    said = call("approve", "1", "--by", "ines", "--note", "read it", "--store", sample / "store", "--policy", sample)
    assert said.code == 0
    assert "recorded, but Dagster was not told" in said.line()


@pytest.mark.parametrize(
    "words", [["x", "--example", 3], ["--example", 3], ["--release", "1"], ["x", "--release", "1", "--all"]]
)
def test_what_trace_cannot_be_asked_is_said(call: Call, words: list[str]) -> None:
    said = call("trace", *words)
    assert said.code == 2
    assert said.line().startswith("feedback-assets: trace takes ")


def test_the_schema_is_printed(call: Call) -> None:
    assert json.loads(call("schema").out)["title"] == "Manifest"


def test_a_changed_manifest_is_not_believed(call: Call, sample: Path) -> None:
    path = manifest(sample)
    value = json.loads(path.read_text())
    value["content"]["gate"]["asked"] += 1
    path.write_text(json.dumps(value))
    for name in (path, "latest"):
        said = call("questions", name, "--policy", sample)
        assert said.code == 2
        assert "the manifest was changed after the release" in said.line()


def test_half_a_manifest_is_said(call: Call, sample: Path) -> None:
    path = manifest(sample)
    path.write_text(path.read_text()[:1000])
    for command in (["questions", path], ["questions", "latest", "--policy", sample], ["releases", "--policy", sample]):
        said = call(*command)
        assert said.code == 2
        assert "cannot be read as a manifest" in said.line()
        assert "restore it" in said.line()


def test_init_writes_a_folder_that_runs_as_it_is(call: Call) -> None:
    said = call("init", "team")
    assert said.code == 0
    assert said.out.strip().endswith("feedback-assets run --policy team/policy.yaml")
    said = call("run", "--policy", "team/policy.yaml", "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["release"]


def test_init_leaves_a_folder_that_is_not_empty_alone(call: Call) -> None:
    Path("team").mkdir()
    Path("team/mine.txt").write_text("mine")
    said = call("init", "team")
    assert said.code == 2
    assert said.line() == "feedback-assets: team: exists and is not empty; name a new folder"
    assert [path.name for path in Path("team").iterdir()] == ["mine.txt"]


def table(folder: Path, asset: str, name: str) -> pl.DataFrame:
    project = Project.open(folder / "policy.yaml", folder / "store")
    commit = project.commits.latest(asset)
    assert commit is not None
    return scan(project.store, commit.snapshot.tables[name]).collect()


def feedback_id(folder: Path, row_id: str) -> str:
    return table(folder, "ingested", "rows").row(by_predicate=pl.col("row_id") == row_id, named=True)["feedback_id"]


def traced(call: Call, folder: Path, name: str) -> dict[str, Any]:
    said = call("trace", name, "--policy", folder, "--json")
    assert (said.code, said.err) == (0, "")
    (entry,) = json.loads(said.out)
    shown = call("trace", name, "--policy", folder)
    assert shown.code == 0
    assert entry["row_id"] in shown.out
    return entry


def test_a_released_annotation_is_traced_through_every_stage(call: Call, sample_run: Path) -> None:
    row_id = table(sample_run, "training_set", "rows").get_column("row_id").item(0)
    entry = traced(call, sample_run, feedback_id(sample_run, row_id))
    assert entry["row_id"] == row_id
    assert entry["in_release"]
    assert [step["stage"] for step in entry["steps"]] == NAMES[2:]
    (weighed,) = [step for step in entry["steps"] if step["stage"] == "reweighted"]
    assert any(name.startswith("w_") for name in weighed["added"])


def test_a_dropped_annotation_names_the_rule_and_its_version(call: Call, sample_run: Path) -> None:
    row = table(sample_run, "filtered", "fates").filter(fate="dropped").row(0, named=True)
    entry = traced(call, sample_run, feedback_id(sample_run, row["row_id"]))
    last = entry["steps"][-1]
    assert (last["stage"], last["fate"], last["rule"]) == ("filtered", "dropped", row["rule"])
    assert last["rule_version"] == row["rule_version"]
    assert not entry["in_release"]


def test_a_merged_annotation_names_the_one_that_stands_for_it(call: Call, sample_run: Path) -> None:
    row = table(sample_run, "deduplicated", "fates").filter(fate="merged").row(0, named=True)
    entry = traced(call, sample_run, feedback_id(sample_run, row["row_id"]))
    last = entry["steps"][-1]
    assert (last["stage"], last["fate"], last["into"]) == ("deduplicated", "merged", row["into"])
    assert not entry["in_release"]


@pytest.mark.parametrize("fate", ["superseded", "redelivered"])
def test_every_delivery_of_an_annotation_is_traced(call: Call, sample_run: Path, fate: str) -> None:
    row = table(sample_run, "ingested", "fates").filter(fate=fate).row(0, named=True)
    entry = traced(call, sample_run, feedback_id(sample_run, row["row_id"]))
    assert sorted(delivery["fate"] for delivery in entry["deliveries"]) == ["kept", fate]
    assert len({delivery["arrival"] for delivery in entry["deliveries"]}) == 2


def test_a_record_in_quarantine_is_traced_by_its_batch_and_line(call: Call, sample_run: Path) -> None:
    quarantine = table(sample_run, "ingested", "quarantine").unique("reason", keep="first", maintain_order=True)
    for bad in quarantine.iter_rows(named=True):
        entry = traced(call, sample_run, f"{bad['batch']}:{bad['line']}")
        assert entry["record"] is None
        assert not entry["in_release"]
        assert {
            "fate": "quarantined",
            "rule": bad["reason"],
            "column": bad["column"],
            "value": bad["value"],
        }.items() <= (next(d for d in entry["deliveries"] if d["line"] == bad["line"]).items())


def test_a_record_that_conflicts_with_another_of_its_batch_is_traced_by_its_feedback_id(
    call: Call, sample_run: Path
) -> None:
    bad = table(sample_run, "ingested", "quarantine").filter(reason="conflicting-duplicate").row(0, named=True)
    entry = traced(call, sample_run, bad["value"])
    assert [delivery["rule"] for delivery in entry["deliveries"]] == ["conflicting-duplicate"] * 2


def test_an_unknown_annotation_is_said_with_the_ways_to_name_one(call: Call, sample_run: Path) -> None:
    said = call("trace", "nobody", "--policy", sample_run)
    assert said.code == 2
    assert "no annotation 'nobody'" in said.line()
    assert "BATCH_FILE:LINE" in said.line()


def test_nothing_to_trace_before_the_first_run(call: Call, sample: Path) -> None:
    said = call("trace", "x", "--policy", sample, "--store", "empty")
    assert said.code == 2
    assert "nothing is materialized yet" in said.line()


def test_what_only_reads_a_manifest_imports_neither_dagster_nor_great_expectations(sample_run: Path) -> None:
    store, path = str(sample_run / "store"), str(manifest(sample_run))
    code = f"""
import sys, contextlib, io
from feedback_assets.cli.main import main
for words in (["--help"], ["questions", {path!r}], ["releases", "--store", {store!r}]):
    sys.argv = ["feedback-assets", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as stopped:
        assert not stopped.code, words
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_inspect_shows_the_section_to_paste_and_what_would_be_quarantined(call: Call, tmp_path: Path):
    path = shapes.as_json(tmp_path, shapes.LABEL_STUDIO)
    said = call("inspect", path, "--json")
    assert (said.code, json.loads(said.out)["preset"]) == (0, "label-studio-pairwise")
    shown = call("inspect", path, "--source-name", "pairs")
    assert shown.code == 0
    assert "preset: label-studio-pairwise" in shown.out
    assert "cancelled" in shown.out
    assert max(map(len, shown.out.splitlines())) <= max(120, len(str(path)) + 60)


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("x.json", "[", (), "x.json:1:2: not valid JSON"),
        ("x.txt", "x", (), "its ending stands for no known format"),
        (None, "", (), "no such file"),
        ("x.jsonl", '{"a": 1}', ("--source-name", "a b"), "letters, digits"),
    ],
)
def test_a_file_that_cannot_be_inspected_is_one_line(
    call: Call, tmp_path: Path, name: str | None, content: str, words: tuple[str, ...], message: str
):
    path = tmp_path / (name or "absent.csv")
    if name:
        path.write_text(content, encoding="utf-8")
    said = call("inspect", path, *words)
    assert said.code == 2
    assert message in said.line()


def test_a_misspelt_section_is_said_and_not_that_the_section_is_missing(call: Call, sample: Path) -> None:
    policy = sample / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8").replace("ingested:", "ingestd:", 1), encoding="utf-8")
    said = call("run", "--policy", policy)
    assert said.code == 2
    assert "ingestd: unknown key; did you mean 'ingested'?" in said.line()
    assert "more)" not in said.line()


@pytest.mark.parametrize("option", ["--record", "--annotator"])
def test_a_blank_name_is_erased_of_nobody(option: str, call: Call, sample: Path) -> None:
    said = call("erase", option, " ", "--policy", sample)
    assert said.code == 2
    assert "a blank names nobody" in said.line()
