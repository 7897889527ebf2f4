"""An annotation in a release, and back from a training example to its annotation.

The manifest holds the commits, so that their records may be gone. Where the parts are gone, too, what is left to tell
is in the files beside the manifest, and at last in the manifest itself.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.release import Release, annotations_of, commits_of, folder, listed, read, unpacked
from feedback_assets.provenance.trace import RECORD, follow, plain
from feedback_assets.record import row_ids
from feedback_assets.snapshots.store import Store

GUIDELINE = ("guideline", "guideline_status", "guideline_digest")
REALISED = ("copies", "training_weight", "assigned_split")


def trace_release(store: Store, release: Release, name: str) -> list[dict[str, Any]]:
    """All that a release says of an annotation.

    Args:
        store: where the release lies.
        release: the release.
        name: a feedback_id, a row_id, or `<batch file>:<line>`.

    Returns:
        As `trace.follow`; each entry has `release` (its id), `guideline` (what the annotator was told: version,
        digest, file, text; None if nobody knows) and `told_by`: "snapshots", or where they are gone "annotations" or
        "manifest", which know of no annotation that was left out.

    Raises:
        FeedbackError: the release knows no annotation of this name.
    """
    told_by = "snapshots"
    try:
        found = follow(store, commits_of(release), name)
    except FileNotFoundError:
        told_by, found = _without_parts(store, release, name)
    texts = {entry["digest"]: entry for entry in release.content["guidelines"]}
    return [
        {**entry, "release": release.id, "guideline": _guideline(entry, texts), "told_by": told_by} for entry in found
    ]


def trace_everywhere(store: Store, name: str) -> dict[str, list[dict[str, Any]]]:
    """What each release of a store says of an annotation, by the release's id.

    Raises:
        FeedbackError: no release knows an annotation of this name.
    """
    found = {}
    problem = FeedbackError(f"{store.place}: no release yet; `feedback-assets run` makes one")
    for release_id in dict.fromkeys(entry["id"] for entry in listed(store)):
        try:
            found[release_id] = trace_release(store, read(store, release_id), name)
        except FeedbackError as error:
            problem = error
    if not found:
        raise problem
    return found


def trace_example(
    store: Store, release: Release, number: int, *, export: str | None = None, split: str = "train"
) -> dict[str, Any]:
    """From a training example back to its annotation.

    Args:
        store: where the release lies.
        release: the release.
        number: place of the example in the split, from 0, over its files in order.
        export: name of the export; default: the first.
        split: train or eval.

    Returns:
        `export`, `split`, `number`, `file`, `line` (from 1 in that file), `copy_index` (from 0) and `copies` (both None
        where copies are no lines of their own), and `annotation` as `trace_release` gives it.

    Raises:
        FeedbackError: there is no such export, split or example, or its file is gone.
    """
    known = [entry["name"] for entry in release.content["exports"]]
    export = export or (known[0] if known else "")
    files = sorted(
        (file for file in release.circumstances["files"] if file["path"].split("/")[:2] == [export, split]),
        key=lambda file: file["path"],
    )
    if not files:
        raise FeedbackError(
            f"release {release.id[:16]} has no split {split!r} of an export {export!r}; exports: {', '.join(known)}"
        )
    total = sum(file["rows"] for file in files)
    if not 0 <= number < total:
        raise FeedbackError(f"no example {number}: {export}/{split} has {total:,}, counted from 0 to {total - 1}")
    ends = list(accumulate(file["rows"] for file in files))
    which = bisect_right(ends, number)
    file, place = files[which], number - ends[which] + files[which]["rows"]
    copied = next(entry["realise"] for entry in release.content["exports"] if entry["name"] == export) == "copies"
    row_id, *copy = _row_id(store, f"{folder(release.id)}/{file['path']}", place, copied=copied)
    (annotation,) = trace_release(store, release, row_id)
    where = {"export": export, "split": split, "number": number, "file": file["path"], "line": place + 1}
    return {**where, **dict(zip(("copy_index", "copies"), copy, strict=True)), "annotation": annotation}


def _row_id(store: Store, key: str, place: int, *, copied: bool) -> tuple[str, int | None, int | None]:
    """The record of a line; and where copies are lines, which of them it is, and of how many."""
    scan = pl.scan_parquet if key.endswith(".parquet") else pl.scan_ndjson
    try:
        lines = scan(store.path(key)).select("row_id")
        row_id = lines.slice(place, 1).collect().item()
        if not copied:
            return row_id, None, None
        same = pl.col("row_id") == row_id
        return row_id, *lines.select(same.head(place).sum(), copies=same.sum()).collect().row(0)
    except FileNotFoundError:
        raise FeedbackError(f"{store.uri(key)}: this file of the release is gone; restore it") from None


def _guideline(entry: dict[str, Any], texts: dict[str, Any]) -> dict[str, Any] | None:
    joined = next((step["added"] for step in entry["steps"] if step["stage"] == "guideline_joined"), {})
    told = texts.get(str(joined.get("guideline_digest")))
    return None if told is None else {key: told[key] for key in ("task", "aspect", "version", "digest", "file", "text")}


def _without_parts(store: Store, release: Release, name: str) -> tuple[str, list[dict[str, Any]]]:
    sources = {group["source"] for group in release.content["annotations"]["groups"]}
    ids = {name, *row_ids(sources, name)}
    try:
        batch, _, line = name.rpartition(":")
        meant = pl.col("row_id").is_in(sorted(ids)) | (pl.col("feedback_id") == name)
        if line.isdecimal():
            meant |= (pl.col("batch") == batch) & (pl.col("line") == int(line))
        rows = annotations_of(store, release).filter(meant).sort("row_id").collect().to_dicts()
        told_by, found = "annotations", [_entry(plain(row)) for row in rows]
    except FileNotFoundError:
        told_by, found = "manifest", [_entry(row) for row in _in_manifest(release, ids)]
    if not found:
        raise FeedbackError(
            f"no annotation {name!r} is in release {release.id[:16]}; the parts, which tell what was left out, are gone"
        )
    return told_by, found


def _in_manifest(release: Release, ids: set[str]) -> list[dict[str, Any]]:
    return [
        {"row_id": row_id, **{key: group[key] for key in ("source", "batch", "task", *GUIDELINE)}}
        for group in release.content["annotations"]["groups"]
        for row_id in sorted(ids.intersection(unpacked(group["row_ids"])))
    ]


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """An annotation that is in the release, in the shape that `trace.follow` gives."""

    def step(stage: str, columns: tuple[str, ...]) -> dict[str, Any]:
        added = {key: row[key] for key in columns if key in row}
        unknown = dict.fromkeys(("code_version", "rule", "rule_version", "into", "copies"))
        return {"stage": stage, "fate": "kept", **unknown, "added": added}

    delivery = {"arrival": row.get("arrival"), "line": row.get("line"), "position": None, "batch": row["batch"]}
    return {
        "row_id": row["row_id"],
        "erased": None,
        "record": {key: row[key] for key in RECORD if key in row},
        "deliveries": [{**delivery, "fate": "kept", "rule": None, "column": None, "value": None}],
        "steps": [step("guideline_joined", GUIDELINE), step("training_set", REALISED)],
        "in_release": True,
        "parents": [],
        "children": [],
    }
