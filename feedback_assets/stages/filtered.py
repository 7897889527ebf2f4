"""filtered: named, versioned rules drop rows; each dropped row names the first rule that dropped it."""

from typing import Annotated

import polars as pl
from pydantic import AfterValidator, Field

from feedback_assets.engine.engine import Engine
from feedback_assets.expressions import Sql, columns_of, condition
from feedback_assets.policy import Pinned, Section, unique_ids
from feedback_assets.record import CONTENT_SCHEMA
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, fates


class Rule(Pinned):
    """A rule: rows for which `drop_when` is true are dropped; null is not true, and is counted as undecided."""

    drop_when: Sql = Field(description="Polars SQL over the record's columns")


class FilteredSection(Section):
    """The rules, in the order in which they are asked."""

    rules: Annotated[tuple[Rule, ...], AfterValidator(unique_ids)] = ()


def promises(section: FilteredSection) -> list[Expectation]:
    """What filtering leaves behind."""
    del section
    return [
        Expectation("expect_table_row_count_to_be_between", "the rules leave something to train on", {"min_value": 1}),
        Expectation("expect_column_values_to_not_be_null", "every row has its kind", {"column": "kind"}),
    ]


def filtered(inputs: Inputs, section: FilteredSection, engine: Engine) -> Output:
    """Drop the rows for which a rule is true. Columns stay as they are.

    Facts: for each rule how many rows it dropped first, would drop on its own, and could not decide (null).

    Raises:
        FeedbackError: a rule reads a column that is not there, fails, or gives something else than true or false.
    """
    del engine
    rows = inputs.rows.collect()
    asked = _with_text(rows, inputs, section)
    verdicts = asked.select(
        pl.col("row_id"),
        *(
            condition(rule.drop_when, asked, f"filtered.rules: {rule.id}: drop_when").alias(f"rule:{rule.id}")
            for rule in section.rules
        ),
    )
    hits = [pl.col(f"rule:{rule.id}").fill_null(value=False) for rule in section.rules]
    first = pl.coalesce(
        *(pl.when(hit).then(pl.lit(rule.id)) for hit, rule in zip(hits, section.rules, strict=True)),
        pl.lit(None, pl.String),
    )
    versions = {rule.id: rule.version for rule in section.rules}
    decided = verdicts.with_columns(first.alias("first"))
    drop = pl.col("first").is_not_null()
    stays = decided.get_column("first").is_null()
    return Output(
        rows,
        fates(
            decided,
            pl.when(drop).then(pl.lit("dropped")).otherwise(pl.lit("kept")),
            rule=pl.col("first"),
            rule_version=pl.col("first").replace_strict(versions, default=None, return_dtype=pl.Int32)
            if versions
            else None,
            copies=(~drop).cast(pl.Int32),
        ).collect(),
        facts={
            "rules": {
                rule.id: {
                    "dropped": int(decided.select((pl.col("first") == rule.id).sum()).item() or 0),
                    "alone": int(verdicts.select(hit.sum()).item() or 0),
                    "undecided": verdicts.get_column(f"rule:{rule.id}").null_count(),
                }
                for rule, hit in zip(section.rules, hits, strict=True)
            }
        },
        stands=stays,
    )


def _with_text(rows: pl.DataFrame, inputs: Inputs, section: FilteredSection) -> pl.DataFrame:
    """Bring in the columns of text that a rule names, and only those."""
    text = sorted({c for rule in section.rules for c in columns_of(rule.drop_when) if c in CONTENT_SCHEMA.names()})
    if not text:
        return rows
    wanted = set(rows.get_column("content_part").unique())
    empty = pl.LazyFrame(
        schema={"content_part": pl.String, "content_row": pl.UInt32, **{c: CONTENT_SCHEMA[c] for c in text}}
    )
    texts = [
        part.frame.select(
            pl.lit(part.digest).alias("content_part"),
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("content_row"),
            *text,
        )
        for part in inputs.content
        if part.digest in wanted
    ]
    return (
        rows.lazy()
        .join(pl.concat([empty, *texts]), on=["content_part", "content_row"], how="left", maintain_order="left")
        .collect()
    )


STAGE = Stage(
    name="filtered",
    description=(
        "Named, versioned rules drop rows. Each dropped row names the first rule that dropped it; every rule reports "
        "how many it would drop on its own, and how many it could not decide."
    ),
    inputs=("converted",),
    section=FilteredSection,
    function=filtered,
    promises=promises,
    scope="row",
    reads_content=True,
)
