"""The files of a real release: what `datasets` reads, what TRL's trainers take, and whose judgment each line is."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from feedback_assets.exports.trl import NoText
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain, materialize
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance import export as module
from feedback_assets.provenance.erase import erase
from feedback_assets.provenance.export import write_exports
from feedback_assets.provenance.release import Release, annotations_of, folder, read, release, unpacked
from feedback_assets.provenance.replay import replay
from feedback_assets.provenance.sought import Request
from feedback_assets_tests.provenance.votes import Votes, vote

FACTORS = [
    {"id": "sure", "version": 1, "reason": "a hesitant choice counts less", "kind": "confidence", "floor": 0.5},
]
EXPORTS = [
    {"name": "preferences", "columns": ["annotator_id", "line"]},
    {"name": "plain", "conversational": False, "file": "jsonl"},
    {"name": "reward", "format": "reward", "margin": "confidence", "missing_margin": "zero", "ties": "both-ways"},
    {"name": "reward-plain", "format": "reward", "margin": "confidence", "conversational": False},
    {"name": "kto", "format": "kto", "file": "jsonl"},
    {"name": "kto-plain", "format": "kto", "conversational": False},
    {"name": "short", "trainer": {"max_length": 40, "tokens_per_turn": 0}, "provenance": "none"},
]
UPSAMPLED = {
    "targets": [
        {"id": "more", "version": 1, "reason": "rare", "column": "category", "shares": {"rare": 0.5}, "max_copies": 3}
    ]
}
# TRL 1.16.0, `_prepare_dataset` and `_set_signature_columns_if_needed` of each trainer: the columns that it cannot do
# without, those it reads where they are there, and what each holds (of text: all plain or all conversational).
TRL = {
    "RewardTrainer": ({"prompt": "text", "chosen": "text", "rejected": "text"}, {"margin": float}),
    "DPOTrainer": ({"prompt": "text", "chosen": "text", "rejected": "text"}, {}),
    "KTOTrainer": ({"prompt": "text", "completion": "text", "label": bool}, {}),
}
READ_ASIDE = {"tools", "chat_template_kwargs", "image", "images"}
TAKEN_FOR_PROCESSED = {"chosen_ids", "rejected_ids", "chosen_input_ids", "rejected_input_ids", "prompt_ids"}
TRAINED = [
    ("preferences", "RewardTrainer"),
    ("preferences", "DPOTrainer"),
    ("plain", "RewardTrainer"),
    ("plain", "DPOTrainer"),
    ("reward", "RewardTrainer"),
    ("reward-plain", "RewardTrainer"),
    ("kto", "KTOTrainer"),
    ("kto-plain", "KTOTrainer"),
]


def batch(number: int, n: int = 30) -> str:
    lines = []
    for i in range(n):
        thumb = i % 3 == 2
        word = f"{chr(97 + i % 26) * 4}{number}x{i}"
        lines.append(
            {
                "id": f"b{number}-{i}",
                "kind": "thumbs" if thumb else "preference",
                "prompt": f"Question {word}: " + f"tell me of {word} " * 3,
                "left": f"An answer on {word}, told at some length. " * (1 + i % 4),
                "right": None if thumb else f"Nothing is known about {word} to anybody here. " * (1 + i % 3),
                "label": ("up", "down")[i % 2] if thumb else ("a", "b", "tie")[i % 5 % 3],
                "sure": i % 4 / 4,
                "who": f"w{i % 3}",
                "category": "rare" if i % 7 == 0 else "usual",
                "at": f"2024-01-{number + 1:02d}T00:{i:02d}:00Z",
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def opened(folder: Path, **training_set: Any) -> Project:
    columns = {
        **{"feedback_id": "id", "kind": "kind", "prompt": "prompt", "response_a": '"left"', "response_b": '"right"'},
        **{"label": "label", "confidence": "sure", "annotator_id": "who", "category": "category", "collected_at": "at"},
    }
    factors = FACTORS if training_set["realise"] == "weights" else []
    policy = {
        "ingested": {"sources": [{"name": "s", "path": "batches/*.jsonl", "columns": columns}]},
        "deduplicated": {"eval_share": 0.3, "missing_annotator": "distinct"},
        "reweighted": {"factors": factors},
        "upsampled": UPSAMPLED,
        "training_set": training_set,
    }
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    return Project.open(folder / "policy.yaml", folder / "store")


def deliver(folder: Path, number: int) -> None:
    (folder / "batches").mkdir(exist_ok=True)
    (folder / "batches" / f"b{number}.jsonl").write_text(batch(number))


def released(project: Project) -> Release:
    for stage in STAGES[:-1]:
        materialize(project, stage.name, run_id="t")
    commit, made = release(project, run_id="t")
    assert made is not None, commit.failed
    return made


class Made:
    """A release and its files."""

    def __init__(self, project: Project) -> None:
        self.project, self.release = project, released(project)
        self.exports = {export["name"]: export for export in self.release.content["exports"]}

    def path(self, name: str) -> Path:
        return self.project.store.path(f"{folder(self.release.id)}/{name}")

    def lines(self, name: str, split: str) -> pl.DataFrame:
        return pl.concat(self._read(name)(path) for path in sorted((self.path(name) / split).iterdir()))

    def sidecar(self, name: str, kind: str, split: str) -> pl.DataFrame:
        return self.lines(name, f"{kind}-{split}")

    def _read(self, name: str):
        return {"parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[self.exports[name]["file"]]


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("weighted")
    deliver(home, 0)
    deliver(home, 1)
    return Made(opened(home, realise="weights", exports=EXPORTS))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("copied")
    deliver(home, 0)
    return Made(opened(home, realise="copies", exports=[{"name": "p"}, {"name": "k", "format": "kto"}]))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return lambda path, config="default": datasets.load_dataset(str(path), config, cache_dir=str(tmp_path / "cache"))


def test_datasets_reads_the_folder_of_an_export_as_its_splits(weighted: Made, load):
    for name, export in weighted.exports.items():
        found = load(weighted.path(name))
        assert {split: len(rows) for split, rows in found.items()} == {
            split: told["rows"] for split, told in export["splits"].items()
        }
        assert set(found) == {"train", "eval"}


@pytest.mark.parametrize("name", ["preferences", "kto"])  # Parquet and JSONL
def test_datasets_reads_the_sidecars_as_configurations_line_by_line(weighted: Made, load, name: str):
    text = load(weighted.path(name))["train"]
    for config in ("weights", "provenance"):
        assert load(weighted.path(name), config)["train"]["row_id"][:] == text["row_id"][:]


@pytest.mark.parametrize(("name", "trainer"), TRAINED)
def test_a_trl_trainer_finds_the_columns_that_it_reads(weighted: Made, load, name: str, trainer: str):
    needed, optional = TRL[trainer]
    for rows in load(weighted.path(name)).values():
        columns = set(rows.column_names)
        assert needed.keys() <= columns
        assert not columns & (READ_ASIDE | TAKEN_FOR_PROCESSED)
        for example in rows:
            texts = [example[column] for column, what in needed.items() if what == "text"]
            if weighted.exports[name]["conversational"]:
                messages = [message for text in texts for message in text]
                assert all(texts)
                assert all(message.keys() == {"role", "content"} for message in messages)
                assert [text[-1]["role"] for text in texts] == ["user", *["assistant"] * (len(texts) - 1)]
            else:
                assert all(isinstance(text, str) for text in texts)
                assert texts[0].endswith("\n\n")
            for column, what in (needed | optional).items():
                assert what == "text" or column not in columns or isinstance(example[column], what)


@pytest.mark.parametrize("realise", ["weights", "copies"])
def test_each_line_is_that_of_its_sidecars_and_of_one_annotation(realise: str, request: pytest.FixtureRequest):
    made: Made = request.getfixturevalue({"weights": "weighted", "copies": "copied"}[realise])
    annotated = annotations_of(made.project.store, made.release).collect()
    for name, export in made.exports.items():
        for split in export["splits"]:
            lines = made.lines(name, split)["row_id"]
            told = annotated.filter(pl.col("assigned_split") == split)
            assert set(lines) <= set(told["row_id"])
            sidecars = sorted(path.name.split("-")[0] for path in made.path(name).glob(f"*-{split}"))
            expected = (["provenance"] if export["provenance"] == "sidecar" else []) + (
                ["weights"] * (realise == "weights")
            )
            assert sidecars == expected
            for kind in sidecars:
                assert made.sidecar(name, kind, split)["row_id"].to_list() == lines.to_list()
                parts = [sorted(made.path(f"{name}/{folder}").iterdir()) for folder in (split, f"{kind}-{split}")]
                assert [path.name for path in parts[0]] == [path.name for path in parts[1]]


def test_lines_stand_in_the_order_of_their_text_whatever_that_of_the_training_set():
    schema = {"_place": pl.Int64, "content_row": pl.UInt32, "row_id": pl.String}
    text = [(None, 1, "d"), (0, 4, "e"), (0, 5, "b"), (0, 5, "c"), (1, 0, "a")]
    for rows in (text, text[1:3], text[::-1], text[1:][::-1], [text[3], text[2]], [text[1], text[0]], text[:1], []):
        there = pl.DataFrame(rows, schema=schema, orient="row")
        assert module._in_order(there).rows() == [row for row in text if row in rows]


def test_the_text_of_a_line_is_what_its_annotation_says_was_preferred(weighted: Made):
    lines = pl.concat(weighted.lines("preferences", split) for split in ("train", "eval"))
    given = {}
    for number in range(2):
        for raw in map(json.loads, batch(number).splitlines()):
            given[raw["id"]] = raw
    annotated = annotations_of(weighted.project.store, weighted.release).collect()
    ids = dict(annotated.select("row_id", "feedback_id").iter_rows())
    for line in lines.iter_rows(named=True):
        raw = given[ids[line["row_id"]]]
        sides = (raw["left"], raw["right"]) if raw["label"] == "a" else (raw["right"], raw["left"])
        assert (line["chosen"][0]["content"], line["rejected"][0]["content"]) == sides
        assert line["prompt"][0]["content"] == raw["prompt"]
        assert line["annotator_id"] == raw["who"]


def test_each_record_is_in_the_files_or_counted_as_left_out(weighted: Made, copied: Made):
    for made in (weighted, copied):
        records = made.release.content["annotations"]["records"]
        for name, export in made.exports.items():
            there = {row_id for split in export["splits"] for row_id in made.lines(name, split)["row_id"]}
            assert len(there) + sum(export["left_out"].values()) == records
    ties = sum('"tie"' in line for number in range(2) for line in batch(number).splitlines())
    assert weighted.exports["preferences"]["left_out"]["tie"] == ties
    assert "tie" not in weighted.exports["reward"]["left_out"]


def test_the_annotations_of_a_batch_are_one_group_though_some_came_later(tmp_path: Path):
    deliver(tmp_path, 0)
    project = opened(tmp_path, realise="weights", exports=EXPORTS[:1])
    released(project)
    with (tmp_path / "batches" / "b0.jsonl").open("a") as file:
        file.write(batch(1))
    made = released(project)
    annotated = annotations_of(project.store, made).collect()
    assert annotated["arrival"].n_unique() == 2
    (group,) = made.content["annotations"]["groups"]
    assert unpacked(group["row_ids"]) == annotated["row_id"].to_list()
    assert (group["records"], group["examples"]) == (annotated.height, annotated["copies"].sum())
    assert made == read(project.store, made.id)


def test_copies_stand_in_the_files_as_often_as_the_release_says(copied: Made):
    annotated = annotations_of(copied.project.store, copied.release).collect()
    copies = dict(annotated.select("row_id", "copies").iter_rows())
    assert max(copies.values()) > 1
    for name, export in copied.exports.items():
        there = Counter(row_id for split in export["splits"] for row_id in copied.lines(name, split)["row_id"])
        assert there == {row_id: copies[row_id] for row_id in there}


def test_the_sidecar_explains_each_weight_by_its_factors(weighted: Made):
    for name in ("preferences", "reward"):
        told = weighted.sidecar(name, "provenance", "train")
        explained = told.select(pl.col("copies") * pl.col("w_sure") / pl.col("ways")).to_series()
        assert told["weight"].to_list() == pytest.approx(explained.to_list())
        weights = weighted.sidecar(name, "weights", "train")
        assert weights.equals(told.select("row_id", "weight"))
    assert set(weighted.sidecar("reward", "provenance", "train")["ways"]) == {1, 2}


def test_the_manifest_and_the_card_say_what_the_trainer_is_predicted_to_drop(weighted: Made):
    told = weighted.exports["short"]["predicted_drops"]
    lines = pl.concat(weighted.lines("short", split) for split in ("train", "eval"))
    length = {
        column: pl.col("prompt").list.first().struct.field("content").str.len_chars()
        + pl.col(column).list.first().struct.field("content").str.len_chars()
        for column in ("chosen", "rejected")
    }
    dropped = lines.filter(pl.max_horizontal(length.values()) > 40 * 4).height
    assert 0 < dropped < lines.height
    assert (told["dropped"], told["examples"]) == (dropped, lines.height)
    assert sum(group["dropped"] for group in told["by"]["category"]) == dropped
    checks = {check["name"]: check for check in weighted.release.content["commits"]["training_set"]["checks"]}
    check = checks["expect_column_values_to_be_between__tokens_short__length"]
    assert (check["status"], check["blocking"]) == ("failed", False)
    card = (weighted.path("short") / "README.md").read_text()
    assert f"would drop {dropped} of {lines.height} examples" in card
    assert weighted.release.id in card


def test_a_new_batch_writes_its_own_text_and_an_edited_trainer_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[int] = []
    examples = module.examples

    def counted(content: pl.LazyFrame, *rest: Any) -> pl.DataFrame:
        written.append(content.select(pl.len()).collect().item())
        return examples(content, *rest)

    monkeypatch.setattr(module, "examples", counted)
    deliver(tmp_path, 0)
    first = released(opened(tmp_path, realise="weights", exports=[{"name": "p"}]))
    deliver(tmp_path, 1)
    second = released(opened(tmp_path, realise="weights", exports=[{"name": "p"}]))
    assert written == [30, 30]
    before, after = ({file["path"]: file["digest"] for file in of.circumstances["files"]} for of in (first, second))
    kept = {path.split("/part-")[0] for path in before if before[path] == after[path]}
    assert {"p/train", "p/weights-train", "p/provenance-train"} <= kept
    assert len(after) > len(before)
    edited = released(opened(tmp_path, realise="weights", exports=[{"name": "p", "trainer": {"max_length": 7}}]))
    assert written == [30, 30]
    assert edited.id != first.id


def test_a_release_with_all_exports_is_replayed_to_the_same_files(weighted: Made):
    project = weighted.project
    assert replay(project.store, weighted.release, project.folder).verdict == "identical"


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    made = Votes(tmp_path / "project")
    made.put("w1", vote("1", "anna", "the-violet-door"), vote("2", "ben", "the-green-roof"))
    made.run()
    made.put("w2", vote("3", "anna", "the-copper-lake"), vote("4", "ben", "the-quiet-field"))
    made.run()
    return made


def behind(project: Project) -> dict[str, Commit]:
    latest = project.commits.latest("training_set")
    assert latest is not None
    return chain(project, {"training_set": latest})


@pytest.mark.parametrize("asked", [{"record": "1"}, {"annotator": "anna"}])
def test_what_was_erased_since_it_was_ingested_is_refused_and_not_exported_as_empty_text(votes: Votes, asked):
    commits = behind(votes.project)
    n = len(erase(votes.project, Request(**asked), do=True).row_ids)
    with pytest.raises(
        NoText, match=f"export 'flat': {n} records have no text, first [0-9a-f]{{32}}; .*run all stages"
    ):
        write_exports(votes.project, commits)
    votes.run()
    _, files = write_exports(votes.project, behind(votes.project))
    assert sum(file["rows"] for path, file in files if path.startswith(("flat/train/", "flat/eval/"))) == 4 - n


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 and no more")])
def test_a_part_of_text_that_is_gone_or_torn_is_refused(votes: Votes, damage: Callable[[Path], None]):
    commits = behind(votes.project)
    shutil.rmtree(votes.folder / "store" / "memo")
    first = commits["ingested"].snapshot.tables["content"].parts[0]
    damage(votes.project.store.path(first.files[0].key))
    with pytest.raises(NoText, match="export 'flat': 2 records have no text, first "):
        write_exports(votes.project, commits)


def test_an_annotation_whose_part_of_text_nobody_knows_is_refused_and_not_left_out(votes: Votes):
    project = votes.project
    commits = {**behind(project), "ingested": project.commits.read("ingested", 1)}
    with pytest.raises(NoText, match="export 'flat': 2 records have no text, first "):
        write_exports(project, commits)
