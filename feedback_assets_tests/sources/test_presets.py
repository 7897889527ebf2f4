"""Presets on files as the tools write them: three lines of policy, and every record is there or in quarantine."""

import datetime as dt

import pytest
from pydantic import ValidationError

from feedback_assets.sources.files import list_files, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.preset import preset, preset_names
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import to_records
from feedback_assets_tests.sources import shapes


def taken(folder, name, **more):
    """What becomes of a shape: the mapped records (dicts), and quarantine as (line, position, reason, column)."""
    preset_name, rows, write, _ = shapes.SHAPES[name]
    path = write(folder, rows)
    source = Source(name="s", path=path.name, preset=preset_name, **more)
    (file,) = list_files(source, folder)
    mapped = map_records(read(file, source), source, file)
    intake = to_records(mapped.records, "s")
    bad = [*mapped.quarantined.rows(named=True), *intake.quarantined.rows(named=True)]
    return mapped.records.to_dicts(), sorted(
        (row["line"], row["position"] or 0, row["reason"], row["column"] or "") for row in bad
    )


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_preset_maps_the_files_that_it_is_for(tmp_path, name):
    kept = shapes.SHAPES[name][3]
    more = {"columns": {"score_min": "1", "score_max": "5"}} if "ratings" in name else {}
    records, bad = taken(tmp_path, name, **more)
    assert len(records) == kept
    assert {reason for _, _, reason, column in bad if column} <= {"different-prompts"}
    assert all(record["prompt"] and record["response_a"] for record in records)


def test_each_preset_is_tried_on_a_real_shape():
    assert {preset_name for preset_name, *_ in shapes.SHAPES.values()} == set(preset_names())


def test_each_annotation_of_a_label_studio_task_is_a_record(tmp_path):
    records, bad = taken(tmp_path, "label studio")
    assert [(r["line"], r["position"], r["feedback_id"], r["label"], r["annotator_id"]) for r in records] == [
        (1, 1, "18001", "a", "14"),
        (1, 2, "18002", "b", "15"),  # beside a comment, which is a result too
        (2, 1, "18003", "a", "14"),
    ]
    assert records[0]["collected_at"] == dt.datetime(2024, 5, 15, 12, 9, 1, 789536, tzinfo=dt.UTC)
    assert records[0]["prompt"] == [{"role": "user", "text": "What is 1?"}]
    assert bad == [(2, 2, "cancelled", ""), (3, 0, "no-entry", "")]


def test_label_studio_annotators_are_ids_or_people(tmp_path):
    assert [record["annotator_id"] for record in taken(tmp_path, "label studio, annotators as objects")[0]] == ["14"]
    minimal, _ = taken(tmp_path, "label studio, JSON-MIN")
    assert [(r["feedback_id"], r["label"], r["annotator_id"]) for r in minimal] == [
        ("18001", "a", "14"),
        ("18002", "b", "14"),
    ]


def test_each_response_to_an_argilla_record_is_a_record(tmp_path):
    records, bad = taken(tmp_path, "argilla")
    assert [(r["feedback_id"], r["label"], r["annotator_id"]) for r in records] == [
        ("rec-1/u-1", "a", "u-1"),
        ("rec-1/u-2", "b", "u-2"),
        ("rec-2/u-1", "tie", "u-1"),
    ]
    assert bad == [(3, 0, "no-entry", "")]
    assert [record["label"] for record in taken(tmp_path, "argilla, a ranking")[0]] == ["b"]


def test_a_discarded_response_and_a_draft_are_no_feedback(tmp_path):
    records, bad = taken(tmp_path, "argilla, flat")
    assert [(r["feedback_id"], r["label"]) for r in records] == [("rec-1/u-1", "a"), ("rec-2/u-2", "b")]
    assert bad == [(1, 2, "discarded", ""), (2, 2, "draft", "")]


def test_the_policy_replaces_single_entries_of_a_preset(tmp_path):
    columns = {"task": "'chat'", "response_b": "'none'", "shown_order": None}
    records, _ = taken(tmp_path, "argilla", columns=columns, quarantine_when={"by-u-2": "each.user_id = 'u-2'"})
    assert [(r["task"], r["response_a"], r["response_b"], r["shown_order"]) for r in records] == [
        ("chat", "Because.", "none", None)
    ] * 2


def test_what_is_pinned_holds_the_preset_in_full_and_reads_the_same_again():
    source = Source(name="s", path="x.json", preset="label-studio-pairwise", columns={"task": "'t'"})
    pinned = source.pinned()
    assert pinned["preset"] == "label-studio-pairwise@1"
    assert pinned["columns"]["kind"]["expr"] == "'preference'"
    assert pinned["quarantine_when"] == {"cancelled": ["each.was_cancelled", "FALSE"]}
    assert Source.model_validate(pinned) == source
    old = {**pinned, "preset": "label-studio-pairwise@0", "columns": {"kind": "'rating'"}}
    assert list(Source.model_validate(old).columns) == ["kind"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_is_and_its_version(name):
    assert preset(name)["version"] >= 1
    assert preset(name)["description"]
    assert preset(name)["signs"]
    assert Source(name="s", path="x", preset=name).columns["kind"]


def test_an_unknown_preset_names_the_one_that_was_meant():
    with pytest.raises(ValidationError, match="did you mean 'trl-preference'"):
        Source(name="s", path="x", preset="trl-preferences")


def test_the_mt_bench_preset_takes_the_turn_that_was_judged(tmp_path):
    records, _ = taken(tmp_path, "mt-bench")
    assert [([t["text"] for t in r["prompt"]], r["response_a"], r["response_b"], r["label"]) for r in records] == [
        (["q1"], "a1", "b1", "b"),
        (["q1", "q2"], "a2", "b2", "b"),
    ]


def test_thumbs_and_model_judges_come_with_their_kind(tmp_path):
    assert [record["label"] for record in taken(tmp_path, "kto")[0]] == ["up", "down"]
    (record,), _ = taken(tmp_path, "ultrafeedback")
    assert (record["annotator_kind"], record["response_b"]) == ("model", "What?")
    (record,), _ = taken(tmp_path, "openai")
    assert (record["label"], record["origin_a"], record["origin_b"]) == ("b", "model:sup1", "human")
