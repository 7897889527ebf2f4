"""bisect: which change moved a metric, and what carries it.

Between two releases lie changes: batches, guidelines, entries of the policy. Each is taken over from the bad release
into the good one, alone and together, in hybrids that are built beside the history; delta debugging finds a part of
them that is enough and of which none can be left out.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.digests import digest
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.build import build, files_of, ingest, training_rows
from feedback_assets.provenance.carriers import Carriers, carriers
from feedback_assets.provenance.changes import Change, changes, hybrid
from feedback_assets.provenance.ddmin import Outcome, ddmin
from feedback_assets.provenance.metrics import Metric, baseline_of, metric
from feedback_assets.provenance.recipe import Recipe, as_policy, has_parts, recipe
from feedback_assets.provenance.release import Release, commit_of
from feedback_assets.snapshots.overlay import HYBRIDS, Overlay
from feedback_assets.snapshots.snapshot import Snapshot, scan
from feedback_assets.snapshots.store import Store


@dataclass(frozen=True)
class Built:
    """A hybrid: its stages by name, up to `upsampled`."""

    project: Project
    commits: Mapping[str, Commit]

    def rows(self, stage: str = "upsampled") -> pl.LazyFrame:
        """The training rows as they are after a stage."""
        return training_rows(self.project, self.commits[stage])


@dataclass(frozen=True)
class Trial:
    """A hybrid that was tried: the changes that were taken over, what was measured, and what is wrong if nothing."""

    changes: tuple[str, ...]
    value: float | None
    outcome: Outcome
    seconds: float
    problem: str | None = None


@dataclass(frozen=True)
class Bisected:
    """What a bisection found.

    `good` and `bad`: the metric of both releases as recorded (None if their parts are gone) and as rebuilt by today's
    code; `found`: a 1-minimal set of changes, empty if none; `sentence`: why, in that case; `remaining`: changes that
    cannot be taken over, of code and environment; `value`: the metric of the good release with `found`.
    """

    metric: Metric
    good: Mapping[str, float | None]
    bad: Mapping[str, float | None]
    threshold: float | None
    candidates: Sequence[Change]
    remaining: Sequence[Change]
    found: Sequence[Change] = ()
    value: float | None = None
    carriers: Carriers | None = None
    trials: Sequence[Trial] = ()
    seconds: float = 0.0
    sentence: str | None = None


class Hybrids:
    """Builds hybrids of two recipes; what is the same in two of them is computed once."""

    def __init__(self, store: Store, releases: tuple[Release, Release], folder: Path | None) -> None:
        self.store = Overlay(store, store.here.root / HYBRIDS)
        self.folder, self.releases = folder, releases
        for release in releases:
            try:
                as_policy(release.content["policy"])
            except FeedbackError as error:
                raise FeedbackError(f"release {release.id[:16]} cannot be rebuilt by today's code: {error}") from None
        self.recipes = (recipe(store, releases[0]), recipe(store, releases[1]))
        before, after = self.recipes
        self.all = changes(before, after)
        keys = {**(before.arrivals or {}), **(after.arrivals or {})}
        self.files = {key: file for side in self.recipes for key, file in self._files(side, keys).items()}
        # A batch that cannot be read again is as it was mapped then, so a mapping is taken over whole.
        self.unreadable = {key[0] for key in keys if key not in self.files}
        self.candidates = _whole_sources([change for change in self.all if change.reaches_rows], self.unreadable)
        self.remaining = [change for change in self.all if not change.paths]
        self._taken: dict[str, Snapshot] = {}

    def _files(self, side: Recipe, keys: Iterable[Any]) -> Mapping[Any, Any]:
        return files_of(self.store, self.folder, as_policy(side.policy), keys)

    def build(self, chosen: Sequence[Change]) -> Built:
        """The good recipe with these changes.

        Raises:
            FeedbackError: it cannot be built.
        """
        remapped = {
            source
            for change in chosen
            for path in change.paths
            if (source := _source_of(path)) is not None and source in self.unreadable
        }
        mixed = hybrid(*self.recipes, chosen, remapped)
        project, stages = build(self.store, mixed, self._ingested(mixed), self.folder)
        try:
            return Built(project, {commit.asset: commit for commit in stages})
        except pl.exceptions.PolarsError as error:
            raise FeedbackError(f"cannot be computed: {str(error).splitlines()[0]}") from None

    def _ingested(self, mixed: Recipe) -> Snapshot:
        arrivals = mixed.arrivals or {}
        key = digest([[[*name], told["mapped"], told["at"]] for name, told in arrivals.items()] + [_intake(mixed)])
        if key not in self._taken:
            try:
                self._taken[key] = ingest(self.store, as_policy(mixed.policy), arrivals, self.files)
            except FeedbackError:
                pinned = self._pinned(mixed)
                if pinned is None:
                    raise
                self._taken[key] = pinned
        return self._taken[key]

    def _pinned(self, mixed: Recipe) -> Snapshot | None:
        """What a release has of `ingested`, if the batches and their mapping are its own."""
        for side, release in zip(self.recipes, self.releases, strict=True):
            same = [*(side.arrivals or {})] == [*(mixed.arrivals or {})] and _intake(side) == _intake(mixed)
            snapshot = commit_of(release, "ingested").snapshot
            if same and has_parts(self.store, snapshot, "rows", "content"):
                return snapshot
        return None


def bisect(
    store: Store,
    releases: tuple[Release, Release],
    measured: str,
    *,
    threshold: float | None = None,
    folder: Path | None = None,
    listen: Callable[[Trial], None] | None = None,
) -> Bisected:
    """Find the changes that moved a metric from the good to the bad release.

    Args:
        store: where both releases are; hybrids are built in a folder of it, never into its history.
        releases: the good one and the bad one.
        measured: see `metrics.metric`.
        threshold: a hybrid at or beyond it, seen from the good side, is bad; default: midway.
        folder: that of the policy, where relative paths to batches start.
        listen: is told of each hybrid.

    Raises:
        FeedbackError: the metric is none, the threshold does not lie between the two, or a release cannot be rebuilt.
    """
    began = time.perf_counter()
    hybrids = Hybrids(store, releases, folder)
    recorded = [_recorded(store, release) for release in releases]
    plain = metric(measured) if not measured.startswith("psi") else None
    first = hybrids.build([])
    expected = as_policy(hybrids.recipes[0].policy).monitoring.expect
    meter = plain or metric(measured, baseline_of(first.rows(), expected))
    last = hybrids.build(hybrids.candidates)
    good, bad = (
        {"recorded": None if rows is None else meter(rows), "rebuilt": meter(built.rows()), "gone": rows is None}
        for rows, built in zip(recorded, (first, last), strict=True)
    )
    result = Bisected(meter, good, bad, threshold, hybrids.candidates, hybrids.remaining)
    ends = (good["rebuilt"], bad["rebuilt"])
    sentence = _nothing_to_find(result, ends)
    if sentence is not None or ends[0] is None or ends[1] is None:
        return replace(result, sentence=sentence, seconds=time.perf_counter() - began)
    limit = (ends[0] + ends[1]) / 2 if threshold is None else threshold
    search = _Search(hybrids, meter, limit, rising=ends[1] > ends[0], listen=listen or (lambda _: None))
    if search.beyond(ends[0]) or not search.beyond(ends[1]):
        raise FeedbackError(
            f"--threshold {limit:g} does not lie between {ends[0]:g} (good) and {ends[1]:g} (bad); choose one that "
            "does, or leave it out"
        )
    found = ddmin(hybrids.candidates, search.test)
    built = hybrids.build(found)
    return replace(
        result,
        threshold=limit,
        found=found,
        value=meter(built.rows()),
        carriers=carriers(meter, first, built, found),
        trials=search.trials,
        seconds=time.perf_counter() - began,
    )


@dataclass
class _Search:
    hybrids: Hybrids
    meter: Metric
    limit: float
    rising: bool
    listen: Callable[[Trial], None]
    trials: list[Trial] = field(default_factory=list)
    known: dict[frozenset[str], Outcome] = field(default_factory=dict)
    measured: dict[str, float | None] = field(default_factory=dict)

    def test(self, chosen: Sequence[Change]) -> Outcome:
        key = frozenset(change.id for change in chosen)
        if key not in self.known:
            began = time.perf_counter()
            value, outcome, problem = self._try(chosen)
            self.known[key] = outcome
            ids = tuple(change.id for change in chosen)
            self.trials.append(Trial(ids, value, outcome, round(time.perf_counter() - began, 3), problem))
            self.listen(self.trials[-1])
        return self.known[key]

    def _try(self, chosen: Sequence[Change]) -> tuple[float | None, Outcome, str | None]:
        try:
            built = self.hybrids.build(chosen)
            version = built.commits["upsampled"].data_version
            if version not in self.measured:
                self.measured[version] = self.meter(built.rows())
        except FeedbackError as error:
            return None, "unresolved", str(error)
        value = self.measured[version]
        if value is None:
            return None, "unresolved", "there is nothing to measure"
        return value, "bad" if self.beyond(value) else "good", None

    def beyond(self, value: float) -> bool:
        """Whether a hybrid with this value is bad."""
        return value >= self.limit if self.rising else value <= self.limit


def _recorded(store: Store, release: Release) -> pl.LazyFrame | None:
    """The training rows of a release as they were made; None where parts of it are gone."""
    commit = commit_of(release, "training_set")
    if not has_parts(store, commit.snapshot, "rows"):
        return None
    return scan(store, commit.snapshot.tables["rows"])


def _nothing_to_find(result: Bisected, ends: tuple[float | None, float | None]) -> str | None:
    name = result.metric.name
    for side, value in zip(("good", "bad"), ends, strict=True):
        if value is None:
            return f"{name} has no value in the {side} release: there is nothing to measure"
    if ends[0] != ends[1]:
        return None
    recorded = (result.good["recorded"], result.bad["recorded"])
    if None in recorded or recorded[0] == recorded[1]:
        return f"{name} is {ends[0]:.6g} in both releases: nothing moved it"
    left = ", ".join(change.id for change in result.remaining)
    return (
        f"{name} went from {recorded[0]:.6g} to {recorded[1]:.6g}, but today's code gives {ends[0]:.6g} for both: what "
        f"is left is {left or 'what neither release recorded of its code'}"
    )


def _source_of(path: tuple[str, ...]) -> str | None:
    return path[3] if path[:3] == ("policy", "ingested", "sources") and len(path) > 3 else None


def _whole_sources(found: Sequence[Change], unreadable: set[str]) -> list[Change]:
    """The changes, with those of one source's mapping as one where its batches cannot be read again."""
    kept: list[Change] = []
    grouped: dict[str, list[Change]] = {}
    for change in found:
        source = _source_of(next(iter(change.paths)))
        if source in unreadable and source is not None and change.what == "changed":
            grouped.setdefault(source, []).append(change)
        else:
            kept.append(change)
    for source, mine in grouped.items():
        paths = frozenset(path for change in mine for path in change.paths)
        before, after = ({change.id: getattr(change, side) for change in mine} for side in ("before", "after"))
        kept.append(Change(f"mapping of {source}", "policy", "ingested", before, after, paths))
    return kept


def _intake(side: Recipe) -> Any:
    return side.policy["ingested"]
