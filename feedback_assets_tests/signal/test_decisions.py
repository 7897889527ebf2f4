"""Decisions: what is beyond chance among many comparisons, and where rows hang together."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, false_discovery_control

from feedback_assets.signal.clusters import clustered_size
from feedback_assets.signal.comparisons import ColumnDrift, adjusted
from feedback_assets.signal.decisions import benjamini_yekutieli, release_decisions, verdict
from feedback_assets.signal.drift import drift
from feedback_assets.signal.section import Limits
from feedback_assets_tests.independent_reading import DATA

UKP = DATA / "ukpconvarg1"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_chances_are_scipys(chances):
    theirs = false_discovery_control(chances, method="by")
    assert benjamini_yekutieli(chances) == pytest.approx(theirs.tolist(), abs=1e-12)


def test_something_moved_only_beyond_the_limit_and_beyond_chance():
    assert verdict(0.3, 0.1, 0.01, 0.25) == "moved"
    assert verdict(0.2, 0.1, 0.01, 0.25) == "stable"
    assert verdict(0.3, 0.1, 0.06, 0.25) == "inconclusive"
    assert verdict(0.3, 0.28, 0.01, 0.25) == "moved"
    assert verdict(0.3, 0.28, 0.2, 0.25) == verdict(0.1, 0.28, 0.01, 0.25) == "inconclusive"
    assert verdict(0.1, 0.05, 0.01, 0.25, fallen=True) == "moved"
    assert verdict(None, None, None, 0.25) == "inconclusive"


def test_of_25_comparisons_without_drift_one_is_beyond_chance_in_most_releases_and_none_has_moved_in_nearly_all():
    random = np.random.default_rng(5)
    limits = Limits(psi=0.02, psi_warn=0.01)
    alarms = alone = 0
    for _ in range(40):
        columns = [
            drift(*(pl.Series(random.choice(list("abcd"), 1500, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(2)))
            for _ in range(25)
        ]
        entries = adjusted([ColumnDrift(f"c{i}", "categorical", found, limits) for i, found in enumerate(columns)])
        alone += any(found.psi_chance < 0.05 for found in columns)
        alarms += any(entry.verdict == "moved" for entry in entries)
    assert alone > 20
    assert alarms <= 2


def test_a_small_category_that_is_halved_has_moved_though_the_psi_hardly_sees_it():
    before = pl.Series(["coding"] * 1200 + ["chat"] * 8800)
    after = pl.Series(["coding"] * 500 + ["chat"] * 8800)
    found = drift(before, after)
    assert found.psi < 0.1
    assert found.fallen(0.6) == "coding"
    assert found.verdict(0.25, None, 0.6) == "moved"
    few = [pl.Series(["coding"] * held + ["chat"] * (20 - held)) for held in (3, 1)]
    assert drift(*few).fallen(0.6) is None


def test_a_release_holds_one_false_discovery_rate_over_all_its_stages():
    def entry(column, psi, chance, held=True):
        return {
            "column": column,
            "psi": psi,
            "psi_critical": 0.01,
            "psi_chance": chance,
            "limits": {"psi": 0.25},
            "held": held,
        }

    stages = [
        ("filtered", {"drift": [entry("category", 0.3, 1e-9), entry("task", 0.3, 0.03), entry("kind", 0.0, 1.0)]}),
        ("ingested", {"input": [entry("score", 0.1, 0.5), entry("source", 9.0, 0.0, held=False)]}),
    ]
    found = release_decisions(stages)
    assert (found["decisions"], found["moved"], found["stable"], found["inconclusive"]) == (4, 1, 2, 1)
    assert [(e["asset"], e["column"], e["verdict"]) for e in found["shown"]] == [
        ("filtered", "category", "moved"),
        ("filtered", "task", "inconclusive"),
    ]


def test_the_chance_of_a_drift_is_that_of_pearsons_test():
    random = np.random.default_rng(7)
    one, two = (random.choice(list("abc"), size, p=[0.5, 0.3, 0.2]) for size in (300, 200))
    table = [[int((side == cell).sum()) for cell in "abc"] for side in (one, two)]
    theirs = chi2_contingency(table, correction=False).pvalue
    assert drift(pl.Series(one), pl.Series(two)).psi_chance == pytest.approx(theirs, rel=1e-9)


def judgments() -> pl.DataFrame:
    one, two = (pl.col(f"arg{i}_text").str.len_chars() for i in (1, 2))
    return (
        pl.scan_parquet(UKP / "*.parquet")
        .filter((pl.col("value") != "equal") & (one != two))
        .select(
            "worker",
            item=pl.format("{}/{}", "topic", "pair_id"),
            longer=((pl.col("value") == "a1") == (one > two)).cast(pl.Int8),
        )
        .collect()
    )


@pytest.mark.skipif(not UKP.is_dir(), reason=f"{UKP} is not there")
def test_on_ukp_chance_allows_for_workers_and_for_items_as_cameron_gelbach_and_miller_do():
    rows = judgments()
    n, rate = rows.height, rows["longer"].mean()

    def spread(*by):
        sums = rows.group_by(by).agg((pl.col("longer") - rate).sum().alias("s"))["s"]
        return sums.len() / (sums.len() - 1) * float((sums * sums).sum()) / n**2

    def error(*columns):
        return math.sqrt(rate * (1 - rate) / clustered_size(rows["longer"], [rows[name] for name in columns]))

    assert math.sqrt(rate * (1 - rate) / n) == pytest.approx(0.0018, abs=5e-5)
    assert error("worker") == pytest.approx(0.0086, abs=5e-5)
    assert error("worker") == pytest.approx(math.sqrt(spread("worker")), rel=1e-6)
    both = spread("worker") + spread("item") - spread("worker", "item")
    assert error("worker", "item") == pytest.approx(math.sqrt(both), rel=1e-6)
    assert error("worker", "item") > error("worker")
