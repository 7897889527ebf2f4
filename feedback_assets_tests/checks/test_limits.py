"""Numbers held against limits, and the result that comes of it."""

import json
import math

import pytest

from feedback_assets.checks.drift import drift_check, drifts_check, limit_check, loss_check
from feedback_assets.checks.result import CheckResult, plain
from feedback_assets.digests import digest


@pytest.mark.parametrize(
    ("value", "status"), [(0.1, "passed"), (0.25, "passed"), (0.3, "failed"), (None, "error"), (math.nan, "error")]
)
def test_a_number_passes_fails_or_is_an_error(value, status):
    found = limit_check("x", value, 0.25, what="PSI")
    assert (found.status, found.passed) == (status, status == "passed")
    json.dumps(found.as_json(), allow_nan=False)


def decided(column: str, verdict: str, psi: float | None = None, **more) -> dict:
    limits = {"psi": 0.25, "psi_warn": 0.1}
    return {
        "column": column,
        "verdict": verdict,
        "psi": psi,
        "psi_critical": 0.02,
        "limits": limits,
        "held": True,
    } | more


def test_a_drift_check_says_column_number_limit_and_why():
    why = "`category=coding` went from 12.0 % to 3.1 %; rule `short-response` v2 removed 81 % of it"
    found = drift_check("d", decided("category", "moved", 0.31, because=why, cells=[]), against="input")
    assert found.status == "failed"
    assert found.meaning == f"The PSI of category against the input is 0.31, beyond the limit of 0.25: {why}."
    assert found.definition["limit"] == 0.25
    assert "cells" not in found.observed


def test_drift_without_rows_is_inconclusive_and_with_a_problem_an_error():
    unsure = decided("c", "inconclusive", psi_critical=None)
    assert drift_check("d", unsure, against="baseline").status == "inconclusive"
    assert drift_check("d", decided("c", "error", problem="no such column"), against="baseline").status == "error"


def test_of_several_columns_those_that_moved_lead_and_what_cannot_be_told_is_counted():
    stable, unsure = decided("task", "stable", 0.01), decided("score", "inconclusive", 0.3, psi_critical=0.4)
    one, two = decided("category", "moved", 0.3), decided("outcome", "moved", 0.5)
    found = drifts_check("drift", [stable, unsure, one, two], against="input")
    assert found.status == "failed"
    assert found.meaning.startswith(
        "The PSI of outcome against the input is 0.5, beyond the limit of 0.25; The PSI of c"
    )
    assert found.meaning.endswith("too few independent rows to tell: score")
    assert found.observed["moved"] == {"outcome": 0.5, "category": 0.3}
    assert found.observed["psi"] == 0.5
    assert drifts_check("drift", [stable, unsure], against="input").passed
    assert drifts_check("drift", [unsure], against="input").status == "inconclusive"
    assert drifts_check("drift", [stable, decided("c", "error", problem="x")], against="input").status == "error"
    assert drifts_check("drift", [stable, one | {"held": False}], against="input").passed


LOSSES = [
    {"column": "source", "value": "big", "rows": 100, "lost": 50},
    {"column": "source", "value": "tiny", "rows": 1, "lost": 1},
    {"column": "batch", "value": "b", "rows": 1, "lost": 1},
]


def test_an_emptied_group_fails_however_small():
    found = loss_check(LOSSES)
    assert found.holds_back
    assert found.meaning.startswith("source=tiny lost 1 of 1 rows; batch=b lost 1 of 1 rows; if this is meant")


def test_a_loss_that_the_policy_allows_passes_and_its_reason_is_kept():
    found = loss_check(LOSSES, allowed={("source", "tiny"): "retired", ("batch", "b"): "no"})
    assert found.passed
    assert found.observed["expected"] == {"source=tiny": "retired", "batch=b": "no"}
    assert found.definition["allowed"] == {"batch=b": "no", "source=tiny": "retired"}
    assert loss_check(LOSSES).definition_digest != found.definition_digest


def test_a_share_below_all_can_be_the_limit():
    assert "source=big lost 50 of 100 rows; source=tiny lost 1 of 1 rows" in loss_check(LOSSES, 0.5).meaning


def test_a_result_survives_a_round_trip_and_refuses_another_digest():
    one = limit_check("x", 0.1, 0.25, what="PSI")
    stored = json.loads(json.dumps(one.as_json()))
    assert CheckResult.from_json(stored) == one
    assert one.definition_digest == digest(one.definition)
    with pytest.raises(ValueError, match="the definition has digest"):
        CheckResult.from_json(stored | {"definition": {"limit": 9}})
    with pytest.raises(ValueError, match="contradicts status"):
        CheckResult.from_json(stored | {"status": "error"})


def test_a_check_that_could_not_tell_is_no_pass_and_holds_nothing_back():
    unsure = drift_check("d", decided("c", "inconclusive", 0.3), against="baseline", blocking=True)
    assert not unsure.passed
    assert not unsure.holds_back


def test_values_become_plain_json():
    assert plain({"a": (1, math.nan), "b": {"y", "x"}}) == {"a": [1, None], "b": ["x", "y"]}
    with pytest.raises(TypeError):
        plain(object())
