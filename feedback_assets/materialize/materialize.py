"""One stage: resolve its inputs, load exactly those, run, write, check, commit."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from feedback_assets.checks.conservation import counted
from feedback_assets.digests import digest
from feedback_assets.engine.engine import ContentPart
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.comparisons import against_previous
from feedback_assets.materialize.environment import environment
from feedback_assets.materialize.examine import Examined, examine
from feedback_assets.materialize.intake import Taken, read_batches, read_registry
from feedback_assets.materialize.kept import all_kept
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import stage, upstream
from feedback_assets.policy import Pinned, Section
from feedback_assets.required import REGISTRIES
from feedback_assets.signal.decisions import decisions_of
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.leases import writing
from feedback_assets.snapshots.snapshot import (
    Snapshot,
    Table,
    joined,
    passed_on,
    scan,
    write_fates,
    write_rows,
    write_table,
)
from feedback_assets.stages.converted import with_texts_of_pairs
from feedback_assets.stages.stage import Inputs, Output, Stage, kept
from feedback_assets.threads import each

_NOTHING = pl.LazyFrame()


def resolve(project: Project, asset: str, run: Mapping[str, Commit] | None = None) -> dict[str, Commit]:
    """The commits that `asset` shall read: those of this run, else the latest; fixed here, once.

    Raises:
        FeedbackError: an input was never materialized.
    """
    found = {}
    for name in stage(asset).inputs:
        commit = (run or {}).get(name) or project.commits.latest(name)
        if commit is None:
            raise FeedbackError(f"{asset} reads {name}, which was never materialized; materialize {name} first")
        found[name] = commit
    return found


def chain(project: Project, commits: Mapping[str, Commit]) -> dict[str, Commit]:
    """`commits` and all that they were made from, by asset, in the order of the pipeline."""
    found = dict(commits)
    pending = list(commits.values())
    while pending:
        commit = pending.pop()
        for name, source in commit.circumstances["inputs"].items():
            if name not in found:
                found[name] = project.commits.read(name, source["number"])
                if found[name].id != commit.content["inputs"][name]["commit"]:
                    raise FeedbackError(
                        f"{commit.asset} was made from another {name} than number {source['number']} of the store; "
                        f"materialize {commit.asset} again"
                    )
                pending.append(found[name])
    order = [entry for entry in (*upstream("training_set"), "training_set") if entry in found]
    return {name: found[name] for name in order}


def materialize(
    project: Project,
    asset: str,
    *,
    run_id: str,
    inputs: Mapping[str, Commit] | None = None,
    now: datetime | None = None,
) -> Commit:
    """Materialize one stage and return its commit record, failed checks included.

    Args:
        project: policy and store.
        asset: name of the stage.
        run_id: who asks; recorded.
        inputs: the commits to read; default: the latest.
        now: the time to record; it enters no digest, except as the arrival of new batches that have no `as_of`.

    Raises:
        FeedbackError: an input is missing, or what comes from outside cannot be read.
    """
    with writing(project.store, f"a run of {asset}"):
        return _materialize(project, asset, run_id, inputs, now or datetime.now(UTC))


def _materialize(
    project: Project, asset: str, run_id: str, inputs: Mapping[str, Commit] | None, now: datetime
) -> Commit:
    began = time.perf_counter()
    entry = stage(asset)
    section = project.policy.section(asset)
    inputs = dict(inputs) if inputs is not None else resolve(project, asset)
    previous = project.commits.latest(asset)
    arrived: Mapping[str, str] = {}
    noticed: tuple[str, ...] = ()
    if entry.function is None:
        taken = _from_outside(project, asset, section, previous, now)
        snapshot, rows_in, arrived, noticed = taken.snapshot, taken.rows_in, taken.arrived, taken.noticed
    else:
        snapshot = compute(project, asset, inputs)
        rows_in = inputs[entry.inputs[0]].snapshot.tables["rows"].rows
    computed = time.perf_counter()
    examined = _examined(project, entry, inputs, snapshot)
    with ThreadPoolExecutor(1) as beside:
        around = beside.submit(environment)
        found = examine(project, examined)
    content = {
        "asset": asset,
        "data_version": snapshot.data_version,
        "code_version": project.code_version(asset),
        "stage_version": entry.version,
        "inputs": {name: {"commit": c.id, "data_version": c.data_version} for name, c in inputs.items()},
        "policy": section.pinned(),
        "rows_in": rows_in,
        "rows_out": snapshot.tables["rows"].rows,
        "fates": _counted(project, examined),
        "facts": snapshot.facts,
        "tables": {
            name: {
                "schema": list(map(list, table.schema.items())),
                "rows": table.rows,
                "fingerprints": [part.fingerprint for part in table.parts],
            }
            for name, table in snapshot.tables.items()
        },
        **found,
    }
    circumstances = {
        "run_id": run_id,
        "made_at": now.isoformat(timespec="seconds"),
        "seconds": {
            "compute": round(computed - began, 3),
            "examine": round(time.perf_counter() - computed, 3),
        },
        "environment": around.result(),
        "code": project.code(asset),
        "inputs": {name: {"number": c.number} for name, c in inputs.items()},
        "snapshot": snapshot.as_json(),
        "arrived": dict(arrived),
        "noticed": list(noticed),
        "unversioned_changes": _unversioned_changes(previous, section),
        "against_previous": against_previous(
            project, entry.weight, None if previous is None else previous.snapshot, snapshot
        )
        if asset not in REGISTRIES
        else None,
    }
    return project.commits.add(content, circumstances)


def content_parts(held: Held, ingested: Commit, converted: Commit | None = None) -> tuple[ContentPart, ...]:
    """The text of a commit of `ingested`, part by part; with that of the pairs that `converted` made of its records."""
    parts = tuple(
        ContentPart(part.fingerprint, part.rows, partial(held.text, part))
        for part in ingested.snapshot.tables["content"].parts
    )
    texts = converted.snapshot.tables.get("texts") if converted is not None else None
    return parts if texts is None else tuple(with_texts_of_pairs(parts, scan(held.store, texts).collect()))


def rows(project: Project, commit: Commit) -> pl.LazyFrame:
    """The rows of a commit."""
    return project.held.rows(commit.snapshot.tables["rows"])


def _from_outside(project: Project, asset: str, section: Any, previous: Commit | None, now: datetime) -> Taken:
    if asset == "guidelines":
        return read_registry(project.folder, project.store, section)

    def ahead() -> None:
        last = project.commits.latest("filtered")
        if last is not None:
            project.held.ahead(last.snapshot.tables["rows"])

    return read_batches(project.folder, project.held, section, previous, now, ahead)


def compute(project: Project, asset: str, inputs: Mapping[str, Commit]) -> Snapshot:
    """What a stage makes of the commits that it reads; remembered, and not committed."""
    entry, section = stage(asset), project.policy.section(asset)
    primary = inputs[entry.inputs[0]].snapshot.tables["rows"].records
    if entry.idle(section):
        ids = project.held.rows(primary).select("row_id").collect()
        passed_on = write_fates(project.store, kept(ids).collect(), ids, primary)
        return Snapshot(entry.name, {"rows": primary, "fates": passed_on})
    others = {name: rows(project, inputs[name]) for name in entry.inputs[1:]}
    content = ()
    if entry.reads_content:
        behind = chain(project, inputs)
        content = content_parts(project.held, behind["ingested"], behind.get("converted"))
    versions = {name: commit.data_version for name, commit in inputs.items()}
    code = project.code_version(entry.name)
    if entry.scope == "whole":
        return _remembered(
            project, entry, section, digest(["stage", code, versions]), Inputs(_NOTHING, others, content), primary
        )
    beside = {name: versions[name] for name in entry.inputs[1:]}
    if entry.scope == "prefix":
        return _prefix(project, entry, section, primary, others, beside)
    mapped = []
    for part in primary.parts:
        key = digest(["part of stage", code, part.fingerprint, beside])
        table = Table(primary.schema, (part,))
        mapped.append(_remembered(project, entry, section, key, Inputs(_NOTHING, others, content), table))
    return joined(entry.name, mapped)


def _prefix(
    project: Project,
    entry: Stage,
    section: Section,
    primary: Table,
    others: Mapping[str, pl.LazyFrame],
    beside: Mapping[str, str],
) -> Snapshot:
    """Compute the parts that are new, in one go, beside all that arrived before them; remember each."""
    assert entry.function is not None  # noqa: S101  the caller asked
    code = project.code_version(entry.name)
    keys = [
        digest(["prefix", code, [p.fingerprint for p in primary.parts[: end + 1]], beside])
        for end in range(len(primary.parts))
    ]
    done: list[Snapshot] = []
    for key in keys:
        known = project.memo.get(key)
        if known is None:
            break
        done.append(known)
    new = primary.parts[len(done) :]
    if new:
        came = project.held.rows(Table(primary.schema, new)).collect()
        earlier = Table(primary.schema, primary.parts[: len(done)])
        inputs = Inputs(came.lazy(), others, earlier=project.held.rows(earlier) if earlier.parts else None)
        output = entry.function(inputs, section, project.engine)
        starts = [sum(part.rows for part in new[:place]) for place in range(len(new))]

        def keep(place: int) -> Snapshot:
            piece = slice(starts[place], starts[place] + new[place].rows)
            part = Table(primary.schema, (new[place],))
            tables = {
                "rows": write_rows(project.store, output.rows[piece], came[piece], part),
                "fates": write_fates(project.store, output.fates[piece], came[piece], part),
            }
            snapshot = Snapshot(entry.name, tables)
            project.memo.put(keys[len(done) + place], snapshot)
            return snapshot

        done += each(keep, range(len(new)))
    return joined(entry.name, done)


def _remembered(project: Project, entry: Stage, section: Section, key: str, beside: Inputs, primary: Table) -> Snapshot:
    """What the stage makes of the rows of `primary`; `beside` is what else it reads."""
    known = project.memo.get(key)
    if known is not None:
        return known
    assert entry.function is not None  # noqa: S101  the caller asked
    came = project.held.rows(primary).collect()
    output: Output = entry.function(replace(beside, rows=came.lazy()), section, project.engine)

    def written() -> Table:
        rows, stands = output.standing, None
        if passed_on(output.rows, came):
            stands = pl.repeat(True, came.height, eager=True) if output.stands is None else output.stands
        else:
            rows = _in_order(rows)
        made = write_rows(project.store, rows, came, primary, stands)
        if entry.scope == "whole":
            project.held.keep(made.records, rows)
        return made

    made = written()
    told = write_fates(project.store, output.fates, came, primary)
    if entry.scope == "whole":
        project.held.keep(told, output.fates)
    snapshot = Snapshot(
        entry.name,
        {
            "rows": made,
            "fates": told,
            **{name: write_table(project.store, table) for name, table in output.tables.items()},
        },
        output.facts,
    )
    project.memo.put(key, snapshot)
    return snapshot


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Records in the order of arrival, line and position: the same whatever a join or a thread did."""
    order = [pl.col(name) for name in ("arrival", "line", "position", "row_id") if name in rows.columns]
    rises, same = pl.lit(False), pl.lit(True)
    for key in order:
        rises = rises | (same & (key > key.shift()))
        same = same & (key == key.shift())
    return rows if rows.select(rises.slice(1).all()).item() else rows.sort(order)


