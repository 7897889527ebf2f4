"""The ingested stage: what a delivery becomes, and which delivery of a record counts."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.checks.conservation import conservation
from feedback_assets.digests import fingerprint
from feedback_assets.record import CONTENT_SCHEMA, SCHEMA
from feedback_assets.stages.ingested import IngestedSection, promises, to_records
from feedback_assets.stages.stage import FATE_SCHEMA, FATES
from feedback_assets_tests.stages.records import arrive, day, judgment, mapped


def one(**given: Any) -> dict[str, Any]:
    """The record that a single judgment becomes, text included."""
    intake = to_records(mapped(judgment(**given)), "s")
    assert intake.quarantined.is_empty(), intake.quarantined.to_dicts()
    return {**intake.rows.row(0, named=True), **intake.content.row(0, named=True)}


def fates(resolved, *columns: str) -> list[tuple[Any, ...]]:
    """Fates by delivery: (arrival, line, …)."""
    return resolved.fates.select("arrival", "line", *columns).rows()


LEFT, RIGHT = "Rayleigh scattering.", "It mirrors the sea."


def test_the_same_item_judged_in_both_orders_is_one_item():
    seen = {"gold": "a", "shown_order": "ab", "origin_a": "human", "origin_b": "model:x", "label": "a"}
    turned = {"gold": "b", "shown_order": "ba", "origin_a": "model:x", "origin_b": "human", "label": "b"}
    first = one(response_a=LEFT, response_b=RIGHT, **seen)
    second = one(response_a=RIGHT, response_b=LEFT, **turned)
    for name in ("item_id", "response_a_id", "response_b_id", "response_a", "response_b", *seen):
        assert first[name] == second[name], name
    assert first["response_a_id"] < first["response_b_id"]
    assert first["response_a_chars"] == len(first["response_a"])
    chosen = first["response_a"] if first["label"] == "a" else first["response_b"]
    assert chosen == LEFT
    assert (first["origin_a"] if first["label"] == "a" else first["origin_b"]) == "human"


@given(st.text(max_size=6), st.text(max_size=6), st.sampled_from(["a", "b", "tie"]))
@settings(max_examples=20, deadline=None)
def test_canonical_order_never_changes_which_text_was_preferred(left: str, right: str, label: str):
    record = one(response_a=left, response_b=right, label=label)
    turned = one(response_a=right, response_b=left, label={"a": "b", "b": "a"}.get(label, label))
    assert record["item_id"] == turned["item_id"]
    texts = {"a": record["response_a"], "b": record["response_b"], "tie": None}
    assert texts[record["label"]] == {"a": left, "b": right, "tie": None}[label]
    if left != right:
        assert (record["label"], record["response_a"]) == (turned["label"], turned["response_a"])


def test_a_tie_and_an_unknown_order_stay_what_they_are_in_either_order():
    for a, b in ((LEFT, RIGHT), (RIGHT, LEFT)):
        record = one(response_a=a, response_b=b, label="tie", gold="tie")
        assert (record["label"], record["gold"], record["shown_order"]) == ("tie", "tie", "unknown")


def test_a_single_response_keeps_its_place_and_has_no_second_origin():
    record = one(kind="thumbs", label="up", response_b=None)
    assert (record["response_a"], record["response_b"], record["response_b_id"]) == (LEFT, None, None)
    assert (record["origin_a"], record["origin_b"], record["response_b_chars"]) == ("unknown", None, None)


def test_lengths_are_characters_and_all_turns_of_the_prompt_count():
    prompt = [{"role": "user", "text": "héé"}, {"role": "assistant", "text": "😀"}, {"role": "user", "text": ""}]
    record = one(prompt=prompt, kind="rating", label=None, score=3.0, response_a="naïve", response_b=None)
    assert (record["prompt_chars"], record["prompt_turns"], record["response_a_chars"]) == (4, 3, 5)


def test_a_turn_moved_from_one_role_to_the_other_is_another_prompt():
    user, assistant = [{"role": role, "text": "x"} for role in ("user", "assistant")]
    assert one(prompt=[user, assistant])["prompt_id"] != one(prompt=[assistant, user])["prompt_id"]
    split = [{"role": "user", "text": "a"}, {"role": "user", "text": "b"}]
    assert one(prompt=split)["prompt_id"] != one(prompt=[{"role": "user", "text": "ab"}])["prompt_id"]


RATING = {"kind": "rating", "label": None, "score": 3.0, "score_min": 1.0, "score_max": 5.0, "response_b": None}
THUMB = {"kind": "thumbs", "label": "up", "response_b": None}


@pytest.mark.parametrize(
    ("given", "reason", "column", "value"),
    [
        ({"kind": None}, "missing-value", "kind", None),
        ({"kind": "stars"}, "outside-vocabulary", "kind", "stars"),
        ({"prompt": None}, "missing-value", "prompt", None),
        ({"prompt": []}, "missing-value", "prompt", None),
        ({"response_a": None}, "missing-value", "response_a", None),
        ({"response_b": None}, "missing-value", "response_b", None),
        ({"label": None}, "missing-value", "label", None),
        ({"label": "left"}, "outside-vocabulary", "label", "left"),
        ({"label": "up"}, "outside-vocabulary", "label", "up"),
        ({**THUMB, "label": "a"}, "outside-vocabulary", "label", "a"),
        ({**RATING, "label": "good"}, "outside-vocabulary", "label", "good"),
        ({"gold": "left"}, "outside-vocabulary", "gold", "left"),
        ({**THUMB, "gold": "a"}, "outside-vocabulary", "gold", "a"),
        ({**RATING, "score": None}, "missing-value", "score", None),
        ({**RATING, "score": 5.5}, "outside-scale", "score", "5.5"),
        ({**RATING, "score": 0.0}, "outside-scale", "score", "0.0"),
        ({"confidence": 1.01}, "outside-scale", "confidence", "1.01"),
        ({"shown_order": "left"}, "outside-vocabulary", "shown_order", "left"),
        ({"annotator_kind": "cat"}, "outside-vocabulary", "annotator_kind", "cat"),
        ({"split": "test"}, "outside-vocabulary", "split", "test"),
        ({"started_at": day(2), "collected_at": day(1)}, "ends-before-it-starts", "collected_at", None),
    ],
)
def test_an_invalid_value_is_in_quarantine_with_its_reason_and_column(given, reason, column, value):
    intake = to_records(mapped(judgment(line=1), judgment(**{**given, "line": 7})), "s")
    assert intake.rows.get_column("line").to_list() == [1]
    assert intake.content.height == 1
    bad = intake.quarantined.row(0, named=True)
    assert (bad["source"], bad["batch"], bad["line"], bad["reason"], bad["column"]) == ("s", "b0", 7, reason, column)
    if column != "collected_at":
        assert bad["value"] == value


@pytest.mark.parametrize("given", [RATING, {**RATING, "score_min": None, "score_max": None}, THUMB, {"gold": "tie"}])
def test_a_valid_record_of_each_kind_passes(given):
    record = one(**given)
    assert set(record) == {*SCHEMA.names(), *CONTENT_SCHEMA.names(), "record_digest"}


@pytest.mark.parametrize("as_of", ["2024-01-02", "2024-01-02T00:00:00Z"])
def test_as_of_without_a_zone_is_utc(as_of):
    source = {"name": "s", "path": "x.csv", "columns": {"kind": "'rating'"}}
    assert IngestedSection.model_validate({"sources": [source], "as_of": as_of}).as_of == day(1)


def test_two_sources_of_one_name_are_refused():
    source = {"name": "s", "path": "x.csv", "columns": {"kind": "'rating'"}}
    with pytest.raises(ValidationError, match="two sources are called 's'"):
        IngestedSection.model_validate({"sources": [source, source]})


def test_a_row_id_is_the_same_in_every_run():
    # printf '1:s;2:f1;' | sha256sum | cut -c-32
    assert one(feedback_id="f1")["row_id"] == "8c37b3cc02361823705283cadedc3c60"
    assert one(feedback_id="f1", label="b", collected_at=day(3))["row_id"] == one(feedback_id="f1")["row_id"]
    assert to_records(mapped(judgment(feedback_id="f1")), "t").rows["row_id"][0] != one(feedback_id="f1")["row_id"]


def test_without_an_id_one_is_made_from_content_and_occurrence_and_stays_on_redelivery():
    batch = [judgment(), judgment(label="b"), judgment()]
    once, twice = arrive(batch), arrive(batch, batch)
    assert once.rows.height == 3
    assert once.rows.get_column("row_id").n_unique() == 3
    assert once.rows.get_column("feedback_id").str.slice(-2).to_list() == ["#0", "#0", "#1"]
    assert twice.rows.get_column("row_id").to_list() == once.rows.get_column("row_id").to_list()
    assert [fate for _, _, fate in fates(twice, "fate")] == ["kept"] * 3 + ["redelivered"] * 3


def test_an_identical_redelivery_is_counted_once():
    resolved = arrive([judgment(feedback_id="f")], [judgment(feedback_id="f")])
    assert resolved.rows.select("arrival", "revision", "supersedes").rows() == [(0, 0, None)]
    row_id = resolved.rows["row_id"][0]
    assert fates(resolved, "fate", "into", "copies") == [(0, 1, "kept", None, 1), (1, 1, "redelivered", row_id, 0)]


def test_the_same_line_twice_in_one_batch_is_counted_once():
    resolved = arrive([judgment(feedback_id="f"), judgment(feedback_id="f")])
    assert fates(resolved, "fate") == [(0, 1, "kept"), (0, 2, "redelivered")]


def test_an_edited_redelivery_is_a_revision_that_supersedes():
    resolved = arrive([judgment(feedback_id="f", label="a")], [judgment(feedback_id="f", label="b")])
    assert resolved.rows.select("arrival", "revision", "supersedes").rows() == [(1, 1, 0)]
    assert fates(resolved, "fate") == [(0, 1, "superseded"), (1, 1, "kept")]


@pytest.mark.parametrize(
    "edit",
    [
        {"response_a": "Other."},
        {"confidence": 0.5},
        {"annotator_id": "x"},
        {"collected_at": day(1)},
        {"extra": '{"note":"n"}'},
        {"gold": "a"},
        {"anchor": True},
        {"prompt": [{"role": "user", "text": "?"}]},
        {"guideline_version": "1.0.0"},
    ],
)
def test_whatever_was_edited_makes_a_revision(edit):
    resolved = arrive([judgment(feedback_id="f")], [judgment(feedback_id="f", **edit)])
    assert resolved.rows.get_column("revision").to_list() == [1]


def test_a_record_delivered_under_another_batch_name_or_line_is_the_same_record():
    moved = [judgment(feedback_id="g"), judgment(feedback_id="f", batch="renamed")]
    resolved = arrive([judgment(feedback_id="f")], moved)
    assert fates(resolved, "fate") == [(0, 1, "kept"), (1, 1, "kept"), (1, 2, "redelivered")]


def test_there_and_back_again_is_three_revisions():
    resolved = arrive(*([judgment(feedback_id="f", label=label)] for label in ("a", "b", "b", "a")))
    assert resolved.rows.select("arrival", "revision", "supersedes", "label").rows()[0][:3] == (3, 2, 1)
    assert [fate for _, _, fate in fates(resolved, "fate")] == ["superseded", "superseded", "redelivered", "kept"]


def test_a_file_that_grows_takes_back_no_correction_that_came_in_another():
    old, new = judgment(feedback_id="f", label="a"), judgment(feedback_id="f", label="b")
    grown = arrive([old], [new], [old, judgment(feedback_id="g")], names=["w", "corrected", "w"])
    assert fates(grown, "fate") == [(0, 1, "superseded"), (1, 1, "kept"), (2, 1, "redelivered"), (2, 2, "kept")]
    assert grown.rows.select("arrival", "revision").rows() == [(1, 1), (2, 0)]
    back = arrive([old], [new], [old], names=["w", "corrected", "taken-back"])
    assert back.rows.select("arrival", "revision").rows() == [(2, 2)]
    edited = arrive([old], [new], [old], names=["w", "w", "w"])
    assert edited.rows.select("arrival", "revision").rows() == [(2, 2)]
    said = arrive([old], [new], [old], [new], names=["w", "corrected", "w", "w"])
    assert said.rows.select("arrival", "revision").rows() == [(1, 1)]


def test_different_records_under_one_id_in_a_batch_are_all_in_quarantine():
    both = [judgment(feedback_id="f", label="a"), judgment(feedback_id="f", label="b")]
    resolved = arrive([judgment(feedback_id="f", label="a")], [*both, judgment(feedback_id="g")])
    assert fates(resolved, "fate") == [(0, 1, "kept"), (1, 1, "quarantined"), (1, 2, "quarantined"), (1, 3, "kept")]
    bad = resolved.quarantined.select("arrival", "line", "reason", "column", "value").rows()
    assert bad == [(1, line, "conflicting-duplicate", "feedback_id", "f") for line in (1, 2)]
    assert resolved.facts == {"quarantined": {"conflicting-duplicate": 2}}


def entries(*records: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of one line."""
    return [{**record, "line": 1, "position": place + 1} for place, record in enumerate(records)]


