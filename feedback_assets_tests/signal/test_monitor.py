"""Which columns are monitored, and what is said of them."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import load
from feedback_assets.record import SCHEMA
from feedback_assets.signal.clusters import size_in
from feedback_assets.signal.columns import MONITORED, signal_of, signals_of
from feedback_assets.signal.comparisons import Sizes, baseline_drift, drift_between
from feedback_assets.signal.losses import LOST, GroupLoss, heavy_losses, loss_by_annotator, loss_by_group
from feedback_assets.signal.monitor import distribution, effective_sample_size, identity_changes
from feedback_assets.signal.profile import merged
from feedback_assets.signal.section import AllowedLoss, Limits, Monitoring

SOME = settings(deadline=None, max_examples=40)

LIMITS = Limits()


def records(rows: list[dict], **more: list) -> pl.DataFrame:
    base = [{"row_id": str(i), "kind": "preference", "response_b_id": "b"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(base, schema=SCHEMA).with_columns(**{k: pl.Series(v) for k, v in more.items()})


def signal(name: str, rows: list[dict]) -> list:
    found = next(s for s in MONITORED if s.name == name)
    frame = records(rows)
    return (
        (frame if found.applies is None else frame.filter(found.applies)).select(found.value.alias("v"))["v"].to_list()
    )


def drifts(before: pl.DataFrame, after: pl.DataFrame, weight_after: str | None = None, columns: tuple = ()) -> dict:
    profiles = signal_of(before, None, columns), signal_of(after, weight_after, columns)
    return {d.name: d for d in drift_between(*profiles, LIMITS)}


def test_labels_are_monitored_as_what_they_say():
    rows = [
        {"label": "a", "shown_order": "ab", "response_a_chars": 9, "response_b_chars": 5},
        {"label": "a", "shown_order": "ba", "response_a_chars": 5, "response_b_chars": 9},
        {"label": "b", "shown_order": "ba", "response_a_chars": 5, "response_b_chars": 5},
        {"label": "b", "shown_order": "unknown", "response_a_chars": 5, "response_b_chars": None},
        {"label": "tie", "shown_order": "ab", "response_a_chars": 5, "response_b_chars": 9},
        {"kind": "thumbs", "label": "up", "response_a_chars": 7, "response_b_id": None},
        {"kind": "rating", "score": 3.0, "score_min": 1.0, "score_max": 5.0, "response_b_id": None},
    ]
    assert signal("outcome", rows) == ["decided", "decided", "decided", "decided", "tie", "up"]
    assert signal("position_win", rows) == ["first", "second", "first", None]
    assert signal("chosen_longer", rows) == ["longer", "shorter", "equal", None]
    assert signal("response_chars", rows) == [9, 5, 5, None, 7, None]
    assert signal("score", rows) == [0.5]


def test_origin_is_that_of_the_chosen_response():
    rows = [
        {"label": "a", "origin_a": "model:x", "origin_b": "human"},
        {"label": "b", "origin_a": "model:x", "origin_b": "human"},
        {"label": "tie", "origin_a": "model:x", "origin_b": "human"},
        {"kind": "thumbs", "label": "up", "origin_a": "unknown", "response_b_id": None},
    ]
    assert signal("origin", rows) == ["x", "human", "unknown"]


def test_a_filter_on_length_shows_in_the_chosen_longer_rate_and_not_in_the_source():
    rows = [
        {"label": "ab"[i % 2], "source": f"s{i // 2 % 2}", "response_a_chars": 9, "response_b_chars": 5}
        for i in range(4000)
    ]
    before = records(rows)
    after = before.filter((pl.col("label") == "a") | (pl.int_range(pl.len()) % 8 == 1))
    found = drifts(before, after)
    assert found["chosen_longer"].verdict == "moved"
    assert found["source"].verdict == "stable"
    json.dumps([d.as_json() for d in found.values()], allow_nan=False)


def test_a_column_of_which_nothing_is_known_is_not_reported():
    frame = records([{"label": "a", "source": "s"}])
    assert drifts(frame, frame).keys() == {"outcome", "source", "kind"}


def test_weights_are_part_of_the_distribution():
    before = records([{"category": "ab"[i % 2]} for i in range(2000)])
    after = before.with_columns(weight=pl.when(pl.col("category") == "a").then(4.0).otherwise(1.0))
    assert drifts(before, after)["category"].verdict == "stable"
    found = drifts(before, after, weight_after="weight")["category"]
    assert found.verdict == "moved"
    assert found.drift.current == (0.8, 0.2)


def test_copies_of_one_record_count_as_one_in_the_sample_size():
    before = records([{"category": "ab"[i % 2]} for i in range(100)])
    copies = pl.when(pl.col("category") == "a").then(3).otherwise(1).alias("copies")
    after = pl.concat(
        [
            before.with_columns(copies, copy_index=pl.lit(0)),
            *(before.filter(pl.col("category") == "a").with_columns(copies, copy_index=pl.lit(i)) for i in (1, 2)),
        ]
    )
    found = drifts(before, after)["category"].drift
    assert found.current == (0.75, 0.25)
    assert found.n_current == 100
    assert found.effective_current == 80
    sizes = {s.unit: s for s in effective_sample_size(after, None)}
    assert (sizes["record"].count, sizes["record"].effective) == (100, 80)


def test_effective_sample_size_is_given_by_record_item_and_annotator():
    frame = records(
        [{"item_id": "x", "annotator_id": "w"}, {"item_id": "x", "annotator_id": "v"}, {"item_id": "y"}],
        weight=[1.0, 1.0, 2.0],
    )
    sizes = effective_sample_size(frame, "weight")
    assert {s.unit: (s.count, s.effective) for s in sizes} == {
        "record": (3, 16 / 6),
        "item": (2, 2.0),
        "annotator": (2, 2.0),
    }
    assert effective_sample_size(frame, "weight", signal_of(frame, "weight")) == sizes


def test_opted_in_columns_are_monitored_too():
    frame = records([{"aspect": "help", "confidence": 0.5}])
    found = drifts(frame, frame, columns=("aspect", "confidence", "parents", "nowhere"))
    assert (found["aspect"].kind, found["confidence"].kind) == ("categorical", "numeric")
    assert "parents" not in found


def test_a_baseline_is_met_or_not():
    frame = records([{"category": "ab"[i % 4 == 0], "prompt_chars": i % 100} for i in range(4000)])
    expected = {"category": {"a": 0.75, "b": 0.25}, "prompt_chars": {"edges": [50.0], "shares": [0.9, 0.1]}}
    found = {d.name: d for d in baseline_drift(signal_of(frame), expected, LIMITS)}
    assert found["category"].verdict == "stable"
    assert found["prompt_chars"].verdict == "moved"


def scores(stars: list[int], shares: list[float], most: int):
    frame = records([{"kind": "rating", "score": star, "score_min": 0, "score_max": most} for star in stars])
    edges = [(place + 1) / len(shares) for place in range(len(shares) - 1)]
    (found,) = baseline_drift(signal_of(frame), {"score": {"edges": edges, "shares": shares}}, LIMITS)
    return found


def test_a_few_rows_are_enough_where_nothing_is_as_expected():
    found = scores([10] * 40, [0.1] * 10, 10)
    assert found.drift.psi_critical > LIMITS.psi
    assert found.verdict == "moved"


def test_a_rare_value_that_was_declared_and_is_gone_has_moved_though_the_psi_hardly_sees_it():
    stars = [0] * 100 + [1] * 1000 + [2] * 3900 + [3] * 3800 + [4] * 1200
    shares = [0.01, 0.1, 0.39, 0.38, 0.12]
    assert scores(stars, shares, 5).verdict == "stable"
    mapped = scores([4 if star == 0 else star for star in stars], shares, 5)
    assert mapped.drift.psi < 0.1
    assert (mapped.verdict, mapped.fallen) == ("moved", "< 0.2")


def test_a_baseline_for_a_column_that_is_not_there_is_an_error_not_a_pass():
    frame = records([{"category": "a"}])
    expected = {"mood": {"good": 1.0}, "category": {"edges": [1.0], "shares": [0.5, 0.5]}}
    missing, wrong = baseline_drift(signal_of(frame), expected, LIMITS)[::-1]
    assert (missing.verdict, wrong.verdict) == ("error", "error")
    assert missing.problem == "expect.mood: the data has no such column"
    assert wrong.problem == "expect.category: the data has it categorical, not numeric"


@SOME
@given(st.lists(st.tuples(st.sampled_from([*"abc", None]), st.integers(0, 300) | st.none()), min_size=1, max_size=60))
def test_the_distribution_of_a_release_serves_as_its_own_baseline(rows):
    frame = records(
        [{"category": c, "prompt_chars": n} for c, n in rows], weight=[1.0 + i % 3 for i in range(len(rows))]
    )
    actual = distribution(signal_of(frame, "weight"))
    json.dumps(actual, allow_nan=False)
    for found in baseline_drift(signal_of(frame, "weight"), json.loads(json.dumps(actual)), LIMITS):
        assert found.drift.psi == pytest.approx(0, abs=1e-12)


def test_the_edges_of_a_release_still_part_its_values_when_they_are_written_with_nine_digits():
    ninths = [{"kind": "rating", "score": float(i), "score_min": 1.0, "score_max": 10.0} for i in range(1, 11)]
    frame = records(ninths * 50)
    entry = distribution(signal_of(frame))["score"]
    entry["edges"] = [float(f"{edge:.9g}") for edge in entry["edges"]]
    (found,) = baseline_drift(signal_of(frame), {"score": entry}, LIMITS)
    assert found.drift.psi == pytest.approx(0, abs=1e-12)


@SOME
@given(
    st.lists(st.tuples(st.sampled_from([*"abc", None]), st.integers(0, 9) | st.none()), min_size=1, max_size=40),
    st.integers(0, 40),
    st.booleans(),
)
def test_a_profile_is_the_sum_of_those_of_its_parts(rows, cut, weighted):
    frame = records(
        [{"category": c, "prompt_chars": n, "label": "a"} for c, n in rows],
        weight=[0.5 + i % 3 for i in range(len(rows))],
    )
    weight = "weight" if weighted else None
    whole, one, two = (signal_of(part, weight) for part in (frame, frame.head(cut), frame.slice(cut)))
    for total in (one + two, two + one, merged([two, one])):
        assert total.counts.equals(whole.counts)
        assert (dict(total.kinds), dict(total.squares)) == (dict(whole.kinds), dict(whole.squares))


@SOME
@given(
    st.lists(
        st.tuples(st.sampled_from([*"abc", None]), st.integers(0, 9) | st.none(), st.sampled_from(["a", "b", "tie"])),
        max_size=40,
    )
)
def test_records_that_weigh_one_have_the_profile_of_unweighted_ones(rows):
    frame = records([{"category": c, "prompt_chars": n, "response_a_chars": 1, "label": k} for c, n, k in rows])
    weighted = frame.with_columns(weight=pl.lit(1.0))
    copies = pl.concat(
        [weighted.with_columns(weight=pl.lit(0.5), copies=pl.lit(2), copy_index=pl.lit(i)) for i in (0, 1)]
    )
    plain = signal_of(frame)
    for found in (signal_of(weighted, "weight"), signal_of(copies, "weight"), signal_of(copies.reverse(), "weight")):
        assert found.counts.equals(plain.counts)
        assert (found.kinds, found.squares) == (plain.kinds, plain.squares)


@SOME
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=40),
    st.integers(0, 40),
)
def test_the_parts_of_copied_and_weighted_records_add_up_to_the_whole(rows, cut):
    frame = records([{"category": c, "label": "a"} for c, _, _ in rows]).with_columns(
        weight=pl.Series([w / 3 for _, w, _ in rows]), copies=pl.Series([n for _, _, n in rows], dtype=pl.Int32)
    )
    frame = frame.with_columns(copy_index=pl.int_ranges(0, "copies", dtype=pl.Int32)).explode("copy_index")
    lengths = [min(cut, frame.height), frame.height - min(cut, frame.height)]
    whole, parts = signal_of(frame, "weight"), signals_of(frame, lengths, "weight")
    assert merged(parts).counts.equals(whole.counts)
    assert dict(merged(parts).squares) == dict(whole.squares)
    held: dict[str, int] = {}
    for category, weight, copies in rows:
        held[category] = held.get(category, 0) + round(weight / 3 * 1e6) * copies
    assert dict(whole.of("category").select("value", "mass").iter_rows()) == held
    assert whole.of("category").get_column("rows").sum() == len(rows)


def test_of_many_categories_the_distribution_names_fifty_and_pools_the_rest():
    frame = records([{"category": f"c{i:03}"} for i in range(80) for _ in range(2)])
    shares = distribution(signal_of(frame))["category"]["shares"]
    assert len(shares) == 51
    assert shares["(other)"] == pytest.approx(30 / 80)


def test_beside_every_value_stands_how_it_was_computed_also_where_nothing_moved():
    frame = records([{"prompt_chars": i % 50, "category": "ab"[i % 2]} for i in range(1000)])
    found = {d.name: d for d in drift_between(signal_of(frame), signal_of(frame), LIMITS)}
    told = {name: found[name].as_json(brief=True) for name in ("prompt_chars", "category")}
    assert [entry["verdict"] for entry in told.values()] == ["stable", "stable"]
    assert (len(told["prompt_chars"]["edges"]), told["category"]["edges"]) == (9, None)
    for entry in told.values():
        said = {key: entry[key] for key in ("epsilon", "base", "direction", "n_reference", "n_current")}
        assert list(said.values()) == [1e-4, "e", "reference→current", 1000, 1000]
        assert "cells" not in entry


def test_judgments_of_few_annotators_are_not_taken_for_independent():
    rows = [{"category": "ab"[w % 2], "annotator_id": f"w{w}"} for w in range(20) for _ in range(100)]
    expected = {"category": {"a": 0.2, "b": 0.8}}
    frame = records(rows)
    category = next(entry for entry in MONITORED if entry.name == "category")
    sizes = Sizes(
        lambda _, edges: (None, size_in(frame, category, None, ["annotator_id"], edges)), 20, ("annotator_id",)
    )
    alone = baseline_drift(signal_of(frame), expected, LIMITS)[0]
    clustered = baseline_drift(signal_of(frame), expected, LIMITS, sizes)[0]
    assert alone.drift.effective_current == 2000
    assert clustered.drift.effective_current == pytest.approx(19)
    assert clustered.drift.psi == alone.drift.psi


def test_of_identities_it_is_said_what_is_new_and_what_vanished():
    before = records([{"annotator_id": x, "batch": "b1"} for x in ("u", "v", "v")])
    after = records([{"annotator_id": x, "batch": "b1"} for x in ("v", "v", "v", "w")])
    found = {c.name: c for c in identity_changes(signal_of(before), signal_of(after))}
    annotators = found["annotator_id"]
    assert (annotators.new_examples, annotators.vanished_examples) == (("w",), ("u",))
    assert (annotators.largest, annotators.largest_share, annotators.largest_share_before) == ("v", 0.75, 2 / 3)
    assert found["guideline_version"].largest is None


def test_a_source_that_a_stage_empties_is_named_however_small():
    before = records([{"source": "big"} for _ in range(99)] + [{"source": "small"}])
    lost = signal_of(before.filter(pl.col("source") == "small"))
    found = {(x.column, x.value): x for x in loss_by_group(signal_of(before), lost)}
    assert found["source", "small"].emptied
    assert (found["source", "big"].rows, found["source", "big"].lost) == (99, 0)
    assert found["category", "(null)"].rows == 100


@pytest.mark.parametrize(
    ("lost", "others", "said"),
    [
        ((20, 40), (0, 60), True),
        ((19, 40), (0, 60), False),  # not so much
        ((20, 40), (30, 60), False),  # as all others
        ((20, 40), (26, 60), False),  # not beyond chance
        ((1, 2), (0, 400), False),  # too few to speak of
        ((40, 40), (0, 0), False),  # there are no others
    ],
)
def test_a_group_that_lost_much_of_its_rows_is_said_where_all_others_do_not_explain_it(lost, others, said):
    here, beside = (GroupLoss("category", name, rows, n) for name, (n, rows) in (("a", lost), ("b", others)))
    assert heavy_losses([here, beside, GroupLoss("source", "s", 100, 60)], 0.5) == ([here] if said else [])


def test_where_nothing_is_lost_every_group_lost_nothing():
    before = signal_of(records([{"batch": "again"}]))
    assert not any(x.lost for x in loss_by_group(before, None))


def test_a_redelivered_row_is_not_lost():
    assert "redelivered" not in LOST


def test_annotators_who_lose_more_than_the_overall_rate_are_named():
    before = records([{"annotator_id": f"w{i % 10}"} for i in range(1000)])
    left = before.filter(((pl.col("annotator_id") == "w3") & (pl.int_range(pl.len()) % 4 > 0)).not_())
    left = left.filter(pl.int_range(pl.len()) % 20 > 0)
    lost = before.filter(~pl.col("row_id").is_in(left.get_column("row_id").implode()))
    found = loss_by_annotator(signal_of(before), signal_of(lost))
    assert [x.value for x in found] == ["w3"]
    assert found[0].chance < 1e-6


POLICY = """\
limits: {psi: 0.3}
expect:
  category: {a: 0.5, b: 0.5}
  prompt_chars: {edges: [100, 200], shares: [0.2, 0.3, 0.5]}
