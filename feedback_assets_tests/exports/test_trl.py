"""Exports in TRL's shapes, from text written out here."""

import polars as pl
import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.exports.section import Export
from feedback_assets.exports.trl import NoText, examples
from feedback_assets.record import CONTENT_SCHEMA

ASKED = [{"role": "user", "text": "Hi"}]
SEVERAL = [*ASKED, {"role": "assistant", "text": "Hello"}, {"role": "user", "text": "How are you?"}]

CONTENT = pl.DataFrame(
    [
        {"prompt": ASKED, "response_a": "a0", "response_b": "b0"},
        {"prompt": SEVERAL, "response_a": "a1", "response_b": "b1"},
        {"prompt": ASKED, "response_a": "a2", "response_b": None},
    ],
    schema={name: CONTENT_SCHEMA[name] for name in ("prompt", "response_a", "response_b")},
).with_columns(pl.lit(None, pl.String).alias("extra"))


def index(*rows: tuple[str, str, str | None, float | None, int, str], copies: tuple[int, ...] = ()) -> pl.DataFrame:
    schema = {
        "row_id": pl.String,
        "kind": pl.String,
        "label": pl.String,
        "score": pl.Float64,
        "content_row": pl.UInt32,
        "assigned_split": pl.String,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.Series("copies", copies or (1,) * len(rows), pl.Int32))


PAIRS = index(("y", "preference", "b", None, 1, "eval"), ("x", "preference", "a", None, 0, "train"))


def made(rows: pl.DataFrame, realise: str = "weights", **export) -> list[dict]:
    settings = Export.model_validate({"name": "e", "conversational": False, "separator": "", **export})
    return examples(CONTENT.lazy(), rows, settings.pinned(), realise).to_dicts()


def test_a_preference_has_the_chosen_and_the_rejected_text_in_the_order_of_the_content():
    assert made(PAIRS) == [
        {"row_id": "x", "split": "train", "prompt": "Hi", "chosen": "a0", "rejected": "b0"},
        {
            "row_id": "y",
            "split": "eval",
            "prompt": "user: Hiassistant: Hellouser: How are you?",
            "chosen": "b1",
            "rejected": "a1",
        },
    ]


def test_conversational_prompt_and_responses_are_lists_of_messages():
    first, second = made(PAIRS, conversational=True)
    assert first["prompt"] == [{"role": "user", "content": "Hi"}]
    assert first["chosen"] == [{"role": "assistant", "content": "a0"}]
    assert first["rejected"] == [{"role": "assistant", "content": "b0"}]
    assert [turn["role"] for turn in second["prompt"]] == ["user", "assistant", "user"]


def test_kto_has_a_completion_and_whether_it_was_liked():
    rows = index(("u", "thumbs", "up", None, 2, "train"), ("d", "thumbs", "down", None, 0, "train"))
    assert made(rows, format="kto") == [
        {"row_id": "d", "split": "train", "prompt": "Hi", "completion": "a0", "label": False},
        {"row_id": "u", "split": "train", "prompt": "Hi", "completion": "a2", "label": True},
    ]


def test_a_rating_has_its_score():
    rows = index(("r", "rating", None, 4.5, 2, "train"))
    assert made(rows, format="rating") == [
        {"row_id": "r", "split": "train", "prompt": "Hi", "completion": "a2", "score": 4.5}
    ]


def test_each_format_takes_the_records_of_its_kind():
    rows = index(
        ("p", "preference", "a", None, 0, "train"),
        ("u", "thumbs", "up", None, 2, "train"),
        ("r", "rating", None, 1.0, 2, "train"),
    )
    found = {name: [e["row_id"] for e in made(rows, format=name)] for name in ("preference", "kto", "rating")}
    assert found == {"preference": ["p"], "kto": ["u"], "rating": ["r"]}
    assert made(rows.filter(pl.col("kind") == "rating")) == []