def test_records_of_one_line_have_a_fate_each():
    resolved = arrive(entries(judgment(feedback_id="f#1"), judgment(feedback_id="f#2", label="b"), judgment(label="?")))
    assert resolved.rows.select("line", "position", "feedback_id").rows() == [(1, 1, "f#1"), (1, 2, "f#2")]
    assert resolved.fates.select("line", "position", "fate").rows() == [
        (1, 1, "kept"),
        (1, 2, "kept"),
        (1, 3, "quarantined"),
    ]
    assert resolved.fates["row_id"].is_unique().all()


def test_records_of_one_line_that_share_an_id_say_so():
    alike = [judgment(feedback_id="f", label="a"), judgment(feedback_id="f", label="b"), judgment(feedback_id="g")]
    resolved = arrive(entries(*alike))
    assert resolved.quarantined.select("position", "reason", "column", "value").rows() == [
        (1, "entries-share-an-id", "feedback_id", "f"),
        (2, "entries-share-an-id", "feedback_id", "f"),
    ]
    assert resolved.rows["feedback_id"].to_list() == ["g"]


def test_a_late_record_takes_no_other_record_of_its_line_along():
    late, known = judgment(feedback_id="f#1", collected_at=day(9)), judgment(feedback_id="f#2", collected_at=day(1))
    before = arrive(entries(known, judgment(feedback_id="f#1")), entries(late, known), not_after=day(2))
    assert before.fates.select("arrival", "position", "fate").rows() == [
        (0, 1, "kept"),
        (0, 2, "kept"),
        (1, 1, "quarantined"),
        (1, 2, "redelivered"),
    ]


