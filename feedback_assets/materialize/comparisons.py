"""The four comparisons of a materialization's signal, and what moved it where it moved.

1. transformation drift: this stage's output against its input; 2. input drift: the newest batch of each source against
its earlier ones; 3. against the baseline: declared, or one approved release; 4. against the asset's previous
materialization, which depends on what happened to be made before, and so is told apart from what was done to the data.
All are made of profiles, which are merged from parts; rows are read again only where something moved.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from feedback_assets.digests import digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.profiles import profile_of, profile_of_arrivals
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import Policy
from feedback_assets.signal import attribution
from feedback_assets.signal.clusters import size_in
from feedback_assets.signal.columns import IDENTITIES, watched
from feedback_assets.signal.comparisons import ColumnDrift, Pair, Sizes, adjusted, baseline_drift, drift_between
from feedback_assets.signal.histogram import NULL
from feedback_assets.signal.losses import LOST, GroupLoss
from feedback_assets.signal.monitor import SampleSize, effective_sample_size, identity_changes
from feedback_assets.signal.profile import Profile, Watched
from feedback_assets.signal.section import GATED, Monitoring
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Snapshot, Table
from feedback_assets.sources.privacy import shown
from feedback_assets.stages.reweighted import ReweightedSection

NOTHING = {NULL: 1.0}
"""The distribution of a column that has no value in any row."""
Said = tuple[str, Mapping[str, tuple[float | None, str | None]], Mapping[str, str]]
"""Of a stage by column: the PSI against the baseline, and a value that fell; and what moved it against the input."""
Fates = Callable[[], pl.DataFrame]
"""Gives the fates of the rows that came: most stages need not read them."""
EXPLAINED = 6
"""As many columns are explained, those that moved most; a cause shows in several."""


@dataclass(frozen=True)
class Side:
    """The rows of a snapshot, their weight column, and their profile."""

    rows: pl.LazyFrame
    weight: str | None
    profile: Profile

    @cached_property
    def schema(self) -> pl.Schema:
        """Columns of the rows."""
        return self.rows.collect_schema()


@dataclass(frozen=True)
class Compared:
    """What was compared: `after` in the light of a policy; `sizes` are its effective sample sizes by unit.

    `quotes`: whether a sentence may quote what a source says.
    """

    monitoring: Monitoring
    after: Side
    sizes: Sequence[SampleSize]
    quotes: bool = True

    @cached_property
    def columns(self) -> dict[str, Watched]:
        """What is counted, by name."""
        return {entry.name: entry for entry in watched(self.after.schema, self.monitoring.counted_columns)}

    def effective(
        self, before: Side | None = None, *, alike: bool = False, only: tuple[str, ...] | None = None
    ) -> Sizes | None:
        """Sample sizes that allow for clusters; None where the policy names none.

        `before` is the other side, if it is a sample; `alike`: its rows come from the same annotators and items, so
        they are worth as much each. `only`: the columns of which it may be asked.
        """
        clusters = tuple(name for name in self.monitoring.clusters if name in self.after.schema)
        if not clusters:
            return None
        units = [size.effective for size in self.sizes if size.unit in ("item", "annotator") and size.count]

        def size(side: Side, column: str, edges: tuple[float, ...] | None) -> float | None:
            return size_in(side.rows, self.columns[column], side.weight, clusters, edges)

        def of(column: str, edges: tuple[float, ...] | None) -> Pair:
            mine = size(self.after, column, edges)
            if before is None or mine is None:
                return None, mine
            if not alike:
                return size(before, column, edges), mine
            known = before.profile.histogram(column, edges).effective
            kish = self.after.profile.histogram(column, edges).effective
            return (known * mine / kish if kish else None), mine

        return Sizes(of, min(units, default=1.0), clusters, only)


def transformation(
    compared: Compared, before: Side, fates: Fates, section: Any, decided: Sequence[float]
) -> list[ColumnDrift]:
    """The output against the input: each column that moved with the rule, factor or target that moved it."""
    sizes = compared.effective(before, alike=True)
    found = drift_between(before.profile, compared.after.profile, compared.monitoring.limits, sizes)
    return _explained(
        adjusted(found, decided),
        lambda entry: _why_transformed(compared, before, fates, section, entry),
        quotes=compared.quotes,
    )


def _why_transformed(
    compared: Compared, before: Side, fates: Fates, section: Any, entry: ColumnDrift
) -> attribution.Cause | None:
    column, drift, after = compared.columns[entry.name], entry.drift, compared.after
    if drift is None:
        return None
    moved = attribution.moved_most(entry.name, drift, _fell(entry))
    segments = [compared.columns[name] for name in attribution.SEGMENTS if name in compared.columns]
    if isinstance(section, ReweightedSection):
        factors = {f.id: (f"_{f.column()}", f.version) for f in section.factors if f.column() in after.schema}
        named = [pl.col(name.removeprefix("_")).alias(name) for name, _ in factors.values()]
        rows = attribution.with_cells(after.rows.with_columns(named), column, drift, ())
        return attribution.by_factor(rows, drift, moved, factors)
    if "copy_index" in before.schema:
        return None
    told = fates().select(
        "row_id",
        pl.col("fate").alias("_fate"),
        pl.col("rule").alias("_rule"),
        pl.col("rule_version").alias("_version"),
        pl.col("copies").alias("_copies"),
        pl.coalesce("into", "row_id").alias("_cluster"),
    )
    if before.rows.select("row_id").collect().equals(told.select("row_id")):
        came = pl.concat([before.rows, told.lazy().drop("row_id")], how="horizontal")
    else:
        came = before.rows.join(told.lazy(), on="row_id", how="left")
    if before.weight is not None:
        rows = attribution.with_cells(came.with_columns(pl.col(before.weight).alias("_weight")), column, drift, ())
        return attribution.by_copies(rows, drift, moved)
    return attribution.by_fate(attribution.with_cells(came, column, drift, segments), drift, moved)


def newest_batches(held: Held, snapshot: Snapshot, monitoring: Monitoring, *, quotes: bool) -> list[ColumnDrift]:
    """For each source its newest batch against its other ones; the columns in `answers` are held to the limit.

    A batch is all that stands of what came under its name. Where all came under one name, it is the newest delivery.
    """
    table = snapshot.tables["rows"]
    stands = held.rows(table).select("arrival").unique()
    batches = held.rows(snapshot.tables["batches"]).join(stands, on="arrival", how="semi")
    found: list[ColumnDrift] = []
    of_source: dict[str, Compared] = {}
    for (source,), mine in batches.sort("arrival").collect().partition_by("source", as_dict=True).items():
        of_newest = pl.col("batch") == pl.col("batch").last()
        if mine.get_column("batch").n_unique() == 1:
            of_newest = pl.col("arrival") == pl.col("arrival").last()
        earlier, newest = (mine.filter(which).get_column("arrival").to_list() for which in (~of_newest, of_newest))
        if not earlier:
            continue
        before, after = (_of_arrivals(held, table, which, monitoring) for which in (earlier, newest))
        compared = of_source[source] = Compared(
            monitoring, after, effective_sample_size(after.rows, None, after.profile)
        )
        sizes = compared.effective(before, only=monitoring.answers)
        beside = {"source": source, "batch": mine.get_column("batch")[-1]}
        found += [
            replace(entry, beside=beside, held=entry.name in monitoring.answers)
            for entry in drift_between(before.profile, after.profile, monitoring.limits, sizes)
            if entry.name not in IDENTITIES  # guidelines take turns
        ]
    return _explained(
        adjusted(found), lambda entry: _by_segment(of_source[entry.beside["source"]], entry), quotes=quotes
    )


def _of_arrivals(held: Held, table: Table, arrivals: list[int], monitoring: Monitoring) -> Side:
    parts = [
        part
        for part in table.parts
        if part.arrivals and any(part.arrivals[0] <= a <= part.arrivals[1] for a in arrivals)
    ]
    rows = held.rows(Table(table.schema, tuple(parts))).filter(pl.col("arrival").is_in(arrivals))
    return Side(rows, None, profile_of_arrivals(held, table, arrivals, monitoring.counted_columns))


def baseline(
    project: Project,
    compared: Compared,
    *,
    held: bool,
    decided: Sequence[float],
    since: Sequence[Said],
) -> list[ColumnDrift]:
    """Against what is expected.

    Args:
        project: where an approved release is looked up.
        compared: the signal.
        held: whether a check decides on it.
        decided: the chances of what was decided before, among which these decisions stand.
        since: what each stage before this one said, against the same baseline.
    """
    monitoring = compared.monitoring
    expected = {**approved(project), **monitoring.expect}
    # Neither side has a value: a release says nothing of such a column.
    seen = compared.after.profile
    expected = {
        name: value
        for name, value in expected.items()
        if name in monitoring.expect or value != NOTHING or (name in seen and not seen.blank(name))
    }
    found = baseline_drift(seen, expected, monitoring.limits, compared.effective() if held else None)
    found = adjusted([replace(entry, held=held) for entry in found], decided)
    if not held:
        return found
    explained = _explained(found, lambda entry: _by_segment(compared, entry), quotes=compared.quotes, expected=True)
    return [replace(entry, because=entry.because and entry.because + _since(entry, since)) for entry in explained]


def _since(entry: ColumnDrift, since: Sequence[Said]) -> str:
    """The first stage at which it stood so, with what that stage did to the column, if it did."""
    for asset, against, because in since:
        psi, fallen = against.get(entry.name, (None, None))
        if (psi or 0.0) > entry.limits.psi or (fallen is not None and fallen == entry.fallen):
            return f"; so since `{asset}`" + (f": {because[entry.name]}" if entry.name in because else "")
    return ""


def approved(project: Project) -> dict[str, Any]:
    """The distributions of the release that `monitoring.baseline` names; a column without values is all null.

    Raises:
        FeedbackError: there is no such release in the store, or its manifest is not what was written.
    """
    named = project.policy.monitoring.baseline
    if named is None:
        return {}
    key = f"releases/{named.release[:16]}/manifest.json"
    where = f"{project.path}: monitoring.baseline.release"
    if not project.store.exists(key):
        raise FeedbackError(
            f"{where}: no release {named.release} in {project.store.place}; see `feedback-assets releases`"
        )
    manifest = json.loads(project.store.get(key))
    if digest(manifest["content"]) != manifest["id"] or not manifest["id"].startswith(named.release):
        raise FeedbackError(f"{where}: the manifest of {named.release} is not what was written; restore it")
    told = manifest["content"]["distribution"]
    return {name: told.get(name, NOTHING) for name in GATED}


def takers(
    compared: Compared,
    before: pl.LazyFrame,
    fates: Fates,
    losses: Sequence[GroupLoss],
) -> dict[str, str]:
    """By `column=value`, for the first of `losses`: which rule took how many of their rows."""
    found = {}
    for loss in losses[:EXPLAINED]:
        gone = fates().lazy().filter(pl.col("fate").is_in(LOST))
        group = compared.columns[loss.column]
        rows = before if group.applies is None else before.filter(group.applies.fill_null(value=False))
        theirs = rows.filter(group.value.cast(pl.String).fill_null(NULL) == loss.value).select("row_id").unique()
        taken = (
            gone.join(theirs, on="row_id", how="semi")
            .group_by("rule", "rule_version", "fate")
            .len()
            .sort("len", "rule", descending=[True, False])
            .collect()
        )
        said = [
            f"rule `{rule or fate}`{f' v{version}' if version is not None else ''} {attribution.REMOVED[fate]} {n:,}"
            for rule, version, fate, n in taken.head(3).iter_rows()
        ]
        found[f"{loss.column}={loss.value}"] = ", ".join(said)
    return found


def against_previous(project: Project, weight: str | None, previous: Snapshot | None, now: Snapshot) -> dict[str, Any]:
    """What moved since the asset's previous materialization: `columns` and `identities`, plain JSON values."""
    if previous is None or previous.data_version == now.data_version:
        return {"columns": [], "identities": []}
    monitoring = project.policy.monitoring
    was, found = (
        profile_of(project.held, table, weight, monitoring.counted_columns)
        for table in (previous.tables["rows"], now.tables["rows"])
    )
    entries = adjusted(drift_between(was, found, monitoring.limits))
    return {
        "columns": [entry.as_json(brief=True) for entry in _told(entries, quotes=may_quote(project.policy))],
        "identities": [change.as_json() for change in identity_changes(was, found)],
    }