def test_a_tie_is_left_out_or_refused_as_the_policy_says():
    rows = index(("t", "preference", "tie", None, 0, "train"), ("y", "preference", "a", None, 1, "train"))
    assert [entry["row_id"] for entry in made(rows)] == ["y"]
    with pytest.raises(FeedbackError, match=r"export 'e': 1 records are ties, .*, first t; use `ties: drop`") as caught:
        made(rows, ties="error")
    assert "\n" not in str(caught.value)


def test_a_record_without_text_is_refused_and_not_exported_as_an_empty_one():
    rows = index(
        ("gone", "preference", "a", None, 9, "train"),
        ("half", "preference", "b", None, 2, "train"),
        ("whole", "preference", "a", None, 0, "train"),
        ("thumb", "thumbs", "up", None, 2, "train"),
    )
    for conversational in (True, False):
        with pytest.raises(NoText, match=r"export 'e': 2 records have no text, first gone; .*verify") as caught:
            made(rows, conversational=conversational)
        assert "\n" not in str(caught.value)
        assert caught.value.row_ids.to_list() == ["half", "gone"]
    assert [line["completion"] for line in made(rows, format="kto")] == ["a2"]


def test_copies_are_repeated_lines_only_where_they_are_realised_so():
    rows = index(("x", "preference", "a", None, 0, "train"), ("y", "preference", "b", None, 1, "train"), copies=(3, 1))
    assert [entry["row_id"] for entry in made(rows, "copies")] == ["x", "x", "x", "y"]
    assert [entry["row_id"] for entry in made(rows, "weights")] == ["x", "y"]


def test_records_that_share_a_text_come_in_the_order_of_their_ids():
    same = [(name, "preference", "a", None, 0, "train") for name in "cabed"]
    assert [entry["row_id"] for entry in made(index(*same))] == ["a", "b", "c", "d", "e"]


def test_plain_turns_and_the_response_that_a_trainer_joins_to_them_are_told_apart():
    first, second = made(PAIRS, separator="\n\n")
    assert first["prompt"] + first["chosen"] == "Hi\n\na0"
    assert second["prompt"] + second["chosen"] == "user: Hi\n\nassistant: Hello\n\nuser: How are you?\n\nb1"


def test_a_reward_pair_has_its_margin_from_the_column_that_the_policy_names():
    rows = PAIRS.with_columns(confidence=pl.Series([0.5, 1.0]))
    assert [(line["row_id"], line["margin"]) for line in made(rows, format="reward", margin="confidence")] == [
        ("x", 1.0),
        ("y", 0.5),
    ]


def test_a_missing_margin_is_refused_left_out_or_0_as_the_policy_says():
    rows = PAIRS.with_columns(margin=pl.Series([None, 2.0]))
    with pytest.raises(
        FeedbackError, match=r"export 'e': 1 records have no margin, first y; use `missing_margin: zero`"
    ):
        made(rows, format="reward")
    assert [line["margin"] for line in made(rows, format="reward", missing_margin="drop")] == [2.0]
    assert [line["margin"] for line in made(rows, format="reward", missing_margin="zero")] == [2.0, 0.0]


def test_a_tie_given_both_ways_stands_once_in_each_order_without_a_margin():
    rows = index(("t", "preference", "tie", None, 0, "train")).with_columns(margin=pl.lit(3.0))
    assert made(rows, format="reward", ties="both-ways") == [
        {"row_id": "t", "split": "train", "prompt": "Hi", "chosen": "a0", "rejected": "b0", "margin": 0.0},
        {"row_id": "t", "split": "train", "prompt": "Hi", "chosen": "b0", "rejected": "a0", "margin": 0.0},
    ]


def test_columns_that_the_policy_repeats_stand_behind_the_text():
    rows = PAIRS.with_columns(annotator_id=pl.Series(["ann-y", "ann-x"]))
    assert [list(line)[-1] for line in made(rows, columns=["annotator_id"])] == ["annotator_id"] * 2
    assert [line["annotator_id"] for line in made(rows, columns=["annotator_id"])] == ["ann-x", "ann-y"]
