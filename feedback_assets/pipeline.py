"""The whole path of the data, on one screen.

batches → ingested → guideline_joined → converted → filtered → deduplicated → reweighted → upsampled → training_set
            guidelines ─┘

A new stage is one file in `stages/`, one line in STAGES and one in Policy.
"""

from functools import cache
from pathlib import Path

from pydantic import Field

from feedback_assets.policy import Loaded, Section, load
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


class Policy(Section):
    """The policy: a section a stage, and what is watched."""

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

    def section(self, stage: str) -> Section:
        """The section of a stage."""
        return getattr(self, stage)


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
