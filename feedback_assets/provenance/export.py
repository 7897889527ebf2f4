"""The files of a release: text in parts that are written once, and weights and provenance beside them.

A weight can change with every new batch, the text of an example cannot; so they lie in different files, and a new
batch writes its own text only. Line n of a sidecar is of line n of the text of its split, over its files in order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, file_digest, fingerprint
from feedback_assets.engine.engine import ContentPart
from feedback_assets.exports.lines import eligible, left_out, lines
from feedback_assets.exports.section import Export
from feedback_assets.exports.trl import INDEX, NoText, examples
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import content_parts, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import write_frame
from feedback_assets.threads import each

File = dict[str, Any]
Written = list[tuple[str, File]]
BESIDE = ("name", "trainer", "provenance")
"""Keys of an export that do not change its text."""
PROVENANCE = (
    *("row_id", "source", "feedback_id", "batch", "line", "position", "revision", "parents", "conversion"),
    *("annotator_id", "annotator_kind", "collected_at", "annotator_agreement", "annotator_agreement_n"),
    *("task", "aspect", "guideline", "guideline_status", "guideline_digest", "cluster_id"),
    *("copies", "copy_index", "ways", "weight"),
)
"""Columns of the sidecar, where the training set has them: `weight` is that of the line, copies × Π w_<factor> / `ways`
(without copies, where they are lines of their own, told apart by `copy_index`)."""


def write_exports(project: Project, commits: Mapping[str, Commit]) -> tuple[list[dict[str, Any]], Written]:
    """Write all exports of the policy from a commit of `training_set` and what stands behind it.

    Returns:
        What a manifest says of each export (splits, rows, digests of what they were made from, records left out by
        reason, what the trainer is predicted to drop), and the files by their path in the release.

    Raises:
        NoText: the text of records is not there.
    """
    realise = project.policy.training_set.realise
    commit = commits["training_set"]
    parts = list(content_parts(project.held, commits["ingested"], commits.get("converted")))
    place = pl.col("content_part").cast(pl.Enum([part.digest for part in parts]), strict=False).to_physical()
    index = _in_order(
        rows(project, commit)
        .select(_columns(commit, project.policy.training_set.exports))
        .with_columns(_place=place.cast(pl.Int64))
        .collect()
    )
    predicted = commit.snapshot.facts["predicted_drops"]
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
        for (kind, split), file in _sidecars(
            project, export, realise, [commit.data_version, *(p.digest for p in parts)], index, splits
        ).items():
            told[split][kind] = file["made_from"]
            written.append((f"{export.name}/{kind}-{split}.{export.file}", file))
        described.append(
            {
                **export.pinned(),
                "realise": realise,
                "splits": told,
                "left_out": left_out(index, export.pinned()),
                "predicted_drops": predicted.get(export.name),
            }
        )
    return described, written


def _columns(commit: Commit, exports: Sequence[Export]) -> list[str]:
    """The columns that the files are made of, in the order of the training set."""
    asked = {*INDEX, *PROVENANCE, "training_weight", "content_part"}
    for export in exports:
        asked |= {*export.columns, export.margin}
    schema = commit.snapshot.tables["rows"].schema
    return [name for name in schema if name in asked or name.startswith("w_")]


def _in_order(index: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order of their text."""
    at = pl.col("_place") * 2**32 + pl.col("content_row")
    rises = index.select((at.diff() > 0).slice(1).all(ignore_nulls=False)).item()
    return index if rises else index.sort("_place", "content_row", "row_id")


