"""The job over the whole graph, and what starts it: a daily schedule and a sensor for new batches, both off."""

from datetime import UTC, datetime

import dagster as dg

from feedback_assets.digests import digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.arrivals import arrivals, in_commit
from feedback_assets.materialize.landing import unlanded
from feedback_assets.materialize.project import Project

JOB = "build_release"
build_release = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.all(),
    description="Every stage from the batches to a release.",
    executor_def=dg.in_process_executor,
)
daily = dg.ScheduleDefinition(
    name="daily",
    job=build_release,
    cron_schedule="0 5 * * *",
    execution_timezone="UTC",
    description="Builds a release every day at 05:00 UTC.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)


def new_batches(project: Project) -> dg.SensorDefinition:
    """A sensor that builds a release when a batch has arrived that the latest `ingested` does not hold."""

    @dg.sensor(
        name="new_batches",
        job=build_release,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Builds a release when a batch arrives; once for each arrival, also after a restart.",
    )
    def _sensor() -> dg.RunRequest | dg.SkipReason:
        latest = project.commits.latest("ingested")
        section = project.policy.ingested
        try:
            known = in_commit(project.store, latest)
            order = arrivals(project.folder, project.store, section, latest, datetime.now(UTC)).order
            held = {source.name: unlanded(project.store, source) for source in section.sources if source.in_database}
        except FeedbackError as error:
            return dg.SkipReason(str(error))
        arrived = sorted(key for key in order if key not in known)
        rows = {name: [seen.rows, seen.position] for name, seen in held.items() if seen is not None}
        if not arrived and not rows:
            return dg.SkipReason(f"no new batch; {len(known)} are in the latest snapshot")
        # The key is made of what arrived, so that the same arrival cannot start two runs.
        return dg.RunRequest(
            run_key=digest([arrived, rows] if rows else arrived), tags={"new_batches": str(len(arrived) + len(rows))}
        )

    return _sensor
