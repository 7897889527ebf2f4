"""The engine of one machine: runs part-wise functions in this process and remembers their results in the store."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, fingerprint
from feedback_assets.engine.engine import ContentPart
from feedback_assets.snapshots.snapshot import Memo, Snapshot, scan, write_table
from feedback_assets.snapshots.store import LocalStore


class LocalEngine:
    """Runs parts one after the other (Polars and numba use all cores inside a part)."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.memo = Memo(store)

    def map(
        self,
        function: Callable[..., pl.DataFrame],
        parts: Sequence[ContentPart],
        *,
        broadcast: Sequence[Any] = (),
        parameters: Any = None,
    ) -> list[pl.DataFrame]:
        """See `Engine.map`."""
        results = []
        for index, part in enumerate(parts):
            extra = (broadcast[index],) if broadcast else ()
            inputs = [part.digest, *(None if value is None else fingerprint(value) for value in extra)]

            def compute(part: ContentPart = part, extra: tuple[Any, ...] = extra) -> pl.DataFrame:
                return function(part.frame, parameters, *extra)

            results.append(self._remembered(function, inputs, parameters, compute))
        return results

    def scan(
        self,
        function: Callable[..., pl.DataFrame],
        parts: Sequence[tuple[str, pl.DataFrame]],
        *,
        parameters: Any = None,
    ) -> list[pl.DataFrame]:
        """See `Engine.scan`."""
        results = []
        for index, (_, frame) in enumerate(parts):
            inputs = [part_digest for part_digest, _ in parts[: index + 1]]

            def compute(index: int = index, frame: pl.DataFrame = frame) -> pl.DataFrame:
                return function([earlier for _, earlier in parts[:index]], frame, parameters)

            results.append(self._remembered(function, inputs, parameters, compute))
        return results

    def _remembered(
        self, function: Callable[..., Any], inputs: Any, parameters: Any, compute: Callable[[], pl.DataFrame]
    ) -> pl.DataFrame:
        name = f"{function.__module__}.{function.__qualname__}"
        key = digest(["part", name, code_digest(function.__module__), inputs, parameters])
        known = self.memo.get(key)
        if known is not None:
            return scan(self.store, known.tables["rows"]).collect()
        result = compute()
        self.memo.put(key, Snapshot(name, {"rows": write_table(self.store, result)}))
        return result
