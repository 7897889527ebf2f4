"""Drift statistics: known values, scipy's, and the laws they obey."""

import json
import math
import warnings
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.errors import FeedbackError
from feedback_assets.signal.clusters import clustered_size
from feedback_assets.signal.divergence import js, kl, psi
from feedback_assets.signal.drift import compare, drift, ks
from feedback_assets.signal.histogram import (
    NULL,
    OTHER,
    Declared,
    categorical_histogram,
    decile_edges,
    declared,
    numeric_histogram,
)
from feedback_assets_tests.independent_reading import DATA

SOME = settings(deadline=None, max_examples=40)

UKP = DATA / "ukpconvarg1"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scipy.stats import entropy, ks_2samp


@pytest.fixture(scope="module")
def normal() -> tuple[pl.Series, pl.Series]:
    random = np.random.default_rng(0)
    return pl.Series(random.normal(0, 1, 5000)), pl.Series(random.normal(0.3, 1.1, 4000))


def test_psi_over_deciles_meets_the_fixture(normal):
    assert drift(*normal).psi == pytest.approx(0.114241, abs=5e-7)


def test_over_evidentlys_bins_psi_kl_and_js_meet_its_values(normal):
    edges = np.histogram_bin_edges(np.concatenate([s.to_numpy() for s in normal]), bins="sturges")[1:-1].tolist()
    found = compare(*(numeric_histogram(side, edges) for side in normal))
    assert found.psi == pytest.approx(0.126800, abs=5e-7)
    assert found.kl == pytest.approx(0.056961, abs=5e-7)
    assert found.kl_reversed == pytest.approx(0.069838, abs=5e-7)
    assert found.js_distance == pytest.approx(0.123104, abs=5e-7)


def test_categorical_psi_meets_the_fixture():
    found = drift(pl.Series(["a"] * 900 + ["b"] * 100), pl.Series(["a"] * 950 + ["c"] * 50))
    assert found.cells == ("a", "b", "c")
    assert found.psi == pytest.approx(1.002897, abs=5e-7)
    assert found.ks is None


def test_ks_meets_the_fixture_and_scipy(normal):
    found, where = ks(*normal)
    theirs = ks_2samp(*(side.to_numpy() for side in normal), method="asymp")
    assert found == pytest.approx(0.1338, abs=1e-12)
    assert (found, where) == pytest.approx((theirs.statistic, theirs.statistic_location), abs=1e-12)


@SOME
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=40),
    st.lists(st.integers(-5, 5), min_size=1, max_size=40),
)
def test_ks_equals_scipys_also_with_ties(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ks_2samp(a, b, method="asymp").statistic
    assert ks(pl.Series(a), pl.Series(b))[0] == pytest.approx(theirs, abs=1e-12)
    assert ks(pl.Series(b), pl.Series(a))[0] == pytest.approx(theirs, abs=1e-12)


def test_a_weight_of_three_is_the_same_as_three_rows():
    values, other = pl.Series([1.0, 2.0, 5.0]), pl.Series([1.0, 4.0])
    thrice = pl.Series([1.0, 2.0, 2.0, 2.0, 5.0])
    weighted = ks(values, other, pl.Series([1.0, 3.0, 1.0]))
    assert weighted == ks(thrice, other)
    edges = (2.0, 4.0)
    assert numeric_histogram(values, edges, pl.Series([1.0, 3.0, 1.0])).mass == numeric_histogram(thrice, edges).mass


COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=12).filter(
    lambda pairs: any(p for p, _ in pairs) and any(q for _, q in pairs)
)


@SOME
@given(COUNTS)
def test_psi_is_never_negative_and_symmetric(pairs):
    p, q = zip(*pairs, strict=True)
    assert psi(p, q) >= 0
    assert psi(p, q) == pytest.approx(psi(q, p))
    assert psi(p, p) == 0


@SOME
@given(COUNTS)
def test_js_is_symmetric_and_within_ln_2(pairs):
    p, q = zip(*pairs, strict=True)
    assert 0 <= js(p, q) <= math.log(2)
    assert js(p, q) == pytest.approx(js(q, p))


