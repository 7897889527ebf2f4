"""Numbers held against limits: drift and losses become check results.

The numbers come in as plain values; how they were computed is no matter here.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from feedback_assets.checks.result import CheckResult, Kind, Status
from feedback_assets.sources.privacy import shown
from feedback_assets.sources.raw import one_line

SHOWN = 5  # groups that a sentence names


def limit_check(
    name: str,
    value: float | None,
    limit: float,
    *,
    what: str,
    kind: Kind = "drift",
    blocking: bool = False,
) -> CheckResult:
    """Hold one number against its upper limit.

    Args:
        name: name of the check, without the limit.
        value: the number; None or not finite means that it could not be computed: an error.
        limit: the largest value that passes.
        what: what the number is, for the sentence, e.g. "PSI of category against the input".
        kind: kind of the check.
        blocking: whether a failure holds the materialization back.
    """
    status: Status
    if value is None or not math.isfinite(value):
        status, sentence = "error", f"{what} could not be computed."
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
        definition={"type": kind, "limit": limit},
        observed={"value": value},
    )


def drift_check(
    name: str,
    drift: Mapping[str, Any],
    *,
    against: str,
    blocking: bool = False,
) -> CheckResult:
    """What was decided on the PSI of one column.

    Args:
        name: name of the check.
        drift: plain values: `column`, `verdict`, `psi`, `psi_critical`, `psi_chance`, `adjusted`, `limits`, `problem`,
            `because`. A column without rows on one side is inconclusive, one with a `problem` an error.
        against: what it is compared with, for the sentence.
        blocking: whether a failure holds the materialization back.
    """
    status, sentence = _STATUS[drift["verdict"]], _sentence(drift, against)
    kept = {key: entry for key, entry in drift.items() if key not in ("cells", "edges", "limits", "verdict", "warning")}
    return CheckResult(
        name=name,
        passed=status == "passed",
        blocking=blocking,
        status=status,
        kind="drift",
        meaning=sentence,
        definition={"type": "drift", "limit": drift["limits"]["psi"]},
        observed=kept,
    )


def drifts_check(name: str, drifts: Sequence[Mapping[str, Any]], *, against: str) -> CheckResult:
    """None of several columns moved; those that did lead, the farthest first. Arguments as for `drift_check`.

    Only entries that are `held` decide. It is inconclusive if nothing could be told of any of them.
    """
    held = [entry for entry in drifts if entry["held"]]
    ranked = sorted(held, key=lambda entry: (-(entry.get("psi") or 0.0), entry["column"]))
    by_verdict = {verdict: [entry for entry in ranked if entry["verdict"] == verdict] for verdict in _STATUS}
    broken = [*by_verdict["error"], *by_verdict["moved"]]
    status: Status = "error" if by_verdict["error"] else "failed" if broken else "passed"
    if broken:
        said = [_sentence(entry, against).removesuffix(".") for entry in broken[:SHOWN]]
        sentence = "; ".join(said) + (f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "")
    else:
        sentence = f"{len(held)} columns against the {against}, none beyond the limit"
        if held and len(by_verdict["inconclusive"]) == len(held):
            status = "inconclusive"
    if by_verdict["inconclusive"]:
        sentence += f"; too few independent rows to tell: {', '.join(e['column'] for e in by_verdict['inconclusive'])}"
    about = [entry["column"] for entry in drifts if not entry["held"] and entry["verdict"] == "moved"]
    if about:
        sentence += f"; of other composition, and not held to the limit: {', '.join(dict.fromkeys(about))}"
    return CheckResult(
        name=name,
        passed=status == "passed",
        blocking=False,
        status=status,
        kind="drift",
        meaning=sentence,
        definition={"type": "drift"},
        observed={
            "columns": len(held),
            "psi": max((entry["psi"] for entry in held if entry.get("psi") is not None), default=None),
            "moved": {entry["column"]: entry.get("psi") for entry in by_verdict["moved"]},
            "inconclusive": [entry["column"] for entry in by_verdict["inconclusive"]],
            "other_composition": about,
        },
    )


_STATUS: Mapping[str, Status] = {
    "stable": "passed",
    "moved": "failed",
    "inconclusive": "inconclusive",
    "error": "error",
}


def _sentence(drift: Mapping[str, Any], against: str) -> str:
    value, limit, verdict = drift.get("psi"), drift["limits"]["psi"], drift["verdict"]
    batch = f" in batch {drift['batch']} of {drift['source']}" if drift.get("batch") else ""
    what = f"The PSI of {drift['column']}{batch} against the {against}"
    why = f": {drift['because']}" if drift.get("because") else ""
    critical = drift.get("psi_critical")
    if verdict == "error":
        return f"{what} could not be computed ({drift.get('problem')})."
    if value is None or critical is None:
        return f"{drift['column']}{batch} has no rows to compare with the {against}."
    if verdict == "moved" and value <= limit:
        kept = f"{100 * drift['limits']['share_kept']:.0f} %"
        return f"{drift['column']}{batch} against the {against}: a value kept {kept} of its share or less{why}."
    if verdict == "moved":
        return f"{what} is {value:.3g}, beyond the limit of {limit:g}{why}."
    if critical > limit:
        return (
            f"{what} is {value:.3g}, but chance alone gives up to {critical:.3g} here: too few independent rows for "
            f"{limit:g}."
        )
    if verdict == "inconclusive":
        return (
            f"{what} is {value:.3g}, beyond the limit of {limit:g}, but chance explains it among all that is decided."
        )
    return f"{what} is {value:.3g}, within the limit of {limit:g}."


def loss_check(
    losses: Sequence[Mapping[str, Any]],
    limit: float = 1.0,
    *,
    name: str = "loss_by_group",
    telling: Collection[str] | None = None,
    allowed: Mapping[tuple[str, str], str] | None = None,
    because: Mapping[str, str] | None = None,
    blocking: bool = True,
    quotes: bool = True,
) -> CheckResult:
    """No group lost the share `limit` or more (1: all) of its rows, but for those that the policy allows.

    Args:
        losses: plain values of each group: `column`, `value`, `rows`, `lost`.
        limit: the share, above 0.
        name: name of the check.
        telling: the groups, as `column=value`, that lost more than chance explains; default: all.
        allowed: reasons for expected losses by (column, value).
        because: what took the rows, by `column=value`, for the sentence.
        blocking: whether a failure holds the materialization back.
        quotes: whether a group may be named by what a source says; else by the beginning of its SHA-256.
    """
    reasons = {f"{column}={value}": why for (column, value), why in sorted((allowed or {}).items())}
    groups: list[dict[str, Any]] = [
        {**loss, "group": f"{loss['column']}={loss['value']}"} for loss in losses if loss["rows"]
    ]
    beyond = [
        loss
        for loss in groups
        if loss["lost"] >= limit * loss["rows"] and (telling is None or loss["group"] in telling)
    ]
    broken = [loss for loss in beyond if loss["group"] not in reasons]
    how_much = "all of its rows" if limit >= 1 else f"{limit:.0%} or more of its rows"
    how_much += "" if telling is None else ", beyond what all others lost"
    if broken:
        why = {group: f" ({reason})" for group, reason in (because or {}).items()}
        named = [
            f"{_shown(loss, quotes)} lost {loss['lost']:,} of {loss['rows']:,} rows{why.get(loss['group'], '')}"
            for loss in broken[:SHOWN]
        ]
        more = f" (and {len(broken) - SHOWN} more)" if len(broken) > SHOWN else ""
        sentence = f"{'; '.join(named)}{more}; if this is meant, name it under monitoring.allowed_losses"
    else:
        but = f", but for {len(beyond)} that the policy allows" if beyond else ""
        sentence = f"{len(groups)} groups, none lost {how_much}{but}"
    return CheckResult(
        name=name,
        passed=not broken,
        blocking=blocking,
        status="failed" if broken else "passed",
        kind="loss",
        meaning=sentence,
        definition={"type": name, "lost_share": limit, "allowed": reasons},
        observed={
            "groups": len(groups),
            "beyond": {_shown(loss, quotes): [loss["lost"], loss["rows"]] for loss in broken[:50]},
            "beyond_count": len(broken),
            "expected": {loss["group"]: reasons[loss["group"]] for loss in beyond if loss["group"] in reasons},
        },
    )


def _shown(loss: Mapping[str, Any], quotes: bool) -> str:
    return f"{loss['column']}={one_line(shown(loss['column'], str(loss['value']), quotes=quotes))}"
