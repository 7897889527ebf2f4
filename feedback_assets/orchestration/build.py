"""The whole of what Dagster is shown, and the instance that keeps its events."""

from importlib.resources import files
from pathlib import Path

import dagster as dg

from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.after_release import TRAINING_RUN
from feedback_assets.orchestration.assets import Listener, build_assets
from feedback_assets.orchestration.jobs import build_release, daily, new_batches


def build_definitions(project: Project, listener: Listener | None = None) -> dg.Definitions:
    """Assets, checks, job, schedule and sensor of a project.

    `listener` is called when a stage starts and when it is done, in the process that runs it.
    """
    return dg.Definitions(
        assets=[*build_assets(project, listener), TRAINING_RUN],
        jobs=[build_release],
        schedules=[daily],
        sensors=[new_batches(project)],
        executor=dg.in_process_executor,
    )


def dagster_home(project: Project) -> Path:
    """The Dagster home of a project, beside its data; made with its configuration if it is not there."""
    home = project.store.here.root / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(
            files("feedback_assets.orchestration").joinpath("dagster.yaml").read_text(encoding="utf-8"),
            encoding="utf-8",
        )
    return home
