"""What a stage is: a pure function over Polars frames with its policy section, and what it promises.

Here is no Dagster, no file and no store: `materialize` brings the frames and writes what comes back.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import polars as pl

from feedback_assets.engine.engine import ContentPart, Engine
from feedback_assets.policy import Section

FATES = (
    *("kept", "dropped", "merged", "quarantined", "redelivered", "superseded", "retracted", "erased", "copied"),
    "converted",
)
"""What can become of a row. A row that is `dropped`, `merged`, `quarantined`, `redelivered`, `superseded`, `retracted`,
`erased` or `converted` is not in the output; new rows name a `converted` one in `parents`; a `copied` row is there more
than once."""

FATE_SCHEMA = pl.Schema(
    {
        "row_id": pl.String,  # for a record that never got one: a digest of batch file and line
        "fate": pl.String,
        "rule": pl.String,  # what decided: a rule's or a retraction's id, "exact-duplicate", a quarantine reason
        "rule_version": pl.Int32,
        "into": pl.String,  # the surviving row_id of a merged, redelivered or superseded row
        "copies": pl.Int32,  # how often the row stands in the output
    }
)


@dataclass(frozen=True)
class Units:
    """What an expectation of a distribution counts: each value of `column` once, however many rows it has.

    Left out is one of which a row has a value in the column `unless`. Fewer than `least` cannot tell: inconclusive.
    """

    column: str
    least: int
    unless: str


@dataclass(frozen=True)
class Expectation:
    """One Great Expectations expectation that a stage's output keeps.

    `type` is GX's snake_case name, e.g. `expect_column_values_to_be_in_set`; `kwargs` its arguments;
    `id` tells two of the same type and column apart; `meaning` is the sentence that a person reads; `units` is what is
    counted, if not rows.
    """

    type: str
    meaning: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    blocking: bool = True
    units: Units | None = None

    @property
    def definition(self) -> dict[str, Any]:
        """What is asked, limits included."""
        counted = {} if self.units is None else {"units": asdict(self.units)}
        return {"type": self.type, "kwargs": self.kwargs, **counted}

    @property
    def columns(self) -> set[str]:
        """The columns that it reads."""
        named = {self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs}
        named |= {*self.kwargs.get("column_list", ()), *self.kwargs.get("column_set", ())}
        return named if self.units is None else named | {self.units.column, self.units.unless}

    @property
    def name(self) -> str:
        """`<type>__<column>__<id>`, without limits: an edited limit keeps the history of its check."""
        column = self.kwargs.get("column", "table")
        name = "__".join(part for part in (self.type, str(column), self.id) if part)
        return re.sub(r"\W", "_", name, flags=re.ASCII)  # Dagster allows letters, digits and underscores


@dataclass(frozen=True)
class Inputs:
    """What a stage reads.

    `rows` is the output of the upstream stage (record columns and those added since), each record once: further copies
    go with it; `others` are further upstream assets by name; `content` are the parts of text of `ingested`, for the few
    stages that need text; `earlier`, for scope "prefix", are the rows that arrived before `rows`.
    """

    rows: pl.LazyFrame
    others: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    content: tuple[ContentPart, ...] = ()
    earlier: pl.LazyFrame | None = None


@dataclass(frozen=True)
class Output:
    """What a stage gives back.

    `rows`: the narrow rows, or, with `stands` (Boolean), all that came in their order, of which these stay; with a
    `copy_index` (0) each stands for as many as its `copies` say;
    `fates`: one line for every row that came in (FATE_SCHEMA);
    `tables`: further tables to keep with the snapshot, such as the plan of weights;
    `facts`: small JSON values worth keeping (counts by rule, a normalising mean).
    """

    rows: pl.DataFrame
    fates: pl.DataFrame
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    stands: pl.Series | None = None

    @cached_property
    def standing(self) -> pl.DataFrame:
        """The rows that stay."""
        if self.stands is None or self.stands.all():
            return self.rows
        # Of a column without values any piece is as good: a third of the columns of most feedback need no filter.
        blank = [column for column in self.rows.get_columns() if column.null_count() == len(column)]
        rows = self.rows.drop(column.name for column in blank).filter(self.stands)
        staying = int(self.stands.sum())
        return rows.hstack([column.head(staying) for column in blank]).select(self.rows.columns)


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline; `pipeline.py` lists them in order.

    `section` is its part of the policy, `function(inputs, section, engine)` does the work (None for a stage that
    reads from outside: `materialize.intake` does), `promises(section)` gives its expectations. By its `scope` a row's
    fate depends on that row alone ("row": mapped over parts and memoised), on it and what arrived before ("prefix":
    only new parts are computed; no row is dropped, and there are no facts or tables), or on all rows ("whole").
    Where its section says nothing (`idle(section)`), every row is passed on as it is, and nothing is computed.
    `version` is raised by hand only to force a recomputation.
    """

    name: str
    description: str
    inputs: tuple[str, ...]
    section: type[Section]
    function: Callable[[Inputs, Any, Engine], Output] | None
    promises: Callable[[Any], Iterable[Expectation]]
    scope: Literal["row", "prefix", "whole"] = "whole"
    reads_content: bool = False
    version: int = 1
    kinds: tuple[str, ...] = ("polars", "parquet")
    weight: str | None = None
    idle: Callable[[Any], bool] = lambda section: False  # noqa: ARG005


def kept(rows: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Fates of rows that a stage passes on unchanged."""
    return fates(rows, "kept", copies=1)


def fates(
    rows: pl.DataFrame | pl.LazyFrame,
    fate: str | pl.Expr,
    *,
    rule: pl.Expr | str | None = None,
    rule_version: pl.Expr | int | None = None,
    into: pl.Expr | None = None,
    copies: pl.Expr | int = 0,
) -> pl.LazyFrame:
    """A fate for each row of `rows` (which has `row_id`), in FATE_SCHEMA."""

    def expr(value: Any) -> pl.Expr:
        return value if isinstance(value, pl.Expr) else pl.lit(value)

    return rows.lazy().select(
        pl.col("row_id"),
        expr(fate).cast(pl.String).alias("fate"),
        expr(rule).cast(pl.String).alias("rule"),
        expr(rule_version).cast(pl.Int32).alias("rule_version"),
        expr(into).cast(pl.String).alias("into"),
        expr(copies).cast(pl.Int32).alias("copies"),
    )
