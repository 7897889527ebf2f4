"""Shares of a column's cells, two side by side: before and after, or expected and actual."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedback_assets.pictures.canvas import Canvas, percent

MOST = 10
ROW = 30
LABEL = 0.3  # of the width


@dataclass(frozen=True)
class Cell:
    """One cell: its name and its two shares, of which either may be unknown."""

    name: str
    reference: float | None
    current: float | None

    @property
    def size(self) -> float:
        """What decides whether it is shown."""
        return max(self.reference or 0.0, self.current or 0.0)


def shown(cells: Sequence[Cell], most: int = MOST) -> list[Cell]:
    """At most `most` cells in their order: the largest, and one that stands for the others."""
    if len(cells) <= most:
        return list(cells)
    largest = set(sorted(range(len(cells)), key=lambda place: (-cells[place].size, place))[: most - 1])
    rest = [cell for place, cell in enumerate(cells) if place not in largest]
    sums = [
        sum(values) if (values := [v for v in side if v is not None]) else None
        for side in ([cell.reference for cell in rest], [cell.current for cell in rest])
    ]
    return [cell for place, cell in enumerate(cells) if place in largest] + [Cell(f"{len(rest)} others", *sums)]


def draw_shares(
    canvas: Canvas, at: tuple[float, float], width: float, cells: Sequence[Cell], *, most: int = MOST
) -> float:
    """Draw the cells below each other from `at` on, and return the height that they take."""
    x, y = at
    cells = shown(cells, most)
    widest = max((cell.size for cell in cells), default=0.0)
    left, right = x + width * LABEL + 8, x + width - 52
    for place, cell in enumerate(cells):
        top = y + place * ROW
        canvas.text(x, top + 17, cell.name, size=12, fit=width * LABEL)
        for row, (share, look, words) in enumerate(
            ((cell.reference, "before", "muted"), (cell.current, "after", "ink"))
        ):
            if share is None:
                continue
            length = (right - left) * (share / widest) if widest else 0.0
            canvas.bar(left, top + 3 + row * 12, length, 10, look)
            canvas.text(left + length + 5, top + 12 + row * 12, percent(share), size=11, look=words)
    return len(cells) * ROW


def shares_svg(title: str, cells: Sequence[Cell], *, width: int = 340) -> str:
    """The cells as a picture inside a page."""
    canvas = Canvas(width)
    height = draw_shares(canvas, (0, 2), width, cells)
    return canvas.svg(height + 4, title, alone=False)
