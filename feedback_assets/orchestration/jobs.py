"""The job over the whole graph, and what starts it: a daily schedule and a sensor for new batches, both off."""

import dagster as dg

from feedback_assets.digests import digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.sources.files import list_files

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
        try:
            present = {
                (file.source, file.name, file.digest)
                for source in project.policy.ingested.sources
                for file in list_files(source, project.folder)
            }
        except FeedbackError as error:
            return dg.SkipReason(str(error))
        latest = project.commits.latest("ingested")
        known: set[tuple[str, ...]] = set()
        if latest is not None:
            table = scan(project.store, latest.snapshot.tables["batches"])
            known = set(table.select("source", "batch", "digest").collect().iter_rows())
        arrived = sorted(present - known)
        if not arrived:
            return dg.SkipReason(f"no new batch; {len(known)} are in the latest snapshot")
        # The key is made of what arrived, so that the same arrival cannot start two runs.
        return dg.RunRequest(run_key=digest(arrived), tags={"new_batches": str(len(arrived))})

    return _sensor
