"""What became of one annotation: through every stage its fate, the rule and its version, its weight by factor."""

from typing import Any

import polars as pl

from feedback_assets.digests import text_id
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.erase import erased_records
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.stages.ingested import PLACE

RECORD = (
    "source",
    "batch",
    "line",
    "position",
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
    """All that the commits say of an annotation; one entry for each row_id found.

    Args:
        project: policy and store.
        name: a feedback_id, a row_id, or `<batch file>:<line>`: what could not be read as a record has no other name.
        commits: the chain to look in; default: what stands behind the latest materializations.

    Returns:
        For each annotation: `row_id`, `record` (the columns that say what it is; None for one in quarantine),
        `deliveries` (each arrival of it), `steps` (one a stage: fate, rule, version, into, what the stage added),
        `in_release`, and `erased` (when it was erased by request, else None).

    Raises:
        FeedbackError: nothing is materialized, or no delivery has this name.
    """
    commits = commits or latest_chain(project)
    tables = commits["ingested"].snapshot.tables
    rows = scan(project.store, tables["rows"])
    deliveries = _deliveries(project, commits["ingested"])
    here = rows.filter(pl.col("feedback_id") == name).select("row_id").collect()
    ids = _row_ids(deliveries, name) | set(here.get_column("row_id"))
    if not ids:
        raise FeedbackError(
            f"no annotation {name!r} in {project.store.root}; name it by its source's feedback_id, by its row_id "
            "(32 characters), or as BATCH_FILE:LINE, the only name of a record that could not be read"
        )
    records = rows.filter(pl.col("row_id").is_in(sorted(ids))).select("row_id", *RECORD).collect().to_dicts()
    unread = sorted(ids - {record["row_id"] for record in records})
    erased = erased_records(project.store)
    traced = [
        *[_followed(project, commits, record, deliveries) for record in records],
        *[_quarantined(row_id, deliveries) for row_id in unread],
    ]
    return [{**entry, "erased": erased[entry["row_id"]].at if entry["row_id"] in erased else None} for entry in traced]


def latest_chain(project: Project) -> dict[str, Commit]:
    """The commits behind the furthest stage that was materialized."""
    for entry in reversed(STAGES):
        commit = project.commits.latest(entry.name)
        if commit is not None:
            return chain(project, {entry.name: commit})
    raise FeedbackError(f"{project.store.root}: nothing is materialized yet; `feedback-assets run` does it")


def _deliveries(project: Project, ingested: Commit) -> pl.LazyFrame:
    """Every line that arrived: row_id, fate, and for one in quarantine the column at fault and its value."""
    tables = ingested.snapshot.tables
    batches = scan(project.store, tables["batches"]).select("arrival", "source", "batch")
    faults = scan(project.store, tables["quarantine"]).select(*PLACE, pl.col("reason").alias("rule"), "column", "value")
    return (
        scan(project.store, tables["fates"])
        .select("row_id", *PLACE, "fate", "rule")
        .join(batches, on="arrival", how="left")
        .join(
            faults.unique([*PLACE, "rule"], keep="first", maintain_order=True),
            on=[*PLACE, "rule"],
            how="left",
            nulls_equal=True,
        )
    )


def _row_ids(deliveries: pl.LazyFrame, name: str) -> set[str]:
    """The row_ids that `name` means: itself, that of a source's feedback_id, or those on a line of a batch."""
    sources = deliveries.select(pl.col("source").unique()).collect().get_column("source").sort()
    own = pl.DataFrame({"source": sources, "feedback_id": name}).select(
        text_id(pl.col("source"), pl.col("feedback_id"))
    )
    batch, _, line = name.rpartition(":")
    meant = pl.col("row_id").is_in([name, *own.to_series().to_list()])
    if line.isdecimal():
        meant |= (pl.col("batch") == batch) & (pl.col("line") == int(line))
    return set(deliveries.filter(meant).select("row_id").collect().get_column("row_id"))


def _arrivals(row_id: str, deliveries: pl.LazyFrame) -> list[dict[str, Any]]:
    columns = (*PLACE, "batch", "fate", "rule", "column", "value")
    return deliveries.filter(pl.col("row_id") == row_id).select(columns).sort(PLACE).collect().to_dicts()


def _quarantined(row_id: str, deliveries: pl.LazyFrame) -> dict[str, Any]:
    arrived = _arrivals(row_id, deliveries)
    return {"row_id": row_id, "record": None, "deliveries": arrived, "steps": [], "in_release": False}


def _followed(
    project: Project, commits: dict[str, Commit], record: dict[str, Any], deliveries: pl.LazyFrame
) -> dict[str, Any]:
    row_id = record.pop("row_id")
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
        "deliveries": _arrivals(row_id, deliveries),
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
