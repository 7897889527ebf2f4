"""The guideline_joined stage: which guideline a record was made under, and what was known of agreement then."""

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.record import SCHEMA, TIME
from feedback_assets.sources.guidelines import REGISTRY
from feedback_assets.stages.guideline_joined import STAGE, STATUSES, GuidelineJoinedSection, guideline_joined
from feedback_assets.stages.stage import Inputs
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import day, records

SECTION = GuidelineJoinedSection()


def guideline(version: str, start: float, end: float | None, task: str = "t", aspect: str | None = None) -> dict:
    major, minor, patch = map(int, version.split("."))
    return {
        "task": task,
        "aspect": aspect,
        "version": version,
        "major": major,
        "minor": minor,
        "patch": patch,
        "effective_from": day(start),
        "effective_to": None if end is None else day(end),
        "digest": f"{task}/{aspect}/{version}",
    }


def registry(*guidelines: dict[str, Any]) -> pl.LazyFrame:
    return pl.DataFrame([{name: g.get(name) for name in REGISTRY} for g in guidelines], schema=REGISTRY).lazy()


def joined(rows: pl.DataFrame, *guidelines: dict, earlier: pl.DataFrame | None = None) -> pl.DataFrame:
    inputs = Inputs(
        rows.lazy(), {"guidelines": registry(*guidelines)}, earlier=None if earlier is None else earlier.lazy()
    )
    output = guideline_joined(inputs, SECTION, EngineInMemory())
    assert output.rows["row_id"].to_list() == rows["row_id"].to_list(), "no record is lost, multiplied or moved"
    assert output.fates["fate"].to_list() == ["kept"] * rows.height
    return output.rows


FIRST, SECOND = guideline("1.0.0", 0, 10), guideline("1.1.0", 10, None)


def found(*guidelines: dict, **record: Any) -> tuple[Any, ...]:
    """Status, version applied, and version in force by date, of one record of task t."""
    row = joined(records({"task": "t", **record}), *guidelines).row(0, named=True)
    assert row["guideline_status"] in STATUSES
    assert row["guideline_digest"] is None or row["guideline_digest"].endswith(row["guideline"])
    return row["guideline_status"], row["guideline"], row["guideline_in_force"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"started_at": day(1)}, ("inferred", "1.0.0", "1.0.0")),
        ({"started_at": day(1), "guideline_version": "1.0.0"}, ("declared", "1.0.0", "1.0.0")),
        ({"guideline_version": "1.0.0"}, ("declared", "1.0.0", None)),
        ({"started_at": day(1), "guideline_version": "1.1.0"}, ("conflict", "1.1.0", "1.0.0")),
        ({"started_at": day(1), "guideline_version": "9.0.0"}, ("unknown-version", "9.0.0", "1.0.0")),
        ({"started_at": day(1), "task": "other"}, ("unmatched", None, None)),
        ({"started_at": day(1), "task": None}, ("unmatched", None, None)),
        ({"started_at": day(-1)}, ("unmatched", None, None)),
        ({}, ("unmatched", None, None)),
    ],
)
def test_it_is_recorded_how_a_guideline_was_found(record, expected):
    assert found(FIRST, SECOND, **record) == expected


def test_a_version_declared_before_any_was_in_force_is_a_conflict():
    assert found(FIRST, SECOND, started_at=day(-1), guideline_version="1.0.0") == ("conflict", "1.0.0", None)


def test_the_work_began_under_a_guideline_so_its_start_decides():
    assert found(FIRST, SECOND, started_at=day(9), collected_at=day(11))[1] == "1.0.0"
    assert found(FIRST, SECOND, collected_at=day(11))[1] == "1.1.0"


@pytest.mark.parametrize(("at", "version"), [(0, "1.0.0"), (9.999, "1.0.0"), (10, "1.1.0"), (99, "1.1.0")])
def test_a_guideline_is_in_force_from_its_first_moment_up_to_without_its_last(at, version):
    assert found(FIRST, SECOND, started_at=day(at)) == ("inferred", version, version)


