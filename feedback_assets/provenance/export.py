"""The files of a release: text in parts that are written once, and weights and provenance beside them, part by part.

A weight can change with a new batch, the text of an example cannot; so they lie in different files, and a new batch
writes its own. Line n of a part of a sidecar is of line n of the part of text with the same number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest, file_digest, fingerprint
from feedback_assets.engine.engine import ContentPart
from feedback_assets.exports.lines import eligible, left_out
from feedback_assets.exports.section import Export
from feedback_assets.exports.sidecars import PROVENANCE, sidecars
from feedback_assets.exports.trl import INDEX, NoText, examples
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import content_parts, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import Part, write_frame
from feedback_assets.threads import each

File = dict[str, Any]
Written = list[tuple[str, File]]
BESIDE = ("name", "trainer", "provenance")
"""Keys of an export that do not change its text."""
_NONE = pl.Series("row_id", [], pl.String)


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
    told = rows(project, commit).select(_columns(commit, project.policy.training_set.exports))
    came = told.with_columns(_place=place.cast(pl.Int64)).collect()
    index = _in_order(came)
    pieces = _pieces(parts, index, commit.snapshot.tables["rows"].parts if index is came else ())
    predicted = commit.snapshot.facts["predicted_drops"]
    described: list[dict[str, Any]] = []
    written: Written = []
    for export in project.policy.training_set.exports:
        files = _text(project, export, realise, pieces, index)
        beside = _sidecars(project, export, realise, pieces)
        splits: dict[str, Any] = {}
        for split in sorted({file["split"] for file in files}):
            mine = [file for file in files if file["split"] == split]
            splits[split] = {"rows": sum(file["rows"] for file in mine), "made_from": [f["made_from"] for f in mine]}
            folders = {split: mine}
            for kind, told_beside in beside.items():
                folders[f"{kind}-{split}"] = [file for file in told_beside if file["split"] == split]
                splits[split][kind] = [file["made_from"] for file in folders[f"{kind}-{split}"]]
            written += [
                (f"{export.name}/{folder}/part-{number:05d}.{export.file}", file)
                for folder, numbered in folders.items()
                for number, file in enumerate(numbered)
            ]
        described.append(
            {
                **export.pinned(),
                "realise": realise,
                "splits": splits,
                "left_out": left_out(index, export.pinned()),
                "predicted_drops": predicted.get(export.name),
            }
        )
    return described, written


@dataclass(frozen=True)
class _Piece:
    """The rows of the training set whose text lies in one part of content; `source` says what determines them."""

    content: ContentPart
    rows: pl.DataFrame
    source: list[Any]


def _pieces(content: Sequence[ContentPart], index: pl.DataFrame, parts: Sequence[Part]) -> list[_Piece]:
    """Cut `index` where the part of content changes; its rows are those of `parts`, one after the other, if given."""
    spans = list(zip(accumulate((part.rows for part in parts), initial=0), parts, strict=False))
    pieces = []
    start = 0
    for length, place in index.get_column("_place").rle().struct.unnest().iter_rows():
        mine, end = index.slice(start, length), start + length
        if place is not None:
            source = [
                [part.fingerprint, max(start - first, 0), min(end - first, part.rows)]
                for first, part in spans
                if first < end and start < first + part.rows
            ]
            pieces.append(_Piece(content[place], mine, source or [fingerprint(mine.drop("_place"))]))
        start = end
    return pieces


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


def _text(project: Project, export: Export, realise: str, pieces: list[_Piece], index: pl.DataFrame) -> list[File]:
    """The files of text of all parts, one a split, in order."""
    margin = [export.margin] if export.format == "reward" else []
    copies = ["copies"] if realise == "copies" else []
    columns = list(dict.fromkeys([*INDEX, *copies, *margin, *export.columns]))

    def made(piece: _Piece) -> tuple[list[File], pl.Series]:
        try:
            return _text_of_part(project, export, realise, piece, columns), _NONE
        except NoText as error:
            return [], error.row_ids

    found = each(made, pieces)
    gone = index.lazy().filter(pl.col("_place").is_null()).collect()
    nowhere = eligible(gone, export.pinned()).select("row_id").collect().to_series()
    lacking = pl.concat([nowhere, *(row_ids for _, row_ids in found)])
    if lacking.len():
        raise NoText(export.name, lacking)
    return [file for files, _ in found for file in files]


def _text_of_part(project: Project, export: Export, realise: str, piece: _Piece, columns: list[str]) -> list[File]:
    parameters, part = {**export.pinned(), "realise": realise}, piece.content
    # A new weight changes what the rows are made from, and not the lines: what tells these apart is their values.
    name = digest(["index of text", piece.source, columns])
    values = project.store.recall(name)
    if values is None:
        values = fingerprint(piece.rows.select(columns))
        project.store.remember(name, values)
    code = code_digest("feedback_assets.exports.trl")
    made_from = digest(["export", code, part.digest, values, _shape(export, realise)])
    known = _known(project, made_from)
    if known is not None:
        return known
    index = piece.rows.select(columns)
    try:
        told = examples(part.frame, index, parameters, realise)
    except (OSError, pl.exceptions.ComputeError):
        if _can_be_read(part):
            raise
        raise NoText(export.name, eligible(index, parameters).select("row_id").collect().to_series()) from None
    files = _by_split(project, made_from, told, export.file)
    project.store.remember(made_from, files)
    return files


def _can_be_read(part: ContentPart) -> bool:
    try:
        part.frame.collect()
    except (OSError, pl.exceptions.ComputeError):
        return False
    return True


def _sidecars(project: Project, export: Export, realise: str, pieces: list[_Piece]) -> dict[str, list[File]]:
    """By kind: for each file of text the weights of its examples, and whose judgments they are, in its order."""
    code = code_digest("feedback_assets.exports.sidecars")
    shape = {**_shape(export, realise), "provenance": export.provenance}

    def made(piece: _Piece) -> list[File]:
        name = digest(["sidecars", code, piece.source, shape])
        files = _known(project, name)
        if files is None:
            files = [
                {"kind": kind, **file}
                for kind, told in sidecars(piece.rows, export.pinned(), realise).items()
                for file in _by_split(project, digest([name, kind]), told, export.file)
            ]
            project.store.remember(name, files)
        return files

    files = [file for mine in each(made, pieces) for file in mine]
    return {kind: [file for file in files if file["kind"] == kind] for kind in dict.fromkeys(f["kind"] for f in files)}


def _known(project: Project, made_from: str) -> list[File] | None:
    """The files that were made of this before, where they stand."""
    known = project.store.recall(made_from)
    keys = [file["key"] for file in known or ()]
    # Where an erasure took lines from a file, another stands for the one that is remembered.
    stand = known is not None and project.store.holds(keys) and all(map(project.store.stands, keys))
    return known if stand else None


def _by_split(project: Project, made_from: str, told: pl.DataFrame, suffix: str) -> list[File]:
    """Write `told`, one file a `split`."""
    made = told.partition_by("split", as_dict=True, include_key=False)
    return [
        {"split": split, "made_from": digest([made_from, split]), **_write(project, frame, suffix)}
        for (split,), frame in sorted(made.items())
    ]


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