columns: [aspect]
allowed_losses:
  - {column: source, value: old, stage: filtered, reason: retired}
"""


def test_the_policy_declares_distributions_limits_and_expected_losses(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    section = load(path, Monitoring).policy
    assert section.limits == Limits(psi=0.3)
    assert section.allowed("filtered") == {("source", "old"): "retired"}
    assert section.allowed("ingested") == {}
    frame = records([{"category": "a", "prompt_chars": 150}])
    assert {d.name for d in baseline_drift(signal_of(frame), section.expect, LIMITS)} == {"category", "prompt_chars"}
    assert json.loads(json.dumps(section.pinned()))["expect"]["prompt_chars"]["edges"] == [100.0, 200.0]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("expect: {category: {a: 0.5}}", "expect.category: the shares add up to 0.5"),
        ("expect: {score: {edges: [1, 0], shares: [0.5, 0.2, 0.3]}}", "they must rise"),
        ("limits: {psi: 0.05}", "psi_warn 0.1 lies above psi 0.05"),
        ("allowed_losses: [{column: mood, value: x, stage: s, reason: r}]", "column 'mood' is none of source"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(tmp_path, section, problem):
    path = tmp_path / "policy.yaml"
    path.write_text(section)
    with pytest.raises(FeedbackError, match=problem):
        load(path, Monitoring)


def test_an_expected_loss_needs_a_reason():
    with pytest.raises(ValidationError):
        AllowedLoss(column="source", value="x", stage="s", reason="")
