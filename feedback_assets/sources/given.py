"""What a file gives, and what it looks like by its names, types and values: a text, a conversation, a label, an id."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from feedback_assets.expressions import columns_of, expression

SWAPS = (
    *(("chosen", "rejected"), ("winner", "loser"), ("better", "worse"), ("preferred", "dispreferred")),
    *(("left", "right"), ("first", "second"), ("1", "2"), ("a", "b"), ("0", "1")),
)
DECIDED = SWAPS[:4]  # pairs of names that say themselves which response won
_TIE = re.compile(r"\b(tie|tied|equal|equally|same|both|draw|neither)\b|^0$")
_UP = ("up", "thumbs_up", "thumbsup", "like", "liked", "positive", "good", "yes", "true", "1", "👍")
_DOWN = ("down", "thumbs_down", "thumbsdown", "dislike", "disliked", "negative", "bad", "no", "false", "0", "-1", "👎")
NAMES = {
    "feedback_id": ("feedback_id", "annotation_id", "judgment_id", "comparison_id", "id", "uuid", "record_id"),
    "prompt": (
        *("prompt", "instruction", "question", "query", "input", "user_input", "messages", "conversation"),
        *("conversations", "dialogue", "context", "post", "article", "title"),
    ),
    "response": (
        *("response", "completion", "answer", "output", "generation", "reply", "summary", "text", "model_response"),
        *("content",),
    ),
    "label": (
        *("label", "winner", "preference", "choice", "vote", "verdict", "preferred", "selected", "value", "judgment"),
        *("feedback", "thumbs", "thumb", "rating", "better", "answer", "result"),
        *("helpful", "is_helpful", "useful", "liked", "accepted", "approved"),
    ),
    "score": ("rating", "score", "stars", "rank", "points", "value", "helpfulness", "quality", "grade"),
    "aspect": ("aspect", "criterion", "dimension", "attribute"),
    "annotator_id": (
        *("annotator_id", "annotator", "worker_id", "worker", "rater_id", "rater", "labeler", "labeller", "evaluator"),
        *("judge", "user_id", "user", "completed_by", "reviewer", "expert"),
    ),
    "annotator_kind": ("annotator_kind", "annotator_type", "judge_kind", "judge_type"),
    "started_at": ("started_at", "accepted_at", "start_time", "opened_at", "began_at"),
    "collected_at": (
        *("collected_at", "submitted_at", "judged_at", "annotated_at", "created_at", "timestamp", "time", "date", "ts"),
        *("end_time", "finished_at", "updated_at", "tstamp"),
    ),
    "guideline_version": ("guideline_version", "guidelines_version", "guideline", "guidelines", "instructions_version"),
    "task": ("task", "task_name"),
    "category": ("category", "topic", "domain", "subset", "subreddit"),
    "language": ("language", "lang", "locale"),
    "confidence": ("confidence", "certainty"),
    "gold": ("gold", "gold_label"),
    "split": ("split",),
    "group_id": ("group_id", "ranking_id", "comparison_group"),
}
_WORD = 20  # characters of a value that is a word
_WIDEST = 100  # a scale in text; beyond it numbers are rather ids or times
RESPONSE = re.compile(
    r"response|completion|answer|output|generation|reply|summary|text|content|candidate|option|conversation|message"
)
MODEL = re.compile(r"model|policy|system|engine|generator")


@dataclass(frozen=True)
class Given:
    """A value that the file gives: its expression, the last name in it, its type, and its first values."""

    expr: str
    name: str
    dtype: pl.DataType
    values: pl.Series


def givens_of(frame: pl.DataFrame, before: str = "", depth: int = 0) -> Iterator[Given]:
    """The columns of a frame, and the fields of its structs."""
    for series in frame.get_columns():
        expr = before + _quoted(series.name) if not before or re.fullmatch(r"[A-Za-z_]\w*", series.name) else None
        if expr is None or not _compiles(expr):
            continue
        if isinstance(series.dtype, pl.Struct) and depth < 2:
            yield from givens_of(series.struct.unnest(), f"{expr}.", depth + 1)
        elif series.null_count() < series.len():
            yield Given(expr, series.name, series.dtype, series)


def _quoted(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and _compiles(name) and columns_of(name) == (name,)
    return name if plain else '"' + name.replace('"', '""') + '"'


def _compiles(expr: str) -> bool:
    try:
        expression(expr)
    except ValueError:
        return False
    return True


def first_named(givens: Sequence[Given], column: str, taken: set[str], suits: Any = None) -> Given | None:
    """The given whose name says that it is this record column; the earlier name in the list wins."""
    named = [(re.sub(r"\W+", "_", given.name.lower()).strip("_"), given) for given in givens]
    for name in NAMES[column]:
        for said, given in named:
            if said == name and given.expr not in taken and (suits is None or suits(given)):
                return given
    return None


def is_judgments(given: Given) -> bool:
    """Whether it is a list of judgments: structs with a rank, a score or a label, and no turns of a conversation."""
    if not isinstance(given.dtype, pl.List) or not isinstance(given.dtype.inner, pl.Struct):
        return False
    names = {inner.name.lower() for inner in given.dtype.inner.fields}
    return not names & {"role", "from"} and bool(names & {*NAMES["score"], *NAMES["label"]} - {"answer", "result"})


def swapped(text: str, swap: tuple[str, str]) -> str | None:
    """`text` with the first of `swap` replaced by the second where it stands alone as a word; None if it does not."""
    one, other = swap
    alone = rf"(?<![0-9]){one}(?![0-9])" if one.isdigit() else rf"(?<![a-z]){one}(?![a-z])"
    replaced, times = re.subn(alone, other, text)
    return replaced if times == 1 else None


def opposite(text: str, swap: tuple[str, str], known: Collection[str]) -> str | None:
    """What `swapped` makes of `text`, if it is `known`."""
    other = swapped(text, swap)
    return other if other is not None and other in known else None


def is_text(given: Given) -> bool:
    """Whether it is text."""
    return given.dtype == pl.String


def is_prompt(given: Given) -> bool:
    """Whether its type is one of which a prompt can be made."""
    return given.dtype == pl.String or prompt_format(given.values) is not None


def is_key(given: Given) -> bool:
    """Whether it looks like what tells records apart: short text or integers whose name says so."""
    text = given.dtype == pl.String and (text_length(given.values) or 0) <= 80
    name = given.name.lower()
    keyed = name.endswith("id") or name in (*NAMES["annotator_id"], "turn", "topic", "question") or MODEL.search(name)
    return bool((text or given.dtype.is_integer()) and keyed)


def text_length(values: pl.Series) -> float | None:
    """Mean characters of texts; what is no text counts as long."""
    if values.dtype == pl.String:
        return values.str.len_chars().mean()  # type: ignore[return-value]
    return 1_000.0


def is_conversational(values: pl.Series) -> bool:
    """Whether the values are conversations, prompt and response in one."""
    if values.dtype == pl.String:
        return bool(values.str.starts_with("\n\nHuman:").all())
    return _has_roles(values.dtype)


def _has_roles(dtype: pl.DataType) -> bool:
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return False
    names = {inner.name for inner in dtype.inner.fields}
    return bool(names & {"role", "from"}) and bool(names & {"content", "value", "text"})


def prompt_format(values: pl.Series) -> str | None:
    """The `format` of a prompt with such values; None for plain text."""
    if values.dtype == pl.String:
        return "anthropic" if is_conversational(values) else None
    if _has_roles(values.dtype):
        return "roles"
    return "turns" if values.dtype == pl.List(pl.String) else None


def _vocabulary(values: pl.Series) -> dict[str, str] | None:
    """The distinct values as text, sorted, if they are few, to what each says; a blank is none."""
    if values.dtype.is_float() and not (values.drop_nulls() % 1 == 0).all():
        return None
    if values.dtype == pl.Boolean or not (values.dtype == pl.String or values.dtype.is_numeric()):
        return None
    texts = values.drop_nulls().cast(pl.String).unique()
    found = texts.filter(texts.str.strip_chars() != "").sort().head(13).to_list()
    return {value: value.strip().lower().removesuffix(".0") for value in found} if 1 <= len(found) <= 12 else None


def sides_of(values: pl.Series) -> dict[str, str | None] | None:
    """Each value of a label to a, b, tie, or None if it is not clear; None where no value says a side.

    Opposites such as left and right do. A word such as left does so alone, if beside it there are only ties.
    """
    vocabulary = _vocabulary(values)
    if vocabulary is None:
        return None
    known = sorted(set(vocabulary.values()))
    sides: dict[str, str | None] = {}
    for swap in SWAPS:
        for one in known:
            other = opposite(one, swap, known)
            if other is not None and one not in sides and other not in sides:
                sides |= {one: "a", other: "b"}
        if sides:
            break
    ties = {one: "tie" for one in known if one not in sides and _TIE.search(one.replace("_", " "))}
    if not sides:
        rest = [one for one in known if one not in ties]
        sides = {one: side for one in rest if (side := _side_of(one)) is not None}
        if len(rest) != 1 or not sides:
            return None
    return {value: (sides | ties).get(one) for value, one in vocabulary.items()}


def _side_of(word: str) -> str | None:
    """The side that a word says by itself; a number does not, because a count may start at 0 or 1."""
    if len(word) > _WORD:
        return None
    for one, other in (swap for swap in SWAPS if swap not in DECIDED and not swap[0].isdigit()):
        for side, swap in (("a", (one, other)), ("b", (other, one))):
            if swapped(word, swap) is not None:
                return side
    return None


def thumbs_of(values: pl.Series) -> tuple[list[str], list[str]] | None:
    """The values that mean up and those that mean down; None where any means something else, or only a number is."""
    if values.dtype == pl.Boolean:
        return [], []
    vocabulary = _vocabulary(values)
    if vocabulary is None:
        return None
    up = [value for value, said in vocabulary.items() if said in _UP]
    down = [value for value, said in vocabulary.items() if said in _DOWN]
    both = bool(up and down) or not any(said.lstrip("-").isdigit() for said in vocabulary.values())
    return (up, down) if both and len(up) + len(down) == len(vocabulary) else None


def scale_of(values: pl.Series) -> tuple[str, str] | None:
    """The least and the most of numbers; None for what is no number, and for texts that span more than a scale does."""
    if values.dtype.is_numeric():
        return str(values.min()), str(values.max())
    if values.dtype != pl.String:
        return None
    given = values.drop_nulls().str.strip_chars()
    numbers = given.filter(given != "").cast(pl.Float64, strict=False)
    if not numbers.len() or numbers.null_count() or not numbers.is_finite().all():
        return None
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    return (f"{low:g}", f"{high:g}") if high - low <= _WIDEST else None


def is_within(given: Given, vocabulary: Sequence[str]) -> bool:
    """Whether it is text of this vocabulary alone."""
    return given.dtype == pl.String and bool(given.values.drop_nulls().is_in(vocabulary).all())
