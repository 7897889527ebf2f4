"""The files of a release: text in parts that are written once, and the weights beside them.

A weight can change with every new batch, the text of an example cannot; so they lie in different files, and a new
batch writes its own text only.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, file_digest, fingerprint
from feedback_assets.engine.engine import ContentPart
from feedback_assets.exports.trl import INDEX, eligible, examples
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import content_parts, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import ROW_GROUP
from feedback_assets.stages.training_set import Export
from feedback_assets.threads import each

File = dict[str, Any]
Written = list[tuple[str, File]]


def write_exports(project: Project, commits: Mapping[str, Commit]) -> tuple[list[dict[str, Any]], Written]:
    """Write all exports of the policy from a commit of `training_set` and what stands behind it.

    Returns:
        What a manifest says of each export (splits, rows, digests of what they were made from), and the files by
        their path in the release.
    """
    realise = project.policy.training_set.realise
    index = rows(project, commits["training_set"]).select(*INDEX, "copies", "training_weight", "content_part").collect()
    parts = list(content_parts(project, commits["ingested"], commits.get("converted")))
    described: list[dict[str, Any]] = []
    written: Written = []
    for export in project.policy.training_set.exports:
        files = _text(project, export, realise, parts, index)
        splits = sorted({file["split"] for file in files})
        by_split = {split: [file for file in files if file["split"] == split] for split in splits}
        for split, mine in by_split.items():
            written += [
                (f"{export.name}/{split}/part-{number:05d}.{export.file}", file) for number, file in enumerate(mine)
            ]
        told = {
            split: {"rows": sum(file["rows"] for file in mine), "made_from": [file["made_from"] for file in mine]}
            for split, mine in by_split.items()
        }
        if realise == "weights":
            for split, file in _weights(project, export, parts, index, splits).items():
                told[split]["weights"] = file["made_from"]
                written.append((f"{export.name}/weights-{split}.parquet", file))
        described.append({**export.pinned(), "realise": realise, "splits": told})
    return described, written


def _text(project: Project, export: Export, realise: str, parts: list[ContentPart], index: pl.DataFrame) -> list[File]:
    columns = [*INDEX, *(["copies"] if realise == "copies" else [])]
    by_part = index.select(*columns, "content_part").partition_by(
        "content_part", as_dict=True, include_key=False, maintain_order=True
    )
    held = [part for part in parts if (part.digest,) in by_part]
    found = each(lambda part: _text_of_part(project, export, realise, part, by_part[(part.digest,)]), held)
    return [file for files in found for file in files]


def _text_of_part(project: Project, export: Export, realise: str, part: ContentPart, index: pl.DataFrame) -> list[File]:
    """The files that hold the text of one part, one a split, remembered by what they are made from."""
    store = project.store
    parameters = {**export.pinned(), "realise": realise}
    made_from = digest(
        ["export", code_digest("feedback_assets.exports.trl"), part.digest, fingerprint(index), parameters]
    )
    known = store.recall(made_from)
    if known is not None and store.holds(file["key"] for file in known):
        return known
    made = examples(part.frame, index, parameters, realise).partition_by("split", as_dict=True, include_key=False)
    files = [
        {"split": split, "made_from": digest([made_from, split]), **_write(project, frame, export.file)}
        for (split,), frame in sorted(made.items())
    ]
    store.remember(made_from, files)
    return files


def _weights(
    project: Project, export: Export, parts: list[ContentPart], index: pl.DataFrame, splits: list[str]
) -> dict[str, File]:
    """For each split the weights of its examples, line by line in the order of its text files."""
    place = pl.DataFrame(
        {"content_part": [part.digest for part in parts], "place": range(len(parts))},
        schema={"content_part": pl.String, "place": pl.Int64},
    )
    ordered = eligible(index, export.pinned()).join(place, on="content_part").sort("place", "content_row", "row_id")
    found = {}
    for split in splits:
        frame = ordered.filter(pl.col("assigned_split") == split).select("row_id", weight="training_weight")
        found[split] = {"split": split, "made_from": fingerprint(frame), **_write(project, frame, "parquet")}
    return found


def _write(project: Project, frame: pl.DataFrame, suffix: str) -> File:
    store = project.store
    with store.scratch() as scratch:
        if suffix == "parquet":
            frame.write_parquet(scratch, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        else:
            frame.write_ndjson(scratch)
        found = file_digest(scratch)
        file = {"rows": frame.height, "digest": found, "bytes": scratch.stat().st_size}
        file["key"] = f"exports/{found[:2]}/{found}.{suffix}"
        store.put_file(file["key"], scratch)
    return file
