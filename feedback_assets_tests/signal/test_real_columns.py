"""Columns of a real crowd, recomputed with scipy and by Evidently's convention."""

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, ks_2samp

from feedback_assets.signal.drift import compare, drift
from feedback_assets.signal.histogram import numeric_histogram
from feedback_assets_tests.independent_reading import DATA

UKP = DATA / "ukpconvarg1"
pytestmark = pytest.mark.skipif(not UKP.is_dir(), reason=f"{UKP} is not there")


@pytest.fixture(scope="module")
def weeks() -> tuple[pl.DataFrame, pl.DataFrame]:
    def read(week: str) -> pl.DataFrame:
        return pl.read_parquet(UKP / f"2016-W{week}.parquet").select(
            "value", "topic", "competence", chars=pl.col("arg1_text").str.len_chars()
        )

    return read("05"), read("09")


def filled(counts: np.ndarray) -> np.ndarray:
    """Evidently: shares, in which 1e-4 stands for 0, not renormalised."""
    shares = counts / counts.sum()
    return np.where(shares == 0, 1e-4, shares)


def theirs(p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    a, b = filled(p), filled(q)
    return {
        "psi": float(((a - b) * np.log(a / b)).sum()),
        "kl": float(entropy(a, b)),
        "kl_reversed": float(entropy(b, a)),
        "js_distance": float(jensenshannon(p, q)),
    }


@pytest.mark.parametrize("column", ["value", "topic"])
def test_of_categories_the_values_are_those_of_scipy(weeks, column):
    one, two = (week[column].value_counts() for week in weeks)
    both = one.join(two, on=column, how="full", coalesce=True).fill_null(0)
    found = drift(*(week[column] for week in weeks))
    expected = theirs(both["count"].to_numpy(), both["count_right"].to_numpy())
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("binning", ["sturges", "deciles"])
def test_of_lengths_the_values_are_those_of_scipy_over_the_same_edges(weeks, binning):
    one, two = (week["chars"].to_numpy() for week in weeks)
    edges = (
        np.histogram_bin_edges(np.concatenate([one, two]), bins="sturges")
        if binning == "sturges"
        else np.array([-np.inf, *np.unique(np.quantile(one, np.linspace(0, 1, 11)[1:-1])), np.inf])
    )
    counts = [np.histogram(side, edges)[0] for side in (one, two)]
    inner = edges[1:-1].tolist()
    found = compare(*(numeric_histogram(week["chars"], inner) for week in weeks))
    expected = theirs(*counts)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-9)


def test_of_lengths_the_ks_statistic_and_its_place_are_scipys(weeks):
    found, expected = drift(*(week["chars"] for week in weeks)), ks_2samp(*(w["chars"].to_numpy() for w in weeks))
    assert found.ks_exact
    assert found.ks == pytest.approx(expected.statistic, abs=1e-12)
    assert found.ks_location == expected.statistic_location
