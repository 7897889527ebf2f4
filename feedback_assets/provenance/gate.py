"""The gate before a release: every blocking check of the exact versions behind it has passed, or is waived."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from feedback_assets.checks.waivers import Waiver, waiver_of, way_out
from feedback_assets.materialize.commit import HOLDS_BACK, Commit
from feedback_assets.materialize.materialize import chain
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import upstream


@dataclass(frozen=True)
class Waived:
    """A failed check that a waiver lets through: `data_version` in full, and what the check said."""

    waiver: Waiver
    data_version: str
    meaning: str

    def as_json(self) -> dict[str, Any]:
        """The waiver as a manifest names it."""
        told = {"data_version": self.data_version, "meaning": self.meaning}
        return {**self.waiver.model_dump(mode="json"), **told}


@dataclass(frozen=True)
class Verdict:
    """What the gate found: the checks it asked for, the reasons to refuse (none: it opens), and what was waived."""

    asked: int
    reasons: tuple[str, ...]
    waived: tuple[Waived, ...] = ()

    @property
    def opens(self) -> bool:
        """Whether a release may be made."""
        return not self.reasons

    def sentence(self) -> str:
        """One line for a person."""
        if self.opens:
            but = f", but for {len(self.waived)} that the policy waives" if self.waived else ""
            return f"none of the {self.asked} blocking checks of the exact versions behind the release failed{but}"
        first, *others = self.reasons
        more = f" (and {len(others)} more)" if others else ""
        return f"the gate refuses: {first}{more}"


def gate(project: Project, commits: Mapping[str, Commit], *, now: datetime, beside: Sequence[str] = ()) -> Verdict:
    """Ask whether a release may be made from `commits` (by asset) and all that they were made from.

    Asked is what today's policy requires: every stage upstream of `training_set`, and that one if it is among them,
    with its code and section as they are now, and of each the required blocking checks, with today's definitions,
    passed, or waived on the day of `now`. `beside` are further reasons to refuse, such as what Dagster's own results
    say.
    """
    found = chain(project, commits)
    today = day_of(now)
    reasons: list[str] = []
    waived: list[Waived] = []
    asked = 0
    for asset in (*upstream("training_set"), "training_set"):
        commit = found.get(asset)
        if commit is None:
            if asset != "training_set":
                reasons.append(f"{asset} was never materialized")
            continue
        if commit.code_version != project.code_version(asset):
            reasons.append(_outdated(project, asset))
        required = {name: check for name, check in project.policy.required_checks(asset).items() if check.blocking}
        asked += len(required)
        results = {check["name"]: check for check in commit.checks}
        for name, check in required.items():
            result = results.get(name)
            if result is None:
                reasons.append(f"{asset}: the check {name} has no result for this version; materialize {asset} again")
            elif result["definition_digest"] != check.definition_digest:
                reasons.append(
                    f"{asset}: the check {name} ran with another limit than today's; materialize {asset} again"
                )
            elif result["status"] not in ("passed", "inconclusive"):
                waiver = waiver_of(project.policy.waivers, asset, commit.data_version, result, today)
                if waiver is None:
                    reasons.append(_failed(project, commit, result, today))
                else:
                    waived.append(Waived(waiver, commit.data_version, result["meaning"]))
        reasons += [
            f"{asset}: the check {name} {results[name]['status']} when it was made, and today's policy does not ask "
            f"for it any more; materialize {asset} again"
            for name in commit.failed
            if name not in required
        ]
    return Verdict(asked, (*reasons, *beside), tuple(waived))


def held_back(project: Project, commit: Commit, now: datetime) -> Iterator[str]:
    """A sentence for each blocking check of `commit` that failed or could not be computed, and is not waived."""
    today = day_of(now)
    waivers = waived_in(project, commit, now)
    for check in commit.checks:
        if check["name"] in commit.failed and check["name"] not in waivers:
            yield _failed(project, commit, check, today)


def waived_in(project: Project, commit: Commit, now: datetime) -> dict[str, Waiver]:
    """By their names the blocking checks of `commit` that failed and are waived on the day of `now`."""
    found = {
        check["name"]: waiver_of(project.policy.waivers, commit.asset, commit.data_version, check, day_of(now))
        for check in commit.checks
        if check["blocking"] and check["status"] in HOLDS_BACK
    }
    return {name: waiver for name, waiver in found.items() if waiver is not None}


def day_of(now: datetime) -> date:
    """The day, in UTC, on which a waiver must be in force."""
    return now.astimezone(UTC).date()


def _failed(project: Project, commit: Commit, check: Mapping[str, Any], today: date) -> str:
    came_out = "failed" if check["status"] == "failed" else "could not be computed"
    out = way_out(project.policy.waivers, commit.asset, commit.data_version, check, today)
    return f"{commit.asset}: the check {check['name']} {came_out}: {check['meaning'].rstrip('.')}; {out}"


def _outdated(project: Project, asset: str) -> str:
    newest = project.commits.latest(asset)
    if newest is None or newest.code_version != project.code_version(asset):
        return f"{asset} was made under other code or another policy than today's; materialize it again"
    # The same rows under new rules leave everything below fresh for Dagster, but not its provenance.
    between = ", ".join(name for name in upstream("training_set") if asset in upstream(name))
    return f"the release would still stand on an earlier {asset} than the latest; materialize {between} again"
