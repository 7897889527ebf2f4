"""diff: what two releases were made from differently, and what that did.

Causes come from the manifests alone. So do rows, fates and what came and went; parts are read where they are there, to
say at which stage a distribution moved, which record left where, and which factor weighs otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.profiles import profile_of
from feedback_assets.pipeline import STAGES, stage
from feedback_assets.provenance.build import scratch
from feedback_assets.provenance.changes import Change, changes
from feedback_assets.provenance.effects import fates_of, moved
from feedback_assets.provenance.recipe import has_parts, recipe
from feedback_assets.provenance.release import Release, annotations_of, commits_of, unpacked
from feedback_assets.required import REGISTRIES
from feedback_assets.signal.comparisons import drift_between
from feedback_assets.signal.drift import finite, kl, psi
from feedback_assets.signal.section import Limits
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.overlay import Overlay
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import Store

EXAMPLES = 5
"""As many row_ids are given of what came and what went."""


def diff(store: Store, before: Release, after: Release) -> dict[str, Any]:
    """Compare two releases.

    Returns:
        `before`, `after`: ids; `causes`: changes (`Change.as_json`, with `lines`, a readable diff, and of a batch that
        was delivered again `rows`: how many of its records are `revised`, `new`, `unchanged`); `stages`: of each
        `rows_in`, `rows_out` and `fates` on both sides, and `drift` of the later against the earlier (PSI, KL in both
        directions, KS by column; None where it cannot be told); `rows`: how many records `came`, `went`, and stayed
        with `changed_weight` or `changed_answer`, and `moved`, by what did it; `untold`: sentences on what could not be
        told.
    """
    recipes = recipe(store, before), recipe(store, after)
    causes = changes(*recipes)
    untold = [
        f"the batches of {release.id[:16]} are not told by its manifest, and their list is gone from the store"
        for side, release in zip(recipes, (before, after), strict=True)
        if side.arrivals is None
    ]
    untold += [
        f"whether the code of {name} changed: one of the two did not record it, and its policy changed, too"
        for name in recipes[1].code_versions
        if None in (recipes[0].code.get(name), recipes[1].code.get(name))
        and recipes[0].policy.get(name) != recipes[1].policy.get(name)
    ]
    commits = commits_of(before), commits_of(after)
    with scratch(store) as overlay:
        stages = [
            _stage(overlay, after, commits[0][entry.name], commits[1][entry.name], untold)
            for entry in STAGES
            if entry.name in commits[0] and entry.name in commits[1]
        ]
    again = _again(store, commits[1]["ingested"], causes)
    return {
        "before": before.id,
        "after": after.id,
        "causes": [{**change.as_json(), "lines": change.lines(), **again.get(change.id, {})} for change in causes],
        "stages": stages,
        "rows": _rows(store, (before, after), commits, causes, untold),
        "untold": untold,
    }


def _again(store: Store, ingested: Commit, causes: Sequence[Change]) -> dict[str, dict[str, Any]]:
    """By change the `rows` of a batch that was delivered again; nothing where the parts are gone."""
    again = [change for change in causes if change.what == "delivered again"]
    if not again or not has_parts(store, ingested.snapshot, "rows", "batches"):
        return {}
    rows, batches = (scan(store, ingested.snapshot.tables[name]) for name in ("rows", "batches"))
    revised = pl.col("revision") > 0
    counted = rows.group_by("arrival").agg(revised=revised.sum(), new=(~revised).sum())
    delivery = ("source", "batch", "digest")
    told = (
        batches.join(counted, on="arrival", how="left")
        .unique(delivery, keep="first", maintain_order=True)
        .select(*delivery, pl.col("revised", "new").fill_null(0), unchanged="redelivered")
        .collect()
    )
    by_delivery = {
        row[:3]: dict(zip(("revised", "new", "unchanged"), row[3:], strict=True)) for row in told.iter_rows()
    }
    return {change.id: {"rows": by_delivery[tuple(change.after[key] for key in delivery)]} for change in again}


def _stage(overlay: Overlay, after: Release, was: Commit, now: Commit, untold: list[str]) -> dict[str, Any]:
    return {
        "stage": now.asset,
        "same": was.data_version == now.data_version,
        "rows_in": [was.content["rows_in"], now.content["rows_in"]],
        "rows_out": [was.content["rows_out"], now.content["rows_out"]],
        "fates": fates_of(was.content, now.content),
        "drift": [] if now.asset in REGISTRIES else _drift(overlay, after, was, now, untold),
    }


def _drift(
    overlay: Overlay, after: Release, was: Commit, now: Commit, untold: list[str]
) -> list[dict[str, Any]] | None:
    if was.data_version == now.data_version:
        return []
    if all(has_parts(overlay, commit.snapshot, "rows") for commit in (was, now)):
        monitoring = after.content["policy"]["monitoring"]
        weight = stage(now.asset).weight
        tables = [commit.snapshot.tables["rows"] for commit in (was, now)]
        held = Held(overlay)
        first, second = (profile_of(held, table, weight, monitoring["columns"]) for table in tables)
        found = drift_between(first, second, Limits.model_validate(monitoring["limits"]))
        keys = ("column", "verdict", "psi", "kl", "kl_reversed", "ks", "ks_location")
        return [{key: entry.as_json().get(key) for key in keys} for entry in found]
    untold.append(f"how the distributions of {now.asset} differ: parts of it are gone")
    if now.asset != "training_set":
        return None
    untold[-1] += "; what the manifests say of categories is compared"
    return _declared_drift(was.content["distribution"], now.content["distribution"])


def _declared_drift(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the categorical columns, as both manifests tell them."""
    found = []
    for name in sorted(was.keys() & now.keys()):
        if {was[name]["kind"], now[name]["kind"]} != {"categorical"}:
            continue
        cells = sorted({*was[name]["shares"], *now[name]["shares"]})
        p, q = ([side[name]["shares"].get(cell, 0.0) for cell in cells] for side in (was, now))
        values = {"psi": psi(p, q), "kl": kl(p, q), "kl_reversed": kl(q, p)}
        told = {key: finite(value) for key, value in values.items()}
        found.append({"column": name, "verdict": None, **told, "ks": None, "ks_location": None})
    return found


