"""The checks that a policy asks for: what is run, what Dagster shows, and what the gate goes by."""

import re
from dataclasses import dataclass
from typing import Any

from feedback_assets.checks.conservation import DEFINITION
from feedback_assets.checks.result import plain
from feedback_assets.digests import digest
from feedback_assets.policy import Section
from feedback_assets.signal.section import Monitoring
from feedback_assets.stages.ingested import IngestedSection
from feedback_assets.stages.stage import Stage

REGISTRIES = ("guidelines",)  # assets that hold no feedback: there is no row to follow and no signal to watch


@dataclass(frozen=True)
class Required:
    """A check that the policy asks for."""

    blocking: bool
    meaning: str
    definition: dict[str, Any]

    @property
    def definition_digest(self) -> str:
        """Digest of what is checked, limits included."""
        return digest(self.definition)


def required_checks(stage: Stage, section: Section, monitoring: Monitoring) -> dict[str, Required]:
    """All checks of a stage under its section and `monitoring`, by name."""
    shares = monitoring.limits.model_dump(include={"psi", "share_kept"})
    required = {
        promise.name: Required(promise.blocking, promise.meaning, plain(promise.definition))
        for promise in stage.promises(section)
    }
    if stage.name in REGISTRIES:
        required["overlaps"] = Required(
            False,
            "no two versions of the guidelines for one task and aspect are in force at the same time",
            {"type": "overlaps"},
        )
        return required
    required["conservation"] = Required(
        True,
        "each row that came in has exactly one fate, and the rows that went out are those that were kept",
        DEFINITION,
    )
    if isinstance(section, IngestedSection):
        required["quarantined_share"] = Required(
            True,
            f"at most {section.max_quarantined_share:.1%} of the records are in quarantine",
            {"type": "quarantined_share", "limit": section.max_quarantined_share},
        )
        lost = {f"{lost.source}/{lost.batch}": lost.reason for lost in section.lost_batches}
        required["quarantined_batches"] = Required(
            True,
            "no batch is in quarantine as a whole, unless the policy names it under ingested.lost_batches",
            {"type": "quarantined_batches", "lost": lost},
        )
        required["input_drift"] = Required(
            "input" in monitoring.gating,
            "what annotators answer in the newest batch of a source is what they answered in its earlier ones",
            {"type": "input_drift", **shares, "columns": list(monitoring.answers)},
        )
        return required
    allowed = {
        f"{column}={value}": reason for (column, value), reason in sorted(monitoring.allowed(stage.name).items())
    }
    required["loss_by_group"] = Required(
        True,
        "no source, batch, category, guideline version or origin lost all its rows, unless the policy expects it",
        {"type": "loss_by_group", "lost_share": monitoring.limits.lost_share, "allowed": allowed},
    )
    heavy = monitoring.limits.heavy_loss
    required["heavy_loss_by_group"] = Required(
        False,
        f"no source, batch, category, guideline version or origin lost {heavy:.0%} of its rows or more, beyond what "
        "all others lost, unless the policy expects it",
        {"type": "heavy_loss_by_group", "lost_share": heavy, "allowed": allowed},
    )
    required["drift"] = Required(
        "transformation" in monitoring.gating,
        f"against the input no column moved beyond a PSI of {monitoring.limits.psi} and beyond chance, and no category "
        f"kept {monitoring.limits.share_kept:.0%} of its share or less",
        {"type": "drift", **shares},
    )
    if stage.name == "training_set":
        declared = monitoring.pinned()["expect"]
        for column in monitoring.expected_columns:
            expected = declared.get(column) or {"release": monitoring.baseline and monitoring.baseline.release}
            required[baseline_name(column)] = Required(
                "baseline" in monitoring.gating,
                f"{column} has the distribution that is expected of it",
                {"type": "baseline", "column": column, "expected": expected, **shares},
            )
    return required


def baseline_name(column: str) -> str:
    """Name of the check that holds a column against its expected distribution."""
    return re.sub(r"\W", "_", f"baseline__{column}", flags=re.ASCII)
