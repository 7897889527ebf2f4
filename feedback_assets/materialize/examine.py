"""What a materialization says of itself: checks, drift against its input, losses by group, effective sample sizes."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from feedback_assets.checks.conservation import DEFINITION, conservation
from feedback_assets.checks.drift import drift_check, limit_check, loss_check
from feedback_assets.checks.expectations import run_suite
from feedback_assets.checks.result import CheckResult, Kind, Status, plain
from feedback_assets.code_version import code_digest
from feedback_assets.digests import canonical_json, digest
from feedback_assets.pipeline import Policy
from feedback_assets.signal.monitor import (
    ColumnDrift,
    Monitoring,
    baseline_drift,
    distribution,
    effective_sample_size,
    identity_changes,
    loss_by_annotator,
    loss_by_group,
    transformation_drift,
)
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.stages.ingested import IngestedSection
from feedback_assets.stages.stage import Stage
from feedback_assets.threads import each

REGISTRIES = ("guidelines",)  # assets that hold no feedback: there is no row to follow and no signal to watch
UNWATCHED = (
    *("feedback_id", "prompt_id", "response_a_id", "cluster_id", "component_id", "content_part", "content_row"),
    *("group_id", "guideline_digest", "started_at", "collected_at", "line", "position", "gold"),
)
DIGITS = 9  # floats are rounded before they are digested: the last bits differ between machines


@dataclass(frozen=True)
class Required:
    """A check that the policy asks for."""

    blocking: bool
    meaning: str
    definition: dict[str, Any]

    @property
    def definition_digest(self) -> str:
        """Digest of what is checked, limits included."""
        return digest(self.definition)


def required_checks(stage: Stage, policy: Policy) -> dict[str, Required]:
    """All checks of a stage under this policy, by name: what is run, what Dagster shows, and what the gate asks for."""
    section, monitoring = policy.section(stage.name), policy.monitoring
    required = {
        promise.name: Required(
            promise.blocking, promise.meaning, {"type": promise.type, "kwargs": plain(promise.kwargs)}
        )
        for promise in stage.promises(section)
    }
    if stage.name in REGISTRIES:
        return required
    required["conservation"] = Required(
        True,
        "each row that came in has exactly one fate, and the rows that went out are those that were kept",
        DEFINITION,
    )
    if isinstance(section, IngestedSection):
        required["quarantined_share"] = Required(
            True,
            f"at most {section.max_quarantined_share:.1%} of the records are in quarantine",
            {"type": "quarantined_share", "limit": section.max_quarantined_share},
        )
        return required
    allowed = {
        f"{column}={value}": reason for (column, value), reason in sorted(monitoring.allowed(stage.name).items())
    }
    required["loss_by_group"] = Required(
        True,
        "no source, batch, category, guideline version or origin lost all its rows, unless the policy expects it",
        {"type": "loss_by_group", "lost_share": monitoring.limits.lost_share, "allowed": allowed},
    )
    required["drift"] = Required(
        False,
        f"no monitored column moved beyond a PSI of {monitoring.limits.psi}, and beyond chance, against the input",
        {"type": "drift", "psi": monitoring.limits.psi},
    )
    if stage.name == "training_set":
        for column, expected in sorted(monitoring.pinned()["expect"].items()):
            required[baseline_name(column)] = Required(
                True,
                f"{column} has the distribution that the policy expects",
                {"type": "baseline", "column": column, "expected": expected, "psi": monitoring.limits.psi},
            )
    return required


@dataclass(frozen=True)
class Examined:
    """A snapshot beside what it was made from: `before` are the upstream stage's rows, None at the start of the graph.

    `versions` are digests of all that is examined, for the memo.
    """

    stage: Stage
    policy: Policy
    versions: Sequence[str]
    before: pl.LazyFrame | None
    weight_before: str | None
    after: pl.LazyFrame
    fates: pl.LazyFrame | None


def examine(store: LocalStore, examined: Examined) -> dict[str, Any]:
    """Run the checks and compute the signals; remembered, because the same data and definitions give the same results.

    Returns:
        `checks`, `drift` (against the input), `baseline` (against what is expected), `losses`, `identities`,
        `effective_sample_size` (by record, item and annotator) and `distribution`, all plain JSON values.
    """
    stage, policy = examined.stage, examined.policy
    required = required_checks(stage, policy)
    key = digest(
        [
            "examination",
            code_digest(__name__),
            {name: check.definition for name, check in required.items()},
            policy.monitoring.pinned(),
            stage.weight,
            examined.weight_before,
            list(examined.versions),
        ]
    )
    found = store.recall(key)
    if found is None:
        found = json.loads(canonical_json(_rounded(_examine(examined, required))))
        store.remember(key, found)
    return found


def _examine(examined: Examined, required: dict[str, Required]) -> dict[str, Any]:
    stage, monitoring = examined.stage, examined.policy.monitoring
    promises = list(stage.promises(examined.policy.section(stage.name)))
    wanted = {name for promise in promises for name in columns_named(promise.kwargs)}
    schema = examined.after.collect_schema().names()
    narrow = examined.after.select([name for name in schema if name in wanted] or schema[:1]).collect()
    found: dict[str, Any] = {
        "drift": [],
        "baseline": [],
        "losses": [],
        "identities": [],
        "effective_sample_size": {},
        "distribution": {},
    }
    # Great Expectations is Python, the signals are Polars: side by side they take little longer than one of them.
    tasks: list[Callable[[], Any]] = [lambda: run_suite(narrow, promises, stage.name)]
    if stage.name not in REGISTRIES:
        tasks.append(lambda: _signals(examined, monitoring, required))
    results, *signalled = each(lambda task: task(), tasks)
    for signals, more in signalled:
        found |= signals
        results += more
    by_name = {result.name: result for result in results}
    # The gate asks for exactly this set; a check that was lost on the way must not pass for one that passed.
    found["checks"] = [_result(by_name.get(name), name, check) for name, check in required.items()]
    return found


def columns_named(kwargs: Any) -> list[str]:
    """The columns that an expectation's arguments name."""
    names = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*names, *kwargs.get("column_list", ()), *kwargs.get("column_set", ())]


