"""Policy section `monitoring`: what the signal is expected to be, and how far it may move."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Duration, Section
from feedback_assets.signal.histogram import declared
from feedback_assets.signal.losses import LOSS_COLUMNS

GATED = (
    *("outcome", "position_win", "chosen_longer", "score", "response_chars"),
    *("category", "source", "task", "language", "origin"),
)
"""The columns in which a release is held to an approved one."""


class Limits(Section):
    """Limits of the policy's `monitoring`. Rule of thumb for PSI: .10 look, .25 stop."""

    psi: float = Field(default=0.25, gt=0, description="beyond this PSI, and beyond chance, a column has moved")
    psi_warn: float = Field(default=0.1, gt=0, description="beyond this PSI, and beyond chance, a warning")
    share_kept: float = Field(
        default=0.6,
        ge=0,
        lt=1,
        description="a category that keeps this part of its share or less has moved, a group that keeps this part of "
        "its rows, where the others keep more, has lost much",
    )
    lost_share: float = Field(default=1.0, gt=0, le=1, description="a group that loses this share or more is reported")

    @property
    def heavy_loss(self) -> float:
        """The share of its rows that a group loses where it keeps `share_kept` of them."""
        return round(1 - self.share_kept, 9)

    @model_validator(mode="after")
    def _ordered(self) -> "Limits":
        if self.psi_warn > self.psi:
            raise ValueError(f"psi_warn {self.psi_warn} lies above psi {self.psi}")
        return self


class NumericShares(Section):
    """A declared numeric distribution: inner edges, and the share of each interval (one more than edges).

    Intervals are closed on the left and open-ended at both ends; `nulls` is the share without value. All add up to 1.
    """

    edges: tuple[float, ...] = Field(min_length=1)
    shares: tuple[float, ...]
    nulls: float = 0.0


class AllowedLoss(Section):
    """A group that a stage is expected to lose."""

    column: str = Field(description=f"one of {', '.join(LOSS_COLUMNS)}")
    value: str
    stage: str
    reason: str = Field(min_length=1)


class Freshness(Section):
    """How long ago `ingested` may have been materialized last: Dagster says in its UI when it is longer."""

    warn_after: Duration | None = Field(default=None, description="such as 26h: then it is late")
    fail_after: Duration = Field(description="such as 3d: then it is overdue")

    @model_validator(mode="after")
    def _ordered(self) -> "Freshness":
        if self.warn_after is not None and self.warn_after >= self.fail_after:
            raise ValueError("warn_after must be shorter than fail_after, or it would never warn")
        if any(window < timedelta(minutes=1) for window in (self.warn_after, self.fail_after) if window is not None):
            raise ValueError("Dagster looks every half minute; give a minute or more")
        return self


Expected = Annotated[NumericShares | dict[str, float], Field(union_mode="left_to_right")]


class BaselineRelease(Section):
    """A release whose distribution is the baseline: one that people approved, not the last one."""

    release: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="`approved` for the one that was approved last, a tag, or an id (16 characters of it and more)",
    )


class Monitoring(Section):
    """Policy section `monitoring`: what the signal is expected to be, and how far it may move.

    `expect` declares a distribution per monitored column: {value: share}, where "(other)" stands for all values not
    named and "(null)" for none; or {edges, shares}. For all other columns of GATED `baseline` may name one approved
    release, whose distribution is expected then. `columns` are further record columns to monitor.

    Every stage is compared with its input, the newest batch of each source with the earlier ones of that source, the
    training set with what is expected of it, and each asset with its previous materialization. `gating` says which of
    these hold a materialization back when they fail: transformation, input, baseline. Batches differ in what they are
    about without anything being wrong, so between batches only the columns in `answers` are held to the limit.

    `freshness` is about runs and not about data: it enters neither a manifest's content nor what is remembered.

    `clusters` are up to two columns whose equal values are not independent; chance allows for both.
    """

    limits: Limits = Limits()
    expect: dict[str, Expected] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    baseline: BaselineRelease | None = None
    clusters: tuple[str, ...] = Field(default=("annotator_id", "item_id"), max_length=2)
    answers: tuple[str, ...] = ("outcome", "position_win", "chosen_longer", "score")
    gating: tuple[Literal["transformation", "input", "baseline"], ...] = ("baseline",)
    allowed_losses: tuple[AllowedLoss, ...] = ()
    freshness: Freshness | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _sound(self) -> "Monitoring":
        for name, value in self.expect.items():
            try:
                declared(mapping_of(value))
            except FeedbackError as error:
                raise ValueError(f"expect.{name}: {error}") from None
        for loss in self.allowed_losses:
            if loss.column not in LOSS_COLUMNS:
                raise ValueError(f"allowed_losses: column {loss.column!r} is none of {', '.join(LOSS_COLUMNS)}")
        return self

    @property
    def expected_columns(self) -> tuple[str, ...]:
        """The columns of which a distribution is expected: declared, or that of the approved release."""
        return tuple(sorted({*self.expect, *(GATED if self.baseline else ())}))

    @property
    def counted_columns(self) -> tuple[str, ...]:
        """The record columns to count beside those that always are."""
        return tuple(sorted({*self.columns, *self.expect}))

    def allowed(self, stage: str) -> dict[tuple[str, str], str]:
        """The reasons for the losses that `stage` may have, by (column, value)."""
        return {(loss.column, loss.value): loss.reason for loss in self.allowed_losses if loss.stage == stage}


def mapping_of(value: NumericShares | Mapping[str, Any]) -> Mapping[str, Any]:
    """A declared distribution as `histogram.declared` reads it."""
    return value.model_dump() if isinstance(value, NumericShares) else value
