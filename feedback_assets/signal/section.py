"""Policy section `monitoring`: what the signal is expected to be, and how far it may move."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.signal.histogram import declared
from feedback_assets.signal.losses import LOSS_COLUMNS


class Limits(Section):
    """Limits of the policy's `monitoring`. Rule of thumb for PSI: .10 look, .25 stop."""

    psi: float = Field(default=0.25, gt=0, description="beyond this PSI, and beyond chance, a column has moved")
    psi_warn: float = Field(default=0.1, gt=0, description="beyond this PSI, and beyond chance, a warning")
    lost_share: float = Field(default=1.0, gt=0, le=1, description="a group that loses this share or more is reported")

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


Expected = Annotated[NumericShares | dict[str, float], Field(union_mode="left_to_right")]


class Monitoring(Section):
    """Policy section `monitoring`: what the signal is expected to be, and how far it may move.

    `expect` declares a distribution per monitored column: {value: share}, where "(other)" stands for all values not
    named and "(null)" for none; or {edges, shares}. `columns` are further record columns to monitor. `cluster` is the
    column whose equal values are not independent (null: none); the chance of a baseline drift allows for it.
    """

    limits: Limits = Limits()
    expect: dict[str, Expected] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    cluster: str | None = "annotator_id"
    allowed_losses: tuple[AllowedLoss, ...] = ()

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

    def allowed(self, stage: str) -> dict[tuple[str, str], str]:
        """The reasons for the losses that `stage` may have, by (column, value)."""
        return {(loss.column, loss.value): loss.reason for loss in self.allowed_losses if loss.stage == stage}


def mapping_of(value: NumericShares | Mapping[str, Any]) -> Mapping[str, Any]:
    """A declared distribution as `histogram.declared` reads it."""
    return value.model_dump() if isinstance(value, NumericShares) else value
