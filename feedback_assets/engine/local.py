"""The engine of one machine: runs part-wise functions in this process and remembers their results in the store."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.engine.engine import ContentPart
from feedback_assets.snapshots.snapshot import Memo, Snapshot, scan, write_table
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each


class LocalEngine:
    """Runs a few parts at a time: while one is read or written another is computed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.memo = Memo(store)

    def map(
        self,
        function: Callable[..., pl.DataFrame],
        parts: Sequence[ContentPart],
        *,
        beside: Sequence[Callable[[], Any]] = (),
        parameters: Any = None,
    ) -> list[pl.LazyFrame]:
        """See `Engine.map`."""
        keys = [_key(function, [part.digest], parameters) for part in parts]
        # What is remembered is looked up by one thread: each look is too short for several.
        known = [self.memo.get(key) for key in keys]

        def compute(index: int) -> pl.LazyFrame:
            result = function(parts[index].frame, parameters, *(give() for give in beside[index : index + 1]))
            self._remember(keys[index], function, result)
            return result.lazy()

        missing = [index for index, found in enumerate(known) if found is None]
        computed = dict(zip(missing, each(compute, missing), strict=True))
        return [
            computed[index] if found is None else scan(self.store, found.tables["rows"])
            for index, found in enumerate(known)
        ]

    def scan(
        self,
        function: Callable[..., list[pl.DataFrame]],
        parts: Sequence[tuple[str, pl.LazyFrame]],
        *,
        parameters: Any = None,
    ) -> list[pl.DataFrame]:
        """See `Engine.scan`."""
        digests = [part_digest for part_digest, _ in parts]
        keys = [_key(function, digests[: end + 1], parameters) for end in range(len(parts))]
        known = itertools.takewhile(lambda found: found is not None, map(self.memo.get, keys))
        results = pl.collect_all([scan(self.store, found.tables["rows"]) for found in known if found])
        frames = [frame for _, frame in parts]
        done = len(results)
        if done < len(parts):
            new = [frame.collect() for frame in frames[done:]]
            for key, result in zip(keys[done:], function(frames[:done], new, parameters), strict=True):
                self._remember(key, function, result)
                results.append(result)
        return results

    def _remember(self, key: str, function: Callable[..., Any], result: pl.DataFrame) -> None:
        self.memo.put(key, Snapshot(_name(function), {"rows": write_table(self.store, result)}))


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _key(function: Callable[..., Any], inputs: Any, parameters: Any) -> str:
    return digest(["part", _name(function), code_digest(function.__module__), inputs, parameters])