def _result(result: CheckResult | None, name: str, check: Required) -> dict[str, Any]:
    value = result or _check(name, "expectation", "error", f"{check.meaning}: it gave no result", {})
    asked = {"blocking": check.blocking, "definition": check.definition, "definition_digest": check.definition_digest}
    return {**value.as_json(), **asked}


def _signals(
    examined: Examined, monitoring: Monitoring, required: dict[str, Required]
) -> tuple[dict[str, Any], list[CheckResult]]:
    assert examined.fates is not None  # noqa: S101  every stage of feedback has fates
    stage = examined.stage
    fates = examined.fates.collect()
    after = _watched(examined.after, monitoring)
    before = None if examined.before is None else _watched(examined.before, monitoring)
    found: dict[str, Any] = {
        "effective_sample_size": {size.unit: size.as_json() for size in effective_sample_size(after, stage.weight)},
        "distribution": distribution(after, stage.weight, monitoring.columns) if stage.name == "training_set" else {},
    }
    results = []
    if before is None:
        results.append(_intake_conserves(after.lazy(), fates.lazy()))
        results.append(_quarantined_share(fates.lazy(), required["quarantined_share"]))
        return found, results
    ids = before.select("row_id").unique() if "copy_index" in before.columns else before.select("row_id")
    results.append(conservation(ids, after, fates))
    drifts = transformation_drift(
        before,
        after,
        weight_before=examined.weight_before,
        weight_after=stage.weight,
        limits=monitoring.limits,
        columns=monitoring.columns,
    )
    losses = loss_by_group(before, fates)
    found["drift"] = [_brief(entry) for entry in drifts]
    found["losses"] = [loss.as_json() for loss in losses if loss.lost] + [
        loss.as_json() for loss in loss_by_annotator(before, fates)
    ]
    found["identities"] = [change.as_json() for change in identity_changes(before, after)]
    results.append(_drift_check(drifts, required["drift"]))
    results.append(
        loss_check(
            [loss.as_json() for loss in losses], monitoring.limits.lost_share, allowed=monitoring.allowed(stage.name)
        )
    )
    if stage.name == "training_set":
        expected = dict(monitoring.expect)
        held = baseline_drift(
            after, expected, weight=stage.weight, limits=monitoring.limits, cluster=monitoring.cluster
        )
        found["baseline"] = [entry.as_json() for entry in held]
        results += [
            replace(
                drift_check("baseline", entry.as_json(), monitoring.limits.psi, blocking=True),
                name=baseline_name(entry.name),
            )
            for entry in held
        ]
    return found, results


