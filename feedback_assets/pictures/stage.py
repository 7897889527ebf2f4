"""One stage at a glance: the flow of its rows, and before and after of the columns that moved most."""

from collections.abc import Sequence

from feedback_assets.pictures.bars import Cell, draw_shares
from feedback_assets.pictures.canvas import Canvas
from feedback_assets.pictures.flow import Step, draw_flow

WIDTH = 720
EDGE = 16
MOST_CELLS = 6


def stage_svg(step: Step, first: str, moved: Sequence[tuple[str, str, Sequence[Cell]]], note: str) -> str:
    """A picture that stands alone: `moved` are the columns to show, with a heading and cells; `note` a last line."""
    canvas = Canvas(WIDTH)
    top = EDGE + draw_flow(canvas, (EDGE, EDGE), WIDTH - 2 * EDGE, [step], first) + 8
    wide = (WIDTH - 3 * EDGE) / 2
    for start in range(0, len(moved), 2):
        below = 0.0
        for place, (column, heading, cells) in enumerate(moved[start : start + 2]):
            x = EDGE + place * (wide + EDGE)
            canvas.text(x, top + 16, column, size=12.5, look="ink bold", fit=wide / 2)
            canvas.text(x + wide, top + 16, heading, size=11, look="muted", anchor="end")
            below = max(below, draw_shares(canvas, (x, top + 24), wide, cells, most=MOST_CELLS))
        top += below + 34
    if moved:
        canvas.bar(EDGE, top + 3, 10, 10, "before")
        canvas.text(EDGE + 15, top + 12, "before", size=11, look="muted")
        canvas.bar(EDGE + 62, top + 3, 10, 10, "after")
        canvas.text(EDGE + 77, top + 12, "after", size=11)
    canvas.text(EDGE + (120 if moved else 0), top + 12, note, size=11, look="muted", fit=WIDTH - 2 * EDGE - 120)
    return canvas.svg(top + 12 + EDGE, f"What {step.name} did to the rows", alone=True)
