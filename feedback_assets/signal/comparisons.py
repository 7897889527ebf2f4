"""How a signal moved: against what it was made from, against earlier batches, against what is expected of it.

Here is no limit that fails anything by itself: `checks` holds the numbers against the limits of the policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from feedback_assets.signal.columns import IDENTITIES, MONITORED
from feedback_assets.signal.decisions import FALSE_DISCOVERIES, Verdict, benjamini_yekutieli
from feedback_assets.signal.divergence import finite
from feedback_assets.signal.drift import Drift, compare, ordered_drift
from feedback_assets.signal.histogram import Declared, declared
from feedback_assets.signal.profile import Kind, Profile
from feedback_assets.signal.section import Limits, NumericShares, mapping_of

Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Sizes:
    """How many independent rows the two sides of a comparison are worth, asked only where it can decide.

    `of(column, edges)` gives both sizes (None: as Kish has it); `least` bounds them from below: as many units as there
    are annotators or items, each with its weight. `by` names the columns whose equal values go together; `only` the
    columns of which it is asked (None: all).
    """

    of: Callable[[str, tuple[float, ...] | None], Pair]
    least: float
    by: tuple[str, ...]
    only: tuple[str, ...] | None = None

    def decide(self, drift: Drift, limits: Limits) -> bool:
        """Whether clusters could change what is said of `drift`, whose sizes are those of independent rows."""
        if drift.psi is None or drift.psi_critical is None or drift.psi_chance is None:
            return False
        if drift.psi > limits.psi_warn or drift.fallen(limits.share_kept):
            return drift.psi_chance <= FALSE_DISCOVERIES
        most = drift.psi_critical * max(1.0, drift.effective_current / max(self.least, 1.0))
        return drift.psi_critical <= limits.psi < most


@dataclass(frozen=True)
class ColumnDrift:
    """The drift of one monitored column, and the limits it is held against.

    Where it could not be computed, `drift` is None and `problem` says why: that is an error, not a pass. `adjusted` is
    its chance among all that is decided beside it; `clusters` are the columns that its sample sizes allow for; `held`
    whether a check decides on it; `because` what a person should know of it: who or what moved it.
    """

    name: str
    kind: Literal["categorical", "numeric"]
    drift: Drift | None
    limits: Limits = field(default_factory=Limits)
    problem: str | None = None
    adjusted: float | None = None
    clusters: tuple[str, ...] = ()
    held: bool = True
    because: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict | Literal["error"]:
        """Against `limits.psi`."""
        return (
            "error"
            if self.drift is None
            else self.drift.verdict(self.limits.psi, self.adjusted, self.limits.share_kept)
        )

    @property
    def fallen(self) -> str | None:
        """The largest category that kept too little of its share, beyond chance."""
        return None if self.drift is None else self.drift.fallen(self.limits.share_kept)

    @property
    def warning(self) -> bool:
        """Whether it is beyond `limits.psi_warn` and beyond chance."""
        return self.drift is not None and self.drift.verdict(self.limits.psi_warn, self.adjusted) == "moved"

    def as_json(self, *, brief: bool = False) -> dict[str, Any]:
        """Plain finite values; `brief`: without cells, unless it moved."""
        told = {} if self.drift is None else self.drift.as_json()
        if brief and self.verdict == "stable" and not self.warning:
            del told["cells"]
        return {
            "column": self.name,
            **self.beside,
            "kind": self.kind,
            "verdict": self.verdict,
            "warning": self.warning,
            "held": self.held,
            "because": self.because,
            "fallen": self.fallen,
            "problem": self.problem,
            "adjusted": finite(self.adjusted),
            "clusters": list(self.clusters),
            "limits": self.limits.model_dump(include={"psi", "psi_warn", "share_kept"}),
            **told,
        }


def drift_between(before: Profile, after: Profile, limits: Limits, sizes: Sizes | None = None) -> list[ColumnDrift]:
    """How `after` differs from `before`, for every monitored column that both have.

    Chance is that of two independent samples, which is cautious where one is mostly part of the other. Columns without
    a value on both sides are left out, and so are identities.
    """
    monitored = {entry.name for entry in MONITORED}
    found = []
    for name, kind in before.kinds.items():
        if name not in after or (name in IDENTITIES and name not in monitored):
            continue
        if before.blank(name) and after.blank(name):
            continue
        if kind == "numeric" and after.kinds[name] == "numeric":
            ordered = before.ordered(name), after.ordered(name)

            def told(effective: Pair, ordered: Any = ordered) -> Drift:
                return ordered_drift(*ordered, effective=effective)
        else:
            counted = before.histogram(name), after.histogram(name)

            def told(effective: Pair, ordered: Any = counted) -> Drift:
                return compare(*ordered, effective=effective)

        found.append(_allowing(ColumnDrift(name, kind, told((None, None)), limits), told, sizes))
    return found


def baseline_drift(
    seen: Profile,
    expected: Mapping[str, NumericShares | Mapping[str, Any]],
    limits: Limits,
    sizes: Sizes | None = None,
) -> list[ColumnDrift]:
    """How the signal differs from the distribution it is expected to have, for every column in `expected`.

    Args:
        seen: profile of the rows, which has the columns in `expected`.
        expected: by column {value: share}, {edges, shares, nulls} or an entry of `distribution` (an approved release).
        limits: limits to hold the PSI against.
        sizes: sample sizes that allow for clusters.

    Raises:
        FeedbackError: a distribution is malformed.
    """
    found = []
    for name in sorted(expected):
        reference = declared(mapping_of(expected[name]))
        kind: Kind = "categorical" if reference.edges is None else "numeric"
        if seen.kinds.get(name) != kind:
            why = "has no such column" if name not in seen else f"has it {seen.kinds[name]}, not {kind}"
            found.append(ColumnDrift(name, kind, None, limits, f"expect.{name}: the data {why}"))
            continue
        current = seen.histogram(name, reference.edges)

        def told(effective: Pair, sides: tuple[Declared, Any] = (reference, current)) -> Drift:
            return compare(*sides, effective=effective)

        found.append(_allowing(ColumnDrift(name, kind, told((None, None)), limits), told, sizes))
    return found


def _allowing(found: ColumnDrift, told: Callable[[Pair], Drift], sizes: Sizes | None) -> ColumnDrift:
    """The same with sample sizes that allow for clusters, where that can change what is said."""
    if sizes is None or found.drift is None or (sizes.only is not None and found.name not in sizes.only):
        return found
    if not sizes.decide(found.drift, found.limits):
        return found
    return replace(found, drift=told(sizes.of(found.name, found.drift.edges)), clusters=sizes.by)


def adjusted(entries: Sequence[ColumnDrift], others: Sequence[float] = ()) -> list[ColumnDrift]:
    """The entries with their chance adjusted for all of them that a check decides on, and `others` decided before."""
    tested = {
        place: entry.drift.psi_chance
        for place, entry in enumerate(entries)
        if entry.held and entry.drift is not None and entry.drift.psi_chance is not None
    }
    by_place = dict(zip(tested, benjamini_yekutieli([*tested.values(), *others]), strict=False))
    return [replace(entry, adjusted=by_place.get(place)) for place, entry in enumerate(entries)]
