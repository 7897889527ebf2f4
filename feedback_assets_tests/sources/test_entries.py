"""One source row, several records; alternatives; conditions."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.source import Source
from feedback_assets_tests.sources.test_mapping import mapped

RANKED = {
    "id": ["q1", "q2"],
    "prompt": ["p", "p"],
    "ranking": [[{"text": "x", "rank": 1}, {"text": "y", "rank": 3}, {"text": "z", "rank": 2}], []],
}
RATING = {
    "kind": "'rating'",
    "feedback_id": "id || '#' || __position",
    "group_id": "id",
    "prompt": "prompt",
    "response_a": "each.text",
    "score": "each.rank",
}


def test_a_ranking_of_three_is_three_records_of_one_group():
    result = mapped(RATING, RANKED, each="ranking")
    assert result.records.select("line", "position", "feedback_id", "group_id", "response_a", "score").rows() == [
        (1, 1, "q1#1", "q1", "x", 1.0),
        (1, 2, "q1#2", "q1", "y", 3.0),
        (1, 3, "q1#3", "q1", "z", 2.0),
    ]


def test_a_row_without_entries_is_in_quarantine_and_not_lost():
    result = mapped(RATING, RANKED, each="ranking")
    assert result.quarantined.select("line", "position", "reason").rows() == [(2, None, "no-entry")]
    nothing = mapped(RATING, {**RANKED, "ranking": [None, []]}, each="ranking")
    assert (nothing.records.height, nothing.quarantined["reason"].to_list()) == (0, ["no-entry"] * 2)


def test_aspects_of_one_judgment_are_entries_in_one_group():
    data = {"id": ["j"], "p": ["q"], "r": ["a"], "by": [[{"name": "clear", "stars": 4}, {"name": "true", "stars": 2}]]}
    columns = {"kind": "'rating'", "group_id": "id", "aspect": "each.name", "score": "each.stars"}
    result = mapped(columns, data, each="by")
    assert result.records.select("group_id", "aspect", "score").rows() == [("j", "clear", 4.0), ("j", "true", 2.0)]


def test_entries_may_be_plain_values_beside_parallel_lists():
    data = {"votes": [["a", "b"]], "who": [["w1", "w2"]]}
    result = mapped({"label": "each", "annotator_id": "who[__position]"}, data, each="votes")
    assert result.records.select("label", "annotator_id").rows() == [("a", "w1"), ("b", "w2")]


def test_a_value_of_an_entry_that_does_not_convert_quarantines_that_entry():
    result = mapped({"kind": "'rating'", "score": "each"}, {"v": [["1", "x", "3"]]}, each="v")
    assert result.records["position"].to_list() == [1, 3]
    assert result.quarantined.select("line", "position", "reason", "value").rows() == [(1, 2, "not-convertible", "x")]


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from(["1", "x", None]), max_size=4)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_entry_and_every_row_without_one_is_a_record_or_quarantined(rows):
    data = pl.DataFrame({"v": rows}, schema={"v": pl.List(pl.String)})
    columns = {"kind": "'rating'", "score": "each"}
    result = mapped(columns, data, each="v", quarantine_when={"first": "__position = 1"})
    found = [*result.records.select("line", "position").rows(), *result.quarantined.select("line", "position").rows()]
    expected = [(n + 1, at + 1) for n, row in enumerate(rows) for at in range(len(row or []))]
    expected += [(n + 1, None) for n, row in enumerate(rows) if not row]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_of_alternatives_the_first_that_the_file_has_is_used():
    columns = {"annotator_id": ["who.id", "who", "'nobody'"], "label": [{"expr": "winner"}, "NULL"]}
    assert mapped(columns, {"who": [{"id": 7}], "winner": ["a"]}).records["annotator_id"].to_list() == ["7"]
    assert mapped(columns, {"who": ["w"], "winner": ["a"]}).records["annotator_id"].to_list() == ["w"]
    neither = mapped(columns, {"x": [1]}).records
    assert neither.select("annotator_id", "label").rows() == [("nobody", None)]


def test_where_no_alternative_fits_the_first_is_named():
    with pytest.raises(FeedbackError, match=r"columns\.label: reads column 'winner' which x\.parquet does not have"):
        mapped({"label": ["winner", "vote"]}, {"x": [1]})


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ({"v": ["x"]}, {"each": "v"}, "each: 'v' gives String, and a list is needed"),
        ({"v": [["x"]]}, {"each": "w"}, "each: 'w' reads what is not there"),
        ({"each": [["x"]]}, {"each": "each"}, "the column name each is ours"),
        ({"v": ["x"]}, {"quarantine_when": {"draft": "v"}}, "quarantine_when.draft: 'v' is no condition"),
    ],
)
def test_what_is_no_list_or_no_condition_is_named(data, more, message):
    with pytest.raises(FeedbackError, match=message):
        mapped({"label": "'a'"}, data, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"each": "SUM(v)"}, "SUM is refused"),
        ({"quarantine_when": {"Is a draft!": "v"}}, "is no reason"),
        ({"quarantine_when": {"draft": []}}, "a condition is missing"),
    ],
)
def test_a_wrong_list_or_condition_is_refused(more, message):
    with pytest.raises(ValidationError, match=message):
        Source(name="s", path="x.json", columns={"kind": "'rating'"}, **more)
