"""Where a part-wise function runs, and where its results are remembered.

A stage hands the engine a function over one part; the engine runs it or brings back what an earlier run
computed from the same part, the same code and the same parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl


@dataclass(frozen=True)
class ContentPart:
    """One immutable part of text: `digest` names it, `read` gives it (record.CONTENT), in row order."""

    digest: str
    rows: int
    read: Callable[[], pl.LazyFrame]

    @property
    def frame(self) -> pl.LazyFrame:
        """The text, to be read lazily."""
        return self.read()

    def at(self, rows: Sequence[int], *columns: str | pl.Expr) -> pl.LazyFrame:
        """`columns` of some of its rows: those numbered `rows`, from 0, in row order; `row` (UInt32) is the number."""
        wanted = pl.lit(pl.Series(rows, dtype=pl.UInt32)).implode()
        return self.frame.select(*columns).with_row_index("row").filter(pl.col("row").is_in(wanted))


class Engine(Protocol):
    """Runs part-wise functions."""

    def map(
        self,
        function: Callable[..., pl.DataFrame],
        parts: Sequence[ContentPart],
        *,
        beside: Sequence[Callable[[], Any]] = (),
        parameters: Any = None,
    ) -> list[pl.LazyFrame]:
        """Return `function(part.frame, parameters)` for each part, in order, memoised, to be read as it is needed.

        The result is remembered under the function's code, the part's digest and `parameters` (JSON values).
        With `beside` (one a part) it is `function(part.frame, parameters, beside())`: part and `parameters` determine
        that value, and it is made only where the result is not remembered.
        """
        ...

    def scan(
        self,
        function: Callable[..., list[pl.DataFrame]],
        parts: Sequence[tuple[str, pl.LazyFrame]],
        *,
        parameters: Any = None,
    ) -> list[pl.DataFrame]:
        """Return a result for each (digest, frame), in order, memoised. Frames are read only where one is new.

        `function(earlier, new, parameters)` gets the frames whose results are remembered and those after them, and
        returns one result for each of `new`. A result's key holds the digests of its part and of all before it, so a
        new part costs its own comparison with the history and not the history's with itself.
        """
        ...
