"""What came in and could not be used: one row a record, with its file, its line and the reason."""

from collections.abc import Sequence

import polars as pl

QUARANTINE = pl.Schema(
    {
        "source": pl.String,
        "batch": pl.String,  # name of the batch file
        "line": pl.Int64,  # line or row in that file, from 1
        "position": pl.Int64,  # of the record among those of that line, from 1; null: the line as a whole
        "reason": pl.String,  # a short code such as "malformed-json", "blank-row", "not-convertible"
        "column": pl.String,  # the record column at fault, if one is
        "value": pl.String,  # an escaped excerpt of its value, at most 80 characters; null for columns of text
    }
)
"""Columns of a table of quarantined records."""

EXCERPT = 80
"""Characters of an offending value that are kept."""


def quarantined(source: str, batch: str, lines: Sequence[int] | pl.Series, reason: str) -> pl.DataFrame:
    """A quarantine row for each of `lines` of one file, in QUARANTINE."""
    return pl.DataFrame({"line": pl.Series(lines, dtype=pl.Int64)}).select(
        pl.lit(source).alias("source"),
        pl.lit(batch).alias("batch"),
        pl.col("line"),
        pl.lit(None, pl.Int64).alias("position"),
        pl.lit(reason).alias("reason"),
        pl.lit(None, pl.String).alias("column"),
        pl.lit(None, pl.String).alias("value"),
    )


def excerpt(value: pl.Expr) -> pl.Expr:
    """`value` (String) on one line, other control characters replaced, cut to EXCERPT characters."""
    short = value.str.slice(0, EXCERPT)
    for sign, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        short = short.str.replace_all(sign, escaped, literal=True)
    return short.str.replace_all(r"[\p{Cc}\p{Cf}]", "�").str.slice(0, EXCERPT)
