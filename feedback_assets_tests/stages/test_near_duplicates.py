"""Near-duplicates: what the signatures propose and what exact comparison lets through."""

from random import Random

import numpy as np
import polars as pl
import pytest

from feedback_assets.engine.engine import ContentPart
from feedback_assets.record import CONTENT_SCHEMA
from feedback_assets.stages import near_duplicates as module
from feedback_assets.stages.near_duplicates import candidates, near_duplicates, signatures
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory

PARAMETERS = {"shingle": 5, "bands": 25, "rows": 5}
Item = tuple[str, str, str | None]


def content(items: list[Item]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt": [[{"role": "user", "text": prompt}] for prompt, _, _ in items],
            "response_a": [a for _, a, _ in items],
            "response_b": [b for _, _, b in items],
            "extra": [None] * len(items),
        },
        schema=CONTENT_SCHEMA,
    )


def part(name: str, items: list[Item]) -> ContentPart:
    return ContentPart(name, len(items), content(items).lazy)


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def jaccard(one: str, two: str) -> float:
    left, right = shingles(one), shingles(two)
    return len(left & right) / len(left | right)


def alike(one: Item, two: Item, threshold: float = 0.8) -> tuple[bool, bool]:
    """Near-duplicate by brute force, and whether crossed."""
    if (one[2] is None) != (two[2] is None) or jaccard(f"user: {one[0]}", f"user: {two[0]}") < threshold:
        return False, False
    if one[2] is None or two[2] is None:
        return jaccard(one[1], two[1]) >= threshold, False
    straight = min(jaccard(one[1], two[1]), jaccard(one[2], two[2]))
    crossed = min(jaccard(one[1], two[2]), jaccard(one[2], two[1]))
    best = max(straight if straight >= threshold else 0, crossed if crossed >= threshold else 0)
    return best > 0, best > 0 and crossed > (straight if straight >= threshold else 0)


def edited(random: Random, text: str, edits: int) -> str:
    characters = list(text)
    for _ in range(edits):
        characters[random.randrange(len(characters))] = random.choice("abcdefghij é")
    return "".join(characters)


def generated(random: Random, count: int, low: int, high: int) -> list[Item]:
    def text() -> str:
        return "".join(random.choice("abcdefghijklmnop é") for _ in range(random.randrange(low, high)))

    items: list[Item] = []
    for _ in range(count):
        if items and random.random() < 0.5:
            prompt, a, b = random.choice(items)
            prompt, a = edited(random, prompt, random.randrange(2)), edited(random, a, random.randrange(3))
            b = b and edited(random, b, random.randrange(3))
            items.append((prompt, b, a) if b and random.random() < 0.5 else (prompt, a, b))
        else:
            items.append((text(), text(), None if random.random() < 0.3 else text()))
    return items


def found_and_true(items: list[Item]) -> tuple[dict, dict]:
    found = near_duplicates([part("p", items)], EngineInMemory(), threshold=0.8)
    text = found.texts.get_column("text").to_list()
    by_text = dict(zip(text, items, strict=True))
    distinct = sorted(by_text)
    true = {}
    for i, one in enumerate(distinct):
        for two in distinct[i + 1 :]:
            is_alike, crossed = alike(by_text[one], by_text[two])
            if is_alike:
                true[one, two] = crossed
    return {(one, two): crossed for one, two, crossed in found.pairs.iter_rows()}, true


@pytest.mark.parametrize(("low", "high"), [(24, 100), (100, 400)])
def test_pairs_found_are_those_of_comparing_all_with_all(low: int, high: int) -> None:
    found, true = found_and_true(generated(Random(low), 400, low, high))
    assert len(true) > 50
    assert found.items() <= true.items()
    assert len(found) >= 0.99 * len(true)


def test_recall_of_candidates_holds_for_texts_of_few_shingles() -> None:
    random = Random(7)
    hits = total = 0
    items: list[Item] = []
    while total < 300:
        length = random.randrange(24, 104)
        text = "".join(random.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(length))
        near = edited(random, text, 1)
        if near != text and 0.8 <= jaccard(text, near) <= 0.9:
            items += [(f"prompt {total}", text, None), (f"prompt {total}", near, None)]
            total += 1
    signed = signatures(content(items).lazy(), PARAMETERS)
    text = signed.get_column("text").to_list()
    pairs = set(candidates([], [signed], {**PARAMETERS, "bucket": 32})[0].select("one", "two").iter_rows())
    hits = sum((min(p), max(p)) in pairs for p in zip(text[::2], text[1::2], strict=True))
    assert hits >= 0.97 * total


