"""A mapping for an unknown file: a preset if one fits, else a proposal from names, types and values.

Nothing is guessed silently: what rests on a name or on the values of this one file says so in a comment, and what
cannot be known is a line to fill in.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from textwrap import fill
from typing import Any

import polars as pl
import yaml

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of, expression
from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.conversion import convert
from feedback_assets.sources.entries import type_of
from feedback_assets.sources.files import BatchFile, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.preset import preset, preset_names
from feedback_assets.sources.raw import LINE, POSITION, Raw
from feedback_assets.sources.source import EACH, ColumnMapping, Source, format_of

LOOKED_AT = 20_000
"""Rows whose values are looked at."""

_SWAPS = (
    *(("chosen", "rejected"), ("winner", "loser"), ("better", "worse"), ("preferred", "dispreferred")),
    *(("left", "right"), ("first", "second"), ("1", "2"), ("a", "b"), ("0", "1")),
)
_DECIDED = _SWAPS[:4]  # pairs of names that say themselves which response won
_TIE = re.compile(r"\b(tie|tied|equal|equally|same|both|draw|neither)\b|^0$")
_UP = ("up", "thumbs_up", "thumbsup", "like", "liked", "positive", "good", "yes", "true", "1", "👍")
_DOWN = ("down", "thumbs_down", "thumbsdown", "dislike", "disliked", "negative", "bad", "no", "false", "0", "-1", "👎")
_NAMES = {
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
_MODEL = re.compile(r"model|policy|system|engine|generator")
_TIMES = (
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y"),
    *("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%Y/%m/%d %H:%M:%S", "%Y%m%d"),
)
_UNITS = (("days", 20_000, 80_000), ("s", 5e8, 5e9), ("ms", 5e11, 5e12), ("us", 5e14, 5e15), ("ns", 5e17, 5e18))


@dataclass(frozen=True)
class Given:
    """A value that the file gives: its expression, the last name in it, its type, and its first values."""

    expr: str
    name: str
    dtype: pl.DataType
    values: pl.Series


@dataclass
class Proposal:
    """What a source's section may say of a file.

    `columns`: record column to expression or mapping; `notes`: record column to what is uncertain of it; `asked`: lines
    for a person to fill in; `fits`: the preset, if one fits.
    """

    name: str
    path: str
    fits: str | None = None
    each: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def section(self) -> str:
        """The policy section, as YAML with comments."""
        lines = ["ingested:", "  sources:", f"    - name: {_scalar(self.name)} # part of every row's identity: keep it"]
        lines += [f"      path: {_scalar(self.path)} # relative to the policy file"]
        if self.fits:
            lines += [f"      preset: {self.fits} # {preset(self.fits)['description']}"]
        if self.each:
            lines += [f"      each: {_scalar(self.each)} # a record for each entry"]
        if self.columns:
            lines += ["      columns:"]
            order = [name for name in ("kind", *FROM_SOURCE) if name in self.columns]
            for name in dict.fromkeys(order):
                lines += _entry(name, self.columns[name], self.notes.get(name))
        lines += [f"      {'  ' if self.columns else ''}# {asked}" for asked in self.asked]
        return "\n".join(lines) + "\n"

    def source(self) -> Source:
        """The section as the policy's loader reads it."""
        return Source.model_validate(yaml.safe_load(self.section())["ingested"]["sources"][0])


def propose(path: Path, name: str | None = None) -> tuple[Proposal, Raw, BatchFile]:
    """Propose a mapping for a file; also what is in it.

    Args:
        path: a file of any known format.
        name: the source's name; default: from the file's.

    Raises:
        FeedbackError: there is no such file, it has no known format, or cannot be read.
    """
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name.split(".")[0]).strip("-") or "source"
    if not path.is_file():
        raise FeedbackError(f"{path}: no such file")
    if format_of(path.name) is None:
        raise FeedbackError(f"{path}: its ending stands for no known format; rename it, or write the source by hand")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise FeedbackError(f"--source-name {name!r}: letters, digits, `_`, `.` and `-` make a name")
    file = BatchFile(name, path.name, path, file_digest(path), path.stat().st_size)
    anything = Source(name=name, path=path.as_posix(), columns={"kind": "'preference'"})  # type: ignore[arg-type]
    raw = read(file, anything)
    proposal = Proposal(name, path.as_posix())
    if raw.frame.height and not _preset(proposal, raw, file):
        _guess(proposal, raw)
    elif not raw.frame.height:
        proposal.columns["kind"] = "'preference'"
        proposal.asked.append("the file holds no record: nothing can be proposed")
    return proposal, raw, file


