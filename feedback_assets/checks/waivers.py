"""Waivers: who lets a failed check of one version through, why, and until when. Its limit stays as it is."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator

from feedback_assets.policy import Id, Section

SHOWN = 12
"""As many digits of a data version are enough to name it."""


class Waiver(Section):
    """One check that came out like this on one version: nothing else is let through by it."""

    id: Id
    stage: str
    check: str
    data_version: str = Field(
        pattern=rf"^[0-9a-f]{{{SHOWN},64}}$",
        description="of that stage's materialization, or the first 12 digits and more",
    )
    status: Literal["failed", "error"] = "failed"
    who: str = Field(pattern=r"\S", description="who answers for it")
    why: str = Field(pattern=r"\S")
    until: date = Field(description="the last day, in UTC, on which it is in force")

    @field_validator("until", mode="before")
    @classmethod
    def _a_day(cls, value: Any) -> date:
        try:
            # A number would be read as seconds since 1970.
            return value if type(value) is date else date.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError("expected a day, such as 2026-12-31") from None

    def concerns(self, stage: str, data_version: str, check: Mapping[str, Any]) -> bool:
        """Whether it speaks of this result, `check` as a commit record keeps it, on this version."""
        mine = (self.stage, self.check, self.status) == (stage, check["name"], check["status"])
        return mine and data_version.startswith(self.data_version)

    def in_force(self, today: date) -> bool:
        """Whether it has not expired."""
        return today <= self.until

    def sentence(self) -> str:
        """By whom, until when and why, for a person."""
        return f"waived by {self.who} until {self.until}: {self.why}"


def waiver_of(
    waivers: Iterable[Waiver], stage: str, data_version: str, check: Mapping[str, Any], today: date
) -> Waiver | None:
    """The first waiver in force that lets this result through, or None."""
    return next((w for w in waivers if w.in_force(today) and w.concerns(stage, data_version, check)), None)


def way_out(waivers: Iterable[Waiver], stage: str, data_version: str, check: Mapping[str, Any], today: date) -> str:
    """What can be done about a result that nobody waives: the lines that would, and which waiver has expired."""
    over = [w for w in waivers if not w.in_force(today) and w.concerns(stage, data_version, check)]
    expired = "".join(f"the waiver {w.id} by {w.who} expired after {w.until}; " for w in over)
    status = ", status: error" if check["status"] == "error" else ""
    lines = f'stage: {stage}, check: {check["name"]}, data_version: "{data_version[:SHOWN]}"{status}'
    return f"{expired}mend it, or add to the policy's waivers: {{id: …, {lines}, who: …, why: …, until: …}}"
