"""What became of one annotation: through every stage its fate, the rule and its version, its weight by factor.

A record that became pairs leads to them, a pair to the two records it was made of, each with what became of it.
"""

from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.erase import erased_records
from feedback_assets.provenance.training_run import training_runs
from feedback_assets.record import SCHEMA, row_ids
from feedback_assets.snapshots.snapshot import Table, scan
from feedback_assets.snapshots.store import Store
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
DELIVERY = (*PLACE, "batch", "fate", "rule", "column", "value")
STANDS = ("kept", "copied")


def trace(project: Project, name: str, commits: dict[str, Commit] | None = None) -> list[dict[str, Any]]:
    """All that the commits say of an annotation; one entry for each row_id found.

    Args:
        project: policy and store.
        name: a feedback_id, a row_id, or `<batch file>:<line>`: what could not be read as a record has no other name;
            of a pair the feedback_id is `<conversion>:<feedback_id of a>+<feedback_id of b>`.
        commits: the chain to look in; default: what stands behind the latest materializations.

    Returns:
        See `follow`.

    Raises:
        FeedbackError: nothing is materialized, or no delivery has this name.
    """
    return follow(project.store, commits or latest_chain(project), name)


def follow(store: Store, commits: dict[str, Commit], name: str) -> list[dict[str, Any]]:
    """All that the snapshots of `commits` say of an annotation.

    Returns:
        For each annotation: `row_id`, `record` (the columns that say what it is; None for one in quarantine),
        `deliveries` (each arrival of it), `steps` (one a stage: fate, rule, version, into, what the stage added; last
        those of the training runs), `in_release`, `erased` (when it was, by request, else None), `parents` and
        `children` (each: row_id, feedback_id, kind, label, score, the stage, fate, rule and version where its way
        ended, and in_release). A pair has no delivery; its first step is "made".

    Raises:
        FeedbackError: no delivery has this name.
        FileNotFoundError: a part is gone.
    """
    ingested = commits["ingested"].snapshot.tables
    rows = scan(store, ingested["rows"])
    deliveries = _deliveries(store, commits["ingested"])
    here = rows.filter(pl.col("feedback_id") == name).select("row_id").collect()
    sources = scan(store, ingested["batches"]).select(pl.col("source").unique().sort()).collect().to_series()
    ids = sorted(_row_ids(deliveries, sources, name) | set(here.get_column("row_id")))
    made = _pairs(store, commits)
    pairs = made.filter((pl.col("row_id") == name) | (pl.col("feedback_id") == name)).collect()
    if not ids and pairs.is_empty():
        raise FeedbackError(
            f"no annotation {name!r} in {store.place}; name it by its source's feedback_id, by its row_id "
            "(32 characters), or as BATCH_FILE:LINE, the only name of a record that could not be read"
        )
    parents = pairs.get_column("parents").explode().drop_nulls().to_list()
    records = rows.filter(pl.col("row_id").is_in([*ids, *parents])).select("row_id", "arrival", *RECORD).collect()
    descend = pl.col("parents").list.eval(pl.element().is_in(ids)).list.any()
    found = pl.concat([records, pairs, made.filter(descend).collect()], how="diagonal")
    family = {record["row_id"]: record for record in found.sort("feedback_id", "row_id").to_dicts()}
    arrived = deliveries.filter(pl.col("row_id").is_in(ids)).select("row_id", *DELIVERY).sort(PLACE).collect()
    arrivals = {row_id: frame.to_dicts() for (row_id,), frame in _by_row(arrived)}
    steps = _steps(store, commits, sorted({*ids, *family}), set(found.get_column("arrival")))
    asked = sorted({*ids, *pairs.get_column("row_id")}, key=lambda row_id: (row_id not in family, row_id))
    erased = erased_records(store)
    return [
        {
            **_entry(row_id, family, steps, arrivals.get(row_id, []), commits),
            "erased": erased[row_id].at if row_id in erased else None,
        }
        for row_id in asked
    ]


def _entry(
    row_id: str,
    family: dict[str, dict[str, Any]],
    steps: dict[str, list[dict[str, Any]]],
    deliveries: list[dict[str, Any]],
    commits: dict[str, Commit],
) -> dict[str, Any]:
    record = family.get(row_id)
    parents = (record or {}).get("parents") or []
    children = [other for other, one in family.items() if row_id in (one.get("parents") or [])]
    made = [_made(commits["converted"], record["conversion"])] if record and parents else []
    return {
        "row_id": row_id,
        "record": plain({name: record[name] for name in RECORD}) if record else None,
        "deliveries": deliveries,
        "steps": [*made, *steps[row_id]],
        "in_release": _released(steps[row_id]),
        "parents": [_relative(family[other], steps[other]) for other in parents],
        "children": [_relative(family[other], steps[other]) for other in children],
    }


def _pairs(store: Store, commits: dict[str, Commit]) -> pl.LazyFrame:
    """The rows that `converted` made: row_id, arrival, RECORD and PAIR."""
    columns = ("row_id", "arrival", *RECORD, *PAIR)
    commit = commits.get("converted")
    if commit is None or "conversion" not in commit.snapshot.tables["rows"].schema:
        return pl.LazyFrame(schema={name: SCHEMA.get(name, pl.String) for name in columns})
    made = scan(store, commit.snapshot.tables["rows"]).filter(pl.col("conversion").is_not_null())
    return made.select(columns)


