"""How far two aligned vectors of counts lie apart: PSI, KL and JS.

Pure functions; what cannot be computed is None, never NaN or infinite.
"""

import math
from collections.abc import Sequence

EPSILON = 1e-4
"""The share that stands in for an empty cell."""


def finite(value: float | None) -> float | None:
    """`value` to 9 significant digits, so that another machine's libm writes the same; None if not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")


def psi(reference: Sequence[float], current: Sequence[float], epsilon: float = EPSILON) -> float | None:
    """Population stability index Σ(p−q)·ln(p/q) over aligned counts or weights.

    Shares of 0 become `epsilon` and are not renormalised (Evidently's convention). Symmetric, at least 0.
    Source: Siddiqi, Credit Risk Scorecards (2006); it is Jeffreys' divergence over bins.
    Returns None if either side is empty.
    """
    shares = two_shares(reference, current)
    if shares is None:
        return None
    return math.fsum(psi_terms(*shares, epsilon))


def kl(reference: Sequence[float], current: Sequence[float], epsilon: float = EPSILON) -> float | None:
    """Kullback–Leibler divergence Σ p·ln(p/q) in nats, p the reference, q the current (Evidently's direction).

    Great Expectations has the other direction, entropy(observed, expected): swap the arguments.
    Zeros are filled with `epsilon`, then both sides are normalised, as scipy.stats.entropy does.
    Source: Kullback and Leibler, Ann. Math. Stat. 22 (1951). Returns None if either side is empty.
    """
    shares = two_shares(reference, current)
    if shares is None:
        return None
    p, q = (normalised(_filled(side, epsilon)) for side in shares)
    return max(0.0, math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def js(reference: Sequence[float], current: Sequence[float]) -> float | None:
    """Jensen–Shannon divergence in nats: symmetric, within 0..ln 2, no filling needed. Its root is the JS distance.

    Source: Lin, IEEE Trans. Inf. Theory 37 (1991). Returns None if either side is empty.
    """
    shares = two_shares(reference, current)
    if shares is None:
        return None
    terms = []
    for p, q in zip(*shares, strict=True):
        middle = (p + q) / 2
        terms.extend(share * math.log(share / middle) / 2 for share in (p, q) if share > 0)
    return min(max(0.0, math.fsum(terms)), math.log(2))


def two_shares(
    reference: Sequence[float], current: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Both vectors as shares; None if either is empty."""
    if len(reference) != len(current):
        raise ValueError(f"the vectors are not aligned: {len(reference)} and {len(current)} cells")
    if not (sum(reference) > 0 and sum(current) > 0):
        return None
    return normalised(reference), normalised(current)


def normalised(vector: Sequence[float]) -> tuple[float, ...]:
    """The vector as shares of its sum."""
    total = math.fsum(vector)
    return tuple(value / total for value in vector)


def _filled(shares: Sequence[float], epsilon: float) -> tuple[float, ...]:
    return tuple(share if share > 0 else epsilon for share in shares)


def psi_terms(p: Sequence[float], q: Sequence[float], epsilon: float) -> list[float]:
    """The part of each cell in the PSI."""
    return [(a - b) * math.log(a / b) for a, b in zip(_filled(p, epsilon), _filled(q, epsilon), strict=True)]
