"""What became of one annotation: through every stage its fate, the rule and its version, its weight by factor."""

from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.snapshots.snapshot import scan

RECORD = (
    "source",
    "batch",
    "line",
    "feedback_id",
    "revision",
    "kind",
    "task",
    "category",
    "label",
    "score",
    "annotator_id",
    "collected_at",
)
GUIDELINE = ("guideline", "guideline_status", "guideline_digest", "annotator_agreement", "annotator_agreement_n")
CLUSTER = ("cluster_id", "assigned_split")


def trace(project: Project, name: str, commits: dict[str, Commit] | None = None) -> list[dict[str, Any]]:
    """All that the commits say of an annotation, named by its feedback_id or row_id; one entry for each row_id found.

    Args:
        project: policy and store.
        name: a feedback_id, or a row_id.
        commits: the chain to look in; default: what stands behind the latest materializations.

    Returns:
        For each annotation: `row_id`, `record` (the columns that say what it is), `deliveries` (each arrival of it),
        `steps` (one a stage: fate, rule, version, into, what the stage added), and `in_release`.

    Raises:
        FeedbackError: nothing is materialized, or no delivery has this id.
    """
    commits = commits or latest_chain(project)
    ingested = commits["ingested"]
    tables = ingested.snapshot.tables
    rows = scan(project.store, tables["rows"])
    found = (
        rows.filter((pl.col("feedback_id") == name) | (pl.col("row_id") == name)).select("row_id", *RECORD).collect()
    )
    fates = scan(project.store, tables["fates"])
    quarantined = _quarantined(project, commits, name)
    if not found.height and not quarantined:
        raise FeedbackError(
            f"no annotation {name!r} in {project.store.root}; ids are those of the source, or a row_id of 32 characters"
        )
    return [*[_followed(project, commits, record, fates) for record in found.to_dicts()], *quarantined]


def latest_chain(project: Project) -> dict[str, Commit]:
    """The commits behind the furthest stage that was materialized."""
    for entry in reversed(STAGES):
        commit = project.commits.latest(entry.name)
        if commit is not None:
            return chain(project, {entry.name: commit})
    raise FeedbackError(f"{project.store.root}: nothing is materialized yet; `feedback-assets run` does it")


def _quarantined(project: Project, commits: dict[str, Commit], name: str) -> list[dict[str, Any]]:
    table = scan(project.store, commits["ingested"].snapshot.tables["fates"])
    hits = table.filter((pl.col("row_id") == name) & (pl.col("fate") == "quarantined")).collect()
    return [
        {
            "row_id": hit["row_id"],
            "record": None,
            "deliveries": [
                {"arrival": hit["arrival"], "line": hit["line"], "fate": "quarantined", "rule": hit["rule"]}
            ],
            "steps": [],
            "in_release": False,
        }
        for hit in hits.to_dicts()
    ]


def _followed(
    project: Project, commits: dict[str, Commit], record: dict[str, Any], fates: pl.LazyFrame
) -> dict[str, Any]:
    row_id = record.pop("row_id")
    deliveries = (
        fates.filter(pl.col("row_id") == row_id)
        .join(
            scan(project.store, commits["ingested"].snapshot.tables["batches"]).select("arrival", "batch"), on="arrival"
        )
        .select("arrival", "batch", "line", "fate", "rule")
        .sort("arrival", "line")
        .collect()
    )
    steps = []
    out = False
    for asset, commit in commits.items():
        if asset in ("ingested", "guidelines"):
            continue
        mine = scan(project.store, commit.snapshot.tables["fates"]).filter(pl.col("row_id") == row_id).collect()
        if not mine.height:
            break
        fate = mine.row(0, named=True)
        out = fate["fate"] in ("kept", "copied")
        added = _added(project, commit, row_id) if out else {}
        steps.append(
            {
                "stage": asset,
                "code_version": commit.code_version,
                **{k: fate[k] for k in ("fate", "rule", "rule_version", "into", "copies")},
                "added": added,
            }
        )
    released = bool(steps) and steps[-1]["stage"] == "training_set" and out
    return {
        "row_id": row_id,
        "record": _plain(record),
        "deliveries": deliveries.to_dicts(),
        "steps": steps,
        "in_release": released,
    }


def _added(project: Project, commit: Commit, row_id: str) -> dict[str, Any]:
    rows = scan(project.store, commit.snapshot.tables["rows"])
    names = rows.collect_schema().names()
    wanted: dict[str, list[str]] = {
        "guideline_joined": list(GUIDELINE),
        "deduplicated": list(CLUSTER),
        "reweighted": ["weight", *(name for name in names if name.startswith("w_"))],
        "training_set": ["copies", "training_weight", "assigned_split"],
    }
    columns = wanted.get(commit.asset, [])
    if not columns:
        return {}
    return _plain(rows.filter(pl.col("row_id") == row_id).select(columns).head(1).collect().row(0, named=True))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in values.items()}