def test_two_guidelines_in_force_are_ambiguous_unless_one_of_them_is_declared():
    other = guideline("2.0.0", 5, None)
    assert found(FIRST, other, started_at=day(6)) == ("ambiguous", None, None)
    assert found(FIRST, other, started_at=day(6), guideline_version="1.0.0") == ("declared", "1.0.0", None)
    third = guideline("0.9.0", 0, 1)
    assert found(FIRST, other, third, started_at=day(6), guideline_version="0.9.0") == ("conflict", "0.9.0", None)


def test_a_guideline_for_the_aspect_goes_before_the_one_for_the_task():
    whole, tone = guideline("1.0.0", 0, None), guideline("3.0.0", 5, 20, aspect="tone")
    for aspect, at, version in (
        ("tone", 6, "3.0.0"),
        ("tone", 5, "3.0.0"),
        ("tone", 4, "1.0.0"),  # before there was one for the aspect, the task's own was read
        ("tone", 20, "1.0.0"),
        ("facts", 6, "1.0.0"),
        (None, 6, "1.0.0"),
    ):
        assert found(whole, tone, aspect=aspect, started_at=day(at)) == ("inferred", version, version), (aspect, at)
    assert found(whole, tone, aspect="tone", started_at=day(6), guideline_version="1.0.0")[0] == "conflict"


def test_of_two_texts_with_the_declared_version_the_one_in_force_is_meant():
    whole, tone = guideline("1.0.0", 0, None), guideline("1.0.0", 5, None, aspect="tone")
    digests = [
        joined(records({"task": "t", "aspect": "tone", "guideline_version": "1.0.0", "started_at": at}), whole, tone)[
            "guideline_digest"
        ][0]
        for at in (day(4), day(6), None)
    ]
    assert digests == ["t/None/1.0.0", "t/tone/1.0.0", "t/tone/1.0.0"]


def test_it_is_said_whether_the_question_has_changed_since():
    versions = [guideline("1.0.0", 0, 1), guideline("2.0.0", 1, 2), guideline("2.10.0", 2, 3), guideline("2.9.0", 3, 4)]
    rows = records(*({"task": "t", "started_at": day(at)} for at in (0, 1, 2, 3, 9)))
    assert joined(rows, *versions)["guideline_behind"].to_list() == [
        "breaking",
        "clarifying",
        "none",
        "clarifying",
        None,
    ]


def test_without_a_registry_every_record_is_unmatched():
    assert joined(records({"task": "t"}, {}))["guideline_status"].to_list() == ["unmatched"] * 2


def test_the_columns_are_the_same_with_and_without_agreement():
    inputs = Inputs(records({"task": "t"}).lazy(), {"guidelines": registry(FIRST)})
    without = guideline_joined(inputs, GuidelineJoinedSection(agreement=False), EngineInMemory()).rows
    assert set(without.schema.items()) == set(joined(records({"task": "t"}), FIRST).schema.items())
    assert without.row(0, named=True)["annotator_agreement"] is None


def vote(who: str | None, item: str, label: str, at: float | None, arrival: int = 0, **more: Any) -> dict[str, Any]:
    collected = None if at is None else day(at)
    return {"annotator_id": who, "item_id": item, "label": label, "collected_at": collected, "arrival": arrival, **more}


AGREEMENT = ("annotator_agreement", "annotator_agreement_n", "item_agreement", "item_agreement_n")


def agreement(rows: pl.DataFrame, earlier: pl.DataFrame | None = None) -> list[tuple[Any, ...]]:
    return joined(rows, earlier=earlier).select(AGREEMENT).rows()


def test_agreement_of_three_annotators_as_known_at_each_moment():
    rows = records(
        vote("ann", "x", "a", 1),  # nothing is known
        vote("ben", "x", "a", 2),  # ben: nothing before; item: ann agrees
        vote("cat", "x", "b", 3),  # cat: nothing before; item: neither of two agrees
        vote("ann", "y", "a", 4),  # ann on x: ben agreed, cat did not
        vote("ben", "y", "b", 5),  # ben on x: ann agreed, cat did not; item: ann says a
        vote("ann", "z", "a", 6),  # ann on x: 1 of 2; on y: 0 of 1
    )
    assert agreement(rows) == [
        (None, 0, None, 0),
        (None, 0, 1.0, 1),
        (None, 0, 0.0, 2),
        (0.5, 2, None, 0),
        (0.5, 2, 0.0, 1),
        (1 / 3, 3, None, 0),
    ]


