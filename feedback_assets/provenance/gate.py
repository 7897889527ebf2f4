"""The gate before a release: every blocking check of the exact versions behind it has passed, or there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.examine import required_checks
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import stage, upstream


@dataclass(frozen=True)
class Verdict:
    """What the gate found: the checks it asked for, and the reasons to refuse; none means that it opens."""

    asked: int
    reasons: tuple[str, ...]

    @property
    def opens(self) -> bool:
        """Whether a release may be made."""
        return not self.reasons

    def sentence(self) -> str:
        """One line for a person."""
        if self.opens:
            return f"all {self.asked} blocking checks of the exact versions behind the release have passed"
        first, *others = self.reasons
        more = f" (and {len(others)} more)" if others else ""
        return f"the gate refuses: {first}{more}"


def gate(project: Project, commits: Mapping[str, Commit], beside: Sequence[str] = ()) -> Verdict:
    """Ask whether a release may be made from `commits` (by asset) and all that they were made from.

    Asked is what today's policy requires: every stage upstream of `training_set`, with its code and section as they
    are now, and of each the required blocking checks, with today's definitions, passed. `beside` are further reasons
    to refuse, such as what Dagster's own results say.
    """
    found = chain(project, commits)
    reasons = []
    asked = 0
    for asset in upstream("training_set"):
        commit = found.get(asset)
        if commit is None:
            reasons.append(f"{asset} was never materialized")
            continue
        if commit.code_version != project.code_version(asset):
            reasons.append(_outdated(project, asset))
        results = {check["name"]: check for check in commit.checks}
        for name, required in required_checks(stage(asset), project.policy).items():
            if not required.blocking:
                continue
            asked += 1
            result = results.get(name)
            if result is None:
                reasons.append(f"{asset}: the check {name} has no result for this version; materialize {asset} again")
            elif result["definition_digest"] != required.definition_digest:
                reasons.append(
                    f"{asset}: the check {name} ran with another limit than today's; materialize {asset} again"
                )
            elif result["status"] not in ("passed", "inconclusive"):
                reasons.append(f"{asset}: the check {name} {result['status']}: {result['meaning']}")
    return Verdict(asked, (*reasons, *beside))


def _outdated(project: Project, asset: str) -> str:
    newest = project.commits.latest(asset)
    if newest is None or newest.code_version != project.code_version(asset):
        return f"{asset} was made under other code or another policy than today's; materialize it again"
    # The same rows under new rules leave everything below fresh for Dagster, but not its provenance.
    between = ", ".join(name for name in upstream("training_set") if asset in upstream(name))
    return f"the release would still stand on an earlier {asset} than the latest; materialize {between} again"
