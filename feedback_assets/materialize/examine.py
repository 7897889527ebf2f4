"""What a materialization says of itself: checks, drift against its input, losses by group, effective sample sizes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import polars as pl

from feedback_assets.checks.conservation import conservation, conserved, counted
from feedback_assets.checks.drift import SHOWN, drift_check, drifts_check, limit_check, loss_check
from feedback_assets.checks.expectations import run_suite
from feedback_assets.checks.result import CheckResult, Kind, Status
from feedback_assets.code_version import code_digest
from feedback_assets.digests import canonical_json, digest, distinct
from feedback_assets.materialize.comparisons import (
    Compared,
    Fates,
    Said,
    Side,
    baseline,
    may_quote,
    newest_batches,
    takers,
    transformation,
)
from feedback_assets.materialize.profiles import lost_of, profile_of, sizes_of
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import Policy
from feedback_assets.required import REGISTRIES, Required, baseline_name
from feedback_assets.signal.comparisons import ColumnDrift
from feedback_assets.signal.losses import LOST, heavy_losses, loss_by_annotator, loss_by_group
from feedback_assets.signal.monitor import distribution, identity_changes
from feedback_assets.signal.section import Monitoring
from feedback_assets.snapshots.snapshot import Snapshot, scan
from feedback_assets.sources.guidelines import overlaps
from feedback_assets.sources.privacy import shown
from feedback_assets.stages.stage import Stage

DIGITS = 9  # floats are rounded before they are digested: the last bits differ between machines


@dataclass(frozen=True)
class Examined:
    """A snapshot beside what it was made from: `before` is the upstream stage's, None at the start of the graph.

    `kept` says that the stage passed every row on as it came, or that intake kept all that came, so that nobody needs
    to read the fates. For a release `decided` holds the chances of all that was decided behind it, and `since` what
    was said behind it.
    """

    stage: Stage
    policy: Policy
    before: Snapshot | None
    weight_before: str | None
    after: Snapshot
    kept: bool = False
    decided: tuple[float, ...] = ()
    since: tuple[Said, ...] = ()

    @property
    def versions(self) -> list[str]:
        """Digests of all that is examined."""
        fates = self.after.tables.get("fates")
        return [
            self.after.data_version,
            self.before.data_version if self.before else "",
            *(part.fingerprint for part in (fates.parts if fates else ())),
        ]


def examine(project: Project, examined: Examined) -> dict[str, Any]:
    """Run the checks and compute the signals; remembered, because the same data and definitions give the same results.

    Returns:
        `checks`, `drift` (against the stage's input), `input` (the newest batches against earlier ones), `baseline`
        (against what is expected), `losses`, `identities`, `effective_sample_size` (by record, item and annotator) and
        `distribution`, all plain JSON values.
    """
    stage, policy = examined.stage, examined.policy
    required = policy.required_checks(stage.name)
    key = digest(
        [
            "examination",
            code_digest(__name__),
            {name: check.definition for name, check in required.items()},
            policy.monitoring.pinned(),
            stage.weight,
            examined.weight_before,
            examined.versions,
            [examined.decided, examined.since],
            may_quote(policy),
        ]
    )
    found = project.store.recall(key)
    if found is None:
        found = json.loads(canonical_json(_rounded(_examine(project, examined, required))))
        project.store.remember(key, found)
    return found


def _examine(project: Project, examined: Examined, required: dict[str, Required]) -> dict[str, Any]:
    stage, monitoring = examined.stage, examined.policy.monitoring
    promises = list(stage.promises(examined.policy.section(stage.name)))
    wanted = {name for promise in promises for name in promise.columns}
    after = project.held.rows(examined.after.tables["rows"])
    schema = list(examined.after.tables["rows"].schema)
    narrow = after.select([name for name in schema if name in wanted] or schema[:1]).collect()
    found: dict[str, Any] = {
        "drift": [],
        "input": [],
        "baseline": [],
        "losses": [],
        "identities": [],
        "effective_sample_size": {},
        "distribution": {},
    }
    # One after the other: what of both is Python would wait for the other's, and Polars has its own threads.
    results = run_suite(narrow, promises, stage.name, project.store)
    if stage.name in REGISTRIES:
        results.append(_overlaps(after))
    else:
        signals, more = _signals(project, examined, monitoring, required)
        found |= signals
        results += more
    by_name = {result.name: result for result in results}
    # The gate asks for exactly this set; a check that was lost on the way must not pass for one that passed.
    found["checks"] = [_result(by_name.get(name), name, check) for name, check in required.items()]
    return found


def _result(result: CheckResult | None, name: str, check: Required) -> dict[str, Any]:
    value = result or _check(name, "expectation", "error", f"{check.meaning}: it gave no result", {})
    asked = {"blocking": check.blocking, "definition": check.definition, "definition_digest": check.definition_digest}
    return {**value.as_json(), **asked}


def _signals(
    project: Project, examined: Examined, monitoring: Monitoring, required: dict[str, Required]
) -> tuple[dict[str, Any], list[CheckResult]]:
    store, stage, table = project.store, examined.stage, examined.after.tables["rows"]
    columns = monitoring.counted_columns
    came = examined.before.tables["rows"] if examined.before else None

    @cache
    def fates() -> pl.DataFrame:
        return project.held.rows(examined.after.tables["fates"]).collect()

    results = [_conserved(project, examined, fates)]
    seen = profile_of(project.held, table, stage.weight, columns)
    sizes = sizes_of(project.held, table, stage.weight, came, seen)
    quoting = may_quote(examined.policy)
    compared = Compared(monitoring, Side(project.held.rows(table.records), stage.weight, seen), sizes, quoting)
    release = stage.name == "training_set"
    found: dict[str, Any] = {
        "effective_sample_size": {size.unit: size.as_json() for size in sizes},
        "distribution": distribution(seen) if release else {},
    }
    drifts: list[ColumnDrift] = []
    if came is None:
        batches = scan(store, examined.after.tables["batches"])
        results.append(_quarantined_share(batches, required["quarantined_share"]))
        results.append(_quarantined_batches(batches, required["quarantined_batches"]))
        moved = newest_batches(project.held, examined.after, monitoring, quotes=quoting)
        newest = [entry.as_json(brief=True) for entry in moved]
        found["input"] = newest
        results.append(drifts_check("input_drift", newest, against="earlier batches"))
    else:
        rows = project.held.rows(came.records)
        known = profile_of(project.held, came, examined.weight_before, columns)
        before = Side(rows, examined.weight_before, known)
        lost = None if examined.kept else lost_of(rows, fates(), LOST)
        drifts = transformation(compared, before, fates, examined.policy.section(stage.name), examined.decided)
        losses = loss_by_group(before.profile, lost)
        found["drift"] = [entry.as_json(brief=True) for entry in drifts]
        found["losses"] = [loss.as_json() for loss in losses if loss.lost] + [
            {**loss.as_json(), "value": nameless(loss.value)} for loss in loss_by_annotator(before.profile, lost)
        ]
        found["identities"] = [_nameless(change.as_json()) for change in identity_changes(before.profile, seen)]
        results.append(drifts_check("drift", found["drift"], against="input"))
        allowed, limits = monitoring.allowed(stage.name), monitoring.limits
        limit, heavy = limits.lost_share, heavy_losses(losses, limits.heavy_loss)
        beyond = [loss for loss in losses if loss.rows and loss.lost >= limit * loss.rows]
        told = [loss for loss in dict.fromkeys((*beyond, *heavy)) if (loss.column, loss.value) not in allowed]
        because = takers(compared, rows, fates, told)
        groups = [loss.as_json() for loss in losses]
        results += [
            loss_check(groups, limit, allowed=allowed, because=because, quotes=quoting),
            loss_check(
                groups,
                limits.heavy_loss,
                name="heavy_loss_by_group",
                telling={f"{loss.column}={loss.value}" for loss in heavy},
                allowed=allowed,
                because=because,
                blocking=False,
                quotes=quoting,
            ),
        ]
    chances = [entry.drift.psi_chance for entry in drifts if entry.drift and entry.drift.psi_chance is not None]
    held = baseline(
        project, compared, held=release, decided=(*examined.decided, *chances) if release else (), since=examined.since
    )
    found["baseline"] = [entry.as_json(brief=not release) for entry in held]
    if release:
        by_column = {entry["column"]: entry for entry in found["baseline"]}
        results += [_expected(column, by_column.get(column), quotes=quoting) for column in monitoring.expected_columns]
    return found, results


def _expected(column: str, entry: Mapping[str, Any] | None, *, quotes: bool) -> CheckResult:
    name = baseline_name(column)
    if entry is not None:
        fallen = entry["fallen"] and shown(column, entry["fallen"], quotes=quotes)
        entry = {**entry, "fallen": fallen}
        return drift_check(name, entry, against="baseline", blocking=True)
    sentence = f"{column} has no value in any row, and has none in the approved release"
    return _check(name, "drift", "passed", sentence, {})


def nameless(annotator: str | None) -> str | None:
    """How a commit record, which is never rewritten, refers to an annotator: by a digest of the id."""
    return None if annotator is None else f"sha256:{hashlib.sha256(annotator.encode()).hexdigest()[:12]}"


def _nameless(change: dict[str, Any]) -> dict[str, Any]:
    if change["column"] != "annotator_id":
        return change
    examples = {key: [nameless(value) for value in change[key]] for key in ("new_examples", "vanished_examples")}
    return {**change, **examples, "largest": nameless(change["largest"])}


def _conserved(project: Project, examined: Examined, fates: Fates) -> CheckResult:
    table, before = examined.after.tables["rows"], examined.before
    if before is None:
        return _intake_conserves(project.held.rows(table), None if examined.kept else fates())
    if examined.kept:
        return conserved(table.rows)
    came = before.tables["rows"]
    ids = project.held.rows(came).select([name for name in ("row_id", "copy_index") if name in came.schema])
    wanted = [name for name in ("row_id", "copy_index", "parents") if name in table.schema]
    return conservation(ids, project.held.rows(table).select(wanted), fates())


def _intake_conserves(after: pl.LazyFrame, fates: pl.DataFrame | None) -> CheckResult:
    """`fates` is None where each row has one, and was kept."""
    stand = after.select(pl.col("row_id").hash()).collect().to_series()
    rows, different = stand.len(), distinct(stand)
    if fates is None:
        by_fate, total, deliveries = {"kept": rows}, rows, rows
    else:
        by_fate, total = dict(counted(fates, "fate").iter_rows()), fates.height
        deliveries = distinct(fates.get_column("row_id").hash())
        if deliveries < total:
            place = pl.struct(pl.col("arrival") * 2**32 + pl.col("line"), "position")
            deliveries = distinct(fates.select(pl.struct(place, pl.col("row_id").hash()).hash()).to_series())
    passed = rows == different == by_fate.get("kept", 0) and deliveries == total
    parts = ", ".join(f"{count:,} {fate}" for fate, count in by_fate.items())
    sentence = f"{total:,} records arrived: {parts}; {rows:,} rows went on"
    return _check("conservation", "conservation", "passed" if passed else "failed", sentence, by_fate)


def _quarantined_share(batches: pl.LazyFrame, required: Required) -> CheckResult:
    total, bad = batches.filter("stands").select(pl.col("records", "quarantined").sum()).collect().row(0)
    result = limit_check(
        "quarantined_share",
        bad / total if total else 0.0,
        required.definition["limit"],
        what=f"The share of records in quarantine ({bad:,} of {total:,})",
        kind="loss",
        blocking=True,
    )
    if result.passed:
        return result
    way_out = "mend the mapping, or the files under their names; of one that came again under another name, "
    way_out += "retract the first (ingested.retracted)"
    return replace(result, meaning=f"{result.meaning.rstrip('.')}; {way_out}.")


def _quarantined_batches(batches: pl.LazyFrame, required: Required) -> CheckResult:
    name = pl.format("{}/{}", "source", "batch")
    whole = batches.filter(pl.col("state") == "quarantined").select(name).unique(maintain_order=True).collect()
    names = whole.to_series().to_list()
    lost = required.definition["lost"]
    broken = [name for name in names if name not in lost]
    if broken:
        shown = ", ".join(broken[:SHOWN]) + (f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "")
        sentence = f"nothing of {shown} could be used; mend file or mapping, or name it under ingested.lost_batches"
    else:
        but = f", but for {len(names)} that the policy gives up" if names else ""
        sentence = f"no batch is in quarantine as a whole{but}"
    return _check(
        "quarantined_batches", "loss", "failed" if broken else "passed", sentence, {"batches": names, "broken": broken}
    )


def _overlaps(registry: pl.LazyFrame) -> CheckResult:
    found = overlaps(registry.collect()).to_dicts()
    shown = [
        f"{' '.join(filter(None, (pair['task'], pair['aspect'])))} {pair['version']} and {pair['other_version']} from "
        f"{pair['overlap_from']:%Y-%m-%d}" + (f" to {pair['overlap_to']:%Y-%m-%d}" if pair["overlap_to"] else " on")
        for pair in found
    ]
    more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
    sentence = f"in force at the same time: {'; '.join(shown[:SHOWN])}{more}; set effective_to of the earlier one"
    return _check(
        "overlaps",
        "expectation",
        "failed" if found else "passed",
        sentence if found else "no two versions of one task and aspect are in force at the same time",
        {"overlaps": len(found)},
    )


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
