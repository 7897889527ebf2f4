"""A synthetic sample of feedback, with the trouble that real feedback has planted in known numbers.

It is the same, byte for byte, on every machine: all chance comes from the raw output of PCG64, which NumPy keeps
stable, and no library function with rounding of its own stands between that and the files.
"""

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np

from feedback_assets.sample.phrases import LANGUAGES, SHORT, Language, Subject

RECORDS = 20_000
SHARES = {"arena": 0.60, "panel": 0.25, "app": 0.15}
"""Sources (preferences, ratings, thumbs) and their share of the lines."""

_PLANTED: dict[str, dict[str, int]] = {
    "arena": {
        "redelivered": 80,
        "revised": 20,
        "resubmission": 100,
        "anchor_repeat": 100,
        "near_duplicate_same_annotator": 70,
        "near_duplicate_other_annotator": 50,
        "model_judge": 240,
        "too_short": 80,
        "same_responses": 30,
        "too_fast": 300,
        "declared_conflict": 60,
        "before_guideline": 15,
        "late": 60,
        "malformed": 3,
        "label_outside_vocabulary": 4,
        "bad_date": 3,
        "missing_text": 2,
        "conflicting_pair": 2,
        "in_the_future": 2,
    },
    "panel": {
        "redelivered": 30,
        "resubmission": 35,
        "near_duplicate_same_annotator": 20,
        "near_duplicate_other_annotator": 20,
        "too_short": 20,
        "declared_conflict": 20,
        "before_guideline": 5,
        "late": 30,
        "score_outside_scale": 3,
        "bad_date": 2,
        "in_the_future": 1,
    },
    "app": {
        "redelivered": 10,
        "resubmission": 15,
        "near_duplicate_same_annotator": 10,
        "near_duplicate_other_annotator": 10,
        "too_short": 20,
        "late": 10,
        "malformed": 2,
        "label_outside_vocabulary": 2,
        "missing_text": 2,
    },
}
_EXTRA_LINES = {
    "redelivered",
    "revised",
    "resubmission",
    "anchor_repeat",
    "near_duplicate_same_annotator",
    "near_duplicate_other_annotator",
    "model_judge",
    "conflicting_pair",
}


def planted(records: int = RECORDS) -> dict[str, dict[str, int]]:
    """How often each thing is planted in a sample of `records` lines, by source. No record is planted twice.

    - redelivered: the same line again in a later batch (fate: redelivered)
    - revised: the same id in a later batch with another answer (its first delivery: superseded)
    - resubmission: the same annotator judges the same item again (one of two: merged)
    - anchor_repeat: the same, on an item marked for calibration (kept)
    - near_duplicate_same_annotator: an edited copy of an item, judged by the same annotator (one of two: merged)
    - near_duplicate_other_annotator: an edited copy, judged by another (kept, a common cluster)
    - model_judge, too_short, same_responses, too_fast: dropped by the rule of the same meaning
    - declared_conflict: declares the guideline version that was not in force (status: conflict)
    - before_guideline: judged before any guideline was in force (status: unmatched)
    - late: delivered with the batch of the week after
    - malformed, label_outside_vocabulary, score_outside_scale, bad_date, missing_text, in_the_future: quarantined
    - conflicting_pair: two lines of one batch with one id and two answers (both: quarantined)
    """
    return {
        source: {name: max(1, round(number * records / RECORDS)) for name, number in numbers.items()}
        for source, numbers in _PLANTED.items()
    }


PLANTED: dict[str, int] = {
    name: sum(numbers.get(name, 0) for numbers in _PLANTED.values())
    for name in dict.fromkeys(name for numbers in _PLANTED.values() for name in numbers)
}
"""How often each thing is planted in the default sample; see `planted` for what it is and what becomes of it."""

START = datetime(2026, 7, 27, tzinfo=UTC)
WEEKS = ("2026-W31", "2026-W32", "2026-W33", "2026-W34")
CLARIFIED = datetime(2026, 8, 12, tzinfo=UTC)
"""From here on guideline 1.1.0 is in force, before it 1.0.0; on START's day none."""

