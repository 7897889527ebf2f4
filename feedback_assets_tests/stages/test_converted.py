"""Ratings, rankings and thumbs become pairs that name what they were made of."""

from hashlib import sha256
from itertools import combinations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.checks.conservation import conservation
from feedback_assets.engine.engine import ContentPart
from feedback_assets.errors import FeedbackError
from feedback_assets.record import CONTENT_SCHEMA
from feedback_assets.stages.converted import ConvertedSection, converted, with_texts_of_pairs
from feedback_assets.stages.reweighted import RankingShare
from feedback_assets.stages.stage import Inputs
from feedback_assets_tests.stages.records import arrive, day, judgment

SOME = settings(deadline=None, max_examples=40)
RATINGS = {"id": "pairs", "version": 2, "reason": "the trainer reads pairs", "kind": "ratings_to_pairs"}
RANKINGS = {**RATINGS, "kind": "rankings_to_pairs"}
THUMBS = {**RATINGS, "kind": "thumbs_to_pairs"}


def rating(who, response, score, **given):
    return judgment(
        kind="rating", label=None, annotator_id=who, response_a=response, response_b=None, score=score, **given
    )


def thumb(who, response, label, **given):
    return judgment(kind="thumbs", label=label, annotator_id=who, response_a=response, response_b=None, **given)


def joined(*batches):
    """Records as they leave guideline_joined; the guideline applied is the one declared."""
    rows = arrive(*batches).rows
    return rows.with_columns(
        guideline="guideline_version",
        guideline_digest=pl.col("guideline_version") + "-text",
        guideline_status=pl.when(pl.col("guideline_version").is_null())
        .then(pl.lit("unmatched"))
        .otherwise(pl.lit("declared")),
        item_agreement=pl.lit(0.5),
        item_agreement_n=pl.lit(4, pl.Int64),
    )


def convert(rows, *conversions):
    section = ConvertedSection.model_validate({"conversions": conversions})
    return converted(Inputs(rows.lazy()), section, None)


def pairs_of(out):
    """(response preferred or None for a tie, the other, margin): by feedback id of the parents."""
    """The rows that were made."""
    return out.rows.filter(pl.col("conversion").is_not_null())


def said(out, rows):
    """The pairs as (preferred, other, margin) by the parents' feedback ids, a tie as a set; sorted."""
    name = dict(rows.select("row_id", "feedback_id").iter_rows())
    found = []
    for pair in pairs_of(out).iter_rows(named=True):
        a, b = (name[parent] for parent in pair["parents"])
        first, second = {"a": (a, b), "b": (b, a), "tie": tuple(sorted((a, b)))}[pair["label"]]
        found.append((first, second, pair["label"] == "tie", pair["margin"]))
    return sorted(found)


def test_ratings_of_one_annotator_become_pairs_where_they_differ_by_the_margin():
    rows = joined([rating("ann", text, s, feedback_id=text) for text, s in (("x", 5.0), ("y", 3.0), ("z", 4.0))])
    assert said(convert(rows, {**RATINGS, "margin": 1.5}), rows) == [("x", "y", False, 2.0)]
    assert said(convert(rows, {**RATINGS, "margin": 1, "ties": "keep"}), rows) == [
        ("x", "y", False, 2.0),
        ("x", "z", False, 1.0),
        ("z", "y", False, 1.0),
    ]
    assert said(convert(rows, {**RATINGS, "margin": 2, "ties": "keep"}), rows) == [
        ("x", "y", False, 2.0),
        ("x", "z", True, 1.0),
        ("y", "z", True, 1.0),
    ]


def test_a_margin_is_met_as_people_count_not_as_binary_fractions_do():
    assert 0.3 - 0.1 < 0.2
    rows = joined([rating("ann", "x", 0.3, feedback_id="x"), rating("ann", "y", 0.1, feedback_id="y")])
    assert said(convert(rows, {**RATINGS, "margin": 0.2}), rows) == [("x", "y", False, 0.2)]


