"""Whether something moved: beyond the limit, and beyond what chance gives where many things are looked at.

The decisions of one release depend on each other in ways that are not known: the same rows run through all stages, and
a share that rises makes others fall. So the false discovery rate is held with the procedure of Benjamini and Yekutieli
(Ann. Stat. 29, 2001), which is valid under any dependence.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

FALSE_DISCOVERIES = 0.05
"""Of the things that are said to have moved, at most this share is expected to be chance."""
Verdict = Literal["stable", "moved", "inconclusive"]


def benjamini_yekutieli(chances: Sequence[float]) -> list[float]:
    """p-values adjusted so that those at or below a level hold the false discovery rate at that level.

    `scipy.stats.false_discovery_control(chances, method="by")`, without its second of import.
    """
    count = len(chances)
    harmonic = sum(1 / rank for rank in range(1, count + 1))
    order = sorted(range(count), key=lambda place: chances[place], reverse=True)
    scaled = (chances[place] * count * harmonic / rank for rank, place in zip(range(count, 0, -1), order, strict=True))
    adjusted = dict(zip(order, accumulate(scaled, min), strict=True))
    return [min(1.0, adjusted[place]) for place in range(count)]


def verdict(
    psi: float | None, critical: float | None, chance: float | None, limit: float, *, fallen: bool = False
) -> Verdict:
    """Hold a PSI against `limit`.

    "moved": beyond the limit and beyond chance, however few the rows, or so for the share of one value. "inconclusive":
    beyond the limit, but chance explains it; or within, where chance alone reaches the limit. Otherwise "stable".

    Args:
        psi: the value; None if it could not be computed.
        critical: what chance alone reaches in 5 % of samples of this size.
        chance: the probability, without drift, of as great a difference, adjusted for the number of decisions.
        limit: the largest PSI that passes.
        fallen: whether one value kept too little of its share, beyond chance: a PSI hardly sees a small category.
    """
    if psi is None or critical is None or chance is None:
        return "inconclusive"
    if fallen and chance <= FALSE_DISCOVERIES:
        return "moved"
    if psi > limit and chance <= FALSE_DISCOVERIES:
        return "moved"
    return "inconclusive" if max(psi, critical) > limit else "stable"


def decisions_of(commits: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The decisions that stand in commit records (asset, content): one for each column of a comparison that is held."""
    kept = ("column", "fallen", "psi", "psi_critical", "psi_chance", "source", "batch", "because")
    return [
        {"asset": asset, "comparison": name, **{k: entry[k] for k in kept if entry.get(k) is not None}}
        | {"limit": entry["limits"]["psi"]}
        for asset, content in commits
        for name in ("drift", "input", "baseline")
        for entry in content.get(name, ())
        if entry.get("held", True)
    ]


def release_decisions(commits: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """All decisions behind a release, with the false discovery rate held over all of them, for its manifest.

    Returns:
        `method`, `rate`, how many `decisions`, how many of them `stable`, `inconclusive`, `moved`; and each that moved
        or cannot be told, with its `psi`, `limit`, `psi_chance` and `adjusted`.
    """
    found = decisions_of(commits)
    tested = [entry for entry in found if entry.get("psi_chance") is not None]
    adjusted = benjamini_yekutieli([entry["psi_chance"] for entry in tested])
    for entry, chance in zip(tested, adjusted, strict=True):
        entry["adjusted"] = chance
    for entry in found:
        entry["verdict"] = verdict(
            entry.get("psi"), entry.get("psi_critical"), entry.get("adjusted"), entry["limit"], fallen="fallen" in entry
        )
    by_verdict = {name: [e for e in found if e["verdict"] == name] for name in ("stable", "inconclusive", "moved")}
    return {
        "method": "Benjamini-Yekutieli",
        "rate": FALSE_DISCOVERIES,
        "decisions": len(found),
        **{name: len(entries) for name, entries in by_verdict.items()},
        "shown": [*by_verdict["moved"], *by_verdict["inconclusive"]],
    }
