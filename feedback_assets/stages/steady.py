"""Numbers over all rows that go into each row, so rounded that a few more rows leave them as they were."""

from math import frexp, ldexp

BITS = 8


def steady(scale: float) -> float:
    """`scale` to BITS significant binary digits, which is within 0.4 % of it.

    A scale that balances all rows moves a little with each new batch. To the last digit, that would give every record
    another weight, each release other files, and two releases a difference in every line.
    """
    share, power = frexp(scale)
    return ldexp(round(share * 2**BITS), power - BITS)
