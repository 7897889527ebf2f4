"""What happens to a release after it was made, told to Dagster: its approval, and the models trained on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.assets import GROUP, OWNER
from feedback_assets.orchestration.lineage import COMMIT, input_version_tags
from feedback_assets.orchestration.metadata import as_table
from feedback_assets.provenance.release import folder
from feedback_assets.provenance.training_run import ASSET, DESCRIPTION, code_version

TRAINING_RUN = dg.AssetSpec(
    ASSET,
    deps=["training_set"],
    description=DESCRIPTION,
    group_name=GROUP,
    owners=[OWNER],
    kinds={"model"},
    code_version=code_version(),
)
"""External: materialized by report alone."""


def observe_approval(project: Project, said: dict[str, Any]) -> None:
    """Show an approval among the events of `training_set`."""
    metadata = {"release": said["id"], "approved_by": said["by"], "note": said["note"], "approved_at": said["at"]}
    with _instance(project) as instance:
        instance.report_runless_asset_event(
            dg.AssetObservation(
                "training_set",
                description=f"release {said['id'][:16]} approved by {said['by']}",
                metadata={**metadata, "manifest": _manifest(project, said["id"])},
            )
        )


def report_training_run(project: Project, commit: Commit) -> None:
    """Report a recorded training run as a materialization of the external asset `training_run`."""
    content = commit.content
    metadata: dict[str, Any] = {
        "dagster/row_count": content["rows_out"],
        COMMIT: commit.number,
        "commit_id": commit.id,
        "model": content["model"],
        "parent": content["parent"] or "",
        "release": content["release"],
        "manifest": _manifest(project, content["release"]),
        "rows_in": content["rows_in"],
        "rows_out": content["rows_out"],
        "fates": as_table(content["fates"]),
    }
    with _instance(project) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                ASSET,
                description=f"{content['model']}, trained on release {content['release'][:16]}",
                metadata=metadata,
                tags={
                    "dagster/data_version": commit.data_version,
                    "dagster/code_version": commit.code_version,
                    **input_version_tags(instance, commit),
                },
            )
        )


def _manifest(project: Project, release_id: str) -> dg.MetadataValue:
    return dg.MetadataValue.path(project.store.uri(f"{folder(release_id)}/manifest.json"))


@contextmanager
def _instance(project: Project) -> Iterator[dg.DagsterInstance]:
    from feedback_assets.orchestration.build import dagster_home  # which puts TRAINING_RUN into the graph

    with dg.DagsterInstance.from_config(str(dagster_home(project))) as instance:
        yield instance
