"""Building again what was built before, or would have been: the same stages, beside the history and without checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from feedback_assets.materialize.commit import Commit, Commits
from feedback_assets.materialize.materialize import compute
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import stage, upstream
from feedback_assets.snapshots.snapshot import Snapshot


class Unwritten(Commits):
    """A history in memory: none of its commits is ever the latest of a store."""

    def __init__(self, project: Project) -> None:
        super().__init__(project.store)
        self._commits: dict[str, list[Commit]] = {}

    def read(self, asset: str, number: int) -> Commit:
        """Commit `number` of `asset`."""
        return self._commits[asset][number - 1]

    def add(self, content: Mapping[str, Any], circumstances: Mapping[str, Any]) -> Commit:
        """Append a commit."""
        commits = self._commits.setdefault(content["asset"], [])
        commits.append(Commit(len(commits) + 1, content, circumstances))
        return commits[-1]

    def _next(self, asset: str) -> int:
        return len(self._commits.get(asset, [])) + 1


@dataclass(frozen=True)
class Rebuilding(Project):
    """A project that commits nothing; its store is an overlay."""

    @cached_property
    def commits(self) -> Commits:
        """The commits of this rebuilding."""
        return Unwritten(self)


def rebuild(project: Rebuilding, taken: Mapping[str, Snapshot], last: str = "upsampled") -> Iterator[Commit]:
    """Build the stages up to `last`, in order; `taken` holds what comes from outside.

    Raises:
        FeedbackError: a stage cannot be computed under this policy.
    """
    commits: dict[str, Commit] = {}
    for name in (*upstream(last), last):
        inputs = {source: commits[source] for source in stage(name).inputs}
        snapshot = taken[name] if name in taken else compute(project, name, inputs)
        content = {
            "asset": name,
            "data_version": snapshot.data_version,
            "code_version": project.code_version(name),
            "inputs": {source: {"commit": commit.id} for source, commit in inputs.items()},
        }
        circumstances = {
            "inputs": {source: {"number": commit.number} for source, commit in inputs.items()},
            "snapshot": snapshot.as_json(),
        }
        commits[name] = project.commits.add(content, circumstances)
        yield commits[name]
