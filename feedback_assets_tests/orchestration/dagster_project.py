"""A project inside a real Dagster instance, for the tests of this folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.assets import Listener, build_assets
from feedback_assets.orchestration.build import build_definitions, dagster_home
from feedback_assets.orchestration.run import QUIET
from feedback_assets.provenance.release import listed

KEEPS_ALL = "feedback_id = 'nobody'"
DROPS_APP = "source = 'app'"


def opened(folder: Path) -> Project:
    """The project as it is on disk now, as after "Reload definitions"."""
    return Project.open(folder / "policy.yaml", folder / "store")


def add_rule(folder: Path, drop_when: str) -> None:
    """Add a filter rule to the policy."""
    path = folder / "policy.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["filtered"]["rules"].append({"id": "added", "version": 1, "reason": "a test", "drop_when": drop_when})
    path.write_text(yaml.safe_dump(policy, sort_keys=False))


@contextmanager
def dagster(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the project."""
    with dg.DagsterInstance.from_config(str(dagster_home(opened(folder)))) as instance:
        yield instance


def start(
    folder: Path, instance: dg.DagsterInstance, *assets: str, listener: Listener | None = None
) -> dg.ExecuteInProcessResult:
    """A new run of these assets alone, as from the UI."""
    return dg.materialize(
        build_assets(opened(folder), listener),
        instance=instance,
        selection=list(assets),
        raise_on_error=False,
        run_config=QUIET,
    )


def stale(folder: Path, instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """What Dagster shows as stale, and why."""
    definitions = build_definitions(opened(folder))
    graph = definitions.get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(instance, graph, AssetGraphView.for_test(definitions, instance))
    return {
        key.to_user_string(): [f"{cause.category.value}: {cause.reason}" for cause in resolver.get_stale_causes(key)]
        for key in graph.toposorted_asset_keys
        if resolver.get_status(key) != StaleStatus.FRESH
    }


def latest(instance: dg.DagsterInstance, asset: str) -> dg.EventLogEntry:
    """The latest materialization event of an asset."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    return event


def tags(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    """The tags of the latest materialization."""
    return dict(latest(instance, asset).asset_materialization.tags or {})


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    """The description of the one Failure of a run."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert failure is not None, event.step_failure_data.error
    return failure.description


def refusal(folder: Path, instance: dg.DagsterInstance) -> str:
    """Start `training_set` in a new run of its own; return the line with which it refuses."""
    before = listed(opened(folder).store)
    result = start(folder, instance, "training_set")
    assert not result.success
    assert listed(opened(folder).store) == before
    line = why_failed(result)
    assert "\n" not in line
    return line