def _preset(proposal: Proposal, raw: Raw, file: BatchFile) -> bool:
    """Whether a preset fits: its signs are there, and most of the first records can be mapped. The most signs win."""
    head = Raw(raw.frame.head(LOOKED_AT), raw.malformed.clear())
    known = [(name, preset(name)["signs"]) for name in preset_names()]
    for name, signs in sorted(known, key=lambda entry: -len(entry[1])):
        if not all(any(type_of(sign, head.frame.schema) for sign in alternatives) for alternatives in signs):
            continue
        trial = Proposal(proposal.name, proposal.path, fits=name)
        try:
            mapped = map_records(head, trial.source(), file)
        except FeedbackError:
            continue
        fitting = mapped.records.get_column("response_a").is_not_null().sum()
        failed = mapped.quarantined.get_column("reason").is_in(["not-convertible", "different-prompts"]).sum()
        if fitting and fitting > failed:
            proposal.fits = name
            if mapped.records.get_column("prompt").null_count() == mapped.records.height:
                proposal.asked.append("columns: { prompt: FILL IN } # none is in the file: each record is quarantined")
            proposal.asked += preset(name).get("asks", [])
            if "annotator_id" not in trial.source().columns:
                _ask_for_annotator(proposal)
            return True
    return False


def _guess(proposal: Proposal, raw: Raw) -> None:
    frame = raw.frame.head(LOOKED_AT)
    givens = list(_givens(frame.drop(LINE)))
    judged = next((given for given in givens if _judgments(given)), None)
    if judged is not None:
        proposal.each = judged.expr
        entries = frame.with_columns(judged.values.alias(EACH)).filter(pl.col(EACH).list.len() > 0)
        frame = entries.with_columns(
            pl.int_ranges(1, pl.col(EACH).list.len() + 1, dtype=pl.Int64).alias(POSITION)
        ).explode(EACH, POSITION, empty_as_null=False)
        givens = [given for given in _givens(frame.drop(LINE, POSITION)) if given.expr != judged.expr]
        givens.sort(key=lambda given: not given.expr.startswith(f"{EACH}."))
    taken: set[str] = set()
    _texts(proposal, givens, taken)
    _judgment(proposal, givens, taken)
    _rest(proposal, givens, taken)
    _identity(proposal, givens, frame, judged is not None)


def _givens(frame: pl.DataFrame, before: str = "", depth: int = 0) -> Iterator[Given]:
    """The columns of a frame, and the fields of its structs."""
    for series in frame.get_columns():
        expr = before + _quoted(series.name) if not before or re.fullmatch(r"[A-Za-z_]\w*", series.name) else None
        if expr is None or not _compiles(expr):
            continue
        if isinstance(series.dtype, pl.Struct) and depth < 2:
            yield from _givens(series.struct.unnest(), f"{expr}.", depth + 1)
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


def _judgments(given: Given) -> bool:
    """Whether it is a list of judgments: structs with a rank, a score or a label, and no turns of a conversation."""
    if not isinstance(given.dtype, pl.List) or not isinstance(given.dtype.inner, pl.Struct):
        return False
    names = {inner.name.lower() for inner in given.dtype.inner.fields}
    return not names & {"role", "from"} and bool(names & {*_NAMES["score"], *_NAMES["label"]} - {"answer", "result"})