def test_what_lies_in_the_future_of_as_of_is_in_quarantine():
    late = judgment(feedback_id="late", collected_at=day(3))
    resolved = arrive([late, judgment(feedback_id="ok", collected_at=day(2)), judgment()], not_after=day(2))
    assert fates(resolved, "fate", "rule")[0] == (0, 1, "quarantined", "in-the-future")
    assert resolved.rows.get_column("line").to_list() == [2, 3]
    assert resolved.quarantined.row(0, named=True)["column"] == "collected_at"


def test_a_revision_from_the_future_does_not_erase_the_record_it_would_replace():
    good = judgment(feedback_id="f", label="a", collected_at=day(1))
    late = judgment(feedback_id="f", label="b", collected_at=day(9))
    resolved = arrive([good], [late], not_after=day(2))
    assert fates(resolved, "fate") == [(0, 1, "kept"), (1, 1, "quarantined")]
    assert resolved.rows.select("arrival", "revision").rows() == [(0, 0)]


def test_a_record_that_was_in_the_future_counts_when_it_is_delivered_again_in_time():
    from feedback_assets.stages.ingested import resolve

    record = judgment(feedback_id="f", collected_at=day(5))
    rows = pl.concat(
        to_records(mapped(record), "s").rows.with_columns(pl.lit(arrival, pl.Int64).alias("arrival"))
        for arrival in (0, 1)
    )
    none = arrive([record]).quarantined
    limits = pl.DataFrame(
        {"arrival": [0, 1], "not_after": [day(1), day(6)], "first": [0, 1]},
        schema_overrides={"arrival": pl.Int64, "first": pl.Int64},
    )
    resolved = resolve(rows, none, limits.with_columns(pl.col("not_after").cast(SCHEMA["collected_at"])))
    assert fates(resolved, "fate") == [(0, 1, "quarantined"), (1, 1, "kept")]
    assert resolved.rows.select("revision", "supersedes").rows() == [(0, None)]