def _by_segment(compared: Compared, entry: ColumnDrift) -> attribution.Cause | None:
    if entry.drift is None:
        return None
    after = compared.after
    rows = after.rows if after.weight is None else after.rows.with_columns(pl.col(after.weight).alias("_weight"))
    segments = [compared.columns[name] for name in attribution.SEGMENTS if name in compared.columns]
    found = attribution.with_cells(rows, compared.columns[entry.name], entry.drift, segments)
    return attribution.by_segment(found, entry.drift)


def may_quote(policy: Policy) -> bool:
    """Whether a sentence may quote what a source says: a category, a name of a task."""
    return all(source.excerpts for source in policy.ingested.sources)


def _explained(entries: list[ColumnDrift], why: Any, *, quotes: bool, expected: bool = False) -> list[ColumnDrift]:
    """The entries, those that moved with what a person should know of them."""
    moved = [entry for entry in entries if entry.held and entry.drift and (entry.verdict == "moved" or entry.warning)]
    moved.sort(key=lambda entry: (-((entry.drift.psi if entry.drift else None) or 0.0), entry.name))
    told = {}
    for entry in moved[:EXPLAINED]:
        cause = why(entry)
        words = _cell(entry, quotes=quotes, expected=expected)
        told[id(entry)] = f"{words}; {_shown(cause, quotes=quotes).sentence()}" if cause else words
    return [replace(entry, because=told.get(id(entry), entry.because)) for entry in entries]


