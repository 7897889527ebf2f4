"""A mapping for an unknown file: a preset if one fits, else a proposal from names, types and values.

Nothing is guessed silently: what rests on a name or on the values of this one file says so in a comment, and what
cannot be known is a line to fill in.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of
from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.conversion import convert
from feedback_assets.sources.dialect import delimiter_of, head, separator_line
from feedback_assets.sources.entries import type_of
from feedback_assets.sources.files import BatchFile, list_files, read
from feedback_assets.sources.given import (
    DECIDED,
    MODEL,
    NAMES,
    RESPONSE,
    SWAPS,
    Given,
    first_named,
    givens_of,
    is_conversational,
    is_judgments,
    is_key,
    is_prompt,
    is_text,
    is_within,
    opposite,
    prompt_format,
    scale_of,
    sides_of,
    text_length,
    thumbs_of,
)
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.preset import preset, preset_names
from feedback_assets.sources.proposed_section import Proposal
from feedback_assets.sources.raw import LINE, POSITION, Raw
from feedback_assets.sources.source import EACH, SUFFIXES, ColumnMapping, Source, expressions, format_of

LOOKED_AT = 20_000
"""Rows whose values are looked at."""
_TIMES = (
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y"),
    *("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%Y/%m/%d %H:%M:%S", "%Y%m%d"),
)
_UNITS = (("days", 20_000, 80_000), ("s", 5e8, 5e9), ("ms", 5e11, 5e12), ("us", 5e14, 5e15), ("ns", 5e17, 5e18))


def propose(path: Path, name: str | None = None) -> tuple[Proposal, Raw, BatchFile]:
    """Propose a mapping for a file; also what is in it.

    Args:
        path: a file of any known format, or a folder or pattern, of which the first file is looked at.
        name: the source's name; default: from the file's.

    Raises:
        FeedbackError: there is no such file, it has no known format, or cannot be read.
    """
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name.split(".")[0]).strip("-") or "source"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise FeedbackError(f"--source-name {name!r}: letters, digits, `_`, `.` and `-` make a name")
    file = _first_file(path, name)
    format_ = format_of(file.path.name)
    if format_ is None:
        raise FeedbackError(f"{path}: its ending stands for no known format; rename it, or write the source by hand")
    delimiter = _delimiter(file.path) if format_ == "csv" else None
    anything = Source(name=name, path=path.as_posix(), delimiter=delimiter, columns={"kind": "'preference'"})
    raw = read(file, anything)
    proposal = Proposal(name, path.as_posix(), delimiter=delimiter)
    if raw.frame.height and not _preset(proposal, raw, file):
        _guess(proposal, raw)
    elif not raw.frame.height:
        proposal.columns["kind"] = "'preference'"
        proposal.asked.append("the file holds no record: nothing can be proposed")
    return proposal, raw, file


def _first_file(path: Path, name: str) -> BatchFile:
    """The file, or the first that a source of this path has."""
    if path.is_file():
        return BatchFile(name, path.name, path, file_digest(path), path.stat().st_size)
    folder = Source(name=name, path=path.as_posix(), columns={"kind": "'preference'"})
    try:
        first = list_files(folder, Path.cwd(), digest_of=lambda _: "")[0]
    except FeedbackError:
        what = "no file in it that can be read" if path.is_dir() else "no such file"
        raise FeedbackError(f"{path}: {what}; known endings: {', '.join(SUFFIXES)}") from None
    return replace(first, digest=file_digest(first.path))


def _delimiter(path: Path) -> str | None:
    first = head(path)
    usual = "\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    return None if separator_line(first) else delimiter_of(first, usual)


def _preset(proposal: Proposal, raw: Raw, file: BatchFile) -> bool:
    """Whether a preset fits: its signs are there, and most of the first records can be mapped. The most signs win."""
    head = Raw(raw.frame.head(LOOKED_AT), raw.malformed.clear())
    known = [(name, preset(name)["signs"]) for name in preset_names()]
    for name, signs in sorted(known, key=lambda entry: -len(entry[1])):
        if not all(any(type_of(sign, head.frame.schema) for sign in alternatives) for alternatives in signs):
            continue
        trial = replace(proposal, fits=name)
        try:
            mapped = map_records(head, trial.source(), file)
        except FeedbackError:
            continue
        fitting = mapped.records.get_column("response_a").is_not_null().sum()
        failed = mapped.quarantined.get_column("reason").is_in(["not-convertible", "different-prompts"]).sum()
        if fitting and fitting > failed:
            proposal.fits = name
            _beside(proposal, head.frame, trial.source())
            if mapped.records.get_column("prompt").null_count() == mapped.records.height:
                asked = "prompt: FILL IN" if proposal.columns else "columns: { prompt: FILL IN }"
                proposal.asked.append(f"{asked} # none is in the file: each record is quarantined")
            proposal.asked += preset(name).get("asks", [])
            if "annotator_id" not in {*trial.source().columns, *proposal.columns}:
                _ask_for_annotator(proposal)
            return True
    return False


def _beside(proposal: Proposal, frame: pl.DataFrame, fitted: Source) -> None:
    """What a file has beside the columns of its preset; one with `each` is a tool's export, which has no others."""
    if fitted.each:
        return
    read = {name for text in expressions(fitted) for name in columns_of(text)}
    own = frame.drop(LINE, *read, strict=False).drop(cs.nested())
    found = Proposal(proposal.name, proposal.path)
    givens = list(givens_of(own))
    _rest(found, givens, set())
    _identity(found, givens, frame, each=False)
    given = {*fitted.columns, "split"}  # a split of the set, which is not ours
    proposal.columns = {name: value for name, value in found.columns.items() if name not in given}
    proposal.notes = {name: note for name, note in found.notes.items() if name in proposal.columns}


