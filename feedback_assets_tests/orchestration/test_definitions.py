"""The graph as Dagster is shown it, in one file, so that a reviewer sees in its diff what the graph became."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.build import build_definitions
from feedback_assets.pipeline import STAGES
from feedback_assets.sample import generate

SNAPSHOT = Path(__file__).parent / "definitions.json"
WRITE = "FEEDBACK_ASSETS_WRITE_DEFINITIONS"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    policy = Path(generate.__file__).parent / "policy.yaml"
    return build_definitions(Project.open(policy, tmp_path_factory.mktemp("store")))


def _windows(freshness: Any) -> dict[str, str] | None:
    """After how long a materialization is late, and overdue."""
    if freshness is None:
        return None
    windows = {"warns": freshness.warn_window, "fails": freshness.fail_window}
    return {name: str(window.to_timedelta()) for name, window in windows.items() if window is not None}


def shown(definitions: dg.Definitions) -> dict[str, Any]:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assets = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        checks = [graph.get_check_spec(check) for check in node.check_keys]
        assets[key.to_user_string()] = {
            "description": node.description,
            "group": node.group_name,
            "owners": list(node.owners),
            "kinds": sorted(node.kinds),
            "tags": {name: value for name, value in sorted(node.tags.items()) if not name.startswith("dagster/kind/")},
            "reads": sorted(parent.to_user_string() for parent in node.parent_keys),
            "partitioned": node.is_partitioned,
            "freshness": _windows(node.freshness_policy),
            "metadata": sorted(node.metadata),
            "checks": {
                check.name: ["blocking" if check.blocking else "warns", check.description]
                for check in sorted(checks, key=lambda check: check.name)
            },
        }
    return {
        "assets": assets,
        "jobs": {
            job.name: {"description": job.description, "assets": len(job.asset_layer.executable_asset_keys)}
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "description": schedule.description,
                "job": schedule.job_name,
                "cron": schedule.cron_schedule,
                "timezone": schedule.execution_timezone,
                "status": schedule.default_status.value,
            }
            for schedule in repository.schedule_defs
        },
        "sensors": {
            sensor.name: {
                "description": sensor.description,
                "job": sensor.job_name,
                "seconds": sensor.minimum_interval_seconds,
                "status": sensor.default_status.value,
            }
            for sensor in repository.sensor_defs
        },
    }


def test_the_graph_is_the_one_that_was_reviewed(definitions: dg.Definitions) -> None:
    now = json.dumps(shown(definitions), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get(WRITE):
        SNAPSHOT.write_text(now, encoding="utf-8")
    assert now == SNAPSHOT.read_text(encoding="utf-8"), (
        f"the graph changed; if that is meant, set {WRITE}=1, run this test, and review the diff of {SNAPSHOT.name}"
    )


def test_how_old_the_batches_may_be_changes_no_version_of_the_data_or_the_code(tmp_path: Path) -> None:
    text = (Path(generate.__file__).parent / "policy.yaml").read_text(encoding="utf-8")
    told = "  freshness: { warn_after: 8d, fail_after: 15d }"
    assert told in text
    projects = []
    for name, freshness in (("with", told), ("other", "  freshness: { fail_after: 90m }"), ("without", "  #")):
        (tmp_path / f"{name}.yaml").write_text(text.replace(told, freshness), encoding="utf-8")
        projects.append(Project.open(tmp_path / f"{name}.yaml", tmp_path / "store"))
    windows = [shown(build_definitions(project))["assets"]["ingested"]["freshness"] for project in projects]
    assert windows == [{"warns": "8 days, 0:00:00", "fails": "15 days, 0:00:00"}, {"fails": "1:30:00"}, None]
    assert len({json.dumps(project.policy.pinned()) for project in projects}) == 1
    assert len({project.code_version(stage.name) for project in projects for stage in STAGES}) == len(STAGES)


def test_nothing_starts_by_itself(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    assert [s.default_status.value for s in (*repository.schedule_defs, *repository.sensor_defs)] == ["STOPPED"] * 2


def test_dagster_accepts_the_definitions(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_each_asset_has_a_code_version_of_its_own(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    versions = [graph.get(key).code_version for key in graph.toposorted_asset_keys]
    assert None not in versions
    assert len(set(versions)) == len(versions)
