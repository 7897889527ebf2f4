"""What a trainer is predicted to drop, by the rules of TRL 1.16's trainers."""

import polars as pl
import pytest

from feedback_assets.exports.lengths import most, predicted, tokens
from feedback_assets.exports.section import Export


def rows(*lengths: tuple[int, int, int, int | None], **columns: object) -> pl.DataFrame:
    """Records of (prompt, its turns, response a, response b), in characters."""
    named = ("prompt_chars", "prompt_turns", "response_a_chars", "response_b_chars")
    frame = pl.DataFrame(lengths, schema=dict.fromkeys(named, pl.UInt32), orient="row")
    given = {
        "kind": "preference",
        "label": "a",
        "score": None,
        "copies": 1,
        "source": "s",
        "category": None,
        "language": "en",
        **columns,
    }
    values = [pl.Series(name, value) if isinstance(value, list) else pl.lit(value) for name, value in given.items()]
    return frame.with_row_index("row_id").with_columns(*(v.alias(n) for n, v in zip(given, values, strict=True)))


def export(**given: object) -> Export:
    trainer = {"max_length": 100, "chars_per_token": 4, "tokens_per_turn": 5, **given.pop("trainer", {})}
    return Export.model_validate({"name": "e-1", "trainer": trainer, **given})


def measured(frame: pl.DataFrame, asked: Export) -> list[int | None]:
    return frame.select(tokens(asked)).to_series().to_list()


def test_the_longer_side_counts_with_the_prompt_and_the_template_of_each_turn():
    assert measured(rows((40, 1, 10, 81), (41, 3, 8, 0)), export()) == [31 + 2 * 5, 13 + 4 * 5]


def test_plain_text_counts_separators_and_the_end_of_the_text():
    assert measured(rows((40, 1, 10, 77)), export(conversational=False)) == [(40 + 77 + 2 * 2 + 3) // 4 + 1]


def test_a_trainer_that_cuts_responses_measures_the_prompt_which_must_leave_room():
    asked = export(trainer={"drops": "long-prompts", "max_length": 15})
    frame = rows((40, 1, 9_000, 9_000), (36, 1, 9_000, 9_000))
    assert measured(frame, asked) == [15, 14]
    assert predicted(frame.with_columns(tokens(asked)), asked, "weights")["dropped"] == 1
    assert (most(asked), most(export())) == (14, 100)


def test_a_record_that_is_not_in_the_export_has_no_length():
    frame = rows((40, 1, 9, None), (40, 1, 9, 9), kind=["thumbs", "preference"], label=["up", "tie"])
    assert measured(frame, export()) == [None, None]
    assert measured(frame, export(format="kto")) == [15, None]


def test_drops_are_told_by_group_so_that_a_bias_is_seen():
    frame = rows((10, 1, 10, 10), (10, 1, 900, 10), (10, 1, 10, 900), language=["en", "de", "en"], copies=[1, 3, 1])
    asked = export()
    told = predicted(frame.with_columns(tokens(asked)), asked, "copies")
    assert (told["trainer"], told["examples"], told["dropped"]) == ("RewardTrainer", 5, 4)
    assert told["by"]["language"] == [
        {"value": "de", "examples": 3, "dropped": 3},
        {"value": "en", "examples": 2, "dropped": 1},
    ]
    assert predicted(frame.with_columns(tokens(asked)), asked, "weights")["examples"] == 3


def test_names_that_would_share_a_column_are_refused():
    from pydantic import ValidationError

    from feedback_assets.stages.training_set import TrainingSetSection

    with pytest.raises(ValidationError, match="two exports would share the column tokens_a_b; rename one"):
        TrainingSetSection.model_validate({"exports": [{"name": "a-b"}, {"name": "a.b"}]})