@SOME
@given(COUNTS)
def test_kl_is_scipys_entropy_of_filled_shares(pairs):
    p, q = (np.array(side, float) / sum(side) for side in zip(*pairs, strict=True))
    filled = [np.where(side == 0, 1e-4, side) for side in (p, q)]
    assert kl(p.tolist(), q.tolist()) == pytest.approx(entropy(*filled), abs=1e-12)


@SOME
@given(st.lists(st.lists(st.sampled_from(["x", "y", "z", None])), min_size=3, max_size=3))
def test_merging_histograms_is_associative_and_equals_the_whole(parts):
    a, b, c = (categorical_histogram(pl.Series(part, dtype=pl.String)) for part in parts)
    whole = categorical_histogram(pl.Series([value for part in parts for value in part], dtype=pl.String))
    assert (a + b) + c == a + (b + c) == whole


@SOME
@given(st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True)), min_size=3, max_size=3))
def test_merging_numeric_histograms_is_associative(parts):
    a, b, c = (numeric_histogram(pl.Series(part, dtype=pl.Float64), (0.0, 1.0)) for part in parts)
    assert (a + b) + c == a + (b + c)
    assert sum((a + b + c).mass) == 1_000_000 * sum(map(len, parts))


@SOME
@given(
    st.lists(st.floats() | st.none(), max_size=30),
    st.lists(st.floats() | st.none(), max_size=30),
)
def test_nothing_that_is_not_finite_comes_out(a, b):
    found = drift(pl.Series(a, dtype=pl.Float64), pl.Series(b, dtype=pl.Float64))
    json.dumps(found.as_json(), allow_nan=False)
    for value in (found.psi, found.kl, found.kl_reversed, found.js, found.ks, found.psi_critical):
        assert value is None or math.isfinite(value)


def test_null_and_unseen_categories_are_cells_of_their_own():
    found = drift(pl.Series(["a", "a", None]), pl.Series(["a", "new", "new"]))
    assert found.cells == (NULL, "a", "new")
    assert found.current == (0, 1 / 3, 2 / 3)


def test_heavy_ties_collapse_edges_and_few_values_get_a_bin_each():
    assert decile_edges(pl.Series([1, 1, 1, 2, 5])) == (2.0, 5.0)
    many = pl.Series([0.0] * 95 + [float(i) for i in range(1, 21)])
    edges = decile_edges(many)
    assert len(set(edges)) == len(edges) < 9
    assert numeric_histogram(many, edges).mass[0] >= 95_000_000


def test_without_drift_psi_at_small_n_is_called_inconclusive_not_stable():
    random = np.random.default_rng(1)
    a, b = (pl.Series(random.normal(0, 1, 100)) for _ in range(2))
    assert drift(a, b).psi_critical == pytest.approx(16.919 * 0.02, abs=1e-4)
    assert drift(a, b).verdict(0.25) == "inconclusive"


def test_without_drift_the_critical_value_is_exceeded_in_about_one_sample_of_twenty():
    random = np.random.default_rng(2)
    beyond = 0
    for _ in range(300):
        found = drift(pl.Series(random.normal(0, 1, 2000)), pl.Series(random.normal(0, 1, 2000)))
        beyond += found.psi > found.psi_critical
    assert 3 <= beyond <= 30


def test_an_effect_beyond_limit_and_chance_has_moved():
    reference, current = pl.Series(["a", "b"] * 1000), pl.Series(["a"] * 1800 + ["b"] * 200)
    assert drift(reference, current).verdict(0.25) == "moved"
    assert drift(reference, reference).verdict(0.25) == "stable"
    assert drift(reference, current.head(0)).verdict(0.25) == "inconclusive"


def test_uneven_weights_lower_the_effective_sample_size():
    values = pl.Series(["a", "b", "a", "b"])
    found = drift(values, values, weights=(None, pl.Series([3.0, 1.0, 0.0, 0.0])))
    assert (found.effective_reference, found.effective_current) == (4, 1.6)


def test_a_weight_that_is_null_or_negative_is_refused():
    for bad in (None, -1.0, math.nan, math.inf):
        with pytest.raises(FeedbackError, match="1 weights are null, negative or not finite"):
            drift(pl.Series(["a"]), pl.Series(["a"]), weights=(None, pl.Series("w", [bad], dtype=pl.Float64)))


