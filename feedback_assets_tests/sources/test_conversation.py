"""Whole conversations in one column: the prompt is all but the last turn, the response the last."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets_tests.sources.test_mapping import mapped, one, turns

WHOLE = {
    "prompt": {"expr": "chosen", "format": "conversation"},
    "response_a": {"expr": "chosen", "format": "conversation"},
    "response_b": {"expr": "rejected", "format": "conversation"},
}
DIALECTS = {
    "OpenAI": lambda said: [{"role": role, "content": text} for role, text in said],
    "OpenAI, in parts": lambda said: [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in said],
    "ShareGPT": lambda said: [{"from": {"user": "human", "assistant": "gpt"}[r], "value": t} for r, t in said],
    "Anthropic": lambda said: "".join(f"\n\n{'Human' if r == 'user' else 'Assistant'}: {t}" for r, t in said),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_pair_of_conversations_is_a_prompt_and_two_replies_in_every_dialect(dialect):
    write = DIALECTS[dialect]
    before = [("user", "Hi"), ("assistant", "Hello."), ("user", "Why?")]
    data = {"chosen": [write([*before, ("assistant", "So.")])], "rejected": [write([*before, ("assistant", "No.")])]}
    (record,) = mapped(WHOLE, data).records.to_dicts()
    assert record["prompt"] == turns(*before)
    assert (record["response_a"], record["response_b"]) == ("So.", "No.")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x1e"), max_size=8).filter(lambda t: "\n\n" not in t)


@given(
    st.sampled_from([name for name in DIALECTS if name != "Anthropic"]), st.lists(TEXT, min_size=1, max_size=4), TEXT
)
@settings(max_examples=60, deadline=None)
def test_no_text_is_lost_between_a_conversation_and_its_record(dialect, texts, answer):
    said = [("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    data = {"chosen": [DIALECTS[dialect]([*said, ("assistant", answer)])]}
    columns = {key: WHOLE[key] for key in ("prompt", "response_a")}
    if answer.startswith("[{") or any(text.startswith("[{") for text in texts):
        return
    (record,) = mapped(columns, data).records.to_dicts()
    assert (record["prompt"], record["response_a"]) == (turns(*said), answer)


def test_a_pair_whose_sides_differ_before_the_reply_is_quarantined():
    write = DIALECTS["OpenAI"]
    chosen = [write([("user", "Hi"), ("assistant", "x")])] * 2
    rejected = [write([("user", "Ho"), ("assistant", "y")]), write([("user", "Hi"), ("assistant", "y")])]
    result = mapped(WHOLE, {"chosen": chosen, "rejected": rejected})
    assert result.quarantined.select("line", "reason", "column").rows() == [(1, "different-prompts", "response_b")]
    assert result.records["line"].to_list() == [2]
    last = {key: {**mapping, "format": "last-turn"} for key, mapping in WHOLE.items() if key != "prompt"}
    assert mapped({**WHOLE, **last}, {"chosen": chosen, "rejected": rejected}).records.height == 2


def test_a_reply_may_stand_alone_beside_its_prompt():
    data = {"prompt": [[{"role": "user", "content": "q"}]], "chosen": [[{"role": "assistant", "content": "a"}]]}
    columns = {"prompt": {"expr": "prompt", "format": "roles"}, "response_a": WHOLE["response_a"]}
    (record,) = mapped(columns, data).records.to_dicts()
    assert (record["prompt"], record["response_a"]) == (turns(("user", "q")), "a")


@pytest.mark.parametrize(
    "conversation",
    [
        [{"role": "user", "content": "q"}],
        [{"role": "assistant", "content": None}],
        [{"role": "stranger", "content": "q"}, {"role": "assistant", "content": "a"}],
        [],
    ],
)
def test_a_conversation_that_does_not_end_with_a_reply_is_quarantined(conversation):
    dtype = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    data = pl.DataFrame({"chosen": [conversation]}, schema={"chosen": dtype})
    result = mapped({key: WHOLE[key] for key in ("prompt", "response_a")}, data)
    assert result.records.is_empty()
    assert result.quarantined["reason"].to_list() == ["not-convertible"]


def test_a_leading_system_turn_stays_in_the_prompt():
    shared = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}]
    assert one("prompt", [shared], format="roles") == ([turns(("system", "Be kind."), ("user", "Hi"))], [])


def test_a_turn_with_a_part_that_is_no_text_is_quarantined():
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "text": None}]
    said = [[{"role": "user", "content": parts}], [{"role": "user", "content": [parts[0], parts[0]]}]]
    got, bad = one("prompt", said, format="roles")
    assert got == [turns(("user", "What is this?What is this?"))]
    assert bad == [(1, "not-convertible", None)]


def test_lists_of_parts_beside_plain_text_are_not_taken_for_text():
    # Polars reads such a file's lists as their JSON text
    said = ['[{"type":"text","text":"a \\"b\\""}]', "plain", '[{"type":"text","text":"x"},{"type":"image_url"}]', "[{x"]
    got, bad = one("prompt", [[{"role": "user", "content": text}] for text in said], format="roles")
    assert got == [turns(("user", text)) for text in ('a "b"', "plain", "[{x")]
    assert bad == [(3, "not-convertible", None)]
