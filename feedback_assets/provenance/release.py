"""Releases: a training set with a manifest that answers for itself.

The manifest's `content` says what was done to what; its digest is the release's id, so that identical work has the
identical id. `circumstances` says when, where and in which files.
"""

import base64
import hashlib
import json
import re
from binascii import unhexlify
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from feedback_assets.checks.conservation import runs
from feedback_assets.digests import ID_CHARS, canonical_json, digest, file_digest, schema_of
from feedback_assets.errors import FeedbackError, Refused
from feedback_assets.exports.card import CARD, card
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.environment import environment
from feedback_assets.materialize.materialize import (
    chain,
    materialize,
    pinned_entries,
    resolve,
    rows,
)
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.export import write_exports
from feedback_assets.provenance.gate import Verdict, day_of, gate, held_back
from feedback_assets.provenance.log import append, logged
from feedback_assets.provenance.manifest import validate
from feedback_assets.provenance.names import approvals, tags
from feedback_assets.provenance.signature import attest, signing_key, unsigned
from feedback_assets.signal.decisions import release_decisions
from feedback_assets.snapshots.leases import writing
from feedback_assets.snapshots.snapshot import Part, Table, written_once
from feedback_assets.snapshots.store import Store
from feedback_assets.threads import each

FORMAT = "feedback_assets/release/1"
LOG = "releases/log"
ANNOTATIONS = "annotations"
"""The folder of the files that list every annotation of a release."""
LEAST_OF_AN_ID = 4
"""As many characters name a release by the beginning of its id: an empty variable of a shell names none."""
GUIDED = ("source", "batch", "task", "guideline", "guideline_status", "guideline_digest")
BY_GUIDELINE = ("task", "guideline", "guideline_digest")
ANNOTATION = (
    *("row_id", "source", "feedback_id", "batch", "arrival", "line", "revision", "kind", "label", "score", "item_id"),
    "parents",
    *("annotator_id", "annotator_kind", "collected_at", "guideline", "guideline_status", "guideline_digest"),
    *(
        "annotator_agreement",
        "annotator_agreement_n",
        "cluster_id",
        "assigned_split",
        "copies",
        "weight",
        "training_weight",
    ),
)


@dataclass(frozen=True)
class Release:
    """A release as its manifest tells it."""

    id: str
    content: Mapping[str, Any]
    circumstances: Mapping[str, Any]

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Release":
        """Read a manifest.

        Raises:
            FeedbackError: it is no manifest, or its id is not the digest of its content.
        """
        if not isinstance(value, dict) or not {"id", "content", "circumstances"} <= value.keys():
            raise FeedbackError(f"{where}: not a release manifest; expected the keys id, content and circumstances")
        if digest(value["content"]) != value["id"]:
            raise FeedbackError(
                f"{where}: the manifest was changed after the release; its content no longer has the digest of its id"
            )
        validate(value, where)
        return cls(value["id"], value["content"], value["circumstances"])


def release(
    project: Project,
    *,
    run_id: str,
    inputs: Mapping[str, Commit] | None = None,
    beside: tuple[str, ...] = (),
    now: datetime | None = None,
) -> tuple[Commit, Release | None]:
    """Pass the gate, materialize `training_set`, pass it again with that, write the files and publish the manifest.

    Args:
        project: policy, waivers included, and store.
        run_id: who asks; recorded.
        inputs: the commits to read; default: the latest.
        beside: further reasons to refuse.
        now: the time to record, and on the day of which a waiver must be in force.

    Returns:
        The commit, and the release, or None where a blocking check of `training_set` itself failed.

    Raises:
        Refused: the gate does not open.
    """
    now = now or datetime.now(UTC)
    signing_key()  # one that cannot be used is said before the work, not after
    inputs = dict(inputs) if inputs is not None else resolve(project, "training_set")
    verdict = gate(project, inputs, now=now, beside=beside)
    if not verdict.opens:
        raise Refused(verdict.sentence())
    with writing(project.store, "a release"):
        commit = materialize(project, "training_set", run_id=run_id, inputs=inputs, now=now)
        verdict = gate(project, {"training_set": commit}, now=now, beside=beside)
        if any(held_back(project, commit, now)):
            return commit, None
        if not verdict.opens:
            raise Refused(verdict.sentence())
        return commit, publish(project, commit, verdict, run_id=run_id, now=now)


