"""Whole conversations in one column: all but the last turn is the prompt, the last turn the response.

Dialects: a list of (role, content), OpenAI's, whose content may be a list of text parts; a list of (from, value),
ShareGPT's; text in which each turn starts with an empty line and "Human:" or "Assistant:", Anthropic's.
"""

import polars as pl

from feedback_assets.record import TURNS

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_MARK = "\x1e"


def conversation(value: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """The turns (record.TURNS) of a conversation in any dialect; null where it is none, None if no type for one."""
    if dtype == pl.String:
        return anthropic_turns(value)
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        return role_turns(value, dtype.inner)
    return None


def before_the_reply(turns: pl.Expr) -> pl.Expr:
    """All turns but the last; null where the last is not the assistant's."""
    return pl.when(_ends_with_a_reply(turns)).then(turns.list.head(turns.list.len() - 1))


def reply(turns: pl.Expr) -> pl.Expr:
    """The text of the last turn; null where that is not the assistant's."""
    return pl.when(_ends_with_a_reply(turns)).then(turns.list.last().struct.field("text"))


def another_prompt(turns: pl.Expr, prompt: pl.Expr) -> pl.Expr:
    """Whether the turns before the reply are there and are not those of `prompt`."""
    before = before_the_reply(turns)
    return (before.list.len() > 0) & (_as_text(before) != _as_text(prompt))


def _as_text(turns: pl.Expr) -> pl.Expr:
    element = pl.element().struct
    framed = pl.format("{}:{}:{};", element.field("role"), element.field("text").str.len_bytes(), element.field("text"))
    return turns.list.eval(framed).list.join("")


def _ends_with_a_reply(turns: pl.Expr) -> pl.Expr:
    return turns.list.last().struct.field("role") == "assistant"


def list_turns(value: pl.Expr) -> pl.Expr:
    """A list of texts, of which the user's is the first, every second the assistant's."""
    even = pl.int_range(pl.len()) % 2 == 0
    role = pl.when(even).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    return _complete(value.list.eval(pl.struct(role.alias("role"), pl.element().alias("text"))))


def role_turns(value: pl.Expr, turn: pl.Struct) -> pl.Expr | None:
    """A list of structs with a role and a text; None if they have no such fields."""
    fields = {field.name: pl.Schema({"": field.dtype})[""] for field in turn.fields}
    role = next((name for name in ("role", "from") if fields.get(name) == pl.String), None)
    text = next((name for name in ("content", "text", "value") if name in fields), None)
    if role is None or text is None:
        return None
    said = _said(pl.element().struct.field(text), fields[text])
    if said is None:
        return None
    known = pl.element().struct.field(role).str.to_lowercase().replace_strict(_ROLES, default=None)
    return _complete(value.list.eval(pl.struct(known.alias("role"), said.alias("text"))))


def _said(content: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """The text of a turn; null where a part of it is no text, such as an image."""
    if dtype == pl.String:
        # Where some turns have text and others a list of parts, Polars reads the lists as JSON text.
        first, second = (content.str.json_path_match(f"$[{place}].type") for place in (0, 1))
        in_parts = content.str.starts_with("[{") & first.is_not_null()
        only = pl.when((first == "text") & second.is_null()).then(content.str.json_path_match("$[0].text"))
        return pl.when(in_parts).then(only).otherwise(content)
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return None
    if pl.Schema(dtype.inner).get("text") != pl.String:
        return None
    texts = content.list.eval(pl.element().struct.field("text"))
    return pl.when(~texts.list.eval(pl.element().is_null()).list.any()).then(texts.list.join(""))


def anthropic_turns(value: pl.Expr) -> pl.Expr:
    """Text in which each turn starts with an empty line and "Human:" or "Assistant:"."""
    marked = value.str.replace_all(r"\n\n(Human|Assistant):", _MARK + "$1")
    human = pl.element().str.starts_with("Human")
    role = pl.when(human).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    text = pl.when(human).then(pl.element().str.slice(5)).otherwise(pl.element().str.slice(9)).str.strip_prefix(" ")
    turns = marked.str.split(_MARK).list.slice(1).list.eval(pl.struct(role.alias("role"), text.alias("text")))
    well_formed = marked.str.starts_with(_MARK) & ~value.str.contains(_MARK, literal=True)
    return pl.when(well_formed).then(turns.cast(TURNS))


def _complete(turns: pl.Expr) -> pl.Expr:
    """Null for a conversation that has a turn without role or text."""
    element = pl.element().struct
    gap = turns.list.eval(element.field("role").is_null() | element.field("text").is_null()).list.any()
    return pl.when(~gap).then(turns)