def _guess(proposal: Proposal, raw: Raw) -> None:
    frame = raw.frame.head(LOOKED_AT)
    givens = list(givens_of(frame.drop(LINE)))
    judged = next((given for given in givens if is_judgments(given)), None)
    if judged is not None:
        proposal.each = judged.expr
        entries = frame.with_columns(judged.values.alias(EACH)).filter(pl.col(EACH).list.len() > 0)
        frame = entries.with_columns(
            pl.int_ranges(1, pl.col(EACH).list.len() + 1, dtype=pl.Int64).alias(POSITION)
        ).explode(EACH, POSITION, empty_as_null=False)
        givens = [given for given in givens_of(frame.drop(LINE, POSITION)) if given.expr != judged.expr]
        givens.sort(key=lambda given: not given.expr.startswith(f"{EACH}."))
    taken: set[str] = set()
    _texts(proposal, givens, taken)
    _judgment(proposal, givens, taken)
    _rest(proposal, givens, taken)
    _identity(proposal, givens, frame, judged is not None)


def _texts(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    pair = _pair(givens)
    if pair is not None:
        first, second, decided = pair
        taken |= {first.expr, second.expr}
        whole = is_conversational(first.values) and is_conversational(second.values)
        for column, given in (("response_a", first), ("response_b", second)):
            proposal.columns[column] = {"expr": given.expr, "format": "conversation"} if whole else given.expr
        proposal.columns["kind"] = "'preference'"
        if decided:
            proposal.columns["label"] = "'a'"
            proposal.notes["label"] = f"{first.name} always wins"
        _origins(proposal, givens, taken)
        if whole:
            proposal.columns["prompt"] = {"expr": first.expr, "format": "conversation"}
    prompt = first_named(givens, "prompt", taken, is_prompt)
    if "prompt" not in proposal.columns and prompt is not None:
        taken.add(prompt.expr)
        form = prompt_format(prompt.values)
        proposal.columns["prompt"] = {"expr": prompt.expr, "format": form} if form else prompt.expr
        if form == "turns":
            proposal.notes["prompt"] = "every second text is taken for the assistant's: is it?"
        if prompt.name.lower() in ("title", "context", "input", "post", "article"):
            proposal.notes["prompt"] = "by its name: is it all that the annotator saw?"
    if pair is None:
        response = first_named(givens, "response", taken, is_text)
        if response is not None:
            taken.add(response.expr)
            proposal.columns["response_a"] = response.expr
        else:
            proposal.asked.append("response_a: FILL IN; nothing looks like one, and each record needs one")
    if "prompt" not in proposal.columns:
        proposal.asked.append("prompt: FILL IN; nothing looks like one, and each record needs one")


def _pair(givens: Sequence[Given]) -> tuple[Given, Given, bool] | None:
    """The two columns of responses: names that differ in a or b, 1 or 2, …; of several such the longest texts.

    Names that say response, answer, … go before others, and before those goes one column that is named response.
    """
    by_name = {given.expr.lower(): given for given in givens if is_text(given) or is_conversational(given.values)}
    alone = first_named(givens, "response", set(), is_text) is not None
    pairs: list[tuple[tuple[bool, bool, float], Given, Given]] = []
    for lowered, first in by_name.items():
        for swap in SWAPS[:-1]:
            other = opposite(lowered, swap, by_name)
            if other is None or MODEL.search(lowered):
                continue
            second, decided = by_name[other], swap in DECIDED
            named = decided or lowered in swap or RESPONSE.search(lowered) is not None
            if not named and (alone or scale_of(first.values) or scale_of(second.values)):
                continue
            length = sum(float(text_length(given.values) or 0) for given in (first, second))
            pairs.append(((decided, named, length), first, second))
    if not pairs:
        return None
    (decided, _, _), first, second = max(pairs, key=lambda entry: entry[0])
    return first, second, decided


def _origins(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    """Names of the models that wrote the responses: columns such as model_a and model_b."""
    by_name = {given.expr.lower(): given for given in givens if given.dtype == pl.String and given.expr not in taken}
    for lowered, a in by_name.items():
        if not MODEL.search(lowered):
            continue
        b = next((by_name[x] for swap in SWAPS[:-1] if (x := opposite(lowered, swap, by_name)) is not None), None)
        if b is not None:
            taken |= {a.expr, b.expr}
            proposal.columns |= {"origin_a": f"'model:' || {a.expr}", "origin_b": f"'model:' || {b.expr}"}
            return


def _judgment(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    if "response_b" in proposal.columns:
        if "label" in proposal.columns:
            return
        label = first_named(givens, "label", taken, lambda given: sides_of(given.values) is not None)
        if label is None:
            proposal.asked.append("label: FILL IN, 'a', 'b' or 'tie'; no column tells which response won")
            return
        taken.add(label.expr)
        proposal.columns["label"], proposal.notes["label"] = _labelled(label, sides_of(label.values) or {})
        gold = first_named(givens, "gold", taken, lambda given: sides_of(given.values) is not None)
        if gold is not None:
            taken.add(gold.expr)
            proposal.columns["gold"], _ = _labelled(gold, sides_of(gold.values) or {})
        proposal.asked.append("shown_order: \"'ab'\" # if the annotator saw response_a first")
        return
    thumb = first_named(givens, "label", taken, lambda given: thumbs_of(given.values) is not None)
    if thumb is not None:
        taken.add(thumb.expr)
        proposal.columns |= {"kind": "'thumbs'", "label": _thumbs_label(thumb)}
        return
    score = first_named(givens, "score", taken, lambda given: scale_of(given.values) is not None)
    proposal.columns["kind"] = "'rating'"
    if score is None:
        proposal.asked.append("score: FILL IN; nothing looks like a judgment. A preference or thumb has a label")
        return
    taken.add(score.expr)
    low, high = scale_of(score.values) or ("", "")
    proposal.columns |= {"score": score.expr, "score_min": low, "score_max": high}
    proposal.notes["score_min"] = f"the least in this file{_sure(score)}: is it the end of the scale?"
    proposal.notes["score_max"] = "the most in this file"
    if score.name.lower() == "rank":
        proposal.notes["score"] = "a rank: 1 is the best"


def _sure(given: Given) -> str:
    return f" ({given.values.len() - given.values.null_count():,} values)"


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


def _thumbs_label(given: Given) -> str:
    if given.dtype == pl.Boolean:
        return f"CASE WHEN {given.expr} THEN 'up' WHEN NOT {given.expr} THEN 'down' END"
    up, down = thumbs_of(given.values) or ([], [])
    text = given.expr if given.dtype == pl.String else f"CAST({given.expr} AS VARCHAR)"
    cases = [f"WHEN {_literal(v)} THEN '{side}'" for side, some in (("up", up), ("down", down)) for v in some]
    return f"CASE {text} {' '.join(cases)} ELSE {text} END"


def _rest(proposal: Proposal, givens: Sequence[Given], taken: set[str]) -> None:
    for column in ("guideline_version", "task", "aspect", "category", "language", "split", "group_id", "annotator_id"):
        found = first_named(givens, column, taken, lambda given: given.dtype == pl.String or given.dtype.is_integer())
        if found is None or (column == "split" and not is_within(found, ("train", "eval"))):
            continue
        taken.add(found.expr)
        proposal.columns[column] = found.expr
        if found.name.lower() in ("user_id", "user"):
            proposal.notes[column] = "by its name: who judged, or who wrote the prompt?"
    for column in ("started_at", "collected_at"):
        for name in NAMES[column]:
            found = next((given for given in givens if given.name.lower() == name and given.expr not in taken), None)
            mapping = None if found is None else _time(found, column)
            if found is not None and mapping is not None:
                taken.add(found.expr)
                proposal.columns[column], note = mapping
                proposal.notes |= {column: note} if note else {}
                break
    confidence = first_named(
        givens, "confidence", taken, lambda given: given.dtype.is_float() and given.values.max() <= 1
    )
    if confidence is not None and float(confidence.values.min()) >= 0:  # type: ignore[arg-type]
        proposal.columns["confidence"] = confidence.expr
    kind = first_named(givens, "annotator_kind", taken, lambda given: is_within(given, ("human", "model")))
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
    named = [given for given in givens if is_key(given)]
    own = first_named(named, "feedback_id", set())
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
