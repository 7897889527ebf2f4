"""Expectations run by Great Expectations."""

import json

import polars as pl
import pytest

from feedback_assets.checks import expectations as module
from feedback_assets.checks.expectations import run_suite
from feedback_assets.errors import FeedbackError
from feedback_assets.stages.stage import Expectation

ROWS = pl.DataFrame(
    {
        "row_id": ["a", "b", "c"],
        "label": ["a", "tie", "my secret text"],
        "score": [1.0, None, 7.0],
        "parents": [["x"], [], None],
    }
)
UNIQUE = Expectation("expect_column_values_to_be_unique", "each stands once", {"column": "row_id"})
IN_SET = Expectation(
    "expect_column_values_to_be_in_set", "labels are known", {"column": "label", "value_set": ["a", "b", "tie"]}
)


def test_each_expectation_gives_one_result_in_order():
    some = Expectation("expect_table_row_count_to_be_between", "there are rows", {"min_value": 1}, blocking=False)
    found = run_suite(ROWS, [IN_SET, UNIQUE, some], "filtered")
    assert [(r.name, r.status, r.blocking) for r in found] == [
        ("expect_column_values_to_be_in_set__label", "failed", True),
        ("expect_column_values_to_be_unique__row_id", "passed", True),
        ("expect_table_row_count_to_be_between__table", "passed", False),
    ]
    assert found[0].observed["unexpected_count"] == 1
    assert found[2].observed == {"observed_value": 3}
    assert found[0].definition["kwargs"]["value_set"] == ["a", "b", "tie"]


def test_no_text_of_a_row_is_kept():
    between = Expectation("expect_column_values_to_be_between", "m", {"column": "label", "min_value": 1})
    distinct = Expectation("expect_column_distinct_values_to_be_in_set", "m", {"column": "label", "value_set": ["a"]})
    found = run_suite(ROWS, [IN_SET, between, distinct], "filtered")
    assert [r.status for r in found] == ["failed", "error", "failed"]
    assert "secret" not in json.dumps([r.as_json() for r in found], allow_nan=False)


def test_a_message_is_cut_before_a_quotation_that_may_be_a_value():
    assert module._without_text("TypeError: 'label' against\n'don't tell'", {"label"}) == "TypeError: 'label' against …"


@pytest.mark.parametrize(
    "wrong",
    [
        Expectation("expect_column_values_to_be_unique", "m", {"column": "nowhere"}),
        Expectation("expect_column_mean_to_be_between", "m", {"column": "label", "min_value": 0}),
        Expectation("expect_the_best", "m", {"column": "label"}),
        Expectation("expect_column_values_to_be_in_set", "m", {"column": "label", "set": []}),
    ],
    ids=["no such column", "raises", "unknown", "wrong arguments"],
)
def test_what_cannot_be_computed_is_an_error_and_never_a_pass(wrong):
    found, other = run_suite(ROWS, [wrong, UNIQUE], "filtered")
    assert (found.status, found.passed, found.holds_back) == ("error", False, True)
    assert found.observed["problem"]
    assert other.passed


def test_a_suite_that_comes_back_empty_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_validate", lambda *_: {})
    found = run_suite(ROWS, [UNIQUE], "filtered")
    assert [(r.status, r.observed) for r in found] == [("error", {"problem": "Great Expectations returned no result"})]


def test_a_suite_that_raises_makes_every_expectation_an_error(monkeypatch):
    def fail(*_):
        raise RuntimeError("no batch")

    monkeypatch.setattr(module, "_validate", fail)
    assert [r.status for r in run_suite(ROWS, [UNIQUE, IN_SET], "filtered")] == ["error", "error"]


def test_only_the_columns_that_are_named_are_converted():
    condition = {"column": "score", "row_condition": 'label=="a"', "condition_parser": "pandas"}
    some = [UNIQUE, Expectation("expect_column_values_to_not_be_null", "m", condition)]
    assert list(module._narrow(ROWS, some).columns) == ["row_id", "label", "score"]
    assert run_suite(ROWS, some, "filtered")[1].passed
    alone = Expectation("expect_table_row_count_to_equal", "m", {"value": 3})
    assert run_suite(ROWS, [alone], "filtered")[0].passed


def test_an_expectation_on_the_table_sees_all_columns():
    wanted = Expectation("expect_table_columns_to_match_set", "m", {"column_set": ["row_id"], "exact_match": True})
    assert run_suite(ROWS, [wanted], "filtered")[0].status == "failed"


def test_no_expectations_give_no_results_and_equal_names_are_refused():
    assert run_suite(ROWS, [], "filtered") == []
    with pytest.raises(FeedbackError, match="two expectations are called expect_column_values_to_be_unique__row_id"):
        run_suite(ROWS, [UNIQUE, UNIQUE], "filtered")


def test_an_edited_limit_changes_the_digest_and_not_the_name():
    one, two = (
        run_suite(ROWS, [Expectation("expect_table_row_count_to_be_between", "m", {"min_value": n})], "s")[0]
        for n in (1, 2)
    )
    assert one.name == two.name
    assert one.definition_digest != two.definition_digest
