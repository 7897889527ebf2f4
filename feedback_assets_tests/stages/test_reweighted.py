"""The reweighted stage: each factor by values worked out by hand, and the laws that hold for all weights."""

import os
import subprocess
import sys
from math import floor, isclose, log2
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.digests import fingerprint
from feedback_assets.stages.reweighted import ReweightedSection, promises, reweighted
from feedback_assets.stages.stage import Inputs, Output
from feedback_assets.stages.steady import steady
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import day, records

ADDED = {
    "cluster_id": pl.String,
    "annotator_agreement": pl.Float64,
    "annotator_agreement_n": pl.Int64,
    "guideline_behind": pl.String,
}


def rows_of(*given: dict[str, Any]) -> pl.DataFrame:
    rows = records(*({k: v for k, v in row.items() if k not in ADDED} for row in given))
    added = (pl.Series(name, [row.get(name) for row in given], dtype) for name, dtype in ADDED.items())
    return rows.with_columns(*added).with_columns(pl.coalesce("cluster_id", "item_id").alias("cluster_id"))


def factor(kind: str, **options: Any) -> dict[str, Any]:
    return {"id": kind.replace("_", "-"), "version": 1, "reason": "because", "kind": kind, **options}


def weighted(rows: pl.DataFrame, *factors: dict[str, Any]) -> Output:
    section = ReweightedSection.model_validate({"factors": factors})
    output = reweighted(Inputs(rows.lazy()), section, EngineInMemory())
    assert output.rows.select(rows.columns).equals(rows), "no column is changed, no row moved"
    assert set(output.fates["fate"]) <= {"kept"}
    return output


def weights(factor_: dict[str, Any], *given: dict[str, Any]) -> list[float]:
    output = weighted(rows_of(*given), factor_).rows
    assert output["weight"].to_list() == output[f"w_{factor_['kind']}"].to_list()
    return output["weight"].to_list()


def test_replicates_of_one_item_share_one_weight():
    share = factor("replicate_share")
    assert weights(share, *({"cluster_id": c} for c in "xxxy")) == [1 / 3, 1 / 3, 1 / 3, 1.0]
    apart = ({}, {"aspect": "tone"}, {"task": "t"}, {"kind": "thumbs"})
    assert weights(share, *({"cluster_id": "x", **question} for question in apart)) == [1.0] * 4


def pair(a: str, b: str, group: str | None = "g", **more: Any) -> dict[str, Any]:
    return {"response_a_id": a, "response_b_id": b, "group_id": group, **more}


def test_the_pairs_of_a_ranking_of_k_weigh_one_by_k_minus_1():
    ranked = [pair(a, b) for a, b in ("12", "13", "14", "23", "24", "34")]
    assert weights(factor("ranking_share"), *ranked, pair("1", "2", None)) == [1 / 3] * 6 + [1.0]
    assert weights(factor("ranking_share"), pair("1", "2"), pair("2", "1")) == [1.0, 1.0]


def test_groups_of_two_sources_are_not_mixed():
    one = [pair(a, b, "g") for a, b in ("12", "13", "23")]
    other = [pair("1", "4", "g", source="t"), pair("5", "6", "sg", source="")]
    assert weights(factor("ranking_share"), *one, *other) == [1 / 2] * 3 + [1.0] * 2


def test_reliability_goes_from_the_floor_to_one_and_needs_enough_comparisons():
    seen = [(0.0, 20), (0.5, 20), (1.0, 50), (0.0, 19), (None, 0)]
    given = ({"annotator_agreement": share, "annotator_agreement_n": n} for share, n in seen)
    assert weights(factor("annotator_reliability", floor=0.2), *given) == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0])


def test_a_weight_halves_with_each_half_life():
    recency = factor("recency", half_life_days=10, as_of="2024-01-21", floor=0.3)
    given = ({"collected_at": at} for at in (day(20), day(10), day(0), day(25), None))
    assert weights(recency, *given) == [1.0, 0.5, 0.3, 1.0, 1.0]


def test_less_confidence_is_less_weight_and_none_given_is_full_weight():
    given = ({"confidence": c} for c in (0.0, 0.5, 1.0, None))
    assert weights(factor("confidence", floor=0.5), *given) == [0.5, 0.75, 1.0, 1.0]


def test_older_guidelines_weigh_what_the_policy_says():
    discount = factor("guideline_discount", clarifying=0.9, breaking=0.4, unmatched=0.7)
    given = ({"guideline_behind": behind} for behind in ("none", "clarifying", "breaking", None))
    assert weights(discount, *given) == [1.0, 0.9, 0.4, 0.7]


