"""reweighted: named, versioned factors give each row its weight; each factor is a column of its own."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, Field, field_validator

from feedback_assets.digests import repeated
from feedback_assets.engine.engine import Engine
from feedback_assets.policy import Pinned, Section, unique_ids
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, kept
from feedback_assets.stages.steady import steady

FIXED_POINT = 1_000_000  # weights are summed as integers of millionths, so that the order of rows cannot matter


class Factor(Pinned):
    """Base of all factors."""

    def column(self) -> str:
        """Name of the factor's column in the output."""
        return f"w_{self.id.replace('-', '_')}"


class ReplicateShare(Factor):
    """Replicates of one item, and near-duplicates of it, share one weight: 1/n."""

    kind: Literal["replicate_share"]

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """1 / number of rows in the same cluster, kind, task and aspect."""
        shared = repeated(rows.select(pl.col("cluster_id").hash()).collect().to_series())
        n = pl.len().over("cluster_id", "kind", pl.col("task").fill_null(""), pl.col("aspect").fill_null(""))
        several = rows.with_row_index("at").filter(shared).select("at", share=1.0 / n).collect()
        return pl.lit(pl.repeat(1.0, len(shared), eager=True).scatter(several["at"], several["share"]))


class RankingShare(Factor):
    """The pairs of one ranking of k responses weigh 1/(k−1) each, so that a record counts once per response."""

    kind: Literal["ranking_share"]

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """1/(k−1), with k the distinct responses of the group; 1 outside a group or where k < 3."""
        responses = (
            rows.filter(pl.col("group_id").is_not_null() & (pl.col("kind") == "preference"))
            .select("source", "group_id", response=pl.concat_list("response_a_id", "response_b_id"))
            .explode("response", empty_as_null=False)
            .group_by("source", "group_id")
            .agg(k=pl.col("response").n_unique())
            .filter(pl.col("k") > 2)
            .collect()
        )
        sizes = {(source, group): k for source, group, k in responses.iter_rows()}
        if not sizes:
            return pl.lit(1.0)
        key = pl.concat_str(pl.col("source").str.len_bytes(), pl.lit(":"), "source", "group_id")
        named = {f"{len(source.encode())}:{source}{group}": 1.0 / (k - 1) for (source, group), k in sizes.items()}
        return key.replace_strict(named, default=1.0, return_dtype=pl.Float64)


class AnnotatorReliability(Factor):
    """Annotators who agreed with others, as known then, weigh more: floor + (1 − floor) · agreement."""

    kind: Literal["annotator_reliability"]
    floor: float = Field(default=0.2, ge=0, le=1)
    least_n: int = Field(default=20, ge=1, description="fewer comparisons than this leave the weight at 1")

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """1 where the agreement rests on fewer than `least_n` comparisons."""
        del rows
        known = pl.col("annotator_agreement_n") >= self.least_n
        return pl.when(known).then(self.floor + (1 - self.floor) * pl.col("annotator_agreement")).otherwise(1.0)


class Recency(Factor):
    """Older judgments weigh less: one half for every `half_life_days` before `as_of`."""

    kind: Literal["recency"]
    half_life_days: float = Field(gt=0)
    as_of: datetime = Field(description="the day that counts as today: a clock would give other weights every run")
    floor: float = Field(default=0.0, ge=0, le=1)

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """2^(−age/half life), at least `floor`; 1 without a date or after `as_of`."""
        del rows
        days = (pl.lit(self.as_of) - pl.col("collected_at")).dt.total_seconds() / 86_400
        halved = pl.lit(2.0).pow(-days.clip(lower_bound=0) / self.half_life_days)
        return halved.clip(lower_bound=self.floor).fill_null(1.0)


class Confidence(Factor):
    """Judgments given with less confidence weigh less, down to `floor`."""

    kind: Literal["confidence"]
    floor: float = Field(default=0.5, ge=0, le=1)

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """Floor + (1 − floor) · confidence; 1 where no confidence was given."""
        del rows
        return (self.floor + (1 - self.floor) * pl.col("confidence")).fill_null(1.0)