def _examined(project: Project, entry: Stage, inputs: Mapping[str, Commit], snapshot: Snapshot) -> Examined:
    before = inputs[entry.inputs[0]] if entry.inputs else None
    return Examined(
        stage=entry,
        policy=project.policy,
        before=before.snapshot if before else None,
        weight_before=stage(before.asset).weight if before else None,
        after=snapshot,
        kept=entry.name not in REGISTRIES and all_kept(project.held, before.snapshot if before else snapshot, snapshot),
        **_behind(project, inputs if entry.name == "training_set" else {}),
    )


def _behind(project: Project, inputs: Mapping[str, Commit]) -> dict[str, Any]:
    """What was decided in the stages behind a release: its decisions are held to one false discovery rate with them."""
    contents = [(name, commit.content) for name, commit in chain(project, inputs).items()]
    return {
        "decided": tuple(d["psi_chance"] for d in decisions_of(contents) if "psi_chance" in d),
        "since": tuple(
            (
                name,
                {entry["column"]: (entry.get("psi"), entry["fallen"]) for entry in content.get("baseline", ())},
                {entry["column"]: entry["because"] for entry in content.get("drift", ()) if entry["because"]},
            )
            for name, content in contents
        ),
    }


def _counted(project: Project, examined: Examined) -> list[dict[str, Any]]:
    tables = examined.after.tables
    if examined.kept:
        return [{"fate": "kept", "rule": None, "rule_version": None, "rows": tables["rows"].rows}]
    if "fates" not in tables:
        return []
    return counted(project.held.rows(tables["fates"]), "fate", "rule", "rule_version").to_dicts()


def pinned_entries(section: Section) -> dict[str, Pinned]:
    """All rules, factors and targets of a section, by `<list>/<id>`."""
    return {
        f"{name}/{entry.id}": entry
        for name, value in section
        if isinstance(value, tuple)
        for entry in value
        if isinstance(entry, Pinned)
    }


def _unversioned_changes(previous: Commit | None, section: Section) -> list[str]:
    """Entries whose content is other than in the previous commit, under the same id and version."""
    if previous is None:
        return []
    changed = []
    for name, entry in pinned_entries(section).items():
        listed = name.split("/")[0]
        for old in previous.content["policy"].get(listed, []):
            same = old["id"] == entry.id and old["version"] == entry.version
            if same and entry.content_digest() != digest(
                {k: v for k, v in old.items() if k not in ("version", "reason")}
            ):
                changed.append(f"{name} v{entry.version}: its content changed; raise its version")
    return changed
