"""Expectations run by Great Expectations."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.checks import expectations as module
from feedback_assets.checks.expectations import run_suite
from feedback_assets.errors import FeedbackError
from feedback_assets.stages.stage import Expectation, Units

ROWS = pl.DataFrame(
    {
        "row_id": ["a", "b", "c"],
        "label": ["a", "tie", "my secret text"],
        "score": [1.0, None, 7.0],
        "parents": [["x"], [], None],
    }
)
UNIQUE = Expectation("expect_column_values_to_be_unique", "each stands once", {"column": "row_id"})
BETWEEN = Expectation("expect_column_values_to_be_between", "m", {"column": "score", "min_value": 0})
UNIQUE_SPLIT = Expectation("expect_column_values_to_not_be_null", "m", {"column": "assigned_split"})
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


def split(train: int, held: int, *, rows: int = 1, fixed: int = 0) -> pl.DataFrame:
    """`train` and `held` components of `rows` rows each, and `fixed` that their source put into eval."""
    sides = ["train"] * train + ["eval"] * (held + fixed)
    own = [None] * (train + held) + ["eval"] * fixed
    told = {"component_id": [f"c{n}" for n in range(len(sides))], "assigned_split": sides, "split": own}
    frame = pl.DataFrame(told, schema=dict.fromkeys(told, pl.String))
    return pl.concat([frame, *[frame.with_columns(split=pl.lit(None, pl.String))] * (rows - 1)])


def drawn(share: float) -> Expectation:
    shares = {"values": ["train", "eval"], "weights": [1 - share, share]}
    kwargs = {"column": "assigned_split", "partition_object": shares, "threshold": 0.01}
    units = Units("component_id", least=1_000, unless="split")
    return Expectation("expect_column_kl_divergence_to_be_less_than", "m", kwargs, blocking=False, units=units)


@pytest.mark.parametrize(
    ("rows", "status", "divergence"),
    [
        (split(900, 100), "passed", 0.0),
        (split(850, 150), "failed", 0.15 * math.log(1.5) + 0.85 * math.log(0.85 / 0.9)),
        (split(1000, 0), "failed", -math.log(0.9)),
        (split(0, 1000), "failed", -math.log(0.1)),
        (split(900, 100, rows=3), "passed", 0.0),
        (split(900, 100, rows=2, fixed=5_000), "passed", 0.0),
    ],
    ids=["as-asked", "too-many", "none", "all", "rows-of-a-component", "fixed-by-the-source"],
)
def test_a_distribution_is_held_against_its_divergence_from_the_one_expected(rows, status, divergence):
    (found,) = run_suite(rows, [drawn(0.1)], "deduplicated")
    assert (found.status, found.holds_back) == (status, False)
    assert found.observed["observed_value"] == pytest.approx(divergence, abs=1e-12)


@given(held=st.integers(1, 2_999), share=st.sampled_from([0.02, 0.1, 0.5]), limit=st.sampled_from([0.0, 1e-4, 0.01]))
@settings(max_examples=40, deadline=None)
def test_of_a_distribution_a_few_rows_say_what_all_rows_say(held, share, limit):
    rows, asked = split(3_000 - held, held), drawn(share)
    asked = replace(asked, kwargs={**asked.kwargs, "threshold": limit})
    memory = Kept()
    (found,) = run_suite(rows, [asked], "deduplicated", memory)
    whole = module._validate(module._narrow(rows, [asked]), [module._build(asked)], "deduplicated")[asked.name]
    assert found.passed == whole.success
    assert found.observed["observed_value"] == pytest.approx(whole.result["observed_value"], abs=1e-15)
    assert memory


def test_a_distribution_that_moved_little_is_not_asked_again(monkeypatch):
    memory = Kept()
    assert run_suite(split(2_699, 301), [drawn(0.1)], "deduplicated", memory)[0].passed
    monkeypatch.setattr(module, "_validate", None)
    (found,) = run_suite(split(2_698, 302), [drawn(0.1)], "deduplicated", memory)
    assert found.passed
    assert found.observed["observed_value"] == pytest.approx(
        302 / 3_000 * math.log(302 / 300) + 2_698 / 3_000 * math.log(2_698 / 2_700)
    )


def test_a_value_that_was_not_expected_at_all_fails_with_a_finite_record():
    rows = split(999, 1).with_columns(assigned_split=pl.col("assigned_split").replace("eval", "test"))
    (found,) = run_suite(rows, [drawn(0.1)], "deduplicated")
    assert found.status == "failed"
    assert json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize("rows", [split(999, 0), split(0, 0), split(0, 0, rows=2, fixed=2_000)])
def test_a_distribution_of_too_few_is_inconclusive_and_no_pass(rows):
    one, other = run_suite(rows, [drawn(0.1), UNIQUE_SPLIT], "deduplicated")
    assert (one.status, one.passed) == ("inconclusive", False)
    assert one.observed == {"element_count": 999 if rows.height == 999 else 0}
    assert one.definition["units"] == {"column": "component_id", "least": 1_000, "unless": "split"}
    assert other.passed


class Kept(dict):
    def recall(self, key):
        return self.get(key)

    def remember(self, key, value):
        self[key] = value


def test_suites_in_several_threads_say_of_each_frame_what_one_thread_says():
    some = Expectation("expect_column_values_to_be_unique", "m", {"column": "score"})

    def told(height):
        rows = pl.DataFrame({"score": range(height)})
        return [result.as_json() for result in run_suite(rows, [some, BETWEEN], "filtered")]

    alone = [told(height) for height in range(2, 100)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(told, range(2, 100))) == alone


def test_nothing_is_remembered_of_what_could_not_be_told():
    memory = Kept()
    ill = Expectation("expect_column_values_to_match_regex", "m", {"column": "row_id", "regex": "("})
    assert run_suite(ROWS, [ill], "filtered", memory)[0].status == "error"
    assert memory == {}
    run_suite(ROWS, [BETWEEN], "filtered", memory)
    assert memory


@pytest.mark.parametrize("bounds", [{"min_value": 3}, {"max_value": 3}, {"min_value": 2, "max_value": 3}, {}])
@pytest.mark.parametrize("strict", [{}, {"strict_min": True}, {"strict_max": True}])
def test_of_the_number_of_rows_it_is_remembered_that_it_is_beyond_a_bound(bounds, strict):
    memory = Kept()
    asked = Expectation("expect_table_row_count_to_be_between", "m", {**bounds, **strict})
    for height in range(7):
        rows = pl.DataFrame({"row_id": ["a"] * height})
        (found,) = run_suite(rows, [asked], "filtered", memory)
        low, high = height - bool(strict.get("strict_min")), height + bool(strict.get("strict_max"))
        assert found.passed == (low >= bounds.get("min_value", low) and high <= bounds.get("max_value", high))
        assert found.observed["observed_value"] == height
    assert len(memory) == max(bounds.values(), default=0) + 2


@pytest.mark.parametrize("scores", [[0.0, 1.0, None], [1.0, -1.0, 2.0], [1.0, -1.0, -2.0, -3.0], [None, None], []])
def test_of_what_most_rows_shall_keep_the_numbers_are_those_of_all_rows(scores):
    rows = pl.DataFrame({"score": scores}, schema={"score": pl.Float64})
    most = Expectation("expect_column_values_to_be_between", "m", {"column": "score", "min_value": 0, "mostly": 0.5})
    (found,) = run_suite(rows, [most], "filtered")
    whole = module._validate(module._narrow(rows, [most]), [module._build(most)], "filtered")[most.name]
    assert found.passed == whole.success
    assert found.observed == module._numbers(whole.result)
