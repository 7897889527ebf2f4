"""The effects: what became of the same records in two builds of the pipeline, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from feedback_assets.materialize.commit import Commit
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.changes import Change
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import Store

Build = Mapping[str, Commit]
ORDER = {entry.name: place for place, entry in enumerate(STAGES)}
FATE = ("fate", "rule", "rule_version")
COPIES = "copies"


@dataclass(frozen=True)
class Moved:
    """Records to which the same happened.

    `what`: "came", "went" or "changed weight"; `stage`: where the two builds part; `was` and `became`: their fates
    there, such as "kept" and "dropped: too-fast v3", or the factor that weighs otherwise; `cause`: id of the change
    behind it, None where several may be.
    """

    what: str
    stage: str
    was: str
    became: str
    rows: int
    cause: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def kept_rows(store: Store, build: Build, last: str) -> pl.LazyFrame:
    """The records that are in a build after its stage `last`, each once."""
    return scan(store, build[last].snapshot.tables["rows"].records)


def moved(store: Store, before: Build, after: Build, last: str, causes: Sequence[Change]) -> list[Moved]:
    """What came, went and changed weight between two builds, by what did it; most rows first.

    A record that changed weight counts at each factor that weighs it otherwise.
    """
    # A stage that gave the same rows in both moved nothing, whatever was changed there.
    same = [name for name in before if name in after and before[name].data_version == after[name].data_version]
    causes = [change for change in causes if change.stage not in same]
    ids = [kept_rows(store, build, last).select("row_id").collect() for build in (before, after)]
    went = ids[0].join(ids[1], on="row_id", how="anti")
    came = ids[1].join(ids[0], on="row_id", how="anti")
    found = [
        *_parted(store, "went", went, before, after, causes),
        *_parted(store, "came", came, after, before, causes),
        *_reweighted(store, before, after, last, causes),
    ]
    return sorted(found, key=lambda entry: (-entry.rows, entry.what, entry.stage, entry.was, entry.became))


def _parted(
    store: Store, what: str, rows: pl.DataFrame, there: Build, gone: Build, causes: Sequence[Change]
) -> list[Moved]:
    """At which stage of the build that lacks them these rows left, and how."""
    found = []
    left = rows
    for name in ORDER:
        if left.is_empty() or name not in gone or "fates" not in gone[name].snapshot.tables:
            continue
        fates = scan(store, gone[name].snapshot.tables["fates"])
        stands = kept_rows(store, gone, name).select("row_id")
        out = left.lazy().join(stands, on="row_id", how="anti").collect()
        if out.is_empty():
            continue
        told = fates.filter(pl.col("fate") != "kept").unique("row_id", keep="last", maintain_order=True)
        ends = out.lazy().join(told, on="row_id", how="left", maintain_order="left").collect()
        arrived = ends.filter(pl.col("fate").is_not_null())
        for fate, rule, version, count in arrived.group_by(FATE).len().sort(FATE, nulls_last=True).iter_rows():
            ended = named(fate, rule, version)
            sides = ("kept", ended) if what == "went" else (ended, "kept")
            found.append(Moved(what, name, *sides, count, cause_of(name, rule, causes)))
        found += _never_arrived(store, what, ends.filter(pl.col("fate").is_null()), there, causes)
        left = left.join(out, on="row_id", how="anti")
    return found


def _never_arrived(store: Store, what: str, rows: pl.DataFrame, there: Build, causes: Sequence[Change]) -> list[Moved]:
    origins = scan(store, there["ingested"].snapshot.tables["rows"]).select("row_id", "source", "batch")
    counted = rows.lazy().join(origins, on="row_id").group_by("source", "batch").len().sort("source", "batch").collect()
    ids = [change.id for change in causes if change.kind == "batch"]
    found = []
    for source, batch, count in counted.iter_rows():
        place = f"{source}/{batch}"
        cause = next((name for name in ids if name == f"batch {place}" or name.startswith(f"batch {place} ")), None)
        sides = (f"in {place}", "not there") if what == "went" else ("not there", f"in {place}")
        found.append(Moved(what, "ingested", *sides, count, cause or cause_of("ingested", None, causes)))
    return found


def _reweighted(store: Store, before: Build, after: Build, last: str, causes: Sequence[Change]) -> list[Moved]:
    frames = [kept_rows(store, build, last) for build in (before, after)]
    schemas = [frame.collect_schema().names() for frame in frames]
    factors = [
        *(name for name in dict.fromkeys((*schemas[0], *schemas[1])) if name.startswith("w_")),
        *(name for name in (COPIES,) if all(name in schema for schema in schemas)),
    ]
    if not factors:
        return []
    sides = [
        frame.select("row_id", *(pl.col(name) if name in names else pl.lit(1.0).alias(name) for name in factors))
        for frame, names in zip(frames, schemas, strict=True)
    ]
    both = sides[0].join(sides[1], on="row_id", suffix="\0after")
    differ = both.select(pl.col(name).ne_missing(pl.col(f"{name}\0after")).sum() for name in factors).collect()
    found = []
    for name, count in zip(factors, differ.row(0), strict=True):
        stage = "upsampled" if name == COPIES else "reweighted"
        if count:
            there = [name in schema for schema in schemas]
            was, became = (f"by {name}" if here else f"no {name}" for here in there)
            rule = None if name == COPIES else name.removeprefix("w_")
            found.append(Moved("changed weight", stage, was, became, count, cause_of(stage, rule, causes)))
    return found


def named(fate: str, rule: str | None, version: int | None) -> str:
    """A fate as a person reads it."""
    return fate + (f": {rule}" if rule else "") + (f" v{version}" if version else "")


def cause_of(stage: str, rule: str | None, causes: Sequence[Change]) -> str | None:
    """The change behind what a rule or factor did at a stage: its own, or the only one that reaches so far.

    A change of the stage's code stands beside that of a rule which is on both sides: either may have done it.
    """
    reaching = [
        change
        for change in causes
        if (change.reaches_rows or change.kind == "code") and ORDER.get(change.stage, 0) <= ORDER[stage]
    ]
    here = [change for change in reaching if change.stage == stage]
    own = [change for change in here if change.kind == "policy" and rule is not None and _entry(change.id) == rule]
    if own and own[0].what == "changed":
        own += [change for change in here if change.kind == "code"]
    found = own or reaching
    return found[0].id if len(found) == 1 else None


def _entry(change: str) -> str:
    return change.partition("/")[2].replace("-", "_") if change.startswith("reweighted.") else change.partition("/")[2]


def fates_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fates of one stage in two commits (their `content`), with their rows on both sides."""
    counted = [
        {tuple(fate[key] for key in FATE): fate["rows"] for fate in content["fates"]} for content in (before, after)
    ]
    return [
        {**dict(zip(FATE, key, strict=True)), "before": counted[0].get(key, 0), "after": counted[1].get(key, 0)}
        for key in dict.fromkeys((*counted[0], *counted[1]))
    ]
