"""What the Dagster UI shows of a commit record. No row of anyone's text is in it."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from feedback_assets.materialize.batches import batches, notices, waiting_files
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.comparisons import may_quote
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration import drift_metadata
from feedback_assets.orchestration.lineage import COMMIT
from feedback_assets.provenance.at_a_glance import is_flow, pictures
from feedback_assets.provenance.release import Release, folder, training_files
from feedback_assets.provenance.report import report_key
from feedback_assets.record import CONTENT, RECORD

DESCRIPTIONS = {column.name: column.description for column in (*RECORD, *CONTENT)}
MOST_BATCHES = 200


def describe(project: Project, commit: Commit, made: Release | None) -> dict[str, Any]:
    """Metadata of a materialization: numbers first, so that Dagster plots them over time."""
    table = commit.snapshot.tables["rows"]
    metadata: dict[str, Any] = {
        "dagster/row_count": commit.content["rows_out"],
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, dtype, description=DESCRIPTIONS.get(name)) for name, dtype in table.schema.items()
            ]
        ),
        "dagster/uri": project.store.place,
        COMMIT: commit.number,
        "commit_id": commit.id,
        "data_version": commit.data_version,
        "rows_in": commit.content["rows_in"],
        "rows_out": commit.content["rows_out"],
        "seconds": commit.circumstances["seconds"]["compute"],
        "bytes": sum(part.bytes for part in table.parts),
    }
    if is_flow(commit.content):
        drawn = pictures(commit.content, quotes=may_quote(project.policy))
        metadata.update({name: dg.MetadataValue.md(picture) for name, picture in drawn.items()})
    if commit.content["fates"]:
        metadata["fates"] = as_table(commit.content["fates"])
    metadata.update({name: as_table(entries) for name, entries in drift_metadata.tables(commit).items()})
    metadata.update(drift_metadata.numbers(commit))
    for unit, size in commit.content["effective_sample_size"].items():
        metadata[f"effective_sample_size_{unit}"] = size["effective"]
    if commit.asset == "ingested":
        metadata["batches"] = as_table(_batches(project, commit))
        if told := notices(project, commit):
            metadata["notices"] = as_table([{"notice": notice} for notice in told])
    if made is not None:
        metadata["release"] = made.id
        if made.content["waivers"]:
            metadata["waivers"] = as_table(made.content["waivers"])
        metadata["manifest"] = dg.MetadataValue.path(project.store.uri(f"{folder(made.id)}/manifest.json"))
        metadata["report"] = dg.MetadataValue.path(project.store.uri(report_key(made)))
        for path in training_files(project.store, made):
            name = "_".join(Path(path).parts[-2:])
            metadata[f"training_file_{name}"] = dg.MetadataValue.path(path)
    return metadata


def _batches(project: Project, commit: Commit) -> list[dict[str, Any]]:
    shown = batches(project, commit).tail(MOST_BATCHES).with_columns(pl.col("digest").str.slice(0, 12))
    nothing = dict.fromkeys(shown.columns)
    waits = [
        {**nothing, "source": source, "batch": name, "state": "waiting"}
        for source, name in waiting_files(project, commit)
    ]
    return [*shown.to_dicts(), *waits]


def as_table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Records with the same keys, as a table."""
    names = list(records[0])
    types: dict[type, str] = {int: "int", float: "float", bool: "bool"}

    def dtype(name: str) -> str:
        value = next((record[name] for record in records if record[name] is not None), "")
        return types.get(type(value), "string")

    return dg.MetadataValue.table(
        records=[dg.TableRecord({k: ("" if v is None else v) for k, v in record.items()}) for record in records],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, dtype(name)) for name in names]),
    )
