"""Numbers held against limits: drift and losses become check results.

The numbers come in as plain values; how they were computed is no matter here.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from feedback_assets.checks.result import CheckResult, Kind, Status
from feedback_assets.sources.raw import one_line

SHOWN = 5  # groups that a sentence names


def limit_check(
    name: str,
    value: float | None,
    limit: float,
    *,
    what: str,
    kind: Kind = "drift",
    critical: float | None = None,
    blocking: bool = False,
    definition: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> CheckResult:
    """Hold one number against its upper limit.

    Args:
        name: name of the check, without the limit.
        value: the number; None or not finite means that it could not be computed: an error.
        limit: the largest value that passes.
        what: what the number is, for the sentence, e.g. "PSI of category against the input".
        kind: kind of the check.
        critical: what chance alone reaches at this sample size. Above the limit, nothing can be told: inconclusive.
        blocking: whether a failure holds the materialization back.
        definition: what else defines the check, beside the limit.
        observed: what else was seen.
    """
    status: Status
    if value is None or not math.isfinite(value):
        status, sentence = "error", f"{what} could not be computed."
    elif critical is not None and not critical <= limit:
        status = "inconclusive"
        sentence = (
            f"{what} is {value:.3g}, but chance alone gives up to {critical:.3g} here: too few rows for {limit:g}."
        )
    elif value <= limit:
        status, sentence = "passed", f"{what} is {value:.3g}, within the limit of {limit:g}."
    else:
        status, sentence = "failed", f"{what} is {value:.3g}, beyond the limit of {limit:g}."
    return CheckResult(
        name=name,
        passed=status == "passed",
        blocking=blocking,
        status=status,
        kind=kind,
        meaning=sentence,
        definition={"type": kind, **(definition or {}), "limit": limit},
        observed={**(observed or {}), "value": value, "critical": critical},
    )


def drift_check(
    against: str, drift: Mapping[str, Any], limit: float, *, epsilon: float = 1e-4, blocking: bool = False
) -> CheckResult:
    """The PSI of one column against `limit`.

    Args:
        against: what it is compared with: "input" or "baseline".
        drift: plain values: `column`, `psi`, `psi_critical`, `n_current`, `problem` and whatever else is worth keeping.
            A column without rows on one side is inconclusive, one with a `problem` an error.
        limit: the largest PSI that passes.
        epsilon: the share that stood in for empty cells: part of the definition.
        blocking: whether a failure holds the materialization back.
    """
    column, problem = drift["column"], drift.get("problem")
    value, critical = drift.get("psi"), drift.get("psi_critical")
    definition = {"statistic": "psi", "column": column, "against": against, "epsilon": epsilon}
    kept = {key: entry for key, entry in drift.items() if key not in ("cells", "edges", "limits", "verdict", "warning")}
    name = f"drift__{column}__{against}"
    if problem or value is not None:
        return limit_check(
            name,
            None if problem else value,
            limit,
            what=f"The PSI of {column} against the {against}" + (f" ({problem})" if problem else ""),
            critical=math.inf if critical is None else critical,
            blocking=blocking,
            definition=definition,
            observed=kept,
        )
    return CheckResult(
        name=name,
        passed=False,
        blocking=blocking,
        status="inconclusive",
        kind="drift",
        meaning=f"{column} has no rows to compare with the {against}.",
        definition={"type": "drift", **definition, "limit": limit},
        observed={**kept, "value": None, "critical": critical},
    )


def loss_check(
    losses: Sequence[Mapping[str, Any]],
    limit: float = 1.0,
    *,
    allowed: Mapping[tuple[str, str], str] | None = None,
    blocking: bool = True,
    quotes: bool = True,
) -> CheckResult:
    """No group lost the share `limit` or more (1: all) of its rows, but for those that the policy allows.

    Args:
        losses: plain values of each group: `column`, `value`, `rows`, `lost`.
        limit: the share, above 0.
        allowed: reasons for expected losses by (column, value).
        blocking: whether a failure holds the materialization back.
        quotes: whether a group may be named by what a source says; else by the beginning of its SHA-256.
    """
    reasons = {f"{column}={value}": why for (column, value), why in sorted((allowed or {}).items())}
    groups = [{**loss, "group": f"{loss['column']}={loss['value']}"} for loss in losses if loss["rows"]]
    beyond = [loss for loss in groups if loss["lost"] >= limit * loss["rows"]]
    broken = [loss for loss in beyond if loss["group"] not in reasons]
    how_much = "all" if limit >= 1 else f"{limit:.0%} or more"
    if broken:
        named = [f"{_shown(loss, quotes)} lost {loss['lost']:,} of {loss['rows']:,} rows" for loss in broken[:SHOWN]]
        more = f" (and {len(broken) - SHOWN} more)" if len(broken) > SHOWN else ""
        sentence = f"{'; '.join(named)}{more}; if this is meant, name it under monitoring.allowed_losses"
    else:
        but = f", but for {len(beyond)} that the policy allows" if beyond else ""
        sentence = f"{len(groups)} groups, none lost {how_much} of its rows{but}"
    return CheckResult(
        name="loss_by_group",
        passed=not broken,
        blocking=blocking,
        status="failed" if broken else "passed",
        kind="loss",
        meaning=sentence,
        definition={"type": "loss_by_group", "lost_share": limit, "allowed": reasons},
        observed={
            "groups": len(groups),
            "beyond": {_shown(loss, quotes): [loss["lost"], loss["rows"]] for loss in broken[:50]},
            "beyond_count": len(broken),
            "expected": {loss["group"]: reasons[loss["group"]] for loss in beyond if loss["group"] in reasons},
        },
    )


def _shown(loss: Mapping[str, Any], quotes: bool) -> str:
    value = str(loss["value"])
    if not quotes and loss["column"] not in ("source", "batch"):
        value = f"#{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    return f"{loss['column']}={one_line(value)}"
