"""The result of a check: what was asked, against which limits, what was seen, and what it means for a person."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, get_args

from feedback_assets.digests import digest

Status = Literal["passed", "failed", "error", "inconclusive"]
Kind = Literal["expectation", "conservation", "drift", "loss"]


def plain(value: Any) -> Any:
    """`value` as JSON: NaN and infinity become None, dates ISO text, sets sorted lists, NumPy scalars Python's.

    Raises:
        TypeError: a value that has no JSON form.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(entry) for entry in value), key=repr)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if callable(getattr(value, "item", None)):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form")


@dataclass(frozen=True)
class CheckResult:
    """One check, held against one materialization.

    `passed` is true only for status "passed": a check that could not be computed ("error") or could not tell
    ("inconclusive") did not pass. `meaning` is one sentence for a person. `definition` is type, arguments and limits;
    its digest is filled in. `observed` holds small finite values and no text of a row.

    Raises:
        ValueError: `passed` contradicts `status`, or the digest is not that of the definition.
    """

    name: str
    passed: bool
    blocking: bool
    status: Status
    kind: Kind
    meaning: str
    definition: dict[str, Any]
    definition_digest: str = ""
    observed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in get_args(Status) or self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: no such status or kind: {self.status!r}, {self.kind!r}")
        if self.passed != (self.status == "passed"):
            raise ValueError(f"{self.name}: passed={self.passed} contradicts status {self.status!r}")
        object.__setattr__(self, "definition", plain(self.definition))
        object.__setattr__(self, "observed", plain(self.observed))
        found = digest(self.definition)
        if self.definition_digest not in ("", found):
            raise ValueError(f"{self.name}: the definition has digest {found}, not {self.definition_digest}")
        object.__setattr__(self, "definition_digest", found)

    @property
    def holds_back(self) -> bool:
        """Whether nothing may be built on the materialization: a blocking check that failed or raised an error."""
        return self.blocking and self.status in ("failed", "error")

    def as_json(self) -> dict[str, Any]:
        """Plain finite values, as a commit record keeps them."""
        return {
            "name": self.name,
            "passed": self.passed,
            "blocking": self.blocking,
            "status": self.status,
            "kind": self.kind,
            "meaning": self.meaning,
            "definition": self.definition,
            "definition_digest": self.definition_digest,
            "observed": self.observed,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "CheckResult":
        """Read what `as_json` wrote.

        Raises:
            ValueError: it contradicts itself.
        """
        return CheckResult(**value)
