"""The real data sets read with plain Python and Polars and no code of the product: what the product is held to.

Near-duplicates are searched exhaustively here: every pair of texts that can reach the threshold is compared.
"""

import gzip
import json
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import polars as pl

DATA = Path(os.environ.get("FEEDBACK_ASSETS_DATA") or Path(__file__).parents[2] / "shared/data")
BLANK_ROWS = range(1_152, 1_304)


class Judgment(NamedTuple):
    """One judgment: where it stands, who judged, what (prompt by turns, responses sorted), what won (None: a tie)."""

    source: str
    batch: str
    line: int
    annotator: str | None
    prompt: tuple[str, ...]
    responses: tuple[str, str]
    winner: str | None


class Item(NamedTuple):
    """What is compared for near-duplicates."""

    prompt: str
    a: str
    b: str


def judgments(name: str) -> Iterator[Judgment]:
    """All judgments of the set `name`: ukp, mtbench, tulu or hh."""
    return {"ukp": _ukp, "mtbench": _mtbench, "tulu": _tulu, "hh": _hh}[name]()


def ukp() -> pl.DataFrame:
    """The UKP files as they are, with `batch` and `line` (row of the file, from 1)."""
    return pl.concat(
        pl.read_parquet(path).with_row_index("line", offset=1).with_columns(batch=pl.lit(path.name))
        for path in sorted((DATA / "ukpconvarg1").glob("*.parquet"))
    )