def _watched(rows: pl.LazyFrame, monitoring: Monitoring) -> pl.DataFrame:
    """The rows, read once, without the columns that no signal looks at."""
    named = {*monitoring.columns, *monitoring.expect, monitoring.cluster}
    return rows.select([name for name in rows.collect_schema() if name not in UNWATCHED or name in named]).collect()


def baseline_name(column: str) -> str:
    """Name of the check that holds a column against its expected distribution."""
    return re.sub(r"\W", "_", f"baseline__{column}", flags=re.ASCII)


def _brief(entry: ColumnDrift) -> dict[str, Any]:
    """Without the cells, which stand in the snapshots anyway, unless the column moved."""
    value = entry.as_json()
    if entry.verdict == "stable" and not entry.warning:
        value.pop("cells", None)
    return value


def _intake_conserves(after: pl.LazyFrame, fates: pl.LazyFrame) -> CheckResult:
    counted = dict(fates.group_by("fate").len().collect().iter_rows())
    rows, distinct = after.select(pl.len(), pl.col("row_id").hash().n_unique().alias("distinct")).collect().row(0)
    place = pl.struct(pl.col("arrival") * 2**32 + pl.col("line"), "position")
    deliveries = fates.select(pl.struct(place, pl.col("row_id").hash()).hash().n_unique()).collect().item()
    total = sum(counted.values())
    passed = rows == distinct == counted.get("kept", 0) and deliveries == total
    parts = ", ".join(f"{count:,} {fate}" for fate, count in sorted(counted.items()))
    sentence = f"{total:,} records arrived: {parts}; {rows:,} rows went on"
    return _check("conservation", "conservation", "passed" if passed else "failed", sentence, counted)


def _quarantined_share(fates: pl.LazyFrame, required: Required) -> CheckResult:
    total, bad = fates.select(pl.len(), (pl.col("fate") == "quarantined").sum().alias("bad")).collect().row(0)
    return limit_check(
        "quarantined_share",
        bad / total if total else 0.0,
        required.definition["limit"],
        what=f"The share of records in quarantine ({bad:,} of {total:,})",
        kind="loss",
        blocking=True,
    )


def _drift_check(drifts: Sequence[ColumnDrift], required: Required) -> CheckResult:
    moved = sorted(
        (d for d in drifts if d.verdict == "moved" and d.drift), key=lambda d: -((d.drift.psi if d.drift else 0) or 0)
    )
    unsure = [d.name for d in drifts if d.verdict == "inconclusive"]
    limit = required.definition["psi"]
    if moved:
        sentence = "; ".join(f"{d.name}: PSI {d.drift.psi:.3f} against a limit of {limit}" for d in moved if d.drift)
    else:
        sentence = f"{len(drifts)} columns, none beyond a PSI of {limit}"
    if unsure:
        sentence += f"; too few rows to tell: {', '.join(unsure)}"
    status = "failed" if moved else "inconclusive" if unsure and len(unsure) == len(drifts) else "passed"
    return _check("drift", "drift", status, sentence, {"moved": [d.name for d in moved], "inconclusive": unsure})


def _check(name: str, kind: Kind, status: Status, meaning: str, observed: dict[str, Any]) -> CheckResult:
    return CheckResult(name, status == "passed", True, status, kind, meaning, definition={}, observed=observed)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