OTHERS = {
    "annotator": {"annotator_id": "bob"},
    "guideline": {"guideline_version": "2.0.0"},
    "aspect": {"aspect": "honesty"},
    "task": {"task": "safety"},
    "prompt": {"prompt": [{"role": "user", "text": "Why?"}]},
    "scale": {"score_max": 10.0},
    "kind of annotator": {"annotator_kind": "model"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_scores_are_compared_only_within(other):
    base = {"annotator_id": "ann", "guideline_version": "1.0.0", "aspect": "helpfulness", "task": "help"}
    base |= {"score_min": 1.0, "score_max": 5.0, "annotator_kind": "human"}
    one, two = (rating(None, text, s) for text, s in (("x", 5.0), ("y", 3.0)))
    same = convert(joined([{**one, **base}, {**two, **base}]), RATINGS)
    assert pairs_of(same).height == 1
    unlike = convert(joined([{**one, **base}, {**two, **base, **OTHERS[other]}]), RATINGS)
    assert pairs_of(unlike).is_empty()
    assert unlike.fates["fate"].to_list() == ["kept", "kept"]


def test_nobody_knows_that_two_ratings_without_annotator_are_by_the_same_person():
    rows = joined([rating(None, "x", 5.0), rating(None, "y", 1.0)])
    assert pairs_of(convert(rows, RATINGS)).is_empty()
    ranked = rows.with_columns(group_id=pl.lit("one ranking"))
    assert pairs_of(convert(ranked, RANKINGS)).height == 1


def test_a_ranking_of_k_gives_each_pair_once_and_the_ranking_share_finds_them():
    k = 4
    ranking = [rating("ann", f"text {n}", float(n), feedback_id=f"{n}", group_id="g") for n in range(1, k + 1)]
    rows = joined(ranking)
    out = convert(rows, {**RANKINGS, "better": "lower"})
    assert said(out, rows) == [(f"{i}", f"{j}", False, float(j - i)) for i, j in combinations(range(1, k + 1), 2)]
    made = pairs_of(out)
    assert made["group_id"].unique().to_list() == ["g"]
    share = RankingShare(id="s", version=1, reason="r", kind="ranking_share")
    weights = made.select(share.weight(made.lazy())).to_series()
    assert weights.to_list() == [pytest.approx(1 / (k - 1))] * 6
    assert weights.sum() == pytest.approx(k / 2)


def test_equal_ranks_are_a_tie_or_no_pair():
    ranking = [rating("ann", text, s, feedback_id=text, group_id="g") for text, s in (("x", 1.0), ("y", 1.0))]
    rows = joined(ranking)
    assert said(convert(rows, RANKINGS), rows) == []
    assert said(convert(rows, {**RANKINGS, "ties": "keep"}), rows) == [("x", "y", True, 0.0)]


def test_aspects_of_one_judgment_are_compared_each_with_its_own():
    records = [
        rating("ann", text, score, aspect=aspect, group_id="g", feedback_id=f"{text}/{aspect}")
        for text, scores in (("x", (5.0, 1.0)), ("y", (2.0, 4.0)))
        for aspect, score in zip(("helpful", "honest"), scores, strict=True)
    ]
    rows = joined(records)
    assert said(convert(rows, RANKINGS), rows) == [
        ("x/helpful", "y/helpful", False, 3.0),
        ("y/honest", "x/honest", False, 3.0),
    ]


def test_up_is_preferred_to_down():
    rows = joined(
        [thumb("u", text, label, feedback_id=text) for text, label in (("x", "up"), ("y", "down"), ("z", "up"))]
    )
    assert said(convert(rows, THUMBS), rows) == [("x", "y", False, None), ("z", "y", False, None)]
    assert len(said(convert(rows, {**THUMBS, "ties": "keep"}), rows)) == 3


def test_a_pair_is_the_item_that_the_same_comparison_would_have_been():
    asked = {"prompt": [{"role": "user", "text": "Why?"}]}
    direct = arrive([judgment(**asked, response_a="x" * 9, response_b="yy")]).rows
    rows = joined([rating("ann", "yy", 1.0, **asked), rating("ann", "x" * 9, 2.0, **asked)])
    made = pairs_of(convert(rows, RATINGS))
    columns = [
        "prompt_id",
        "response_a_id",
        "response_b_id",
        "item_id",
        "response_a_chars",
        "response_b_chars",
        "label",
    ]
    columns += ["kind", "prompt_chars", "prompt_turns"]
    assert made.select(columns).equals(direct.select(columns))
    assert made.schema.items() >= direct.schema.items()


def test_a_pair_says_what_its_two_records_share_and_of_the_rest_what_is_safe_to_say():
    early = rating(
        "ann", "x", 5.0, started_at=day(1), collected_at=day(2), confidence=0.9, origin_a="human", split="train"
    )
    late = rating(
        "ann", "y", 1.0, started_at=day(3), collected_at=day(4), confidence=0.2, origin_a="model:m", split="eval"
    )
    rows = joined([early], [late])
    (pair,) = pairs_of(convert(rows, RATINGS)).to_dicts()
    assert (pair["arrival"], pair["revision"], pair["annotator_id"]) == (1, 0, "ann")
    assert (pair["started_at"], pair["collected_at"]) == (day(1), day(4))
    assert (pair["confidence"], pair["split"], pair["shown_order"]) == (0.2, "eval", "unknown")
    by_origin = {pair["response_a_id"]: pair["origin_a"], pair["response_b_id"]: pair["origin_b"]}
    assert by_origin == dict(rows.select("response_a_id", "origin_a").iter_rows())
    assert (pair["score"], pair["gold"], pair["item_agreement"], pair["item_agreement_n"]) == (None, None, None, 0)


def test_the_fates_of_parents_are_as_the_policy_says():
    rows = joined(
        [rating("ann", text, s, feedback_id=text) for text, s in (("x", 5.0), ("y", 3.0), ("z", 3.0))]
        + [rating("ann", "w", 3.0, feedback_id="w", prompt=[{"role": "user", "text": "Other?"}])]
    )
    names = dict(rows.select("row_id", "feedback_id").iter_rows())

    def told(**more):
        out = convert(rows, {**RATINGS, "margin": 2, **more})
        return {names[r]: (fate, rule, version) for r, fate, rule, version in out.fates[:, :4].iter_rows()}

    gone, kept = ("converted", "pairs", 2), ("kept", None, None)
    assert told() == {"x": gone, "y": gone, "z": gone, "w": kept}
    assert told(unpaired="drop")["w"] == ("dropped", "pairs", 2)
    assert told(keep_parents=True) == dict.fromkeys("xyzw", kept)


def test_a_record_may_become_pairs_twice_and_is_dropped_by_neither():
    rows = joined([rating("ann", text, s, feedback_id=text) for text, s in (("x", 5.0), ("y", 4.0))])
    strict = {**RATINGS, "id": "strict", "margin": 3, "unpaired": "drop"}
    out = convert(rows, strict, {**RATINGS, "keep_parents": True})
    assert out.fates["fate"].to_list() == ["kept", "kept"]
    out = convert(rows, {**RATINGS, "id": "again"}, RATINGS)
    assert out.fates["rule"].to_list() == ["again", "again"]
    assert sorted(pairs_of(out)["conversion"]) == ["again", "pairs"]
    assert pairs_of(out)["row_id"].is_unique().all()


def test_where_says_which_records_are_meant():
    rows = joined([rating("ann", t, s, aspect=a) for a in ("p", "q") for t, s in (("x", 5.0), ("y", 4.0))])
    assert pairs_of(convert(rows, {**RATINGS, "where": "aspect = 'q'"}))["aspect"].to_list() == ["q"]
    with pytest.raises(FeedbackError, match=r"converted.conversions: pairs: where reads the column 'aspct'.*'aspect'"):
        convert(rows, {**RATINGS, "where": "aspct = 'q'"})


def test_a_prompt_that_everything_would_be_compared_under_is_refused_not_cut_short():
    rows = joined([rating("ann", f"{n}", float(n)) for n in range(12)])
    with pytest.raises(FeedbackError, match=r"pairs: 12 records would all be compared.*`most` is 11; leave them out"):
        convert(rows, {**RATINGS, "most": 11})
    assert pairs_of(convert(rows, {**RATINGS, "most": 12})).height == 66


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"margin": -1}, "margin"), ({"kind": "stars_to_pairs"}, "kind"), ({"where": "now() > collected_at"}, "clock")],
)
def test_a_wrong_conversion_is_refused_by_name(wrong, says):
    with pytest.raises(ValidationError, match=says):
        ConvertedSection.model_validate({"conversions": [{**RATINGS, **wrong}]})