def _made(commit: Commit, conversion: str) -> dict[str, Any]:
    """The first step of a pair."""
    listed = {entry["id"]: entry["version"] for entry in commit.content["policy"]["conversions"]}
    made = {"fate": "made", "rule": conversion, "rule_version": listed[conversion], "into": None, "copies": 1}
    return {"stage": commit.asset, "code_version": commit.code_version, **made, "added": {}}


def _relative(record: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """A parent or child, with the stage and fate at which its way ended."""
    last = steps[-1]
    ended = {key: last[key] for key in ("stage", "fate", "rule", "rule_version", "into")}
    said = {name: record[name] for name in ("row_id", *RELATIVE)}
    return {**said, **ended, "in_release": _released(steps)}


def _released(steps: list[dict[str, Any]]) -> bool:
    return any(step["stage"] == "training_set" and step["fate"] in STANDS for step in steps)


def latest_chain(project: Project) -> dict[str, Commit]:
    """The commits behind the furthest stage that was materialized."""
    for entry in reversed(STAGES):
        commit = project.commits.latest(entry.name)
        if commit is not None:
            return chain(project, {entry.name: commit})
    raise FeedbackError(f"{project.store.place}: nothing is materialized yet; `feedback-assets run` does it")


def _deliveries(store: Store, ingested: Commit) -> pl.LazyFrame:
    """Every line that arrived: row_id, fate, and for one in quarantine the column at fault and its value."""
    tables = ingested.snapshot.tables
    batches = scan(store, tables["batches"]).select("arrival", "source", "batch")
    faults = scan(store, tables["quarantine"]).select(*PLACE, pl.col("reason").alias("rule"), "column", "value")
    return (
        scan(store, tables["fates"])
        .select("row_id", *PLACE, "fate", "rule")
        .join(batches, on="arrival", how="left")
        .join(
            faults.unique([*PLACE, "rule"], keep="first", maintain_order=True),
            on=[*PLACE, "rule"],
            how="left",
            nulls_equal=True,
        )
    )


def _row_ids(deliveries: pl.LazyFrame, sources: pl.Series, name: str) -> set[str]:
    """The row_ids that `name` means: itself, that of a source's feedback_id, or those on a line of a batch."""
    batch, _, line = name.rpartition(":")
    meant = pl.col("row_id").is_in(sorted({name, *row_ids(sources, name)}))
    if line.isdecimal():
        meant |= (pl.col("batch") == batch) & (pl.col("line") == int(line))
    return set(deliveries.filter(meant).select("row_id").collect().get_column("row_id"))


def _steps(
    store: Store, commits: dict[str, Commit], ids: list[str], arrivals: set[int]
) -> dict[str, list[dict[str, Any]]]:
    """What each stage after intake did to each of `ids`, which came with `arrivals`."""
    runs = training_runs(store, commits["training_set"].id) if "training_set" in commits else []
    followed = [commit for asset, commit in commits.items() if asset not in ("ingested", "guidelines")] + runs
    found: dict[str, list[dict[str, Any]]] = {row_id: [] for row_id in ids}
    for commit in followed:
        fates = scan(store, commit.snapshot.tables["fates"]).filter(pl.col("row_id").is_in(ids)).collect()
        stands = fates.filter(pl.col("fate").is_in(STANDS)).get_column("row_id").to_list()
        added = _added(store, commit, stands, arrivals)
        model = {"model": commit.content["model"]} if commit in runs else {}
        for (row_id,), fate in _by_row(fates):
            row = fate.row(0, named=True)
            found[row_id].append(
                {
                    "stage": commit.asset,
                    **model,
                    "code_version": commit.code_version,
                    **{key: row[key] for key in ("fate", "rule", "rule_version", "into", "copies")},
                    "added": added.get(row_id, {}),
                }
            )
    return found


def _by_row(frame: pl.DataFrame) -> Any:
    return frame.partition_by("row_id", as_dict=True, include_key=False, maintain_order=True).items()


def _added(store: Store, commit: Commit, ids: list[str], arrivals: set[int]) -> dict[str, dict[str, Any]]:
    table = commit.snapshot.tables["rows"]
    wanted: dict[str, list[str]] = {
        "guideline_joined": list(GUIDELINE),
        "deduplicated": list(CLUSTER),
        "reweighted": ["weight", *(name for name in table.schema if name.startswith("w_"))],
        "training_set": ["copies", "training_weight", "assigned_split"],
    }
    columns = wanted.get(commit.asset, [])
    if not columns or not ids:
        return {}
    near = tuple(
        part for part in table.parts if part.arrivals is None or any(_within(part.arrivals, at) for at in arrivals)
    )
    rows = scan(store, Table(table.schema, near)).filter(pl.col("row_id").is_in(ids)).select("row_id", *columns)
    return {row.pop("row_id"): plain(row) for row in rows.collect().to_dicts()}


def _within(arrivals: tuple[int, int], at: int) -> bool:
    return arrivals[0] <= at <= arrivals[1]


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a row as JSON has them: times as ISO 8601."""
    return {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in values.items()}
