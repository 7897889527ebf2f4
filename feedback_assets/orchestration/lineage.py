"""Which version of an input was read, told to Dagster.

Dagster notes the upstream's latest version when a step starts, which need not be the one that was read. These two tags
override that; they are not documented, so they stand here alone, with a test.
"""

from typing import Any

import dagster as dg

from feedback_assets.materialize.commit import Commit

COMMIT = "commit"


def input_version_tags(instance: dg.DagsterInstance, commit: Commit) -> dict[str, str]:
    """Tags that name, for each input of `commit`, the data version read and the event that materialized it."""
    tags = {}
    for name, read in commit.content["inputs"].items():
        tags[f"dagster/input_data_version/{name}"] = read["data_version"]
        number = commit.circumstances["inputs"][name]["number"]
        storage_id = materialization_of(instance, name, number)
        if storage_id is not None:
            tags[f"dagster/input_event_pointer/{name}"] = str(storage_id)
    return tags


def materialization_of(instance: dg.DagsterInstance, asset: str, number: int) -> int | None:
    """Storage id of the materialization that recorded commit `number` of `asset`, or None if Dagster has lost it."""
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(dg.AssetKey(asset), limit=100, cursor=cursor)
        for record in page.records:
            if commit_number(record) == number:
                return record.storage_id
        if not page.has_more:
            return None
        cursor = page.cursor


def commit_number(record: dg.EventLogRecord) -> Any:
    """The number of the commit that a materialization recorded, or None."""
    materialization = record.asset_materialization
    value = materialization.metadata.get(COMMIT) if materialization else None
    return None if value is None else value.value