DELIVERIES = st.lists(
    st.lists(
        st.builds(
            lambda name, label, at: judgment(feedback_id=name, label=label, collected_at=at and day(at)),
            st.sampled_from(["f", "g", "h", None]),
            st.sampled_from(["a", "b", "wrong"]),
            st.sampled_from([None, 1, 2, 9]),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@given(DELIVERIES)
@settings(max_examples=20, deadline=None)
def test_every_delivery_has_exactly_one_fate(batches):
    resolved = arrive(*batches, not_after=day(5))
    told = resolved.fates
    assert told.schema == {**FATE_SCHEMA, "arrival": pl.Int64, "line": pl.Int64, "position": pl.Int64}
    delivered = [(arrival, line + 1) for arrival, batch in enumerate(batches) for line in range(len(batch))]
    assert told.select("arrival", "line").rows() == delivered
    assert set(told["fate"]) <= set(FATES)
    kept = told.filter(pl.col("fate") == "kept")
    assert sorted(kept.select("row_id", "arrival", "line").rows()) == sorted(
        resolved.rows.select("row_id", "arrival", "line").rows()
    )
    assert resolved.rows["row_id"].is_unique().all()
    assert resolved.quarantined.height == told.filter(pl.col("fate") == "quarantined").height
    # What was superseded or redelivered stands in the output as another delivery.
    gone = told.filter(pl.col("fate").is_in(["superseded", "redelivered"]))
    assert set(gone["into"]) <= set(resolved.rows["row_id"])
    assert conservation(told.select("row_id"), resolved.rows, told).passed


@given(DELIVERIES)
@settings(max_examples=15, deadline=None)
def test_a_later_batch_leaves_what_it_does_not_revise_as_it_was(batches):
    before, after = arrive(*batches[:-1] or batches, not_after=day(5)), arrive(*batches, not_after=day(5))
    revised = set(after.fates.filter(pl.col("fate") == "superseded")["row_id"])
    same = before.rows.filter(~pl.col("row_id").is_in(list(revised)))
    found = after.rows.filter(pl.col("row_id").is_in(same["row_id"].to_list()))
    assert found.equals(same)


@given(DELIVERIES, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_the_same_arrivals_give_the_same_rows_whatever_the_order_of_the_frame(batches, seed):
    one, other = arrive(*batches, not_after=day(5)), arrive(*batches, not_after=day(5), shuffled=seed)
    assert fingerprint(other.rows) == fingerprint(one.rows)
    assert fingerprint(other.fates) == fingerprint(one.fates)
    assert fingerprint(other.quarantined) == fingerprint(one.quarantined)


def test_the_labels_promised_are_those_of_the_record():
    source = {"name": "s", "path": "x.csv", "columns": {"kind": "'rating'"}}
    section = IngestedSection.model_validate({"sources": [source]})
    names = [promise.name for promise in promises(section)]
    assert len(names) == len(set(names))