class GuidelineDiscount(Factor):
    """Judgments under an older guideline weigh less."""

    kind: Literal["guideline_discount"]
    clarifying: float = Field(default=1.0, ge=0, le=1, description="the newest version differs by a clarifying change")
    breaking: float = Field(default=0.5, ge=0, le=1, description="the newest version asks another question")
    unmatched: float = Field(default=1.0, ge=0, le=1, description="no guideline, or none for certain")

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """By the column `guideline_behind`."""
        del rows
        by_change = {"none": 1.0, "clarifying": self.clarifying, "breaking": self.breaking}
        return pl.col("guideline_behind").replace_strict(by_change, default=self.unmatched, return_dtype=pl.Float64)


class OriginDiscount(Factor):
    """Responses written by models weigh less, by the name of the model; `*` at the end stands for any rest.

    A whole name goes before a pattern, a longer pattern before a shorter one: the order of keys in a file means
    nothing, and no digest holds it.
    """

    kind: Literal["origin_discount"]
    origins: dict[str, Annotated[float, Field(ge=0, le=1)]]

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """The smaller of the weights of the two responses' origins; 1 for an origin that no pattern fits."""
        del rows
        closest = sorted(self.origins.items(), key=lambda entry: (entry[0].endswith("*"), -len(entry[0]), entry[0]))

        def of(column: str) -> pl.Expr:
            hit = [
                pl.when(
                    pl.col(column).str.starts_with(pattern[:-1]) if pattern.endswith("*") else pl.col(column) == pattern
                ).then(pl.lit(weight))
                for pattern, weight in closest
            ]
            return pl.coalesce(*hit, pl.lit(1.0))

        return pl.min_horizontal(of("origin_a"), of("origin_b"))


class JudgeDiscount(Factor):
    """Judgments given by models weigh less than those of people."""

    kind: Literal["judge_discount"]
    model: float = Field(default=0.5, ge=0, le=1, description="weight of a judgment by a model")
    unknown: float = Field(default=1.0, ge=0, le=1, description="where the source does not say who judged")

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """By the column `annotator_kind`."""
        del rows
        by_kind = {"human": 1.0, "model": self.model}
        return pl.col("annotator_kind").replace_strict(by_kind, default=self.unknown, return_dtype=pl.Float64)


class AnnotatorCap(Factor):
    """No annotator holds more than `share` of the weight; the rows of one who does are scaled down alike."""

    kind: Literal["annotator_cap"]
    share: float = Field(gt=0, le=1)

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """Scale by annotator so that each has at most `share` of what is left; 1 where that cannot be met."""
        totals = (
            rows.filter(pl.col("annotator_id").is_not_null())
            .group_by("annotator_id")
            .agg(held=_fixed("weight").sum())
            .sort("held", "annotator_id", descending=[True, False])
            .collect()
        )
        everyone = int(rows.select(_fixed("weight").sum()).collect().item() or 0)
        cap = self._cap(totals.get_column("held").to_list(), everyone)
        scales = {who: cap / held for who, held in totals.iter_rows() if cap is not None and held > cap}
        if not scales:
            return pl.lit(1.0)
        return pl.col("annotator_id").replace_strict(scales, default=1.0, return_dtype=pl.Float64)

    def _cap(self, held: list[int], everyone: int) -> float | None:
        above = 0
        for capped, weight in enumerate([*held, 0]):
            # With `capped` annotators at the cap c and the rest as they are: c = share · (capped · c + rest).
            room = 1 - capped * self.share
            if room <= 0:
                return None
            cap = self.share * (everyone - above) / room
            if weight <= cap:
                return cap or None
            above += weight
        return None