def _text(project: Project, export: Export, realise: str, parts: list[ContentPart], index: pl.DataFrame) -> list[File]:
    margin = [export.margin] if export.format == "reward" else []
    copies = ["copies"] if realise == "copies" else []
    columns = list(dict.fromkeys([*INDEX, *copies, *margin, *export.columns]))
    mine = index.lazy().select(columns).collect()  # an eager select would join the chunks of all columns
    held: list[tuple[ContentPart, pl.DataFrame]] = []
    start = 0
    for length, place in index.get_column("_place").rle().struct.unnest().iter_rows():
        if place is not None:
            held.append((parts[place], mine.slice(start, length)))
        start += length

    def made(piece: tuple[ContentPart, pl.DataFrame]) -> tuple[list[File], pl.Series]:
        try:
            return _text_of_part(project, export, realise, *piece), pl.Series("row_id", [], pl.String)
        except NoText as error:
            return [], error.row_ids

    found = each(made, held)
    gone = index.lazy().filter(pl.col("_place").is_null()).collect()
    nowhere = eligible(gone, export.pinned()).select("row_id").collect().to_series()
    lacking = pl.concat([nowhere, *(row_ids for _, row_ids in found)])
    if lacking.len():
        raise NoText(export.name, lacking)
    return [file for files, _ in found for file in files]


def _text_of_part(project: Project, export: Export, realise: str, part: ContentPart, index: pl.DataFrame) -> list[File]:
    """The files that hold the text of one part, one a split, remembered by what they are made from."""
    store = project.store
    parameters = {**export.pinned(), "realise": realise}
    made_from = digest(
        ["export", code_digest("feedback_assets.exports.trl"), part.digest, fingerprint(index), _shape(export, realise)]
    )
    known = store.recall(made_from)
    keys = [file["key"] for file in known or ()]
    # Where an erasure took lines from a file, another stands for the one that is remembered.
    if known is not None and store.holds(keys) and all(map(store.stands, keys)):
        return known
    try:
        told = examples(part.frame, index, parameters, realise)
    except (OSError, pl.exceptions.ComputeError):
        if _can_be_read(part):
            raise
        raise NoText(export.name, eligible(index, parameters).select("row_id").collect().to_series()) from None
    made = told.partition_by("split", as_dict=True, include_key=False)
    files = [
        {"split": split, "made_from": digest([made_from, split]), **_write(project, frame, export.file)}
        for (split,), frame in sorted(made.items())
    ]
    store.remember(made_from, files)
    return files


def _can_be_read(part: ContentPart) -> bool:
    try:
        part.frame.collect()
    except (OSError, pl.exceptions.ComputeError):
        return False
    return True


def _sidecars(
    project: Project, export: Export, realise: str, source: list[str], index: pl.DataFrame, splits: list[str]
) -> dict[tuple[str, str], File]:
    """For each split the weights of its examples and whose judgments they are, in the order of its text files.

    `source` determines `index`: the data version of the training set and the parts of text in their order.
    """
    of_record = pl.col("weight") if realise == "copies" else pl.col("training_weight")
    told = lines(index, export.pinned(), realise).with_columns(weight=of_record / pl.col("ways"))
    factors = [name for name in index.columns if name.startswith("w_")]
    kinds: dict[str, list[str]] = {}
    if realise == "weights":
        kinds["weights"] = ["row_id", "weight"]
    if export.provenance == "sidecar":
        there = told.collect_schema()
        kinds["provenance"] = [name for name in (*PROVENANCE, *factors) if name in there]
    columns = list(dict.fromkeys(name for kind in kinds.values() for name in kind))
    code = code_digest("feedback_assets.exports.lines")
    found = {}
    for split in splits:
        mine = told.filter(pl.col("assigned_split") == split).select(columns).collect()
        for kind, names in kinds.items():
            found[kind, split] = {
                "split": split,
                "made_from": digest(["sidecar", code, source, _shape(export, realise), kind, names, split]),
                **_write(project, mine.select(names), export.file),  # `datasets` reads all files of a folder alike
            }
    return found


def _shape(export: Export, realise: str) -> dict[str, Any]:
    """What determines the lines of an export and their text."""
    return {key: value for key, value in {**export.pinned(), "realise": realise}.items() if key not in BESIDE}


def _write(project: Project, frame: pl.DataFrame, suffix: str) -> File:
    store = project.store
    with store.scratch() as scratch:
        if suffix == "parquet":
            write_frame(scratch, frame)
        else:
            frame.write_ndjson(scratch)
        found = file_digest(scratch)
        file = {"rows": frame.height, "digest": found, "bytes": scratch.stat().st_size}
        file["key"] = f"exports/{found[:2]}/{found}.{suffix}"
        store.put_file(file["key"], scratch)
    return file