def test_a_million_weighted_rows_give_the_same_bits_in_any_order():
    random = np.random.default_rng(3)
    frame = pl.DataFrame({"v": random.integers(0, 500, 50_000), "w": random.random(50_000)})
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=5)
    reference = pl.Series(random.integers(0, 500, 1000))
    one, two = (drift(reference, f["v"], weights=(None, f["w"])) for f in (frame, shuffled))
    assert one == two


def test_declared_other_stands_for_every_category_not_named():
    reference = declared({"a": 0.5, OTHER: 0.5})
    found = compare(reference, categorical_histogram(pl.Series(["a"] * 50 + ["x"] * 30 + ["y"] * 20)))
    assert found.psi == 0
    assert found.n_reference is None


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(FeedbackError, match=r"add up to 0\.9"):
        declared({"a": 0.9})
    with pytest.raises(FeedbackError, match="need 2 shares"):
        declared({"edges": [1.0], "shares": [1.0]})
    assert isinstance(declared({"edges": [1.0], "shares": [0.5, 0.5]}), Declared)


def test_ks_against_declared_edges_is_marked_as_a_lower_bound():
    found = compare(
        declared({"edges": [0.0], "shares": [0.5, 0.5]}), numeric_histogram(pl.Series([-1.0, 1.0, 1.0, 1.0]), (0.0,))
    )
    assert (found.ks, found.ks_location, found.ks_exact) == (0.25, 0.0, False)


def test_rows_in_equal_clusters_tell_as_little_as_their_clusters():
    values = pl.Series([v for v in ("a", "b") for _ in range(500)])
    clusters = pl.Series([f"w{i // 50}" for i in range(1000)])
    assert clustered_size(values, clusters) == pytest.approx(19.0)
    assert clustered_size(values, pl.Series([str(i) for i in range(1000)])) == pytest.approx(999.0)
    assert clustered_size(values, pl.Series(["one"] * 1000)) is None


@SOME
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15), st.integers(0, 300), st.integers(0, 3)), min_size=30)
)
def test_rows_clustered_in_two_ways_tell_what_the_formula_says(rows):
    values, one, two, weights = (list(column) for column in zip(*rows, strict=True))

    def spread(cluster):
        found, total = Fraction(), sum(weights)
        held = {(c, k): 0 for c in cluster for k in values}
        for c, k, weight in zip(cluster, values, weights, strict=True):
            held[c, k] += weight
        names = set(cluster)
        for k in sorted(set(values)):
            share = Fraction(sum(held[c, k] for c in names), total)
            apart = sum((held[c, k] - share * sum(held[c, other] for other in set(values))) ** 2 for c in names)
            found += len(names) * apart / (len(names) - 1) / total**2 / share if share else 0
        return found

    ways = [way for way in (one, two) if len(set(way)) >= 10]
    cells = len({value for value, weight in zip(values, weights, strict=True) if weight})
    found = clustered_size(
        pl.Series(values), [pl.Series(one).cast(pl.String), pl.Series(two)], pl.Series(weights, dtype=pl.Float64)
    )
    if not ways or cells < 2:
        assert found is None
        return
    spreads = [spread(way) for way in ways]
    if len(ways) == 2:
        spreads.append(sum(spreads) - spread(list(zip(one, two, strict=True))))
    kish = Fraction(sum(weights) ** 2, sum(weight * weight for weight in weights))
    assert found == pytest.approx(float(min(kish, (cells - 1) / max(spreads)) if max(spreads) else kish))


@pytest.mark.skipif(not UKP.is_dir(), reason=f"{UKP} is not there")
def test_on_ukp_the_standard_error_of_the_chosen_longer_rate_is_that_by_worker():
    one, two = (pl.col(f"arg{i}_text").str.len_chars() for i in (1, 2))
    rows = (
        pl.scan_parquet(UKP / "*.parquet")
        .filter((pl.col("value") != "equal") & (one != two))
        .select("worker", longer=(pl.col("value") == "a1") == (one > two))
        .collect()
    )
    rate, size = rows["longer"].mean(), clustered_size(rows["longer"], rows["worker"])
    assert math.sqrt(rate * (1 - rate) / rows.height) == pytest.approx(0.0018, abs=5e-5)
    assert math.sqrt(rate * (1 - rate) / size) == pytest.approx(0.0086, abs=5e-5)
