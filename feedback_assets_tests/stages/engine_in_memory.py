"""An engine that runs the real functions and remembers results in a dictionary."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from feedback_assets.digests import digest
from feedback_assets.engine.engine import ContentPart


class EngineInMemory:
    """Counts how often it had to compute, so that a test can say what was remembered."""

    def __init__(self) -> None:
        self.known: dict[str, pl.DataFrame] = {}
        self.computed: list[str] = []

    def map(
        self,
        function: Callable[..., pl.DataFrame],
        parts: Sequence[ContentPart],
        *,
        beside: Sequence[Callable[[], Any]] = (),
        parameters: Any = None,
    ) -> list[pl.LazyFrame]:
        results = []
        for index, part in enumerate(parts):
            extra = [give() for give in beside[index : index + 1]]
            results.append(self._run(function, [part.digest], parameters, (part.frame, parameters, *extra)).lazy())
        return results

    def scan(
        self,
        function: Callable[..., list[pl.DataFrame]],
        parts: Sequence[tuple[str, pl.LazyFrame]],
        *,
        parameters: Any = None,
    ) -> list[pl.DataFrame]:
        frames = [frame for _, frame in parts]
        return [
            self._run(
                lambda i=i: function(frames[:i], [frames[i].collect()], parameters)[0],
                [d for d, _ in parts[: i + 1]],
                parameters,
                (),
                function.__qualname__,
            )
            for i in range(len(parts))
        ]

    def _run(
        self, function: Callable[..., pl.DataFrame], key: Any, parameters: Any, arguments: Any, name: str = ""
    ) -> pl.DataFrame:
        name = name or function.__qualname__
        full = digest([name, key, parameters])
        if full not in self.known:
            self.computed.append(name)
            self.known[full] = function(*arguments)
        return self.known[full]
