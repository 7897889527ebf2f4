"""What a stage lost, by group: one that is emptied, or of which much more went than of all others; and by annotator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback_assets.signal.decisions import FALSE_DISCOVERIES
from feedback_assets.signal.divergence import finite
from feedback_assets.signal.histogram import NULL
from feedback_assets.signal.profile import Profile, named

LOST = ("dropped", "merged", "quarantined")
"""Fates that take a row out of the signal. A redelivered or superseded row stands in it as another delivery."""
LOSS_COLUMNS = ("source", "batch", "category", "guideline_version", "guideline", "origin")
"""Groups that no stage may empty unless the policy says so."""
LEAST_OF_ROWS = 0.01
"""A group with less of the rows is not asked whether it lost much."""


@dataclass(frozen=True)
class GroupLoss:
    """How many of a group's rows a stage lost. `chance`: the probability of that many or more at the overall rate."""

    column: str
    value: str
    rows: int
    lost: int
    chance: float | None = None

    @property
    def share(self) -> float:
        """Share of the group's rows that was lost."""
        return self.lost / self.rows if self.rows else 0.0

    @property
    def emptied(self) -> bool:
        """Whether nothing is left of it."""
        return self.rows > 0 and self.lost == self.rows

    def as_json(self) -> dict[str, Any]:
        """Plain finite values."""
        return {
            "column": self.column,
            "value": self.value,
            "rows": self.rows,
            "lost": self.lost,
            "share": finite(self.share),
            "emptied": self.emptied,
            "chance": finite(self.chance),
        }


def loss_by_group(before: Profile, lost: Profile | None, columns: Sequence[str] = LOSS_COLUMNS) -> list[GroupLoss]:
    """Rows in and rows lost, by value of source, batch, category, guideline version and origin.

    Args:
        before: profile of the rows that came in.
        lost: that of those among them that are lost (a fate in LOST); None: none is.
        columns: the grouping columns; those that `before` lacks are left out.

    Returns:
        One entry per column and value, by column in the given order, then by value.
    """
    found = []
    for column in (name for name in columns if name in before):
        gone = named(lost, column, nulls=True) if lost is not None else {}
        there = sorted(named(before, column, nulls=True).items())
        found.extend(GroupLoss(column, value, rows, gone.get(value, 0)) for value, rows in there)
    return found


def heavy_losses(losses: Sequence[GroupLoss], share: float) -> list[GroupLoss]:
    """Groups that lost this share of their rows or more, and more than the rate of all others of their column explains.

    One-sided binomial test, allowing for the number of groups of the column (Bonferroni). Groups of less than 1 % of
    the rows are left out, and so is one that has no others beside it.
    """
    found = []
    for column in dict.fromkeys(loss.column for loss in losses):
        mine = [loss for loss in losses if loss.column == column]
        rows, gone = sum(loss.rows for loss in mine), sum(loss.lost for loss in mine)
        for loss in mine:
            if loss.share < share or loss.rows < LEAST_OF_ROWS * rows or loss.rows == rows:
                continue
            from scipy.special import bdtrc

            others = (gone - loss.lost) / (rows - loss.rows)
            chance = float(bdtrc(loss.lost - 1, loss.rows, others))
            if chance * len(mine) <= FALSE_DISCOVERIES:
                found.append(loss)
    return found


def loss_by_annotator(before: Profile, lost: Profile | None) -> list[GroupLoss]:
    """Annotators who lost more rows than the stage's overall rate explains, largest surprise first.

    One-sided binomial test for each annotator; the false discovery rate over them is held at .05 (Benjamini and
    Hochberg, J. R. Stat. Soc. B 57, 1995). Arguments as for `loss_by_group`.
    """
    if lost is None:
        return []
    losses = loss_by_group(before, lost, ("annotator_id",))
    rows, gone = sum(loss.rows for loss in losses), sum(loss.lost for loss in losses)
    if not gone or gone == rows:
        return []
    from scipy.special import bdtrc

    rate = gone / rows
    tested = [
        GroupLoss(
            loss.column,
            loss.value,
            loss.rows,
            loss.lost,
            float(bdtrc(loss.lost - 1, loss.rows, rate)) if loss.lost else 1.0,
        )
        for loss in losses
        if loss.value != NULL
    ]
    tested.sort(key=lambda loss: (loss.chance or 0.0, loss.value))
    beyond = [i for i, loss in enumerate(tested, 1) if (loss.chance or 0.0) <= FALSE_DISCOVERIES * i / len(tested)]
    return tested[: max(beyond, default=0)]