def publish(project: Project, commit: Commit, verdict: Verdict, *, run_id: str, now: datetime) -> Release:
    """Write manifest, annotations and exports of a commit of `training_set`; put last is the entry that lists it."""
    commits = chain(project, {"training_set": commit})
    store = project.store
    exports, written = write_exports(project, commits)
    index = _index(project, commit)
    told = {
        "rows": index.rows,
        "schema": list(map(list, index.schema.items())),
        "fingerprints": [part.fingerprint for part in index.parts],
    }
    annotations = {**_annotations(project, commit), "index": told}
    # Through JSON and back, so that the release in memory is what a reader will see; the many ids are plain already.
    content = {**json.loads(canonical_json(_content(project, commits, verdict, exports))), "annotations": annotations}
    as_bytes = _with_row_ids(content)
    release_id = hashlib.sha256(as_bytes).hexdigest()
    for number, part in enumerate(index.parts):
        (file,) = part.files
        entry = {"digest": file.digest, "bytes": file.bytes, "rows": part.rows, "key": file.key}
        written.append((f"{ANNOTATIONS}/part-{number:05d}.parquet", entry))
    store.put_again({f"{folder(release_id)}/{path}": entry["key"] for path, entry in written})
    files = [{"path": path, **{key: entry[key] for key in ("digest", "bytes", "rows")}} for path, entry in written]
    files += _cards(store, release_id, project.policy.project, exports)
    circumstances = {
        "run_id": run_id,
        "made_at": now.isoformat(timespec="seconds"),
        "environment": environment(),
        "policy_file": project.text,
        "files": files,
        "idle_waivers": _idle_waivers(project, verdict, now),
        "commits": {name: {"number": entry.number, **entry.circumstances} for name, entry in commits.items()},
    }
    beside_content = canonical_json(circumstances)
    data = b'{"circumstances":%b,"content":%b,"id":"%b"}' % (beside_content, as_bytes, release_id.encode())
    key = f"{folder(release_id)}/manifest.json"
    value = {"id": release_id, "content": content, "circumstances": json.loads(beside_content)}
    validate(value, store.uri(key))
    made = Release(**value)
    if not store.put(key, data):  # an earlier run put it: the work is identical
        data = store.get(key)
        made = _manifest(store, key, data)
    if signing_key() is not None:
        attest(store, folder(release_id))
    entry = {"id": release_id, "made_at": circumstances["made_at"], "run_id": run_id}
    append(store, LOG, {**entry, "manifest": hashlib.sha256(data).hexdigest()})
    return made


def _content(
    project: Project,
    commits: Mapping[str, Commit],
    verdict: Verdict,
    exports: list[dict[str, Any]],
) -> dict[str, Any]:
    """All but the annotations."""
    commit = commits["training_set"]
    return {
        "format": FORMAT,
        "project": project.policy.project,
        "policy": project.policy.pinned(),
        "gate": {"asked": verdict.asked, "opens": verdict.opens},
        "waivers": [entry.as_json() for entry in verdict.waived],
        "guidelines": _guidelines(project, commits["guidelines"]),
        "transformations": [_transformation(project, commits[entry.name]) for entry in STAGES if entry.name in commits],
        "expected": _expected(project, commit),
        "distribution": commit.content["distribution"],
        "decisions": release_decisions((name, entry.content) for name, entry in commits.items()),
        "exports": exports,
        "commits": {name: entry.content for name, entry in commits.items()},
    }


def _index(project: Project, commit: Commit) -> Table:
    """Every annotation with its weight, by the parts of the training set: those of an earlier release stand."""
    store, table = project.store, commit.snapshot.tables["rows"]
    frame = rows(project, commit).select(ANNOTATION).collect()
    starts = accumulate((part.rows for part in table.parts), initial=0)

    def written(start: int, part: Part) -> Part:
        name = ["annotations", part.fingerprint, ANNOTATION]
        return Part(part.rows, (written_once(store, name, frame.slice(start, part.rows)),))

    parts = each(lambda piece: written(*piece), zip(starts, table.parts, strict=False))
    return Table(schema_of(frame), tuple(parts))