def test_the_closest_pattern_of_an_origin_counts_whatever_the_order_of_the_policy():
    origins = {"*": 0.9, "model:b*": 0.5, "model:b-1": 0.8, "model:b-*": 0.6}
    names = ("model:b-1", "model:b-2", "model:bx", "human")
    given = [{"origin_a": name, "origin_b": "human"} for name in names] + [{"origin_a": None}]
    for order in (origins, dict(reversed(origins.items()))):
        assert weights(factor("origin_discount", origins=order), *given) == [0.8, 0.6, 0.5, 0.9, 1.0]
    one, other = (
        ReweightedSection.model_validate({"factors": [factor("origin_discount", origins=order)]})
        for order in (origins, dict(reversed(origins.items())))
    )
    assert one.factors[0].content_digest() == other.factors[0].content_digest()


def test_the_smaller_of_both_origins_counts():
    given = {"origin_a": "model:x", "origin_b": "model:y"}
    assert weights(factor("origin_discount", origins={"model:x": 0.5, "model:y": 0.2}), given) == [0.2]


def test_a_judgment_by_a_model_weighs_what_the_policy_says():
    judged = ({"annotator_kind": kind} for kind in ("human", "model", None))
    assert weights(factor("judge_discount", model=0.25, unknown=0.75), *judged) == [1.0, 0.25, 0.75]


def by(**held: int) -> list[dict[str, Any]]:
    return [{"annotator_id": None if who == "nobody" else who} for who, n in held.items() for _ in range(n)]


@pytest.mark.parametrize(
    ("held", "share", "scales"),
    [
        ({"ann": 2, "ben": 2}, 0.5, {}),
        ({"ann": 6, "ben": 2, "cat": 2}, 0.5, {"ann": 4 / 6}),  # 4 of 8
        ({"ann": 10, "ben": 2}, 0.5, {"ann": 0.2}),  # 2 of 4
        # ann and ben to c each: c = .3 · (2c + 4), c = 3; cat and dan have 2
        ({"ann": 8, "ben": 6, "cat": 2, "dan": 2}, 0.3, {"ann": 3 / 8, "ben": 3 / 6}),
        ({"ann": 10, "nobody": 4}, 0.5, {"ann": 0.4}),
        ({"ann": 10}, 0.5, {}),  # cannot be met
        ({"ann": 5, "ben": 3}, 0.4, {}),  # cannot be met
        ({"nobody": 3}, 0.1, {}),
    ],
)
def test_no_annotator_holds_more_than_the_share(held, share, scales):
    expected = [scales.get(who, 1.0) for who, n in held.items() for _ in range(n)]
    assert weights(factor("annotator_cap", share=share), *by(**held)) == pytest.approx(expected)


def test_an_annotator_without_weight_does_not_take_it_from_the_others():
    zero = factor("origin_discount", origins={"model:x": 0.0})
    given = [{"annotator_id": "ann"}, {"annotator_id": "ben", "origin_a": "model:x"}]
    assert weighted(rows_of(*given), zero, factor("annotator_cap", share=0.4)).rows["weight"].to_list() == [1.0, 0.0]


@given(
    st.dictionaries(st.sampled_from(["ann", "ben", "cat", "dan", "eve", "nobody"]), st.integers(1, 12), min_size=1),
    st.sampled_from([0.2, 0.3, 0.34, 0.5, 0.9]),
)
@settings(max_examples=30, deadline=None)
def test_capped_annotators_share_of_the_result_is_at_most_the_cap(held, share):
    named = {who: n for who, n in held.items() if who != "nobody"}
    rows = weighted(rows_of(*by(**held)), factor("annotator_cap", share=share)).rows
    after = dict(rows.group_by("annotator_id").agg(pl.col("weight").sum()).iter_rows())
    total = sum(after.values())
    can_be_met = len(named) * share >= 1 or "nobody" in held or not named
    assume(can_be_met)
    assert all(weight <= share * total * (1 + 1e-6) for who, weight in after.items() if who is not None)
    # Nobody is scaled up, and nobody below the cap is scaled at all.
    assert rows["weight"].max() <= 1.0  # type: ignore[operator]
    assert all(isclose(after[w], n) or isclose(after[w], share * total, rel_tol=1e-5) for w, n in named.items())


def won(label: str, a: int, b: int) -> dict[str, Any]:
    return {"label": label, "response_a_chars": a, "response_b_chars": b}


LONGER, SHORTER = won("a", 9, 1), won("b", 9, 1)


