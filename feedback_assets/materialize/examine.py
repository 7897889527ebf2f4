"""What a materialization says of itself: checks, drift against its input, fates by rule, effective sample sizes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from feedback_assets.checks.conservation import conservation
from feedback_assets.checks.drift import limit_check
from feedback_assets.checks.expectations import run_suite
from feedback_assets.checks.result import CheckResult
from feedback_assets.digests import digest
from feedback_assets.signal.monitor import (
    Monitoring,
    baseline_drift,
    distribution,
    effective_sample_size,
    identity_changes,
    loss_by_group,
    transformation_drift,
)
from feedback_assets.stages.stage import Expectation, Stage

CONSERVATION = "conservation"
DRIFT = "drift"
LOSS = "loss_by_group"
BASELINE = "baseline"
QUARANTINE = "quarantined_share"
REGISTRIES = ("guidelines",)


@dataclass(frozen=True)
class Examined:
    """A snapshot beside what it was made from.

    `before`: rows of the upstream stage, None at the start of the graph; `weight_before` its weight column.
    """

    stage: Stage
    section: Any
    monitoring: Monitoring
    before: pl.LazyFrame | None
    weight_before: str | None
    after: pl.LazyFrame
    fates: pl.LazyFrame | None


@dataclass(frozen=True)
class Examination:
    """Checks, drift and the rest as plain JSON values, ready for a commit record."""

    checks: list[dict[str, Any]]
    drift: list[dict[str, Any]]
    facts: dict[str, Any]


def required_checks(stage: Stage, section: Any, monitoring: Monitoring) -> dict[str, bool]:
    """Names of all checks of a stage under this policy, and whether each is blocking: what the gate asks for."""
    names = {expectation.name: expectation.blocking for expectation in expectations(stage, section)}
    if stage.name in REGISTRIES:
        return names
    names[CONSERVATION] = True
    if stage.name == "ingested":
        names[QUARANTINE] = True
    else:
        names[LOSS] = True
        names[DRIFT] = False
    if monitoring.expect and stage.name == "training_set":
        names[BASELINE] = True
    return names


def expectations(stage: Stage, section: Any) -> list[Expectation]:
    """The suite of a stage under its section of the policy."""
    return list(stage.promises(section))
