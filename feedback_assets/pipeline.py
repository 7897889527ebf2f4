"""The whole path of the data, on one screen.

batches → ingested → guideline_joined → converted → filtered → deduplicated → reweighted → upsampled → training_set
            guidelines ─┘

A new stage is one file in `stages/`, one line in STAGES and one in Policy.
"""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from feedback_assets.checks.waivers import Waiver
from feedback_assets.policy import Loaded, Section, load, unique_ids
from feedback_assets.required import Required, required_checks
from feedback_assets.signal.section import Monitoring
from feedback_assets.sources.guidelines import GuidelinesSection
from feedback_assets.stages import (
    converted,
    deduplicated,
    filtered,
    guideline_joined,
    guidelines,
    ingested,
    reweighted,
    training_set,
    upsampled,
)
from feedback_assets.stages.converted import ConvertedSection
from feedback_assets.stages.deduplicated import DeduplicatedSection
from feedback_assets.stages.filtered import FilteredSection
from feedback_assets.stages.guideline_joined import GuidelineJoinedSection
from feedback_assets.stages.ingested import IngestedSection
from feedback_assets.stages.reweighted import ReweightedSection
from feedback_assets.stages.stage import Stage
from feedback_assets.stages.training_set import TrainingSetSection
from feedback_assets.stages.upsampled import UpsampledSection

STAGES: tuple[Stage, ...] = (
    ingested.STAGE,
    guidelines.STAGE,
    guideline_joined.STAGE,
    converted.STAGE,
    filtered.STAGE,
    deduplicated.STAGE,
    reweighted.STAGE,
    upsampled.STAGE,
    training_set.STAGE,
)


def _of_a_check(waiver: Waiver, policy: ValidationInfo) -> Waiver:
    names = [entry.name for entry in STAGES]
    if waiver.stage not in names:
        raise ValueError(f"there is no stage {waiver.stage!r} to waive a check of; the stages: {', '.join(names)}")
    if {waiver.stage, "monitoring"} <= policy.data.keys():
        checks = required_checks(stage(waiver.stage), policy.data[waiver.stage], policy.data["monitoring"])
        if waiver.check not in checks:
            known = ", ".join(sorted(checks))
            raise ValueError(f"{waiver.stage} has no check {waiver.check!r} under this policy; its checks: {known}")
    return waiver


class Policy(Section):
    """The policy: a section a stage, what is watched, and what is let through all the same."""

    project: str = Field(default="feedback", pattern=r"^[A-Za-z0-9_.-]+$", description="a name for people")
    ingested: IngestedSection
    guidelines: GuidelinesSection = GuidelinesSection()
    guideline_joined: GuidelineJoinedSection = GuidelineJoinedSection()
    converted: ConvertedSection = ConvertedSection()
    filtered: FilteredSection = FilteredSection()
    deduplicated: DeduplicatedSection = DeduplicatedSection()
    reweighted: ReweightedSection = ReweightedSection()
    upsampled: UpsampledSection = UpsampledSection()
    training_set: TrainingSetSection = TrainingSetSection()
    monitoring: Monitoring = Monitoring()
    waivers: Annotated[tuple[Annotated[Waiver, AfterValidator(_of_a_check)], ...], AfterValidator(unique_ids)] = Field(
        default=(), exclude=True, description="a release names those that it needed; the others are nothing to it"
    )

    def section(self, stage: str) -> Section:
        """The section of a stage."""
        return getattr(self, stage)

    def required_checks(self, name: str) -> dict[str, Required]:
        """All checks of the stage called `name`, by their names."""
        return required_checks(stage(name), self.section(name), self.monitoring)


def load_policy(path: Path) -> Loaded[Policy]:
    """Read the policy at `path`.

    Raises:
        FeedbackError: it is missing or does not fit; one line, with file, line and key.
    """
    return load(path, Policy)


@cache
def stage(name: str) -> Stage:
    """The stage called `name`."""
    return next(stage for stage in STAGES if stage.name == name)


@cache
def upstream(name: str) -> tuple[str, ...]:
    """All stages behind `name`, in order."""
    direct = stage(name).inputs
    behind = {ancestor for parent in direct for ancestor in (*upstream(parent), parent)}
    return tuple(entry.name for entry in STAGES if entry.name in behind)