def test_longer_and_shorter_winners_get_the_same_weight_in_total():
    given = [LONGER, won("b", 1, 9), LONGER, SHORTER, won("tie", 1, 9), won("a", 5, 5), {"label": "up"}]
    found = weights(factor("length_balance"), *given)
    assert found == pytest.approx([2 / 3] * 3 + [2.0] + [1.0] * 3, rel=2**-8)
    assert weights(factor("length_balance", most=1.25), *given[:4]) == [0.8] * 3 + [1.25]
    assert weights(factor("length_balance"), LONGER, LONGER) == [1.0, 1.0]


def test_a_few_more_records_leave_the_balance_of_the_others_as_it_was():
    given = [LONGER] * 501 + [SHORTER] * 499
    found = [weights(factor("length_balance"), *given, *more)[0] for more in ([], [LONGER, SHORTER])]
    assert found == [255 / 256] * 2


@given(st.floats(1e-6, 1e6))
def test_a_steady_scale_is_near_and_few(scale: float):
    assert steady(scale) == pytest.approx(scale, rel=2**-8)
    assert steady(steady(scale)) == steady(scale)
    assert (steady(scale) / 2 ** floor(log2(scale)) * 2**7).is_integer()


def test_balance_is_of_weight_not_of_rows():
    doubtful = [{**LONGER, "confidence": 0.0}, {**LONGER, "confidence": 0.0}, {**SHORTER, "confidence": 1.0}]
    output = weighted(rows_of(*doubtful), factor("confidence", floor=0.5), factor("length_balance")).rows
    assert output["w_length_balance"].to_list() == [1.0, 1.0, 1.0]


ALL = (
    factor("replicate_share"),
    factor("annotator_reliability", least_n=1),
    factor("recency", half_life_days=7, as_of="2024-02-01"),
    factor("confidence"),
    factor("origin_discount", origins={"model:*": 0.7}),
    factor("judge_discount"),
    factor("annotator_cap", share=0.3),
    factor("length_balance"),
)


def many(n: int = 400) -> pl.DataFrame:
    return rows_of(
        *(
            {
                "cluster_id": f"c{i * 7 % 150}",
                "annotator_id": f"w{min(i * i % 23, 9)}",
                "confidence": i % 11 / 10,
                "collected_at": day(i % 31),
                "annotator_agreement": i % 13 / 13,
                "annotator_agreement_n": i % 3,
                "origin_a": "model:x" if i % 4 else "human",
                "annotator_kind": ("human", "model", None)[i % 3],
                **won("ab"[i % 3 == 0], i % 50, i * 3 % 50),
            }
            for i in range(n)
        )
    )


def test_a_weight_is_the_product_of_its_factors():
    output = weighted(many(), *ALL)
    product = pl.lit(1.0)
    for entry in ReweightedSection.model_validate({"factors": ALL}).factors:
        product = product * pl.col(entry.column())
        facts = output.facts["factors"][entry.id]
        assert facts["changed"] == output.rows.filter(pl.col(entry.column()) != 1.0).height > 0
    assert output.rows.select((product == pl.col("weight")).all()).item()
    mean = output.tables["plan"].item()
    assert abs(mean / 1e6 - output.rows["weight"].mean()) < 2e-6  # type: ignore[operator]


def test_without_factors_every_weight_is_one():
    output = weighted(many(3))
    assert output.rows["weight"].to_list() == [1.0] * 3
    assert output.facts["mean_weight_millionths"] == 1_000_000
    assert weighted(many(3).clear(), *ALL).rows.is_empty()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_rows_does_not_change_a_bit_of_a_weight(seed):
    shuffled = weighted(many().sample(fraction=1, shuffle=True, seed=seed), *ALL).rows.sort("line")
    assert fingerprint(shuffled) == fingerprint(weighted(many(), *ALL).rows)


def test_the_number_of_threads_does_not_change_a_bit_of_a_weight():
    script = (
        "from feedback_assets_tests.stages.test_reweighted import *; "
        "print(fingerprint(weighted(many(3000), *ALL).rows), pl.thread_pool_size())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads in ("1", "2")
    ]
    assert [threads for _, threads in found] == ["1", "2"]
    assert found[0][0] == found[1][0] == fingerprint(weighted(many(3000), *ALL).rows)


def test_two_factors_that_would_share_a_column_are_refused():
    twice = [{**factor("confidence"), "id": "a-b"}, {**factor("replicate_share"), "id": "a_b"}]
    with pytest.raises(ValidationError, match="'a-b' and 'a_b' would share the column w_a_b"):
        ReweightedSection.model_validate({"factors": twice})


def test_each_factor_promises_something_of_its_column():
    names = [promise.name for promise in promises(ReweightedSection.model_validate({"factors": ALL}))]
    assert len(names) == len(set(names))
    assert any("w_annotator_cap" in name for name in names)
