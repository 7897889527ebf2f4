"""upsampled: whole copies bring categories to their target share of weight."""

from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any

import polars as pl
from pydantic import AfterValidator, Field, field_validator

from feedback_assets.digests import keyed_draw
from feedback_assets.engine.engine import Engine
from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Pinned, Section, unique_ids
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, fates
from feedback_assets.stages.steady import steady

FIXED_POINT = 1_000_000


class Target(Pinned):
    """Target shares of weight for some values of a column; the other values keep their proportions to each other."""

    column: str = Field(default="category", description="a column of the record")
    shares: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    max_copies: int = Field(default=3, ge=1, le=100, description="no record stands more often than this")

    @field_validator("shares")
    @classmethod
    def _leave_a_rest(cls, shares: dict[str, float]) -> dict[str, float]:
        if sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"the shares add up to {sum(shares.values()):.3g}; they can be at most 1")
        return shares


class UpsampledSection(Section):
    """The targets, applied one after the other."""

    key: str = Field(
        default="upsample", min_length=1, description="keys the hash that decides which records get the odd copy"
    )
    targets: Annotated[tuple[Target, ...], AfterValidator(unique_ids)] = ()


def promises(section: UpsampledSection) -> list[Expectation]:
    """What copying keeps."""
    most = max((target.max_copies for target in section.targets), default=1)
    return [
        Expectation(
            "expect_column_values_to_be_between",
            "no record stands more often than its cap",
            {"column": "copies", "min_value": 1, "max_value": most},
        ),
    ]


def upsampled(inputs: Inputs, section: UpsampledSection, engine: Engine) -> Output:
    """Say how often each record stands. Added: `copies` (Int32) and `copy_index` (Int32, 0: further ones are not here).

    Which records get the odd copy is a keyed hash of row_id, and how many do is `steady`: a new batch leaves the copies
    of most records as they are.
    Facts: for each target the shares asked for and reached, and the copies made.

    Raises:
        FeedbackError: a target's column is not there.
    """
    del engine
    rows = inputs.rows.collect().with_columns(pl.lit(1, pl.Int32).alias("copies"))
    decided = pl.Series("decided", [None], pl.Int32).new_from_index(0, rows.height)  # by the first target that copied
    facts: dict[str, Any] = {"targets": {}}
    for place, target in enumerate(section.targets):
        if target.column not in inputs.rows.collect_schema():
            close = get_close_matches(target.column, rows.columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; name a column of the record"
            raise FeedbackError(f"upsampled.targets: {target.id}: there is no column {target.column!r}{hint}")
        held = _held(rows.lazy(), target)
        copies = _copies(rows, target, section.key, held)
        more = copies - rows.get_column("copies")
        gained = _held(rows.lazy().with_columns(more).filter(more > 0), target)
        first = pl.when(more > 0).then(pl.lit(place, pl.Int32))
        decided = pl.select(pl.coalesce(decided, first).alias("decided")).to_series()
        rows = rows.with_columns(copies)
        facts["targets"][target.id] = {
            "asked": target.shares,
            "reached": _shares({value: weight + gained.get(value, 0) for value, weight in held.items()}, target),
            "copies_made": int(more.sum()),
        }
    ids = dict(enumerate(target.id for target in section.targets))
    versions = dict(enumerate(target.version for target in section.targets))
    return Output(
        rows.with_columns(pl.lit(0, pl.Int32).alias("copy_index")),
        fates(
            rows.select("row_id", "copies", decided),
            pl.when(pl.col("copies") > 1).then(pl.lit("copied")).otherwise(pl.lit("kept")),
            rule=pl.col("decided").replace_strict(ids, default=None, return_dtype=pl.String) if ids else None,
            rule_version=pl.col("decided").replace_strict(versions, default=None, return_dtype=pl.Int32)
            if ids
            else None,
            copies=pl.col("copies"),
        ).collect(),
        facts=facts,
    )


def _weight() -> pl.Expr:
    return (pl.col("weight") * FIXED_POINT).round().cast(pl.Int64) * pl.col("copies")


def _held(rows: pl.LazyFrame, target: Target) -> dict[str | None, int]:
    held = rows.group_by(pl.col(target.column).cast(pl.String).alias("value")).agg(_weight().sum().alias("held"))
    return dict(held.sort("value").collect().iter_rows())


def _shares(held: dict[str | None, int], target: Target) -> dict[str, float]:
    total = sum(held.values())
    return {value: round(held.get(value, 0) / total, 6) if total else 0.0 for value in target.shares}


def _copies(rows: pl.DataFrame, target: Target, key: str, held: dict[str | None, int]) -> pl.Series:
    """How often each row stands after this target."""
    value = pl.col(target.column).cast(pl.String)
    multiples = {name: steady(float(times)) for name, times in _multiples(held, target).items()}
    wanted = value.replace_strict(multiples, default=1.0, return_dtype=pl.Float64)
    draw = keyed_draw(f"{key}:{target.id}", pl.col("row_id"))
    whole = wanted.floor() + (draw < wanted - wanted.floor()).cast(pl.Float64)
    # A cap says how often a record stands in the end, whatever earlier targets did.
    most = pl.max_horizontal("copies", pl.lit(target.max_copies, pl.Int32))
    times = pl.min_horizontal(pl.col("copies") * whole.clip(1, target.max_copies).cast(pl.Int32), most)
    meant = rows.lazy().with_row_index("at").filter(value.is_in(list(multiples))).select("at", times.alias("copies"))
    found = meant.collect()
    return rows.get_column("copies").scatter(found.get_column("at"), found.get_column("copies"))


def _multiples(held: dict[str | None, int], target: Target) -> dict[str, Fraction]:
    """How often each value must stand so that it reaches its share, by exact arithmetic.

    A value that already has more than its share cannot be brought down by copying: it joins the rest. Where the shares
    leave nothing for a rest, or there is none, the values come into proportion to each other.
    """
    wanted = {value: Fraction(str(share)) for value, share in target.shares.items() if held.get(value)}
    while wanted:
        rest = sum(weight for value, weight in held.items() if value not in wanted)
        left = 1 - sum(wanted.values())
        if left <= 0 or rest <= 0:
            full = max(held[value] / share for value, share in wanted.items())
            return {value: full * share / held[value] for value, share in wanted.items()}
        multiples = {value: share * rest / left / held[value] for value, share in wanted.items()}
        above = {value for value, multiple in multiples.items() if multiple < 1}
        if not above:
            return multiples
        wanted = {value: share for value, share in wanted.items() if value not in above}
    return {}


STAGE = Stage(
    name="upsampled",
    description=(
        "Whole copies bring categories to their target share of weight. Which records get the odd copy is decided by a "
        "keyed hash of their id, so it does not change when other records come or go."
    ),
    inputs=("reweighted",),
    section=UpsampledSection,
    function=upsampled,
    promises=promises,
    weight="weight",
)
