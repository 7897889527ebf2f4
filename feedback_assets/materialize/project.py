"""A project: a policy and the store of what was made under it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.engine.local import LocalEngine
from feedback_assets.materialize.commit import Commits
from feedback_assets.pipeline import Policy, load_policy, stage
from feedback_assets.snapshots.snapshot import Memo, Table, scan
from feedback_assets.snapshots.store import Store, store_at


class Held:
    """The rows of the snapshot that was made last, still in memory: the next stage reads them, and so do its checks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._table: Table | None = None
        self._rows: pl.DataFrame | None = None

    def keep(self, table: Table, rows: pl.DataFrame) -> None:
        """Hold the rows of `table` instead of those held so far."""
        self._table, self._rows = table, rows

    def rows(self, table: Table) -> pl.LazyFrame:
        """The rows of `table`, from memory or from the store."""
        return self._rows.lazy() if self._rows is not None and table == self._table else scan(self.store, table)


@dataclass(frozen=True)
class Project:
    """What a run, the UI and every question start from."""

    policy: Policy
    path: Path
    text: str
    store: Store

    @classmethod
    def open(cls, policy: Path, store: Path | str) -> "Project":
        """Load the policy and open the store, a folder or `s3://bucket/prefix`; it is made on the first write.

        Raises:
            FeedbackError: the policy is missing or does not fit.
        """
        loaded = load_policy(policy)
        path = loaded.path.resolve()
        return cls(loaded.policy, path, loaded.text, store_at(store, path.parent))

    @property
    def folder(self) -> Path:
        """The folder of the policy: relative paths in it start here."""
        return self.path.parent

    @cached_property
    def held(self) -> "Held":
        """The rows that were made last."""
        return Held(self.store)

    @cached_property
    def engine(self) -> LocalEngine:
        """Where part-wise functions run."""
        return LocalEngine(self.store)

    @cached_property
    def memo(self) -> Memo:
        """What was computed before."""
        return Memo(self.store)

    @cached_property
    def commits(self) -> Commits:
        """The commit records of the store."""
        return Commits(self.store)

    def code_version(self, asset: str) -> str:
        """`<asset>-v<stage version>-<digest>`: of the stage's code, its `version`, and its section of the policy."""
        entry = stage(asset)
        module = f"feedback_assets.stages.{asset}"
        intake = [code_digest("feedback_assets.materialize.intake")] if entry.function is None else []
        value = [code_digest(module), *intake, entry.version, self.policy.section(asset).pinned()]
        return f"{asset}-v{entry.version}-{digest(value)[:16]}"