class LengthBalance(Factor):
    """Pairs in which the longer response won, and those in which the shorter won, get the same weight, within 1 %."""

    kind: Literal["length_balance"]
    most: float = Field(default=2.0, ge=1, description="no row is scaled by more than this, up or down")

    def weight(self, rows: pl.LazyFrame) -> pl.Expr:
        """Scale both sides to their mean, `steady` and within 1/most..most; ties and equal lengths stay at 1."""
        a, b = pl.col("response_a_chars"), pl.col("response_b_chars")
        longer = ((pl.col("label") == "a") & (a > b)) | ((pl.col("label") == "b") & (b > a))
        shorter = ((pl.col("label") == "a") & (a < b)) | ((pl.col("label") == "b") & (b < a))
        long, short = (
            rows.select(
                _fixed("weight").filter(longer).sum().alias("l"), _fixed("weight").filter(shorter).sum().alias("s")
            )
            .collect()
            .row(0)
        )
        if not long or not short:
            return pl.lit(1.0)
        mean = (long + short) / 2

        def bound(scale: float) -> float:
            return min(max(steady(scale), 1 / self.most), self.most)

        return (
            pl.when(longer.fill_null(value=False))
            .then(bound(mean / long))
            .when(shorter.fill_null(value=False))
            .then(bound(mean / short))
            .otherwise(1.0)
        )


AnyFactor = Annotated[
    ReplicateShare
    | RankingShare
    | AnnotatorReliability
    | Recency
    | Confidence
    | GuidelineDiscount
    | OriginDiscount
    | JudgeDiscount
    | AnnotatorCap
    | LengthBalance,
    Field(discriminator="kind"),
]


def _one_column_each(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    by_column: dict[str, str] = {}
    for factor in factors:
        other = by_column.setdefault(factor.column(), factor.id)
        if other != factor.id:
            raise ValueError(f"{other!r} and {factor.id!r} would share the column {factor.column()}; rename one")
    return factors


class ReweightedSection(Section):
    """The factors, in the order in which they are multiplied."""

    factors: Annotated[tuple[AnyFactor, ...], AfterValidator(unique_ids), AfterValidator(_one_column_each)] = ()


def _fixed(column: str) -> pl.Expr:
    return (pl.col(column) * FIXED_POINT).round().cast(pl.Int64)


def promises(section: ReweightedSection) -> list[Expectation]:
    """What weighting keeps."""
    return [
        Expectation(
            "expect_column_values_to_be_between",
            "every weight is at least 0 and finite",
            {"column": "weight", "min_value": 0, "max_value": 1e6},
        ),
        Expectation("expect_column_values_to_not_be_null", "every row has a weight", {"column": "weight"}),
        *(
            Expectation(
                "expect_column_values_to_be_between",
                f"the factor {factor.id} is at least 0 and finite",
                {"column": factor.column(), "min_value": 0, "max_value": 1e6},
                id=factor.id,
            )
            for factor in section.factors
        ),
    ]


def reweighted(inputs: Inputs, section: ReweightedSection, engine: Engine) -> Output:
    """Add `weight` (Float64, raw: not normalised), the product of one column `w_<factor id>` for each factor.

    The table `plan` holds `mean_weight_millionths` (Int64), by which a trainer may normalise.
    """
    del engine
    rows = inputs.rows.collect().with_columns(pl.lit(1.0).alias("weight"))
    for factor in section.factors:
        rows = rows.with_columns(factor.weight(rows.lazy()).cast(pl.Float64).alias(factor.column())).with_columns(
            (pl.col("weight") * pl.col(factor.column())).alias("weight")
        )
    total = int(rows.select(_fixed("weight").sum()).item() or 0)
    plan = pl.DataFrame(
        {"mean_weight_millionths": [total // max(rows.height, 1)]}, schema={"mean_weight_millionths": pl.Int64}
    )
    facts: dict[str, Any] = {
        "factors": {
            factor.id: {
                "changed": int(rows.select((pl.col(factor.column()) != 1.0).sum()).item() or 0),
                "least": rows.get_column(factor.column()).min(),
                "most": rows.get_column(factor.column()).max(),
            }
            for factor in section.factors
        },
        "mean_weight_millionths": total // max(rows.height, 1),
    }
    return Output(rows, kept(rows).collect(), tables={"plan": plan}, facts=facts)


STAGE = Stage(
    name="reweighted",
    description=(
        "Named, versioned factors give each row its weight. Each factor is a column of its own, so that every weight "
        "can be explained factor by factor. The raw weight is kept; the mean that normalises it stands in the plan."
    ),
    inputs=("deduplicated",),
    section=ReweightedSection,
    function=reweighted,
    promises=promises,
    weight="weight",
)