def test_the_text_of_a_pair_is_read_from_its_parents():
    texts = [("one", "x"), ("one", "y"), ("two", "y"), ("two", "x")]
    batches = [
        [rating("ann", response, float(n), prompt=[{"role": "user", "text": asked}])]
        for n, (asked, response) in enumerate(texts)
    ]
    rows = joined(*batches).with_columns(content_part=pl.format("p{}", "arrival"), content_row=pl.lit(0, pl.UInt32))
    content = [
        ContentPart(
            f"p{n}",
            1,
            pl.DataFrame(
                [{"prompt": [{"role": "user", "text": asked}], "response_a": response, "extra": "{}"}],
                schema=CONTENT_SCHEMA,
            ).lazy,
        )
        for n, (asked, response) in enumerate(texts)
    ]
    out = convert(rows, RATINGS)
    made = pairs_of(out)
    whole = with_texts_of_pairs(content, out.tables["texts"])
    assert [part.digest for part in whole if part.digest.startswith("p")] == ["p0", "p1", "p2", "p3"]
    by_name = {part.digest: part for part in whole}
    for pair in made.iter_rows(named=True):
        part = by_name[pair["content_part"]]
        text = part.frame.collect().row(pair["content_row"], named=True)
        ids = tuple(sha256(text[name].encode()).hexdigest()[:32] for name in ("response_a", "response_b"))
        assert ids == (pair["response_a_id"], pair["response_b_id"])
        assert len(text["prompt"][0]["text"]) == pair["prompt_chars"]
        assert part.rows == part.frame.collect().height
    assert whole.index(by_name[made["content_part"][0]]) == 2, "behind the last part that it needs"
    with pytest.raises(FeedbackError, match="no part of `ingested`"):
        with_texts_of_pairs(content[:1], out.tables["texts"])


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "annotator_id": st.sampled_from(["ann", "bob", None]),
            "response_a": st.sampled_from(["x", "y", "z", "w"]),
            "score": st.sampled_from([1.0, 1.5, 2.0, 4.0]),
            "aspect": st.sampled_from(["p", None]),
            "guideline_version": st.sampled_from(["1.0.0", "2.0.0", None]),
            "group_id": st.sampled_from(["g", "h", None]),
        }
    ),
    max_size=12,
)
POLICIES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["ratings_to_pairs", "rankings_to_pairs"]),
        "margin": st.sampled_from([0, 0.5, 1]),
        "ties": st.sampled_from(["keep", "drop"]),
        "keep_parents": st.booleans(),
        "unpaired": st.sampled_from(["keep", "drop"]),
    }
)