def test_keys_are_the_same_on_every_machine_and_in_every_version() -> None:
    items: list[Item] = [("Why is the sky blue?", "Rayleigh scattering, naïvely.", "Because."), ("", "", None)]
    signed = signatures(content(items).lazy(), PARAMETERS)
    assert signed.get_column("text").to_list() == GOLDEN_TEXTS
    assert list(map(list, signed.select("band_0", "band_1").iter_rows())) == GOLDEN_KEYS


GOLDEN_TEXTS = [16350699478035960113, 2204002684392626769]
GOLDEN_KEYS = [[3740972431491456514, 17367617618964406067], [16277195896759948906, 17891413958576938317]]


def test_a_text_is_hashed_alike_beside_letters_outside_ascii() -> None:
    texts = pl.Series(["hello world", "é hello world", "abc", "", None, "日本語のテキスト"])
    hashes, starts = module._windows(*module._buffers(texts), 5)
    sets = [set(hashes[starts[i] : starts[i + 1]].tolist()) for i in range(len(texts))]
    assert [len(s) for s in sets] == [7, 9, 1, 1, 0, 4]
    assert sets[0] < sets[1]
    assert np.uint64 == hashes.dtype.type


def test_one_thread_and_two_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 64)
    parts = [part("p", generated(Random(3), 300, 30, 200))]
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 1)
    one = near_duplicates(parts, EngineInMemory(), threshold=0.8)
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    two = near_duplicates(parts, EngineInMemory(), threshold=0.8)
    assert one.texts.equals(two.texts)
    assert one.pairs.equals(two.pairs)


def test_where_one_part_ends_makes_no_difference_to_the_pairs() -> None:
    items = generated(Random(5), 200, 30, 200)
    whole = near_duplicates([part("p", items)], EngineInMemory(), threshold=0.8)
    cut = near_duplicates([part("p", items[:70]), part("q", items[70:])], EngineInMemory(), threshold=0.8)
    assert whole.pairs.equals(cut.pairs)
    assert whole.candidates == cut.candidates


def test_a_new_part_costs_its_own_work() -> None:
    items = generated(Random(6), 90, 30, 200)
    engine = EngineInMemory()
    near_duplicates([part("p", items[:60]), part("q", items[:30])], engine, threshold=0.8)
    engine.computed.clear()
    parts = [part("p", items[:60]), part("q", items[:30]), part("r", items[60:])]
    near_duplicates(parts, engine, threshold=0.8)
    assert engine.computed == ["signatures", "candidates", "verified"]


def test_the_same_text_many_times_is_signed_once_and_is_no_pair() -> None:
    found = near_duplicates([part("p", [("p", "the same", "words")] * 500)], EngineInMemory(), threshold=0.8)
    assert found.texts.get_column("text").n_unique() == 1
    assert found.candidates == 0
    signed = signatures(content([("p", "the same", "words")] * 3).lazy(), PARAMETERS)
    assert signed.get_column("band_24").null_count() == 2


def test_a_full_bucket_is_compared_with_its_first_members_and_is_reported() -> None:
    base = "the quick brown fox jumps over the lazy dog again and again and again until it is tired of it " * 3
    items: list[Item] = [("p", f"{base}{i:03}", None) for i in range(60)]
    found = near_duplicates([part("p", items)], EngineInMemory(), threshold=0.8, bucket=3)
    text = found.texts.get_column("text").to_list()
    assert found.cut_short > 0
    assert found.candidates < 60 * 59 / 2
    linked = set(found.pairs.get_column("one")) | set(found.pairs.get_column("two"))
    assert linked == set(text)


def test_a_single_response_is_never_like_a_pair() -> None:
    found = near_duplicates(
        [part("p", [("prompt", "a long answer", None), ("prompt", "a long answer", "a long answer")])],
        EngineInMemory(),
        threshold=0.8,
    )
    assert found.pairs.is_empty()


def test_no_content_gives_no_pairs() -> None:
    found = near_duplicates([part("p", [])], EngineInMemory(), threshold=0.8)
    assert found.texts.is_empty()
    assert found.pairs.is_empty()