_DAY, _WEEK = 86_400, 604_800
_CATEGORIES = {"chat": 0.27, "writing": 0.25, "reasoning": 0.18, "coding": 0.14, "summary": 0.09, "safety": 0.07}
_WRITERS = {"maple-2": 0.38, "cedar-3": 0.32, "birch-1": 0.22, "human": 0.08}
_QUALITY = {"maple-2": 0.68, "cedar-3": 0.60, "birch-1": 0.45, "human": 0.62}
_ANNOTATORS, _CARELESS, _JUDGE = 47, 16, 47
_REPLICATES = (1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4)


@dataclass(slots=True)
class _Item:
    category: str
    language: str
    prompt: str
    responses: tuple[str, ...]
    writers: tuple[str, ...]
    quality: tuple[float, ...]
    annotators: list[int]
    replicates: int
    gold: str | None = None
    anchor: bool = False
    shown_on: bool = False  # to somebody beyond its replicates


@dataclass(slots=True)
class _Judgment:
    item: _Item
    annotator: int
    at: int  # seconds since START
    seconds: int
    swapped: bool
    answer: str
    certainty: int | None
    declares: bool
    wrong_version: bool = False
    late: bool = False
    fault: str = ""
    id: str = ""

    @property
    def week(self) -> int:
        return min(self.at // _WEEK + self.late, len(WEEKS) - 1)

    @property
    def guideline(self) -> str | None:
        started = START + timedelta(seconds=self.at - self.seconds)
        return ("1.0.0", "1.1.0")[(started >= CLARIFIED) != self.wrong_version] if self.declares else None


class _Chance:
    """Draws from raw 64-bit words."""

    def __init__(self, seed: int):
        self.words = np.random.PCG64(seed)
        self._stream = self._one_by_one()

    def _one_by_one(self) -> Iterator[int]:
        while True:
            yield from self.words.random_raw(1 << 16).tolist()

    def word(self) -> int:
        return next(self._stream)

    def share(self) -> float:
        """Uniform in [0, 1)."""
        return (next(self._stream) >> 11) * 2.0**-53

    def noise(self) -> float:
        """Bell-shaped around 0, standard deviation .41."""
        word = next(self._stream)
        four = (word & 0xFFFF) + (word >> 16 & 0xFFFF) + (word >> 32 & 0xFFFF) + (word >> 48)
        return four * 2.0**-16 * 0.7071 - 1.4142

    def order(self, number: int) -> list[int]:
        return np.argsort(self.words.random_raw(number), kind="stable").tolist()

    def pick(self, shares: dict[str, float]) -> str:
        at = self.share()
        for name, share in shares.items():
            at -= share
            if at < 0:
                return name
        return next(iter(shares))  # rounding left a crumb


class _Author:
    """Writes prompts, each once, and responses."""

    def __init__(self, chance: _Chance):
        self._chance = chance
        self._combinations: dict[tuple[str, str], Iterator[tuple[int, int, int]]] = {}

    def prompt(self, language: str, category: str) -> tuple[str, dict[str, str]]:
        words = LANGUAGES[language]
        topics = words.subjects[category].topics
        key = (language, category)
        if key not in self._combinations:
            self._combinations[key] = self._shuffled(len(topics), len(words.settings), len(words.limits))
        topic, setting, limit = next(self._combinations[key])
        subject = {"topic": topics[topic], "setting": words.settings[setting], "limit": words.limits[limit]}
        pattern = words.prompts[self._chance.word() % len(words.prompts)]
        limit_up = subject["limit"][0].upper() + subject["limit"][1:]
        text = pattern.format(**subject, limit_up=limit_up)
        return text[0].upper() + text[1:], subject

    def _shuffled(self, topics: int, settings: int, limits: int) -> Iterator[tuple[int, int, int]]:
        order = self._chance.order(topics * settings * limits)
        for number in count():
            at = order[number % len(order)]
            yield at % topics, at // topics % settings, at // topics // settings

    def response(self, language: str, category: str, subject: dict[str, str], quality: float) -> str:
        words = LANGUAGES[language]
        chance = self._chance
        wanted = 90 + 380 * (chance.share() + chance.share()) * (0.8 + 0.3 * quality)
        first = chance.word()
        # No pool has a length that shares a factor with a step, so no pattern comes twice.
        step = (5, 11, 17, 19)[first & 3]
        slots = _Slots(words, words.subjects[category], subject)
        sentences: list[str] = []
        length = 0
        for number in range(12):
            pool = words.helpful if chance.share() < 0.15 + 0.8 * quality else words.filler
            pattern = pool[((first >> 8) + number * step) % len(pool)]
            slots.word = chance.word()
            sentence = pattern.format_map(slots)
            if length >= 80 and (length >= wanted or length + len(sentence) > 880):
                break
            sentences.append(sentence[0].upper() + sentence[1:])
            length += len(sentence) + 1
        return " ".join(sentences)


class _Slots:
    """Fills the slots of one sentence; what is not used costs nothing."""

    def __init__(self, words: Language, about: Subject, subject: dict[str, str]):
        self._subject = subject
        self._pools = {"thing": (0, about.things), "action": (8, about.actions)}
        self._pools |= {slot: (24 + 8 * place, values) for place, (slot, values) in enumerate(words.slots.items())}
        self.word = 0

    def __getitem__(self, slot: str) -> str:
        if slot in self._subject:
            return self._subject[slot]
        shift, values = self._pools[slot.rstrip("2")]
        number = self.word >> shift & 0xFF
        if slot.endswith("2"):  # another than the first
            number += 1 + (self.word >> (16 + shift // 4) & 3)
        return values[number % len(values)]


class _Panel:
    """The annotators: how skilled each is, and how position, length and mood sway them."""

    def __init__(self, chance: _Chance):
        self._chance = chance
        self._skill = [0.6 + 0.8 * chance.share() for _ in range(_ANNOTATORS)] + [1.3]
        self._first = [0.2 * chance.share() - 0.03 for _ in range(_ANNOTATORS)] + [0.15]
        self._longer = [0.35 * chance.share() for _ in range(_ANNOTATORS)] + [0.5]
        self._severity = [0.8 * (chance.share() - 0.5) for _ in range(_ANNOTATORS)] + [0.0]
        self._busy = np.array([0.4 + 1.6 * chance.share() for _ in range(_ANNOTATORS)])
        self._busy[_CARELESS] = 3.0

    def order(self, items: int) -> list[list[int]]:
        """For each item all annotators, the busy ones rather in front."""
        words = self._chance.words.random_raw(items * _ANNOTATORS).reshape(items, _ANNOTATORS)
        keys = (words >> np.uint64(11)) * 2.0**-53 / self._busy
        return np.argsort(keys, axis=1, kind="stable")[:, :6].tolist()

    def judge(self, source: str, item: _Item, annotator: int, at: int) -> _Judgment:
        chance = self._chance
        swapped = source == "arena" and bool(chance.word() & 1)
        answer, certainty = _ANSWERS[source](self, item, annotator, swapped)
        characters = sum(len(response) for response in item.responses)
        seconds = 10 + int(characters * (0.03 + 0.12 * chance.share()))
        declares = source != "app" and chance.share() < 0.7
        return _Judgment(item, annotator, at, seconds, swapped, answer, certainty, declares)

    def prefer(self, item: _Item, annotator: int, swapped: bool) -> tuple[str, int | None]:
        chance = self._chance
        sign = -1 if swapped else 1
        if annotator == _CARELESS:
            return ("left", "left", "right", "tie")[chance.word() & 3], 5
        better = 2.2 * self._skill[annotator] * (item.quality[0] - item.quality[1])
        longer = self._longer[annotator] * (len(item.responses[0]) - len(item.responses[1])) / 400
        pull = sign * (better + longer) + self._first[annotator] + 0.6 * chance.noise()
        certainty = 1 + round(4 * min(1.0, abs(pull) / 1.1)) if chance.share() < 0.85 else None
        return "tie" if abs(pull) < 0.12 else "left" if pull > 0 else "right", certainty

    def rate(self, item: _Item, annotator: int, swapped: bool) -> tuple[str, int | None]:
        del swapped
        if annotator == _CARELESS:
            return str(3 + self._chance.word() % 2), None
        stars = 1.4 + 3.4 * item.quality[0] + self._severity[annotator] + 1.2 * self._chance.noise()
        return str(min(5, max(1, round(stars)))), None

    def vote(self, item: _Item, annotator: int, swapped: bool) -> tuple[str, int | None]:
        del swapped
        noise = self._chance.noise()
        return "up" if annotator == _CARELESS or item.quality[0] + 0.5 * noise > 0.48 else "down", None


_ANSWERS: dict[str, Callable[[_Panel, _Item, int, bool], tuple[str, int | None]]] = {
    "arena": _Panel.prefer,
    "panel": _Panel.rate,
    "app": _Panel.vote,
}
_OTHER = {"left": "right", "right": "left", "tie": "left"}


class _Sample:
    """One sample in the making."""

    def __init__(self, records: int, seed: int):
        self.chance = _Chance(seed)
        self.author = _Author(self.chance)
        self.panel = _Panel(self.chance)
        self.numbers = planted(records)
        self.lines = {source: round(records * SHARES[source]) for source in ("arena", "panel")}
        self.lines["app"] = records - sum(self.lines.values())
        self.shown: list[_Item] = []

    def batches(self, source: str) -> list[list[str]]:
        """The lines of each week's batch."""
        numbers = self.numbers[source]
        extra = sum(number for name, number in numbers.items() if name in _EXTRA_LINES)
        judgments = self._base(source, self.lines[source] - extra)
        anchored = self._anchors(judgments, numbers.get("anchor_repeat", 0))
        fresh = [judgments[at] for at in self.chance.order(len(judgments)) if not judgments[at].item.anchor]
        take = _Take(fresh)
        self._spoil(take, numbers)
        self._mark(take, numbers)
        judgments += anchored + self._repeats(source, take, numbers)
        judgments.sort(key=lambda judgment: judgment.at)
        for number, judgment in enumerate(judgments):
            judgment.id = f"{source[0:2]}-{number:06d}"
        weeks: list[list[str]] = [[] for _ in WEEKS]
        for judgment in judgments:
            weeks[judgment.week].append(_LINES[source](judgment))
        self._deliver_again(source, take, numbers, weeks)
        return weeks

    def _base(self, source: str, number: int) -> list[_Judgment]:
        orders = self.panel.order(number)
        judgments: list[_Judgment] = []
        while len(judgments) < number:
            item = self._item(source, orders[len(judgments)])
            item.replicates = min(item.replicates, number - len(judgments))
            week = self.chance.word() % len(WEEKS)
            judgments.extend(
                self.panel.judge(source, item, annotator, self._time(week))
                for annotator in item.annotators[: item.replicates]
            )
        return judgments

    def _time(self, week: int) -> int:
        first = 1 if week == 0 else 0
        day = first + self.chance.word() % (7 - first)
        return week * _WEEK + day * _DAY + 21_600 + int(28_000 * (self.chance.share() + self.chance.share()))

    def _item(self, source: str, annotators: list[int]) -> _Item:
        chance = self.chance
        replicates = _REPLICATES[chance.word() % len(_REPLICATES)] if source != "app" else 1
        if source == "panel" and self.shown and chance.share() < 0.3:
            seen = self.shown.pop(chance.word() % len(self.shown))  # twice would be one item
            return replace(
                seen,
                responses=seen.responses[:1],
                writers=seen.writers[:1],
                quality=seen.quality[:1],
                annotators=annotators,
                replicates=replicates,
                gold=None,
            )
        category = chance.pick(_CATEGORIES)
        tongue = chance.share()
        foreign = category in LANGUAGES["de"].subjects and tongue < 0.2
        language = ("de" if tongue < 0.12 else "es") if foreign else "en"
        prompt, subject = self.author.prompt(language, category)
        writers, quality, responses = [], [], []
        for _ in range(2 if source == "arena" else 1):
            writer = chance.pick(_WRITERS)
            good = min(1.0, max(0.0, _QUALITY[writer] + 0.45 * chance.noise()))
            writers.append(writer)
            quality.append(good)
            responses.append(self.author.response(language, category, subject, good))
        item = _Item(
            category, language, prompt, tuple(responses), tuple(writers), tuple(quality), annotators, replicates
        )
        if source == "arena":
            gap = quality[0] - quality[1]
            if abs(gap) > 0.25 and chance.share() < 0.15:
                item.gold = "left" if gap > 0 else "right"
            self.shown.append(replace(item))
        return item

    def _anchors(self, judgments: list[_Judgment], number: int) -> list[_Judgment]:
        """Mark items for calibration, and let those who judged them judge them again."""
        chosen: list[_Judgment] = []
        for judgment in judgments:
            if len(chosen) >= number and not judgment.item.anchor:
                break
            if judgment.item.replicates == 3:
                judgment.item.anchor = True
                chosen.append(judgment)
        return [
            self.panel.judge("arena", first.item, first.annotator, self._later(first.at)) for first in chosen[:number]
        ]

    def _later(self, at: int) -> int:
        hours = 3_600 + self.chance.word() % 150_000
        return at + hours if at + hours < len(WEEKS) * _WEEK - 600 else at - hours

    def _spoil(self, take: "_Take", numbers: dict[str, int]) -> None:
        """What makes a record unusable: at intake, or by a rule."""
        for fault in _FAULTS:
            for judgment in take(numbers.get(fault, 0)):
                judgment.fault = fault
        for judgment in take(numbers.get("too_short", 0), lambda it: it.item.replicates == 1):
            short = SHORT[self.chance.word() % len(SHORT)]
            judgment.item.responses = (short, *judgment.item.responses[1:])
        for judgment in take(numbers.get("same_responses", 0), lambda it: it.item.replicates == 1):
            judgment.item.responses = (judgment.item.responses[0],) * 2
        for judgment in take(numbers.get("too_fast", 0), lambda it: it.annotator == _CARELESS):
            judgment.seconds = 1 + self.chance.word() % 3

    def _mark(self, take: "_Take", numbers: dict[str, int]) -> None:
        """What is odd about the time or the guideline."""
        for judgment in take(numbers.get("declared_conflict", 0)):
            judgment.declares = judgment.wrong_version = True
        for judgment in take(numbers.get("before_guideline", 0), lambda it: it.at < 2 * _DAY):
            judgment.at -= _DAY
            judgment.declares = False
        for judgment in take(numbers.get("late", 0), lambda it: it.at < (len(WEEKS) - 1) * _WEEK):
            judgment.late = True

    def _repeats(self, source: str, take: "_Take", numbers: dict[str, int]) -> list[_Judgment]:
        """Further judgments of items that were judged already, or of edited copies of them."""
        again: list[_Judgment] = []

        def judge(first: _Judgment, item: _Item, annotator: int) -> None:
            again.append(self.panel.judge(source, item, annotator, self._later(first.at)))

        for first in take(numbers.get("resubmission", 0)):
            judge(first, first.item, first.annotator)
        for first in take(numbers.get("near_duplicate_same_annotator", 0)):
            judge(first, self._edited(first.item), first.annotator)
        for first in take(numbers.get("near_duplicate_other_annotator", 0), _show_on):
            judge(first, self._edited(first.item), first.item.annotators[first.item.replicates])
        for first in take(numbers.get("model_judge", 0), _show_on):
            judge(first, first.item, _JUDGE)
        return again

    def _edited(self, item: _Item) -> _Item:
        return replace(
            item, prompt=self._edit(item.prompt), responses=tuple(self._edit(response) for response in item.responses)
        )

    def _edit(self, text: str) -> str:
        """A slip of the keyboard in every 250 characters: few enough for a Jaccard of at least .8 over 5-grams."""
        if len(text) < 80:
            return text + " "
        for _ in range(1 + len(text) // 250):
            at = 5 + self.chance.word() % (len(text) - 40)
            if self.chance.word() & 1:
                at = text.find(" ", at)
                text = text[:at] + " " + text[at:] if at >= 0 else text + "\n"
                continue
            while text[at] == text[at + 1]:
                at += 1
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return text

    def _deliver_again(self, source: str, take: "_Take", numbers: dict[str, int], weeks: list[list[str]]) -> None:
        line = _LINES[source]
        last = len(WEEKS) - 1

        def early(judgment: _Judgment) -> bool:
            return judgment.week < last

        for judgment in take(numbers.get("redelivered", 0), early):
            weeks[judgment.week + 1 + self.chance.word() % (last - judgment.week)].append(line(judgment))
        for judgment in take(numbers.get("revised", 0), early):
            weeks[judgment.week + 1].append(line(replace(judgment, answer=_OTHER[judgment.answer])))
        for judgment in take(numbers.get("conflicting_pair", 0)):
            weeks[judgment.week].append(line(replace(judgment, answer=_OTHER[judgment.answer])))


class _Take:
    """Hands out judgments of which nothing is planted yet, each once."""

    def __init__(self, judgments: list[_Judgment]):
        self._left = judgments

    def __call__(self, number: int, fits: Callable[[_Judgment], bool] = lambda _: True) -> list[_Judgment]:
        taken: list[_Judgment] = []
        passed: list[_Judgment] = []
        while len(taken) < number:
            if not self._left:
                raise ValueError("the sample is too small for what is planted in it; ask for at least 1,000 records")
            judgment = self._left.pop()
            (taken if fits(judgment) else passed).append(judgment)
        self._left.extend(reversed(passed))
        return taken


def _show_on(judgment: _Judgment) -> bool:
    """Whether the item can be shown to one more; a second time it would be judged twice by the same."""
    first = not judgment.item.shown_on
    judgment.item.shown_on = True
    return first


_FAULTS = (
    "malformed",
    "label_outside_vocabulary",
    "score_outside_scale",
    "bad_date",
    "missing_text",
    "in_the_future",
)


def _moment(judgment: _Judgment) -> datetime:
    if judgment.fault == "in_the_future":
        return START + timedelta(days=365, seconds=judgment.at)
    return START + timedelta(seconds=judgment.at)


def _who(annotator: int) -> str:
    return "judge-01" if annotator == _JUDGE else f"ann-{annotator + 1:02d}"


_json = json.JSONEncoder(ensure_ascii=False).encode


def _finished(judgment: _Judgment, line: str) -> str:
    return (line[: len(line) * 3 // 5] if judgment.fault == "malformed" else line) + "\n"


def _arena_line(judgment: _Judgment) -> str:
    item = judgment.item
    left, right = (1, 0) if judgment.swapped else (0, 1)
    answered = _moment(judgment)
    opened = answered - timedelta(seconds=judgment.seconds)
    gold = _OTHER[item.gold] if item.gold and judgment.swapped else item.gold
    value = {
        "id": judgment.id,
        "synthetic": True,
        "category": item.category,
        "language": item.language,
        "prompt": item.prompt,
        "left": item.responses[left],
        "right": None if judgment.fault == "missing_text" else item.responses[right],
        "left_by": item.writers[left],
        "right_by": item.writers[right],
        "choice": "both" if judgment.fault == "label_outside_vocabulary" else judgment.answer,
        "certainty": judgment.certainty,
        "rater": _who(judgment.annotator),
        "rater_kind": "model" if judgment.annotator == _JUDGE else "human",
        "opened_at": f"{opened:%Y-%m-%dT%H:%M:%SZ}",
        "answered_at": "2026-13-08T25:61:00Z" if judgment.fault == "bad_date" else f"{answered:%Y-%m-%dT%H:%M:%SZ}",
        "guideline": judgment.guideline,
        "expert_choice": gold,
        "calibration": item.anchor,
    }
    return _finished(judgment, _json(value))


def _panel_line(judgment: _Judgment) -> str:
    item = judgment.item
    local = _moment(judgment) + timedelta(hours=2)  # Berlin in summer
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        [
            judgment.id,
            "true",
            item.category,
            item.language,
            item.prompt,
            item.responses[0],
            item.writers[0],
            "9" if judgment.fault == "score_outside_scale" else judgment.answer,
            _who(judgment.annotator),
            "31.02.2026 10:00:00" if judgment.fault == "bad_date" else f"{local:%d.%m.%Y %H:%M:%S}",
            judgment.guideline or "",
        ]
    )
    return buffer.getvalue()


_PANEL_HEADER = "id,synthetic,category,language,prompt,answer,answer_by,stars,rater,rated_at,guideline\n"


def _app_line(judgment: _Judgment) -> str:
    item = judgment.item
    value = {
        "id": judgment.id,
        "synthetic": True,
        "category": item.category,
        "language": item.language,
        "prompt": item.prompt,
        "answer": None if judgment.fault == "missing_text" else item.responses[0],
        "answer_by": item.writers[0],
        "vote": "sideways" if judgment.fault == "label_outside_vocabulary" else judgment.answer,
        "member": _who(judgment.annotator),
        "ts": int(_moment(judgment).timestamp()) * 1000,
    }
    return _finished(judgment, _json(value))


_LINES: dict[str, Callable[[_Judgment], str]] = {"arena": _arena_line, "panel": _panel_line, "app": _app_line}


def generate(folder: Path, *, records: int = RECORDS, seed: int = 7) -> list[Path]:
    """Write the batches of a synthetic sample to `folder`/batches and return their paths, sorted.

    Weekly files of three sources: preferences-*.jsonl, ratings-*.csv and thumbs-*.jsonl.gz, `records` lines in all
    (headers not counted). Every line says `synthetic`. What is planted in them is said by `planted(records)`.
    A file that is already there as it should be is not written again; another of its name is replaced.

    Raises:
        ValueError: `records` is too small for what is planted.
    """
    if records < 1_000:
        raise ValueError(f"{records} records are too few for what is planted in the sample; ask for at least 1,000")
    sample = _Sample(records, seed)
    target = folder / "batches"
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for source, name, header in (
        ("arena", "preferences-{}.jsonl", ""),
        ("panel", "ratings-{}.csv", _PANEL_HEADER),
        ("app", "thumbs-{}.jsonl.gz", ""),
    ):
        for week, lines in zip(WEEKS, sample.batches(source), strict=True):
            path = target / name.format(week)
            data = (header + "".join(lines)).encode()
            _write(path, _gzip(data) if path.suffix == ".gz" else data)
            written.append(path)
    return sorted(written)


def write_sample(folder: Path, *, records: int = RECORDS) -> Path:
    """Make a project of the sample in `folder`: policy, guidelines and batches. Return the path of the policy.

    A policy or guideline that is already there stays as it is.
    """
    package = Path(__file__).parent
    for source in (package / "policy.yaml", *sorted((package / "guidelines").glob("*.md"))):
        target = folder / source.relative_to(package)
        if not target.exists():
            _write(target, source.read_bytes())
    generate(folder, records=records)
    return folder / "policy.yaml"


def _write(path: Path, data: bytes) -> None:
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _gzip(data: bytes) -> bytes:
    """A gzip file of stored blocks: what a compressor makes differs between versions of zlib, this does not."""
    blocks = [data[at : at + 65_535] for at in range(0, len(data), 65_535)] or [b""]
    pieces = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for number, block in enumerate(blocks):
        size = len(block)
        pieces += [
            bytes([number == len(blocks) - 1]),
            size.to_bytes(2, "little"),
            (size ^ 0xFFFF).to_bytes(2, "little"),
        ]
        pieces.append(block)
    pieces += [zlib.crc32(data).to_bytes(4, "little"), (len(data) & 0xFFFFFFFF).to_bytes(4, "little")]
    return b"".join(pieces)