def _rows(
    store: Store,
    releases: tuple[Release, Release],
    commits: tuple[Mapping[str, Commit], Mapping[str, Commit]],
    causes: Sequence[Change],
    untold: list[str],
) -> dict[str, Any]:
    ids = [
        {name for group in release.content["annotations"]["groups"] for name in unpacked(group["row_ids"])}
        for release in releases
    ]
    came, went = sorted(ids[1] - ids[0]), sorted(ids[0] - ids[1])
    told = {
        "before": len(ids[0]),
        "after": len(ids[1]),
        "came": len(came),
        "went": len(went),
        **_stayed(store, releases, untold),
        "examples": {"came": came[:EXAMPLES], "went": went[:EXAMPLES]},
    }
    whole = all(
        has_parts(store, commit.snapshot, *({"rows", "fates"} & commit.snapshot.tables.keys()))
        for side in commits
        for commit in side.values()
    )
    if not whole:
        untold.append("what each record that came, went or changed weight owes that to: parts of a release are gone")
    return {**told, "moved": [m.as_json() for m in moved(store, *commits, "training_set", causes)] if whole else None}


def _stayed(store: Store, releases: tuple[Release, Release], untold: list[str]) -> dict[str, int | None]:
    """Of the records that are in both, how many weigh or say otherwise, from the annotations beside the manifests."""
    columns = ("training_weight", "label", "score")
    try:
        was, now = (annotations_of(store, release).select("row_id", *columns).collect() for release in releases)
    except FileNotFoundError:
        untold.append("which records changed their weight or their answer: the annotations of a release are gone")
        return {"changed_weight": None, "changed_answer": None}
    other = {name: pl.col(name).ne_missing(pl.col(f"{name}\0")) for name in columns}
    counted = was.join(now, on="row_id", suffix="\0").select(
        other["training_weight"].sum().alias("changed_weight"),
        (other["label"] | other["score"]).sum().alias("changed_answer"),
    )
    return counted.row(0, named=True)