def mtbench(kind: str) -> list[dict[str, Any]]:
    """The votes of `kind` (human, gpt4_pair) as they are."""
    lines = (DATA / f"mtbench/{kind}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def tulu() -> dict[int, dict[str, str]]:
    """The rows of the spreadsheet by number, each by the header's names, from the sheet's XML; blank rows are empty."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(DATA / "tulu1_human_eval/eval_annotations_tulu_1.xlsx") as book:
        strings = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        shared = ["".join(text.text or "" for text in entry.iter(f"{space}t")) for entry in strings]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    found: dict[int, dict[str, str]] = {}
    for row in sheet.iter(f"{space}row"):
        cells = found[int(row.attrib["r"])] = {}
        for cell in row:
            value = cell.findtext(f"{space}v")
            if value is not None:
                column = re.sub(r"\d", "", cell.attrib["r"])
                cells[column] = shared[int(value)] if cell.get("t") == "s" else value
    header = found.pop(1)
    return {number: {header[column]: value for column, value in cells.items()} for number, cells in found.items()}


def excel_date(serial: str) -> datetime:
    """The date of a serial number of the 1900 date system, to the millisecond."""
    return datetime(1899, 12, 30) + timedelta(milliseconds=round(float(serial) * 86_400_000))


def hh() -> list[dict[str, str]]:
    """The pairs of conversations as they are."""
    with gzip.open(DATA / "hh_rlhf/harmless-base-test.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def last_reply(conversation: str) -> tuple[str, str]:
    """A conversation as what came before the last reply, and that reply."""
    before, _, reply = conversation.rpartition("\n\nAssistant:")
    return before, reply.removeprefix(" ")


def turns(conversation: str) -> tuple[str, ...]:
    """The texts of a conversation's turns."""
    return tuple(text.removeprefix(" ") for text in re.split(r"\n\n(?:Human|Assistant):", conversation)[1:])


def agreement(votes: Iterable[tuple[Any, str, str]], others: Iterable[tuple[Any, str, str]], ties: bool) -> float:
    """Share of pairs of votes (item, judge, answer) by two judges on an item that agree; `ties` says if ties count."""
    by_item = defaultdict(list)
    for item, judge, answer in others:
        by_item[item].append((judge, answer))
    agreed: Counter[bool] = Counter()
    for item, judge, answer in votes:
        for judge_two, answer_two in by_item[item]:
            if judge != judge_two and (ties or "tie" not in (answer, answer_two)):
                agreed[answer == answer_two] += 1
    return agreed[True] / agreed.total()


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """The runs of `size` characters of a text; a shorter text is one whole."""
    return frozenset(text[at : at + size] for at in range(max(len(text) - size, 0) + 1))


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    """Shared shingles over all shingles."""
    return len(one & two) / len(one | two)


def near_items(items: Mapping[str, Item], threshold: float) -> set[tuple[str, str]]:
    """All pairs of items whose prompts, and each response with its counterpart (straight or crossed), are similar."""
    prompts = _alike({item.prompt for item in items.values()}, threshold)
    several = Counter(near for item in items.values() for near in prompts[item.prompt])
    items = {name: item for name, item in items.items() if several[item.prompt] > 1}
    responses = _alike({text for item in items.values() for text in (item.a, item.b)}, threshold)
    by_first = defaultdict(list)
    for name, item in items.items():
        by_first[item.a].append((name, item.b))
        if item.a != item.b:
            by_first[item.b].append((name, item.a))
    return {
        (min(name, other), max(name, other))
        for name, item in items.items()
        for first in responses[item.a]
        for other, second in by_first[first]
        if name != other and second in responses[item.b] and items[other].prompt in prompts[item.prompt]
    }


def _alike(texts: set[str], threshold: float) -> dict[str, set[str]]:
    """For each text those that are similar, itself included.

    Exhaustive by prefix filtering (Chaudhuri, Ganti, Kaushik, ICDE 2006): two sets that similar share a shingle among
    the first |s| − ⌈θ·|s|⌉ + 1 of each, in any order common to all; the rarest first gives the fewest candidates.
    """
    sets = {text: shingles(text) for text in texts}
    often = Counter(shingle for text in sets.values() for shingle in text)
    alike = {text: {text} for text in texts}
    index: dict[str, list[str]] = defaultdict(list)
    for text, mine in sorted(sets.items()):
        ordered = sorted(mine, key=lambda shingle: (often[shingle], shingle))
        prefix = ordered[: len(ordered) - int(threshold * len(ordered) - 1e-9)]
        candidates = {other for shingle in prefix for other in index[shingle]}
        for other in candidates:
            theirs = sets[other]
            small, large = sorted((len(mine), len(theirs)))
            if small >= threshold * large and jaccard(mine, theirs) >= threshold:
                alike[text].add(other)
                alike[other].add(text)
        for shingle in prefix:
            index[shingle].append(text)
    return alike


def _judgment(
    where: tuple[str, str, int], who: str | None, prompt: tuple[str, ...], one: str, two: str, won: str
) -> Judgment:
    responses = (min(one, two), max(one, two))
    return Judgment(*where, who, prompt, responses, {"one": one, "two": two, "tie": None}[won])


def _ukp() -> Iterator[Judgment]:
    won = {"a1": "one", "a2": "two", "equal": "tie"}
    for row in ukp().iter_rows(named=True):
        where = ("ukp", row["batch"], row["line"])
        prompt = (f'{row["title"]} Which argument for "{row["stance"]}" is more convincing?',)
        yield _judgment(where, row["worker"], prompt, row["arg1_text"], row["arg2_text"], won[row["value"]])


def _mtbench() -> Iterator[Judgment]:
    won = {"model_a": "one", "model_b": "two", "tie": "tie", "tie (inconsistent)": "tie"}
    for source, kind in (("mtbench_human", "human"), ("mtbench_gpt4", "gpt4_pair")):
        for line, row in enumerate(mtbench(kind), 1):
            where, prompt = (source, f"{kind}.jsonl", line), tuple(row["conversation"])
            yield _judgment(where, row["judge"], prompt, row["answer_a"], row["answer_b"], won[row["winner"]])


def _tulu() -> Iterator[Judgment]:
    won = {"a": "one", "b": "two", "t": "tie"}
    for number, row in tulu().items():
        if row:
            where, texts = ("tulu", "eval_annotations_tulu_1.xlsx", number), (row["completion_a"], row["completion_b"])
            yield _judgment(where, row["evaluator"], (row["prompt"],), *texts, won[row["preference"][0]])


def _hh() -> Iterator[Judgment]:
    for line, row in enumerate(hh(), 1):
        (before, chosen), (_, rejected) = last_reply(row["chosen"]), last_reply(row["rejected"])
        where = ("hh", "harmless-base-test.jsonl.gz", line)
        yield _judgment(where, None, turns(before), chosen, rejected, "one")
