"""The flow of rows through stages, from top to bottom (a Sankey diagram): what left and what joined, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedback_assets.pictures.canvas import Canvas

NODE = 26
LINE = 17
MOST = 7


@dataclass(frozen=True)
class Step:
    """One stage: its name, the rows that came and went, and by label the rows that left or joined on the way."""

    name: str
    came: int
    went: int
    left: Sequence[tuple[str, int]] = ()
    joined: Sequence[tuple[str, int]] = ()


def draw_flow(canvas: Canvas, at: tuple[float, float], width: float, steps: Sequence[Step], first: str) -> float:
    """Draw the steps from `at` on, the rows of the first one named `first`; return the height that they take."""
    x, y = at
    if not steps:
        return 0.0
    most = max(max(step.came, step.went) for step in steps) or 1
    broad = width * (0.42 if width > 500 else 0.3)  # a phone has less room beside the reasons
    scale = broad / most
    _node(canvas, (x, y), steps[0].came * scale, first, steps[0].came)
    top = y + NODE
    for step in steps:
        threads = _threads(step)
        gap = max(14, len(threads) * LINE + 8)
        came, went = step.came * scale, step.went * scale
        stayed = max(step.came - sum(rows for _, rows in step.left), 0) * scale
        canvas.ribbon((x, x + min(stayed, came), top), (x, x + min(stayed, went) if went else x, top + gap), "band")
        edge = came
        for place, (label, rows, look) in enumerate(threads):
            middle = top + 12 + place * LINE
            thick = min(rows * scale, LINE - 5)
            start = (x + (edge if look == "lost" else went) - thick / 2, top if look == "lost" else top + gap)
            if look == "lost":
                edge = max(edge - rows * scale, 0)
            canvas.branch(start, (x + broad + 10, middle), look, thick)
            canvas.text(x + broad + 15, middle + 4, label, size=11.5, fit=width - broad - 15)
        _node(canvas, (x, top + gap), went, step.name, step.went)
        top += gap + NODE
    return top - y


def _node(canvas: Canvas, at: tuple[float, float], width: float, name: str, rows: int) -> None:
    x, y = at
    canvas.bar(x, y, max(width, 1), NODE, "node")
    canvas.text(x + 8, y + 17, f"{name}  {rows:,}", size=12.5, look="ink bold")


def _threads(step: Step) -> list[tuple[str, int, str]]:
    left = sorted(step.left, key=lambda entry: (-entry[1], entry[0]))
    if len(left) > MOST:
        rest = left[MOST - 1 :]
        left = [*left[: MOST - 1], (f"for {len(rest)} other reasons", sum(rows for _, rows in rest))]
    gone = [(f"−{rows:,} {label}", rows, "lost") for label, rows in left]
    return [*gone, *((f"+{rows:,} {label}", rows, "gained") for label, rows in step.joined)]


def flow_svg(steps: Sequence[Step], *, first: str, width: int) -> str:
    """The steps as a picture inside a page."""
    canvas = Canvas(width)
    height = draw_flow(canvas, (1, 2), width - 2, steps, first)
    return canvas.svg(height + 4, f"Rows from {first} to {steps[-1].name if steps else 'nothing'}", alone=False)
