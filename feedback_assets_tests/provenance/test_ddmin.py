"""Delta debugging: what is left is bad, and without any one of it is not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_assets.digests import digest
from feedback_assets.provenance.ddmin import Outcome, ddmin

ITEMS = st.integers(min_value=1, max_value=9)


@pytest.mark.parametrize("needed", [{3}, {1, 8}, {0, 4, 8}, set(range(9))])
def test_exactly_what_is_needed_is_found(needed: set[int]) -> None:
    asked: list[tuple[int, ...]] = []

    def test(part: Sequence[int]) -> Outcome:
        asked.append(tuple(part))
        return "bad" if needed <= {*part} else "good"

    assert set(ddmin(range(9), test)) == needed
    assert all(list(part) == sorted(part) for part in asked)


def test_one_change_of_many_takes_a_logarithm_of_builds() -> None:
    asked = []

    def test(part: Sequence[int]) -> Outcome:
        asked.append(part)
        return "bad" if 700 in part else "good"

    assert ddmin(range(1024), test) == [700]
    assert len(asked) <= 2 * 10


@given(n=ITEMS, seed=st.integers())
def test_the_result_is_1_minimal_whatever_the_test_says(n: int, seed: int) -> None:
    """Also where it is neither monotone nor always resolved."""

    def test(part: Sequence[int]) -> Outcome:
        if len(part) in (0, n):
            return "bad" if part else "good"
        return ("good", "bad", "unresolved")[int(digest([seed, list(part)])[:8], 16) % 3]

    found = ddmin(range(n), test)
    assert test(found) == "bad"
    for item in found:
        assert test([other for other in found if other != item]) != "bad"


@given(n=ITEMS, seed=st.integers())
def test_the_same_question_gives_the_same_answer(n: int, seed: int) -> None:
    def test(part: Sequence[int]) -> Outcome:
        return "bad" if len(part) == n or int(digest([seed, list(part)])[:8], 16) % 2 else "good"

    assert ddmin(range(n), test) == ddmin(range(n), test)
