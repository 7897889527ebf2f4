"""The filtered stage: rules drop rows, and say so."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.engine.engine import ContentPart
from feedback_assets.errors import FeedbackError
from feedback_assets.record import CONTENT_SCHEMA
from feedback_assets.stages.filtered import STAGE, FilteredSection, filtered
from feedback_assets.stages.stage import FATE_SCHEMA, Inputs, Output
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import records


def rule(name: str, drop_when: str, version: int = 1) -> dict[str, Any]:
    return {"id": name, "version": version, "reason": "because", "drop_when": drop_when}


def applied(rows: pl.DataFrame, *rules: dict[str, Any], content: tuple[ContentPart, ...] = ()) -> Output:
    section = FilteredSection.model_validate({"rules": rules})
    output = filtered(Inputs(rows.lazy(), content=content), section, EngineInMemory())
    assert output.standing.schema == rows.schema
    assert output.fates.schema == FATE_SCHEMA
    return output


SHORT, MODEL = rule("short", "response_a_chars < 10", 3), rule("model", "annotator_kind = 'model'", 2)
ROWS = records(
    {"response_a_chars": 5, "annotator_kind": "model"},
    {"response_a_chars": 50, "annotator_kind": "model"},
    {"response_a_chars": 50, "annotator_kind": "human"},
    {"response_a_chars": None, "annotator_kind": "human"},
)


def test_a_row_dropped_by_a_rule_names_the_rule_and_its_version():
    output = applied(ROWS, SHORT, MODEL)
    assert output.fates.select("row_id", "fate", "rule", "rule_version", "copies").rows() == [
        ("r0", "dropped", "short", 3, 0),
        ("r1", "dropped", "model", 2, 0),
        ("r2", "kept", None, None, 1),
        ("r3", "kept", None, None, 1),
    ]
    assert output.standing["row_id"].to_list() == ["r2", "r3"]


def test_the_first_rule_that_fits_has_dropped_the_row_and_each_says_what_it_would_do_alone():
    assert applied(ROWS, SHORT, MODEL).facts["rules"] == {
        "short": {"dropped": 1, "alone": 1, "undecided": 1},
        "model": {"dropped": 1, "alone": 2, "undecided": 0},
    }
    assert applied(ROWS, MODEL, SHORT).facts["rules"]["short"] == {"dropped": 0, "alone": 1, "undecided": 1}


@pytest.mark.parametrize("condition", ["response_a_chars < 10", "NOT (response_a_chars < 10)", "NULL"])
def test_null_is_not_dropped_and_is_counted_as_undecided(condition):
    output = applied(ROWS.slice(3), rule("r", condition))
    assert output.standing.height == 1
    assert output.facts["rules"]["r"] == {"dropped": 0, "alone": 0, "undecided": 1}


def test_without_rules_every_row_is_kept():
    output = applied(ROWS)
    assert output.standing.equals(ROWS)
    assert output.fates["rule"].null_count() == ROWS.height


@pytest.mark.parametrize(("condition", "left"), [("TRUE", 0), ("FALSE", 4)])
def test_a_rule_that_reads_no_column_holds_for_every_row(condition, left):
    output = applied(ROWS, rule("r", condition))
    assert (output.standing.height, output.fates.height) == (left, 4)


def part(name: str, *texts: str) -> ContentPart:
    frame = pl.DataFrame(
        [{"prompt": [{"role": "user", "text": "?"}], "response_a": text} for text in texts],
        schema={name: CONTENT_SCHEMA[name] for name in ("prompt", "response_a")},
    ).with_columns(pl.lit(None, pl.String).alias("response_b"), pl.lit(None, pl.String).alias("extra"))
    return ContentPart(name, len(texts), frame.lazy)


def test_a_rule_can_read_the_text():
    content = (part("p", "as an AI", "fine"), part("q", "fine", "as an AI"))
    rows = records(
        {"content_part": "q", "content_row": 1},
        {"content_part": "p", "content_row": 1},
        {"content_part": "p", "content_row": 0},
        {"content_part": "gone", "content_row": 0},
    )
    output = applied(rows, rule("ai", "response_a LIKE '%AI%'"), content=content)
    assert output.fates["fate"].to_list() == ["dropped", "kept", "dropped", "kept"]
    assert output.facts["rules"]["ai"]["undecided"] == 1


def test_a_rule_over_text_holds_for_no_rows_too():
    output = applied(ROWS.clear(), rule("ai", "response_a LIKE '%AI%'"))
    assert (output.standing.height, output.fates.height) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 20) | st.none(), st.sampled_from(["human", "model", None])), max_size=12),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_the_parts_filtered_one_by_one_are_the_whole_filtered(values, data):
    rows = records(*({"response_a_chars": chars, "annotator_kind": kind} for chars, kind in values))
    cut = data.draw(st.integers(0, rows.height))
    whole = applied(rows, SHORT, MODEL)
    parts = [applied(piece, SHORT, MODEL) for piece in (rows[:cut], rows[cut:])]
    assert pl.concat([p.standing for p in parts]).equals(whole.standing)
    assert pl.concat([p.fates for p in parts]).equals(whole.fates)
    for name, facts in whole.facts["rules"].items():
        assert facts == {key: sum(p.facts["rules"][name][key] for p in parts) for key in facts}
    assert STAGE.scope == "row"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "response_a_char < 10",
            "filtered.rules: r: drop_when reads the column 'response_a_char', .*'response_a_chars'",
        ),
        ("response_a_chars - 10", "filtered.rules: r: drop_when gives .*, not true or false"),
        ("label", "gives String, not true or false"),
        ("label + 1 < collected_at", "cannot be computed"),
    ],
)
def test_a_rule_that_decides_nothing_is_refused(condition, message):
    with pytest.raises(FeedbackError, match=message) as caught:
        applied(ROWS, rule("r", condition))
    assert "\n" not in str(caught.value)


def test_two_rules_with_one_id_are_refused():
    with pytest.raises(ValidationError, match="'short' stands twice"):
        FilteredSection.model_validate({"rules": [SHORT, SHORT]})