@SOME
@given(st.lists(RECORDS, min_size=1, max_size=3), POLICIES, st.integers(0, 9))
def test_every_pair_and_every_fate_is_accounted_for(batches, policy, seed):
    named = [
        [
            rating(
                record["annotator_id"],
                record["response_a"],
                record["score"],
                **{key: record[key] for key in ("aspect", "guideline_version", "group_id")},
                feedback_id=f"{at}-{n}",
            )
            for n, record in enumerate(batch)
        ]
        for at, batch in enumerate(batches)
    ]
    rows = joined(*named)
    out = convert(rows, {**RATINGS, **policy})
    checked = conservation(rows, out.rows, out.fates)
    assert checked.passed, checked.meaning

    # Counted record by record, in plain Python.
    expected = {}
    records = rows.sort("row_id").to_dicts()
    within = ["annotator_id", "aspect", "guideline_version", *(["group_id"] if "rank" in policy["kind"] else [])]
    needed = "group_id" if "rank" in policy["kind"] else "annotator_id"
    for one, two in combinations(records, 2):
        if one[needed] is None or any(one[c] != two[c] for c in within) or one["response_a_id"] == two["response_a_id"]:
            continue
        a, b = sorted((one, two), key=lambda record: record["response_a_id"])
        apart = a["score"] - b["score"]
        label = "tie" if abs(apart) < policy["margin"] or not apart else "a" if apart > 0 else "b"
        if label != "tie" or policy["ties"] == "keep":
            expected[a["row_id"], b["row_id"]] = (label, abs(apart))
    made = pairs_of(out)
    found = {tuple(pair["parents"]): (pair["label"], pair["margin"]) for pair in made.iter_rows(named=True)}
    assert found == expected
    assert len(found) == made.height
    parents = {row for pair in expected for row in pair}
    converted_away = set(out.fates.filter(fate="converted")["row_id"])
    assert converted_away == (set() if policy["keep_parents"] else parents)

    # The order of rows says nothing, and what came out is converted no further.
    again = convert(rows.sample(fraction=1, shuffle=True, seed=seed), {**RATINGS, **policy})
    assert again.rows.sort("row_id").equals(out.rows.sort("row_id"))
    assert again.fates.sort("row_id").equals(out.fates.sort("row_id"))
    if not policy["keep_parents"]:
        left = convert(out.rows.drop("conversion", "margin"), {**RATINGS, **policy})
        assert pairs_of(left).is_empty()
