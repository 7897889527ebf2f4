"""What became of one annotation: through every stage its fate, the rule and its version, its weight by factor.

A record that became pairs leads to them, a pair to the two records it was made of, each with what became of it.
"""

from typing import Any

import polars as pl

from feedback_assets.digests import text_id
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.record import SCHEMA
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
PAIR = ("parents", "conversion", "margin")
RELATIVE = ("source", "feedback_id", "kind", "label", "score")


def trace(project: Project, name: str, commits: dict[str, Commit] | None = None) -> list[dict[str, Any]]:
    """All that the commits say of an annotation; one entry for each row_id found.

    Args:
        project: policy and store.
        name: a feedback_id, a row_id, or `<batch file>:<line>`: what could not be read as a record has no other name;
            of a pair the feedback_id is `<conversion>:<feedback_id of a>+<feedback_id of b>`.
        commits: the chain to look in; default: what stands behind the latest materializations.

    Returns:
        For each annotation: `row_id`, `record` (the columns that say what it is; None for one in quarantine),
        `deliveries` (each arrival of it), `steps` (one a stage: fate, rule, version, into, what the stage added),
        `in_release`, and `parents` and `children` (each: row_id, feedback_id, kind, label, score, the stage, fate, rule
        and version where its way ended, and in_release). A pair has no delivery; its first step is "made".

    Raises:
        FeedbackError: nothing is materialized, or no delivery has this name.
    """
    commits = commits or latest_chain(project)
    tables = commits["ingested"].snapshot.tables
    rows = scan(project.store, tables["rows"])
    deliveries = _deliveries(project, commits["ingested"])
    here = rows.filter(pl.col("feedback_id") == name).select("row_id").collect()
    ids = _row_ids(deliveries, name) | set(here.get_column("row_id"))
    made = _pairs(project, commits)
    named = made.filter((pl.col("row_id") == name) | (pl.col("feedback_id") == name)).collect()
    if not ids and named.is_empty():
        raise FeedbackError(
            f"no annotation {name!r} in {project.store.root}; name it by its source's feedback_id, by its row_id "
            "(32 characters), or as BATCH_FILE:LINE, the only name of a record that could not be read"
        )
    records = rows.filter(pl.col("row_id").is_in(sorted(ids))).select("row_id", *RECORD).collect().to_dicts()
    unread = sorted(ids - {record["row_id"] for record in records})
    return [
        *[_followed(project, commits, record, _arrivals(record["row_id"], deliveries), made) for record in records],
        *[_followed(project, commits, pair, [], made) for pair in named.select("row_id", *RECORD, *PAIR).to_dicts()],
        *[_quarantined(row_id, deliveries) for row_id in unread],
    ]


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
    none: dict[str, Any] = {"steps": [], "in_release": False, "parents": [], "children": []}
    return {"row_id": row_id, "record": None, "deliveries": arrived, **none}


def _pairs(project: Project, commits: dict[str, Commit]) -> pl.LazyFrame:
    """The rows that `converted` made."""
    commit = commits.get("converted")
    if commit is None or "conversion" not in commit.snapshot.tables["rows"].schema:
        return pl.LazyFrame(
            schema={"row_id": pl.String, **{name: SCHEMA.get(name, pl.String) for name in (*RECORD, *PAIR)}}
        )
    return scan(project.store, commit.snapshot.tables["rows"]).filter(pl.col("conversion").is_not_null())


def _followed(
    project: Project,
    commits: dict[str, Commit],
    record: dict[str, Any],
    deliveries: list[dict[str, Any]],
    made: pl.LazyFrame,
) -> dict[str, Any]:
    row_id = record.pop("row_id")
    parents: list[str] = record.pop("parents", [])
    steps = []
    assets = [asset for asset in commits if asset not in ("ingested", "guidelines")]
    out = False
    if parents:
        assets = assets[assets.index("converted") :]
        steps.append(_made(commits[assets.pop(0)], record["conversion"]))
    for asset in assets:
        commit = commits[asset]
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
    children = made.filter(pl.col("parents").list.contains(row_id)).select("row_id", *RELATIVE).collect()
    ingested = scan(project.store, commits["ingested"].snapshot.tables["rows"])
    made_of = ingested.filter(pl.col("row_id").is_in(parents)).select("row_id", *RELATIVE).collect()
    return {
        "row_id": row_id,
        "record": _plain(record),
        "deliveries": deliveries,
        "steps": steps,
        "in_release": bool(steps) and steps[-1]["stage"] == "training_set" and out,
        "parents": _relatives(project, commits, made_of, parents),
        "children": _relatives(project, commits, children.sort("feedback_id", "row_id")),
    }


def _made(commit: Commit, conversion: str) -> dict[str, Any]:
    """The first step of a pair."""
    listed = {entry["id"]: entry["version"] for entry in commit.content["policy"]["conversions"]}
    made = {"fate": "made", "rule": conversion, "rule_version": listed[conversion], "into": None, "copies": 1}
    return {"stage": commit.asset, "code_version": commit.code_version, **made, "added": {}}


def _relatives(
    project: Project, commits: dict[str, Commit], rows: pl.DataFrame, order: list[str] | None = None
) -> list[dict[str, Any]]:
    """Each of `rows` (row_id and RELATIVE), with the stage and fate at which its way ended."""
    ended: dict[str, dict[str, Any]] = {}
    for asset, commit in commits.items():
        if asset in ("ingested", "guidelines") or rows.is_empty():
            continue
        fates = scan(project.store, commit.snapshot.tables["fates"])
        here = fates.filter(pl.col("row_id").is_in(rows.get_column("row_id").implode())).collect()
        for fate in here.iter_rows(named=True):
            last = {key: fate[key] for key in ("fate", "rule", "rule_version", "into")}
            in_release = asset == "training_set" and fate["fate"] == "kept"
            ended[fate["row_id"]] = {"stage": asset, **last, "in_release": in_release}
    found = {row["row_id"]: {**row, **ended.get(row["row_id"], {})} for row in rows.to_dicts()}
    return [found[row_id] for row_id in order or found]


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
