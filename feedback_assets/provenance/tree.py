"""Two trees of plain JSON values: where they differ, and the tree between them with some of the differences taken over.

Mappings are compared key by key, lists of named entries (`id` or `name`) entry by entry, in their order. What people
change as one stands as one: an entry with `id` and `version` (a rule, a factor, a guideline), a column's mapping.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
ORDER = "(order)"
"""Last step of the path to the order of a list."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()
"""Stands for a value on the side that does not have it."""


@dataclass(frozen=True)
class Difference:
    """Where two trees differ: ABSENT on one side, or other values; at an ORDER, the names in order."""

    path: Path
    before: Any
    after: Any


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[Difference]:
    """All differences, in the order of `before`, then of `after`."""
    if before == after:
        return
    if not _inside(before, after):
        yield Difference(path, before, after)
        return
    left, right = _named(before), _named(after)
    for name in dict.fromkeys((*left, *right)):
        yield from differences(left.get(name, ABSENT), right.get(name, ABSENT), (*path, name))
    if isinstance(before, Sequence):
        both = [[name for name in side if name in other] for side, other in ((left, right), (right, left))]
        if both[0] != both[1]:
            yield Difference((*path, ORDER), both[0], both[1])


def merged(before: Any, after: Any, chosen: Collection[Path], path: Path = ()) -> Any:
    """`before` with the differences at the `chosen` paths taken over from `after`; with all of them it is `after`."""
    if path in chosen or before == after:
        return after if path in chosen else before
    if not _inside(before, after):
        return before
    left, right = _named(before), _named(after)
    whole = {
        name: merged(left.get(name, ABSENT), right.get(name, ABSENT), chosen, (*path, name))
        for name in dict.fromkeys((*left, *right))
    }
    there = {name: value for name, value in whole.items() if value is not ABSENT}
    if not isinstance(before, Sequence):
        return there
    first, second = (right, left) if (*path, ORDER) in chosen else (left, right)
    return [there[name] for name in _in_order([*first], [*second]) if name in there]


def _inside(before: Any, after: Any) -> bool:
    """Whether the two are compared by what is in them."""
    if isinstance(before, dict) and isinstance(after, dict):
        return not any({"id", "version"} <= side.keys() or "expr" in side for side in (before, after))
    lists = isinstance(before, list) and isinstance(after, list) and bool(before or after)
    return lists and any(
        all(isinstance(entry, dict) and key in entry for entry in (*before, *after)) for key in ("id", "name")
    )


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {entry.get("id", entry.get("name")): entry for entry in value}


def _in_order(first: list[str], second: list[str]) -> list[str]:
    """The names of `first`, and each further one of `second` right after the one that it follows there."""
    found = list(first)
    for place, name in enumerate(second):
        if name not in first:
            found.insert(found.index(second[place - 1]) + 1 if place else 0, name)
    return found