def test_what_was_collected_at_the_same_moment_was_not_known():
    assert agreement(records(vote("ann", "x", "a", 1), vote("ben", "x", "a", 1)))[1] == (None, 0, None, 0)


def test_without_annotator_or_time_nothing_is_known_and_nothing_counted():
    rows = records(vote("ann", "x", "a", 1), vote(None, "x", "a", 2), vote("ben", "x", "a", None))
    assert agreement(rows) == [(None, 0, None, 0)] * 3


@pytest.mark.parametrize("more", [{"task": "u"}, {"aspect": "tone"}, {"kind": "thumbs"}])
def test_answers_to_different_questions_are_not_compared(more):
    assert agreement(records(vote("ann", "x", "a", 1), vote("ben", "x", "a", 2, **more)))[1] == (None, 0, None, 0)


def test_ones_own_earlier_answer_is_not_agreement_with_others():
    assert agreement(records(vote("ann", "x", "a", 1), vote("ann", "x", "a", 2)))[1] == (None, 0, None, 0)


def test_equal_scores_agree():
    one, two, three = (
        {**vote(who, "x", None, at), "kind": "rating", "score": score}
        for who, at, score in (("ann", 1, 4.0), ("ben", 2, 4.0), ("cat", 3, 5.0))
    )
    assert [row[2] for row in agreement(records(one, two, three))] == [None, 1.0, 0.0]


VOTES = st.lists(
    st.builds(
        vote,
        st.sampled_from(["ann", "ben", "cat", None]),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["a", "b", "tie"]),
        st.sampled_from([None, 1, 2, 3, 4]),
        st.integers(0, 2),
        task=st.sampled_from(["t", None]),
    ),
    min_size=1,
    max_size=10,
)


def by_definition(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Agreement as design.md says it: with records collected earlier that arrived no later."""

    def known(other: dict, then: datetime, arrival: int) -> bool:
        return other["collected_at"] is not None and other["collected_at"] < then and other["arrival"] <= arrival

    def compares(one: dict, other: dict) -> bool:
        apart = (
            None not in (one["annotator_id"], other["annotator_id"]) and one["annotator_id"] != other["annotator_id"]
        )
        return apart and all(one[key] == other[key] for key in ("item_id", "kind", "task", "aspect"))

    results = []
    for row in rows:
        then, arrival = row["collected_at"], row["arrival"]
        if then is None or row["annotator_id"] is None:
            results.append((None, 0, None, 0))
            continue
        past = [other for other in rows if known(other, then, arrival)]
        item = [other["label"] == row["label"] for other in past if compares(row, other)]
        mine = [one for one in past if one["annotator_id"] == row["annotator_id"]]
        annotator = [one["label"] == other["label"] for one in mine for other in past if compares(one, other)]
        results.append(
            tuple(x for seen in (annotator, item) for x in (sum(seen) / len(seen) if seen else None, len(seen)))
        )
    return results


@given(VOTES)
@settings(max_examples=40, deadline=None)
def test_agreement_is_what_its_definition_says(votes):
    rows = records(*sorted(votes, key=lambda v: v["arrival"]))
    assert agreement(rows) == by_definition(rows.to_dicts())


@given(VOTES)
@settings(max_examples=20, deadline=None)
def test_a_later_batch_does_not_change_what_was_known_and_is_joined_on_its_own(votes):
    rows = records(*sorted(votes, key=lambda v: v["arrival"]))
    before, new = rows.filter(pl.col("arrival") < 2), rows.filter(pl.col("arrival") == 2)
    whole = agreement(rows)
    if before.height:
        assert agreement(before) == whole[: before.height]
    if new.height:
        assert agreement(new, earlier=before) == whole[before.height :]


def test_the_stage_is_computed_by_what_arrived_before():
    assert STAGE.scope == "prefix"
    assert SCHEMA["collected_at"] == TIME