def _shown(cause: attribution.Cause, *, quotes: bool) -> attribution.Cause:
    """`cause` as it may be told."""

    def said(segment: str) -> str:
        column, _, value = segment.partition("=")
        return f"{column}={shown(column, value, quotes=quotes)}"

    name = said(cause.name) if cause.kind == "segment" else cause.name
    return replace(cause, name=name, segment=cause.segment and said(cause.segment))


def _told(entries: list[ColumnDrift], *, quotes: bool) -> list[ColumnDrift]:
    return [
        replace(entry, because=_cell(entry, quotes=quotes)) if entry.verdict == "moved" or entry.warning else entry
        for entry in entries
    ]


def _fell(entry: ColumnDrift) -> str | None:
    """The category whose share fell, where the PSI alone would not say that something moved."""
    within = entry.drift is None or entry.drift.psi is None or entry.drift.psi <= entry.limits.psi
    return entry.fallen if within else None


def _cell(entry: ColumnDrift, *, quotes: bool, expected: bool = False) -> str:
    if entry.drift is None:
        return ""
    moved = attribution.moved_most(entry.name, entry.drift, _fell(entry))
    if entry.kind == "categorical":
        moved = replace(moved, cell=shown(moved.column, moved.cell, quotes=quotes))
    if expected:
        return f"`{moved.column}={moved.cell}` is {moved.after:.1%}, expected {moved.before:.1%}".replace("%", " %")
    return moved.sentence()
