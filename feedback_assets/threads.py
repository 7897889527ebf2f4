"""Parts side by side: Polars, Parquet and SHA-256 leave the interpreter while they work, so threads are enough."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Iterable[Item], most: int = 4, *, waits: bool = False
) -> list[Result]:
    """`function` of each item, in order, at most `most` at the same time; and one a processor, unless it `waits`."""
    listed = list(items)
    workers = min(most, len(listed)) if waits else min(most, os.cpu_count() or 1, len(listed))
    if workers < 2:
        return [function(item) for item in listed]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, listed))
