"""Stages become Dagster assets: one factory, on top of `materialize` and `provenance`.

Here is what Dagster shows of a commit record. What a stage does is not decided here.
"""

import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from feedback_assets.checks.waivers import way_out
from feedback_assets.errors import FeedbackError, Refused
from feedback_assets.materialize.batches import notices
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import materialize, resolve
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.gate import failed_in_dagster
from feedback_assets.orchestration.lineage import input_version_tags
from feedback_assets.orchestration.metadata import describe
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.gate import day_of, waived_in
from feedback_assets.provenance.release import Release, release
from feedback_assets.provenance.report import report, report_key
from feedback_assets.sources.files import first_line
from feedback_assets.stages.stage import Stage

GROUP = "feedback"
OWNER = "team:feedback"
REFUSED = "refused"
"""Metadata of a failure: whether the gate refused, or something was wrong with what came in."""
PLOTTED = (
    *("value", "psi", "kl", "kl_reversed", "js", "ks", "rows_in", "rows_out", "beyond_count", "groups"),
    *("observed_value", "element_count", "unexpected_count", "missing_count", "overlaps"),
)
"""What a check saw that is a number of its own in its metadata."""
Listener = Callable[[str, Literal["started", "done"], Commit | None], None]


def build_assets(project: Project, listener: Listener | None = None) -> list[dg.AssetsDefinition]:
    """An asset for each stage of the pipeline, with its checks."""
    return [_asset(project, stage, listener or _silent) for stage in STAGES]


def _silent(asset: str, moment: Literal["started", "done"], commit: Commit | None) -> None:
    del asset, moment, commit


def _asset(project: Project, stage: Stage, listener: Listener) -> dg.AssetsDefinition:
    section = project.policy.section(stage.name)
    specs = [
        dg.AssetCheckSpec(name=name, asset=stage.name, blocking=check.blocking, description=check.meaning)
        for name, check in project.policy.required_checks(stage.name).items()
    ]

    @dg.asset(
        name=stage.name,
        deps=list(stage.inputs),
        group_name=GROUP,
        owners=[OWNER],
        kinds=set(stage.kinds),
        tags={"stage": stage.name, "project": project.policy.project},
        description=stage.description,
        code_version=project.code_version(stage.name),
        check_specs=specs,
        freshness_policy=_freshness(project) if stage.name == "ingested" else None,
        metadata={
            "policy": dg.MetadataValue.path(str(project.path)),
            "section": dg.MetadataValue.json(section.pinned()),
        },
    )
    def _run(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        listener(stage.name, "started", None)
        now = datetime.now(UTC)
        try:
            commit, made = _materialize(project, stage, context, now)
        except FeedbackError as error:
            # A Failure is shown as one line; the way out is in it.
            raise dg.Failure(
                description=str(error), metadata={REFUSED: isinstance(error, Refused)}, allow_retries=False
            ) from None
        except Exception as error:
            # What Polars and others raise quotes values, and Dagster would keep all of it.
            raise dg.Failure(
                description=f"{stage.name}: {_internal(project, error)}",
                metadata={"where": dg.MetadataValue.md(_where(error))},
                allow_retries=False,
            ) from None
        listener(stage.name, "done", commit)
        for change in commit.circumstances["unversioned_changes"]:
            context.log.warning(change)
        if stage.name == "ingested":
            for notice in notices(project, commit):
                context.log.warning(notice)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(commit.data_version),
            metadata=describe(project, commit, made),
            tags=input_version_tags(context.instance, commit),
            check_results=[_check_result(project, commit, check, now) for check in commit.checks],
        )

    return _run


def _freshness(project: Project) -> dg.FreshnessPolicy | None:
    wanted = project.policy.monitoring.freshness
    if wanted is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=wanted.fail_after, warn_window=wanted.warn_after)


def _materialize(
    project: Project, stage: Stage, context: dg.AssetExecutionContext, now: datetime
) -> tuple[Commit, Release | None]:
    run = {name: commit for name in stage.inputs if (commit := project.commits.of_run(name, context.run.run_id))}
    inputs = resolve(project, stage.name, run)
    if stage.name != "training_set":
        return materialize(project, stage.name, run_id=context.run.run_id, inputs=inputs, now=now), None
    beside = failed_in_dagster(context.instance, project, inputs, now)
    commit, made = release(project, run_id=context.run.run_id, inputs=inputs, beside=beside, now=now)
    if made is not None:
        project.store.put(report_key(made), report(made).encode())
    return commit, made


def _internal(project: Project, error: Exception) -> str:
    quotes = all(source.quotes for source in project.policy.ingested.sources)
    said = f": {first_line(error)}" if quotes else ""
    return f"internal error, please report it with where it happened (in the UI): {type(error).__name__}{said}"


def _where(error: Exception) -> str:
    """The lines of code that an error came through, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"- `{frame.filename}:{frame.lineno}` {frame.name}" for frame in frames)


def _check_result(project: Project, commit: Commit, check: Mapping[str, Any], now: datetime) -> dg.AssetCheckResult:
    """A waived check stays failed; of severity WARN it does not stop what is below in the same run."""
    waiver = waived_in(project, commit, now).get(check["name"])
    said = check["meaning"]
    metadata: dict[str, Any] = {}
    if waiver is not None:
        said = f"{said} ({waiver.sentence()})"
        metadata["waiver"] = dg.MetadataValue.json(waiver.model_dump(mode="json"))
    elif check["name"] in commit.failed:
        out = way_out(project.policy.waivers, commit.asset, commit.data_version, check, day_of(now))
        said = f"{said}; {out}"
    holds_back = check["blocking"] and check["status"] != "inconclusive" and waiver is None
    return dg.AssetCheckResult(
        check_name=check["name"],
        passed=check["passed"],
        severity=dg.AssetCheckSeverity.ERROR if holds_back else dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={
            "status": check["status"],
            **_numbers(check),
            "definition": dg.MetadataValue.json(check["definition"]),
            "observed": dg.MetadataValue.json(check["observed"]),
            **metadata,
        },
    )


def _numbers(check: Mapping[str, Any]) -> dict[str, float]:
    """What was seen and the limits that it was held against, which Dagster plots over time."""
    seen = {name: check["observed"].get(name) for name in PLOTTED}
    limits = {name if name == "limit" else f"limit_{name}": value for name, value in check["definition"].items()}
    numbers = {name: value for name, value in (seen | limits).items() if isinstance(value, (int, float))}
    return {name: value for name, value in numbers.items() if not isinstance(value, bool)}