def _idle_waivers(project: Project, verdict: Verdict, now: datetime) -> list[dict[str, Any]]:
    """The waivers of the policy that let nothing through, each with the reason."""
    used = {entry.waiver.id for entry in verdict.waived}
    matches_nothing = "no check of a version behind this release came out like this, or another waiver was used for it"
    return [
        {
            **waiver.model_dump(mode="json"),
            "idle": matches_nothing if waiver.in_force(day_of(now)) else f"expired after {waiver.until}",
        }
        for waiver in project.policy.waivers
        if waiver.id not in used
    ]


def _cards(store: Store, release_id: str, project: str, exports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put beside each export what `datasets` needs to read it, and what a person should know of it."""
    put = []
    for export in exports:
        path = f"{export['name']}/{CARD}"
        with store.scratch() as scratch:
            scratch.write_text(card(release_id, project, export), encoding="utf-8")
            put.append({"path": path, "digest": file_digest(scratch), "bytes": scratch.stat().st_size, "rows": 0})
            store.put_file(f"{folder(release_id)}/{path}", scratch)
    return put


def listed(store: Store) -> list[dict[str, Any]]:
    """The releases of a store, oldest first: number, id, made_at, run_id; identical work made again is listed again."""
    return logged(store, LOG)


def find(store: Store, name: str) -> Release:
    """A release by id, the beginning of an id, its number, its tag, "latest", or the path of a manifest or envelope.

    Raises:
        FeedbackError: there is none, or several ids begin like this.
    """
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(value, dict) and "payloadType" in value:
                value = unsigned(value)["predicate"]
            return Release.from_json(value, name)
        except (OSError, ValueError) as error:
            raise FeedbackError(
                f"{name}: cannot be read as a manifest: {str(error).splitlines()[0]}; "
                "restore it, or name a release that `feedback-assets releases` lists"
            ) from None
    known = listed(store)
    if not known:
        raise FeedbackError(f"{store.place}: no release yet; `feedback-assets run` makes one")
    return read(store, meant(store, known, name))


def meant(store: Store, known: Sequence[Mapping[str, Any]], name: str) -> str:
    """The id of the release among `known` (as `listed`) that `name` means: as in `find`, but for files.

    Raises:
        FeedbackError: there is none, or several ids begin like this.
    """
    if name == "latest" and known:
        return known[-1]["id"]
    tagged = tags(store).get(name)
    # A number goes before ids that happen to begin with it.
    ids = {tagged} if tagged else {entry["id"] for entry in known if str(entry["number"]) == name}
    ids = ids or {entry["id"] for entry in known if len(name) >= LEAST_OF_AN_ID and entry["id"].startswith(name)}
    if len(ids) != 1:
        what = f"no release {name!r}" if not ids else f"{len(ids)} releases begin with {name!r}"
        raise FeedbackError(f"{what} in {store.place}; `feedback-assets releases` lists them")
    return ids.pop()


def approved_release(store: Store) -> str | None:
    """The id of the release that was approved last, or None."""
    found = [
        (said["at"], entry["number"], entry["id"])
        for entry in listed(store)
        for said in approvals(store, folder(entry["id"]))
    ]
    return max(found)[2] if found else None


def folder(release_id: str) -> str:
    """Where the files of a release lie in its store; 16 characters of the id are enough to tell releases apart."""
    return f"releases/{release_id[:16]}"


def read(store: Store, release_id: str) -> Release:
    """The release with this id.

    Raises:
        FeedbackError: its manifest is gone, or is not what was written.
    """
    key = f"{folder(release_id)}/manifest.json"
    return _manifest(store, key, store.get(key))


def _manifest(store: Store, key: str, data: bytes) -> Release:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise FeedbackError(f"{store.uri(key)}: cannot be read as a manifest ({error}); restore it") from None
    return Release.from_json(value, store.uri(key))


def unpacked(packed: str) -> list[str]:
    """Row ids from a manifest's `row_ids`: base64 of the ids' 16 bytes each, in order."""
    data = base64.b64decode(packed).hex()
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def _annotations(project: Project, commit: Commit) -> dict[str, Any]:
    frame = rows(project, commit).select(*GUIDED, "copies", "row_id").collect()
    # Most rows are of the group of the row before: runs are grouped, and ids are taken from one text of all.
    found = runs(frame.select(GUIDED))
    groups = found.group_by(GUIDED).agg(pl.col("len").sum().alias("records")).sort(GUIDED, nulls_last=True)
    found = found.join(groups.with_row_index("at"), on=GUIDED, how="left", nulls_equal=True, maintain_order="left")
    at = np.repeat(found.get_column("at").to_numpy(), found.get_column("len").to_numpy())
    told = frame.select(pl.Series("at", at), "copies", "row_id")
    if not told.get_column("at").is_sorted():
        told = told.sort("at", maintain_order=True)
    ids = memoryview(unhexlify(told.get_column("row_id").str.join("").item()))
    examples = told.group_by("at", maintain_order=True).agg(pl.col("copies").sum()).get_column("copies")
    ends = [end * ID_CHARS // 2 for end in accumulate(groups.get_column("records"), initial=0)]
    grouped: list[dict[str, Any]] = [
        {**group, "examples": copies, "row_ids": base64.b64encode(ids[start:end]).decode()}
        for group, copies, start, end in zip(groups.to_dicts(), examples, ends[:-1], ends[1:], strict=True)
    ]
    return {
        "records": sum(group["records"] for group in grouped),
        "examples": sum(group["examples"] for group in grouped),
        "groups": grouped,
        "by_guideline": _by_guideline(grouped),
    }


def _with_row_ids(content: dict[str, Any]) -> bytes:
    """The canonical JSON of `content`, whose megabytes of row ids, in base64, are not looked through for quotes."""
    annotations = content["annotations"]
    packed = [group["row_ids"].encode() for group in annotations["groups"]]
    numbered = [{**group, "row_ids": f"@{place}"} for place, group in enumerate(annotations["groups"])]
    data = canonical_json({**content, "annotations": {**annotations, "groups": numbered}})
    data, count = re.subn(rb'"row_ids":"@(\d+)"', lambda found: b'"row_ids":"%b"' % packed[int(found[1])], data)
    return data if count == len(packed) else canonical_json(content)  # somebody else says the same


def _by_guideline(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for group in groups:
        statuses = found.setdefault(tuple(group[name] for name in BY_GUIDELINE), {})
        status = group["guideline_status"]
        statuses[status] = statuses.get(status, 0) + group["records"]
    return [
        {**dict(zip(BY_GUIDELINE, key, strict=True)), "records": statuses}
        for key, statuses in sorted(found.items(), key=str)
    ]


def _expected(project: Project, commit: Commit) -> dict[str, Any]:
    """The distribution that each column is held against: that of the approved release, or the one declared."""
    approved = {
        entry["column"]: {cell["cell"]: cell["reference"] for cell in entry["cells"]}
        for entry in commit.content["baseline"]
        if entry.get("cells")
    }
    return {**approved, **project.policy.monitoring.pinned()["expect"]}


def _guidelines(project: Project, commit: Commit) -> list[dict[str, Any]]:
    registry = rows(project, commit).with_columns(pl.col("effective_from", "effective_to").dt.to_string("iso:strict"))
    return registry.collect().to_dicts()


def _transformation(project: Project, commit: Commit) -> dict[str, Any]:
    section = project.policy.section(commit.asset)
    pinned = [
        {
            "list": name.split("/")[0],
            "id": entry.id,
            "version": entry.version,
            "reason": entry.reason,
            "content_digest": entry.content_digest(),
        }
        for name, entry in pinned_entries(section).items()
    ]
    keys = ("asset", "code_version", "data_version", "rows_in", "rows_out", "fates")
    return {**{key: commit.content[key] for key in keys}, "pinned": pinned}


def commit_of(release: Release, asset: str) -> Commit:
    """The commit of `asset` in a release, as the manifest holds it."""
    told = release.circumstances["commits"][asset]
    return Commit(told["number"], release.content["commits"][asset], told)


def commits_of(release: Release) -> dict[str, Commit]:
    """The commits behind a release by asset, in the order of the pipeline."""
    return {entry["asset"]: commit_of(release, entry["asset"]) for entry in release.content["transformations"]}


def annotations_of(store: Store, made: Release) -> pl.LazyFrame:
    """The annotations in a release, one row each, from the files beside its manifest."""
    files = [file["path"] for file in made.circumstances["files"] if file["path"].startswith(f"{ANNOTATIONS}/")]
    return pl.scan_parquet(store.paths(f"{folder(made.id)}/{path}" for path in files), glob=False)


def training_files(store: Store, made: Release) -> list[str]:
    """The folders of the exports' splits."""
    return [
        store.uri(f"{folder(made.id)}/{export['name']}/{split}")
        for export in made.content["exports"]
        for split in export["splits"]
    ]