def _texts(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    pair = _pair(givens)
    if pair is not None:
        first, second, decided = pair
        taken |= {first.expr, second.expr}
        whole = _conversational(first.values) and _conversational(second.values)
        for column, given in (("response_a", first), ("response_b", second)):
            proposal.columns[column] = {"expr": given.expr, "format": "conversation"} if whole else given.expr
        proposal.columns["kind"] = "'preference'"
        if decided:
            proposal.columns["label"] = "'a'"
            proposal.notes["label"] = f"{first.name} always wins"
        _origins(proposal, givens, taken)
        if whole:
            proposal.columns["prompt"] = {"expr": first.expr, "format": "conversation"}
    prompt = _named(givens, "prompt", taken, _is_prompt)
    if "prompt" not in proposal.columns and prompt is not None:
        taken.add(prompt.expr)
        form = _prompt_format(prompt.values)
        proposal.columns["prompt"] = {"expr": prompt.expr, "format": form} if form else prompt.expr
        if form == "turns":
            proposal.notes["prompt"] = "every second text is taken for the assistant's: is it?"
        if prompt.name.lower() in ("title", "context", "input", "post", "article"):
            proposal.notes["prompt"] = "by its name: is it all that the annotator saw?"
    if pair is None:
        response = _named(givens, "response", taken, _is_text)
        if response is not None:
            taken.add(response.expr)
            proposal.columns["response_a"] = response.expr
        else:
            proposal.asked.append("response_a: FILL IN; nothing looks like one, and each record needs one")
    if "prompt" not in proposal.columns:
        proposal.asked.append("prompt: FILL IN; nothing looks like one, and each record needs one")


def _pair(givens: Sequence[Given]) -> tuple[Given, Given, bool] | None:
    """The two columns of responses: names that differ in a or b, 1 or 2, …; of several such the longest texts."""
    by_name = {given.expr.lower(): given for given in givens if _is_text(given) or _conversational(given.values)}
    pairs: list[tuple[float, Given, Given, bool]] = []
    for lowered, first in by_name.items():
        for swap in _SWAPS[:-1]:
            second = by_name.get(_swapped(lowered, swap) or "")
            if second is not None and not _MODEL.search(lowered):
                length = sum(float(_length(given.values) or 0) for given in (first, second))
                pairs.append((length, first, second, swap in _DECIDED))
    if not pairs:
        return None
    _, first, second, decided = max(pairs, key=lambda entry: (entry[3], entry[0]))
    return first, second, decided


def _swapped(text: str, swap: tuple[str, str]) -> str | None:
    """`text` with the first of `swap` replaced by the second where it stands alone as a word; None if it does not."""
    one, other = swap
    alone = rf"(?<![0-9]){one}(?![0-9])" if one.isdigit() else rf"(?<![a-z]){one}(?![a-z])"
    replaced, times = re.subn(alone, other, text)
    return replaced if times == 1 else None


def _is_text(given: Given) -> bool:
    return given.dtype == pl.String


def _is_prompt(given: Given) -> bool:
    return given.dtype == pl.String or _prompt_format(given.values) is not None


def _length(values: pl.Series) -> float | None:
    if values.dtype == pl.String:
        return values.str.len_chars().mean()  # type: ignore[return-value]
    return 1_000.0


def _conversational(values: pl.Series) -> bool:
    if values.dtype == pl.String:
        return bool(values.str.starts_with("\n\nHuman:").all())
    return _has_roles(values.dtype)


def _has_roles(dtype: pl.DataType) -> bool:
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return False
    names = {inner.name for inner in dtype.inner.fields}
    return bool(names & {"role", "from"}) and bool(names & {"content", "value", "text"})


def _prompt_format(values: pl.Series) -> str | None:
    if values.dtype == pl.String:
        return "anthropic" if _conversational(values) else None
    if _has_roles(values.dtype):
        return "roles"
    return "turns" if values.dtype == pl.List(pl.String) else None


def _named(givens: Sequence[Given], column: str, taken: set[str], suits: Any = None) -> Given | None:
    """The given whose name says that it is this record column; the earlier name in the list wins."""
    for name in _NAMES[column]:
        for given in givens:
            if given.name.lower() == name and given.expr not in taken and (suits is None or suits(given)):
                return given
    return None


def _origins(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    """Names of the models that wrote the responses: columns such as model_a and model_b."""
    by_name = {given.expr.lower(): given for given in givens if given.dtype == pl.String and given.expr not in taken}
    for lowered, a in by_name.items():
        if not _MODEL.search(lowered):
            continue
        b = next((by_name[x] for swap in _SWAPS[:-1] if (x := _swapped(lowered, swap)) and x in by_name), None)
        if b is not None:
            taken |= {a.expr, b.expr}
            proposal.columns |= {"origin_a": f"'model:' || {a.expr}", "origin_b": f"'model:' || {b.expr}"}
            return


def _judgment(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    if "response_b" in proposal.columns:
        if "label" in proposal.columns:
            return
        label = _named(givens, "label", taken, lambda given: _sides(given.values) is not None)
        if label is None:
            proposal.asked.append("label: FILL IN, 'a', 'b' or 'tie'; no column tells which response won")
            return
        taken.add(label.expr)
        proposal.columns["label"], proposal.notes["label"] = _labelled(label, _sides(label.values) or {})
        gold = _named(givens, "gold", taken, lambda given: _sides(given.values) is not None)
        if gold is not None:
            taken.add(gold.expr)
            proposal.columns["gold"], _ = _labelled(gold, _sides(gold.values) or {})
        proposal.asked.append("shown_order: \"'ab'\" # if the annotator saw response_a first")
        return
    thumb = _named(givens, "label", taken, lambda given: _thumbs(given.values) is not None)
    if thumb is not None:
        taken.add(thumb.expr)
        proposal.columns |= {"kind": "'thumbs'", "label": _thumbs_label(thumb)}
        return
    score = _named(givens, "score", taken, lambda given: given.dtype.is_numeric())
    proposal.columns["kind"] = "'rating'"
    if score is None:
        proposal.asked.append("score: FILL IN; nothing looks like a judgment. A preference or thumb has a label")
        return
    taken.add(score.expr)
    low, high = (str(value) for value in (score.values.min(), score.values.max()))
    proposal.columns |= {"score": score.expr, "score_min": low, "score_max": high}
    proposal.notes["score_min"] = f"the least in this file{_sure(score)}: is it the end of the scale?"
    proposal.notes["score_max"] = "the most in this file"
    if score.name.lower() == "rank":
        proposal.notes["score"] = "a rank: 1 is the best"


def _sure(given: Given) -> str:
    return f" ({given.values.len() - given.values.null_count():,} values)"


def _vocabulary(values: pl.Series) -> list[str] | None:
    """The distinct values as text, sorted, if they are few."""
    if values.dtype == pl.Boolean or not (values.dtype == pl.String or values.dtype.is_integer()):
        return None
    found = values.drop_nulls().cast(pl.String).unique().sort().head(13).to_list()
    return found if 2 <= len(found) <= 12 else None


def _sides(values: pl.Series) -> dict[str, str | None] | None:
    """Each value of a label to a, b, tie, or None if it is not clear; None where no two values are opposites."""
    vocabulary = _vocabulary(values)
    if vocabulary is None:
        return None
    lowered = {value.lower(): value for value in vocabulary}
    sides: dict[str, str | None] = {}
    for swap in _SWAPS:
        for low, value in lowered.items():
            other = lowered.get(_swapped(low, swap) or "")
            if other is not None and value not in sides and other not in sides:
                sides |= {value: "a", other: "b"}
        if sides:
            break
    if not sides:
        return None
    for low, value in lowered.items():
        sides.setdefault(value, "tie" if _TIE.search(low.replace("_", " ")) else None)
    return sides


def _labelled(given: Given, sides: dict[str, str | None]) -> tuple[str, str]:
    """The CASE that makes a label of a column, and what is to be said of it."""
    text = given.expr if given.dtype == pl.String else f"CAST({given.expr} AS VARCHAR)"
    cases = [f"WHEN {_literal(value)} THEN '{side}'" for value, side in sorted(sides.items()) if side]
    unclear = sorted(value for value, side in sides.items() if side is None)
    note = "by the names of its values: check which side each means"
    if unclear:
        note = f"unclear, and quarantined: {', '.join(json.dumps(value, ensure_ascii=False) for value in unclear)}"
    return f"CASE {text} {' '.join(cases)} ELSE {text} END", note


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _thumbs(values: pl.Series) -> tuple[list[str], list[str]] | None:
    if values.dtype == pl.Boolean:
        return [], []
    vocabulary = _vocabulary(values)
    if vocabulary is None:
        return None
    up = [value for value in vocabulary if value.lower() in _UP]
    down = [value for value in vocabulary if value.lower() in _DOWN]
    return (up, down) if up and down and len(up) + len(down) == len(vocabulary) else None


def _thumbs_label(given: Given) -> str:
    if given.dtype == pl.Boolean:
        return f"CASE WHEN {given.expr} THEN 'up' WHEN NOT {given.expr} THEN 'down' END"
    up, down = _thumbs(given.values) or ([], [])
    text = given.expr if given.dtype == pl.String else f"CAST({given.expr} AS VARCHAR)"
    cases = [f"WHEN {_literal(v)} THEN '{side}'" for side, some in (("up", up), ("down", down)) for v in some]
    return f"CASE {text} {' '.join(cases)} ELSE {text} END"


def _rest(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    for column in ("guideline_version", "task", "aspect", "category", "language", "split", "group_id", "annotator_id"):
        found = _named(givens, column, taken, lambda given: given.dtype == pl.String or given.dtype.is_integer())
        if found is None or (column == "split" and not _within(found, ("train", "eval"))):
            continue
        taken.add(found.expr)
        proposal.columns[column] = found.expr
        if found.name.lower() in ("user_id", "user"):
            proposal.notes[column] = "by its name: who judged, or who wrote the prompt?"
    for column in ("started_at", "collected_at"):
        for name in _NAMES[column]:
            found = next((given for given in givens if given.name.lower() == name and given.expr not in taken), None)
            mapping = found and _time(found, column)
            if found and mapping:
                taken.add(found.expr)
                proposal.columns[column], note = mapping
                proposal.notes |= {column: note} if note else {}
                break
    confidence = _named(givens, "confidence", taken, lambda given: given.dtype.is_float() and given.values.max() <= 1)
    if confidence is not None and float(confidence.values.min()) >= 0:  # type: ignore[arg-type]
        proposal.columns["confidence"] = confidence.expr
    kind = _named(givens, "annotator_kind", taken, lambda given: _within(given, ("human", "model")))
    if kind is not None:
        taken.add(kind.expr)
        proposal.columns["annotator_kind"] = kind.expr
    else:
        proposal.asked.append("annotator_kind: \"'human'\" # or 'model'")
    if "annotator_id" not in proposal.columns:
        _ask_for_annotator(proposal)
    if "collected_at" not in proposal.columns:
        proposal.asked.append("collected_at: FILL IN if it is known; guidelines are found by it")
    if "task" not in proposal.columns:
        proposal.asked.append("task: \"'…'\" # what the annotators were asked; guidelines are found by it")


def _ask_for_annotator(proposal: Proposal) -> None:
    proposal.asked.append("annotator_id: FILL IN; without one the policy must say deduplicated.missing_annotator")


def _within(given: Given, vocabulary: Sequence[str]) -> bool:
    return given.dtype == pl.String and bool(given.values.drop_nulls().is_in(vocabulary).all())


def _time(given: Given, column: str) -> tuple[Any, str] | None:
    """The mapping of a time whose every value converts, and what is uncertain of it."""
    options: list[tuple[dict[str, str], str]] = [({}, ""), ({"timezone": "UTC"}, "it names no zone: is it UTC?")]
    if given.dtype.is_numeric() and not given.dtype.is_decimal():
        low, high = float(given.values.min()), float(given.values.max())  # type: ignore[arg-type]
        unit = next((unit for unit, least, most in _UNITS if least <= low and high <= most), None)
        options = [({"unit": unit}, "by its size")] if unit and unit != "days" else []
        if unit == "days":
            options = [({"unit": unit, "timezone": "UTC"}, "a spreadsheet's days, by their size; is it UTC?")]
    elif given.dtype == pl.String:
        options += [({"format": form, "timezone": "UTC"}, "is it UTC, and the day where it seems?") for form in _TIMES]
    for option, note in options:
        mapping = ColumnMapping.model_validate({"expr": given.expr, **option})
        try:
            converted = convert(pl.col("v"), given.dtype, FROM_SOURCE[column], mapping)
            values = given.values.alias("v").to_frame().select(converted.value.alias("v")).to_series()
        except (pl.exceptions.PolarsError, ValueError):
            continue
        if values.null_count() == given.values.null_count():
            return ({"expr": given.expr, **option} if option else given.expr), note
    return None


def _identity(proposal: Proposal, givens: Sequence[Given], frame: pl.DataFrame, each: bool) -> None:
    named = [given for given in givens if _is_key(given)]
    own = _named(named, "feedback_id", set())
    if each and own is not None and not own.expr.startswith(f"{EACH}."):
        keyed = own.values.n_unique() == frame.filter(pl.col(POSITION) == 1).height
        proposal.columns["feedback_id"] = f"{own.expr} || '#' || __position"
        proposal.notes["feedback_id"] = "an entry's place must stay the same when it is delivered again"
        if keyed and "group_id" not in proposal.columns:
            proposal.columns["group_id"] = own.expr
        return
    if own is not None and own.values.n_unique() == frame.height and not own.values.null_count():
        proposal.columns["feedback_id"] = own.expr
        return
    keys = [given for given in named if given.values.null_count() == 0][:8]
    for size in (2, 3, 4, 5):
        for some in combinations(keys, size):
            columns = {str(place): given.values for place, given in enumerate(some)}
            if pl.DataFrame(columns).n_unique() == frame.height:
                joined = " || '/' || ".join(given.expr for given in some)
                proposal.asked.append(f"feedback_id: {joined}")
                proposal.asked.append("  # unique in this file; without an id one is made from the content")
                return
    proposal.asked.append("feedback_id: FILL IN if there is one; without it one is made from the content")


def _is_key(given: Given) -> bool:
    text = given.dtype == pl.String and (_length(given.values) or 0) <= 80
    name = given.name.lower()
    keyed = name.endswith("id") or name in (*_NAMES["annotator_id"], "turn", "topic", "question") or _MODEL.search(name)
    return bool((text or given.dtype.is_integer()) and keyed)


def _entry(name: str, value: Any, note: str | None) -> list[str]:
    """The lines of one column; a long expression folded, which spaces in a row would not survive."""
    line = f"        {name}: {_flow(value)}"
    if note and len(line) + len(note) < 88:
        return [f"{line} # {note}"]
    said = [f"        # {note}"] if note else []
    if len(line) < 100 or not isinstance(value, str) or re.search(r"\s\s|[^\S ]", value):
        return [*said, line]
    folded = fill(
        value, 76, initial_indent=" " * 10, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False
    )
    return [*said, f"        {name}: >-", *folded.split("\n")]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {_scalar(given, inside=True)}" for key, given in value.items()) + " }"
    return _scalar(value)


def _scalar(text: str, *, inside: bool = False) -> str:
    """`text` as a YAML scalar: plain where that is the same text, else in double quotes."""
    plain = f"{{ k: {text} }}" if inside else f"k: {text} # note"
    try:
        same = yaml.safe_load(plain) == {"k": text}
    except yaml.YAMLError:
        same = False
    return text if same and "\n" not in text else json.dumps(text, ensure_ascii=False)
