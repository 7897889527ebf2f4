"""A project: a policy and the store of what was made under it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from feedback_assets.code_version import code_digest
from feedback_assets.digests import digest
from feedback_assets.engine.local import LocalEngine
from feedback_assets.materialize.commit import Commits
from feedback_assets.pipeline import Policy, load_policy, stage
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import Memo
from feedback_assets.snapshots.store import Store, store_at


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
    def held(self) -> Held:
        """The tables that were read or made last."""
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

    def code(self, asset: str) -> str:
        """Digest of the stage's code and `version`, whatever the policy says."""
        return digest([*_code(asset), stage(asset).version])

    def code_version(self, asset: str) -> str:
        """`<asset>-v<stage version>-<digest>`: of the stage's code, its `version`, and its section of the policy."""
        entry = stage(asset)
        value = [*_code(asset), entry.version, self.policy.section(asset).pinned()]
        return f"{asset}-v{entry.version}-{digest(value)[:16]}"


def _code(asset: str) -> list[str]:
    modules = [f"feedback_assets.stages.{asset}"]
    if stage(asset).function is None:
        modules.append("feedback_assets.materialize.intake")
    return [code_digest(module) for module in modules]
