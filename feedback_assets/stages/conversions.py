"""Conversions: which records are compared with which, and what the comparison says. A kind is one class here."""

from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from feedback_assets.digests import text_id
from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import Sql, condition
from feedback_assets.policy import Pinned

DECIMALS = 9  # scores are compared to the billionth: .3 − .1 is less than .2 in binary
ONE_JUDGE = (
    *("source", "prompt_id", "task", "aspect", "annotator_id", "annotator_kind"),
    *("guideline", "guideline_digest", "score_min", "score_max"),
)
"""Two records are compared if they agree in all of these (null equals null); where no guideline is known for either,
they count as made under the same."""


class Conversion(Pinned):
    """Base of all conversions: records of single responses to one prompt become pairs."""

    where: Sql | None = Field(default=None, description="Polars SQL: only records for which this is true; None: all")
    ties: Literal["keep", "drop"] = Field(
        default="drop", description="two that do not differ, or by less than the margin: a tie, or no pair"
    )
    keep_parents: bool = Field(default=False, description="a record that became pairs stays beside them")
    unpaired: Literal["keep", "drop"] = Field(
        default="keep", description="what becomes of a record that could have become a pair and did not"
    )
    most: int = Field(default=100, ge=2, description="records compared with each other; more are refused")

    def together(self) -> tuple[str, ...]:
        """Columns in which records must agree to be compared."""
        return ONE_JUDGE

    def candidates(self) -> pl.Expr:
        """Whether a row is of the kind that is converted, as far as the row alone tells."""
        raise NotImplementedError

    def value(self) -> pl.Expr:
        """What is compared (Float64): the response with more of it is preferred."""
        raise NotImplementedError

    def least(self) -> float:
        """The least difference that decides."""
        return 0.0


class Scored(Conversion):
    """Base of conversions that compare scores."""

    margin: float = Field(default=0.0, ge=0, description="least difference of scores, in their unit, that decides")
    better: Literal["higher", "lower"] = Field(
        default="higher", description="which score is the better one; lower for a rank, of which 1 is the best"
    )

    def value(self) -> pl.Expr:
        """The score."""
        return pl.col("score") if self.better == "higher" else -pl.col("score")

    def least(self) -> float:
        """The margin."""
        return self.margin


class RatingsToPairs(Scored):
    """Scores that one annotator gave to several responses to a prompt, under one guideline and for one aspect.

    A record without annotator is no candidate: nobody knows that the same person gave the other score.
    """

    kind: Literal["ratings_to_pairs"]

    def candidates(self) -> pl.Expr:
        """Ratings of an annotator who is known."""
        return (pl.col("kind") == "rating") & pl.col("annotator_id").is_not_null()


class RankingsToPairs(Scored):
    """One ranking of k responses: the ratings of one `group_id`, whose `score` is their points, or their rank.

    A ranking is one judgment, so its annotator need not be known. Its pairs are not independent: the factor
    `ranking_share` weighs each 1/(k−1).
    """

    kind: Literal["rankings_to_pairs"]

    def together(self) -> tuple[str, ...]:
        """The group as well."""
        return (*ONE_JUDGE, "group_id")

    def candidates(self) -> pl.Expr:
        """Ratings that belong to a group."""
        return (pl.col("kind") == "rating") & pl.col("group_id").is_not_null()


class ThumbsToPairs(Conversion):
    """Thumbs that one annotator gave to several responses to a prompt: up is preferred to down."""

    kind: Literal["thumbs_to_pairs"]

    def candidates(self) -> pl.Expr:
        """Thumbs of an annotator who is known."""
        return (pl.col("kind") == "thumbs") & pl.col("annotator_id").is_not_null()

    def value(self) -> pl.Expr:
        """1 for up, 0 for down."""
        return (pl.col("label") == "up").cast(pl.Float64)


AnyConversion = Annotated[RatingsToPairs | RankingsToPairs | ThumbsToPairs, Field(discriminator="kind")]


def candidates(rows: pl.DataFrame, conversion: Conversion) -> pl.Series:
    """Which `rows` (record columns and those of guideline_joined) the conversion takes.

    Raises:
        FeedbackError: its `where` reads a column that is not there, or is no condition.
    """
    taken = conversion.candidates() & pl.col("response_b_id").is_null() & conversion.value().is_finite()
    if conversion.where is not None:
        taken &= condition(conversion.where, rows, f"converted.conversions: {conversion.id}: where")
    return rows.select(taken.fill_null(value=False).alias("")).to_series()


def pairs(rows: pl.DataFrame, conversion: Conversion) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compare the `rows` that a conversion takes (with `at`, their place), and count.

    Returns:
        `at`, `at_other`: whose responses are a and b of the pair, in canonical order, by digest; `label` (a, b, tie);
        `margin` (Float64: how far the scores lie apart; null for thumbs); `group_id`: that of the records where all
        that are compared share one, else a digest of what they agree in. Two records of the same response make no pair.

    Raises:
        FeedbackError: more records than `most` would all be compared with each other.
    """
    together = conversion.together()
    groups = (
        rows.lazy()
        .select("at", *together, own="group_id", response="response_a_id", value=conversion.value())
        .group_by(together)
        .agg("at", "response", "value", pl.col("own").first(), one=pl.col("own").n_unique() == 1, size=pl.len())
        .filter(pl.col("size") > 1)
        .collect()
    )
    _refuse_large(groups, conversion)
    text = [pl.col(name).cast(pl.String) for name in together]
    members = groups.with_row_index("group").select(
        "group",
        pl.when(pl.col("one") & pl.col("own").is_not_null()).then("own").otherwise(text_id(*text)).alias("group_id"),
        "at",
        "response",
        "value",
    )
    apart = members.explode("at", "response", "value", empty_as_null=False)
    apart_by = pl.col("value") - pl.col("value_other")
    compared = (
        apart.lazy()
        .join(apart.lazy().drop("group_id"), on="group", suffix="_other")
        .filter(pl.col("response") < pl.col("response_other"))
        .with_columns(apart_by=apart_by.round(DECIMALS))
        .with_columns(
            decided=(pl.col("apart_by") != 0) & (pl.col("apart_by").abs() >= round(conversion.least(), DECIMALS))
        )
        .collect()
    )
    said = pl.when(~pl.col("decided")).then(pl.lit("tie")).when(pl.col("apart_by") > 0).then(pl.lit("a"))
    measured = isinstance(conversion, Scored)
    found = compared.filter("decided") if conversion.ties == "drop" else compared
    counts = {"groups": groups.height, "compared": compared.height, "decided": int(compared["decided"].sum())}
    return (
        found.select(
            "at",
            "at_other",
            said.otherwise(pl.lit("b")).alias("label"),
            (pl.col("apart_by").abs() if measured else pl.lit(None, pl.Float64)).alias("margin"),
            "group_id",
        ),
        counts,
    )


def _refuse_large(groups: pl.DataFrame, conversion: Conversion) -> None:
    large = groups.filter(pl.col("size") > conversion.most).sort("size", "prompt_id", descending=[True, False])
    if large.is_empty():
        return
    first = large.row(0, named=True)
    raise FeedbackError(
        f"converted.conversions: {conversion.id}: {first['size']:,} records would all be compared with each other "
        f"(source {first['source']}, prompt {first['prompt_id']}, annotator {first['annotator_id']}), and `most` is "
        f"{conversion.most}; leave them out with `where`, or raise `most`"
    )
