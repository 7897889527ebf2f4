"""replay: build a release again, from its pinned inputs under its own recorded policy, and compare.

Nothing that the store remembers is used but the inputs, so everything is computed anew; and nothing is written to the
store: neither its history nor what is latest in it changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from feedback_assets.digests import fingerprint
from feedback_assets.errors import FeedbackError
from feedback_assets.exports.card import CARD
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import environment
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import Policy
from feedback_assets.provenance.build import build, files_of, ingest, scratch
from feedback_assets.provenance.erase import erased_releases
from feedback_assets.provenance.export import write_exports
from feedback_assets.provenance.recipe import Recipe, as_policy, has_parts, recipe
from feedback_assets.provenance.release import ANNOTATIONS, Release, commit_of, commits_of, folder
from feedback_assets.snapshots.overlay import Overlay
from feedback_assets.snapshots.snapshot import Snapshot, Table, scan
from feedback_assets.snapshots.store import Store

Verdict = Literal["identical", "logically identical", "different"]
SEVERITY: tuple[Verdict, ...] = ("identical", "logically identical", "different")
FILES = "files"
"""The last step: the files that a trainer reads."""
DIGITS = 1e-9  # as far as floats of two machines agree
TEXT_LIES = ("content_part", "content_row")
"""Columns that say where the text lies, and not what it is."""


@dataclass(frozen=True)
class Replayed:
    """One stage, built again.

    `recorded` and `rebuilt` are data versions (None where it could not be built; of the files, how many there are);
    `verdict` None: it is not told, because an earlier stage could not be built. `code_changed`: since the release.
    """

    stage: str
    recorded: str
    rebuilt: str | None
    rows: tuple[int, int | None]
    verdict: Verdict | None
    code_changed: bool
    note: str | None = None


@dataclass(frozen=True)
class Replay:
    """A release, built again.

    `intake` says from what `ingested` was built: "replayed" (from the batch files, or the blocks that they had become)
    or "pinned" (the recorded snapshot), with a sentence; `made_at` and `today` are git commits, None where unknown;
    `environment`: what is other today, (recorded, today) by name.
    """

    release: str
    stages: tuple[Replayed, ...]
    intake: Literal["replayed", "pinned"]
    sentence: str
    made_at: str | None
    today: str | None
    environment: Mapping[str, tuple[str | None, str | None]]

    @property
    def verdict(self) -> Verdict:
        """The worst of all stages."""
        found: list[Verdict] = [stage.verdict or "different" for stage in self.stages]
        return max(found, key=SEVERITY.index)

    @property
    def first(self) -> Replayed | None:
        """The first stage that is different, or else the first that is not identical; None if all are."""
        worst = self.verdict
        return None if worst == SEVERITY[0] else next(stage for stage in self.stages if stage.verdict == worst)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "first": self.first and self.first.stage, **asdict(self)}


def replay(store: Store, release: Release, policy_folder: Path | None = None) -> Replay:
    """Build `release` again and compare it, stage by stage, with what was recorded.

    Args:
        store: where its parts are.
        release: as `release.find` gives it.
        policy_folder: where relative paths to batches start.

    Raises:
        FeedbackError: it cannot be built again: records of it were erased by request, its policy does not fit today's
            code, or neither its batches nor their recorded snapshot are there.
    """
    if release.id in (erased := erased_releases(store)):
        raise FeedbackError(
            f"release {release.id[:16]} is not replayable: records of it were erased by request, {erased[release.id]}"
        )
    made = recipe(store, release)
    try:
        policy = as_policy(made.policy)
    except FeedbackError as error:
        raise FeedbackError(f"release {release.id[:16]} cannot be replayed by today's code: {error}") from None
    with scratch(store, forgetful=True) as overlay:
        how, sentence, ingested = _intake(overlay, release, made, policy, policy_folder)
        project, stages = build(overlay, made, ingested, policy_folder, "training_set")
        compared = tuple(_compared(store, release, project, stages))
    now = environment()
    names = dict.fromkeys((*made.environment, *now))
    unlike = {
        name: (made.environment.get(name), now.get(name))
        for name in names
        if name != "git" and made.environment.get(name) != now.get(name)
    }
    return Replay(release.id, compared, how, sentence, made.environment.get("git"), now.get("git"), unlike)


def _intake(
    overlay: Overlay, release: Release, made: Recipe, policy: Policy, policy_folder: Path | None
) -> tuple[Literal["replayed", "pinned"], str, Snapshot]:
    store, pinned = overlay.below, commit_of(release, "ingested").snapshot
    arrivals = made.arrivals or {}
    files = files_of(Overlay(store, overlay.root), policy_folder, policy, arrivals)
    # What was gone already when the release was made counts as it had been mapped before.
    files = {key: file for key, file in files.items() if arrivals[key]["state"] in ("current", "renamed")}
    blocks = {key: store.recall(told["mapped"]) for key, told in arrivals.items() if key not in files}
    lost = [key for key, block in blocks.items() if block is None]
    if arrivals and not lost:
        for key, block in blocks.items():
            overlay.remember(arrivals[key]["mapped"], block)
        said = f"{len(files):,} batches were read again"
        said += f", {len(blocks):,} taken as they had been mapped: their files are gone" if blocks else ""
        return "replayed", f"intake was replayed: {said}", ingest(overlay, policy, arrivals, files)
    if not has_parts(store, pinned, "rows", "content"):
        name = f"batch {lost[0][1]!r} of source {lost[0][0]!r}" if lost else "the list of its batches"
        raise FeedbackError(
            f"release {release.id[:16]} cannot be replayed: {name} is gone, and so is the recorded snapshot of ingested"
        )
    said = f"{len(lost):,} of {len(arrivals):,} batches are gone" if lost else "the list of its batches is gone"
    return "pinned", f"intake was not replayed, the recorded snapshot of ingested was used: {said}", pinned


def _compared(store: Store, release: Release, project: Project, stages: Any) -> Iterator[Replayed]:
    commits: dict[str, Commit] = {}
    problem: str | None = None
    rest = iter(stages)
    for recorded in commits_of(release).values():
        name, content = recorded.asset, recorded.content
        changed = project.code_version(name) != content["code_version"]
        rebuilt = None
        if problem is None:
            try:
                rebuilt = commits[name] = next(rest)
            except (FeedbackError, pl.exceptions.PolarsError) as error:
                problem = str(error).splitlines()[0]
                yield Replayed(
                    name, recorded.data_version, None, (content["rows_out"], None), "different", changed, problem
                )
                continue
        if rebuilt is None:
            yield Replayed(name, recorded.data_version, None, (content["rows_out"], None), None, changed)
            continue
        verdict, note = _verdict(store, project, recorded, rebuilt)
        rows = (content["rows_out"], rebuilt.snapshot.tables["rows"].rows)
        yield Replayed(name, recorded.data_version, rebuilt.data_version, rows, verdict, changed, note)
    if problem is None:
        yield _files(store, release, project, commits)


def _verdict(store: Store, project: Project, recorded: Commit, rebuilt: Commit) -> tuple[Verdict, str | None]:
    if recorded.data_version == rebuilt.data_version:
        fates = [
            [part.fingerprint for part in commit.snapshot.tables["fates"].parts]
            for commit in (recorded, rebuilt)
            if "fates" in commit.snapshot.tables
        ]
        if len(fates) == 2 and fates[0] != fates[1]:
            return "logically identical", "the same rows, with other fates"
        return "identical", None
    if not has_parts(store, recorded.snapshot, "rows"):
        return "different", "another data version; the recorded rows are gone, so no more can be said"
    why = _unlike(store, recorded.snapshot.tables["rows"], project.store, rebuilt.snapshot.tables["rows"])
    return ("different", why) if why else ("logically identical", "the same rows, in other parts or another order")


def _unlike(store: Store, recorded: Table, other: Store, rebuilt: Table) -> str | None:
    """Where the rows of two tables differ, whatever their order; None if they do not."""
    left, right = ([name for name in table.schema if name not in TEXT_LIES] for table in (recorded, rebuilt))
    if unknown := sorted({*left} ^ {*right}):
        return f"only one of them has the column {unknown[0]}"
    order = [name for name in ("row_id", "copy_index", "task", "aspect", "version") if name in left]
    frames = [
        scan(where, table).select(left).sort(order).collect() for where, table in ((store, recorded), (other, rebuilt))
    ]
    if frames[0].height != frames[1].height:
        return f"{frames[0].height:,} rows were recorded, {frames[1].height:,} are built"
    for name in left:
        was, now = frames[0].get_column(name), frames[1].get_column(name)
        if was.dtype != now.dtype:
            return f"{name} was {was.dtype} and is {now.dtype}"
        same = was.eq_missing(now)
        if was.dtype.is_float():
            same = same | ((was - now).abs() <= DIGITS * was.abs()).fill_null(value=False)
        if not same.all():
            return f"{name} differs in {int((~same).sum()):,} of {was.len():,} rows"
    return None


def _files(store: Store, release: Release, project: Project, commits: Mapping[str, Commit]) -> Replayed:
    """Whether the files for trainers, written again, are the same bytes, or hold the same."""
    recorded = {
        file["path"]: file["digest"]
        for file in release.circumstances["files"]
        if not file["path"].startswith(f"{ANNOTATIONS}/") and not file["path"].endswith(f"/{CARD}")
    }
    written = dict(write_exports(project, commits)[1])
    unlike = [
        path for path in sorted({*recorded, *written}) if recorded.get(path) != written.get(path, {}).get("digest")
    ]
    verdict: Verdict = "identical" if not unlike else "logically identical"
    note = None if not unlike else f"{len(unlike)} of {len(recorded)} files have other bytes"
    for path in unlike:
        before = store.path(f"{folder(release.id)}/{path}")
        if path not in written or path not in recorded or not before.exists() or before.suffix != ".parquet":
            verdict, note = "different", f"{path} differs"
            break
        if fingerprint(pl.read_parquet(before)) != fingerprint(
            pl.read_parquet(project.store.path(written[path]["key"]))
        ):
            verdict, note = "different", f"{path} holds something else"
            break
    return Replayed(FILES, str(len(recorded)), str(len(written)), (len(recorded), len(written)), verdict, False, note)
