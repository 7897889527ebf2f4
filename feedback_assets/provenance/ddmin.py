"""Delta debugging: of many changes, those that matter."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeVar

Item = TypeVar("Item")
Outcome = Literal["good", "bad", "unresolved"]


def ddmin(items: Sequence[Item], test: Callable[[Sequence[Item]], Outcome]) -> list[Item]:
    """A 1-minimal part of `items` that is still "bad": without any one of them it is not.

    `test` is asked about parts, in the order of `items`; that of all must be "bad" and that of none must not. It may be
    asked the same twice. "unresolved" stands for what cannot be built or measured.
    Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28 (2002), ddmin.
    """
    left = list(items)
    pieces = 2
    while len(left) > 1:
        cuts = [len(left) * place // pieces for place in range(pieces + 1)]
        spans = list(pairwise(cuts))
        parts = [left[start:end] for start, end in spans]
        others = [left[:start] + left[end:] for start, end in spans] if pieces > 2 else []
        bad = next((place for place, part in enumerate([*parts, *others]) if test(part) == "bad"), None)
        if bad is None and pieces >= len(left):
            break
        if bad is None:
            pieces = min(2 * pieces, len(left))
        elif bad < len(parts):
            left, pieces = parts[bad], 2
        else:
            left, pieces = others[bad - len(parts)], max(pieces - 1, 2)
    return left
