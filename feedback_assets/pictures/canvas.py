"""What all pictures share: colours for light and dark, text that fits, and SVG text that is the same every time.

Drawn with drawsvg (MIT, 40 KB, no dependencies, nothing loaded from anywhere). It escapes text but not attributes:
only names of this package stand in those.
"""

import base64
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import drawsvg

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "muted": "#57606a",
    "line": "#d0d7de",
    "band": "#c9ddf5",
    "node": "#7fb0ea",
    "before": "#8c959f",
    "after": "#0f62c4",
    "lost": "#d4694a",
    "gained": "#3b8f5a",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e6e9ed",
    "muted": "#a3adb8",
    "line": "#3a424b",
    "band": "#1e3a5c",
    "node": "#2f639f",
    "before": "#8b949e",
    "after": "#6cb0ff",
    "lost": "#e58a6b",
    "gained": "#66c08a",
}
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
CHARACTER = 0.55  # mean width of a character in these fonts, in font sizes: on the wide side, so that text fits
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def colours() -> str:
    """The colours as CSS custom properties, for light, dark and paper."""
    light, dark = ("".join(f"--{name}:{value};" for name, value in theme.items()) for theme in (LIGHT, DARK))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def classes(within: str = "") -> str:
    """CSS of the pictures' classes; each colour is the fill of the class of its name."""
    fills = "".join(f"{within}.{name}{{fill:var(--{name})}}" for name in LIGHT)
    threads = "".join(f"{within}.thread.{name}{{stroke:var(--{name});fill:none}}" for name in ("lost", "gained"))
    return f"{within}text{{{FONT}}}{fills}{threads}{within}.bold{{font-weight:600}}"


class Canvas:
    """A picture of a given width that grows downwards."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._drawn: list[drawsvg.DrawingElement] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        look: str = "ink",
        fit: float | None = None,
        anchor: Literal["start", "end"] = "start",
    ) -> None:
        """Text with its baseline at y, shortened to the width `fit`; the whole of it is then its tooltip."""
        import drawsvg

        words = NOT_XML.sub("\ufffd", words).replace("\n", " ").replace("\r", " ")
        room = int(fit / (size * CHARACTER)) if fit is not None else len(words)
        shown = words if len(words) <= room else f"{words[: max(room - 1, 1)].rstrip()}…"
        element = drawsvg.Text(shown, size, round(x, 1), round(y, 1), class_=look, text_anchor=anchor)
        if shown != words:
            element.append_title(words)
        self._drawn.append(element)

    def bar(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """A filled rectangle; what is there at all is seen."""
        import drawsvg

        if width > 0:
            box = (round(x, 1), round(y, 1), round(max(width, 1.0), 1), round(height, 1))
            self._drawn.append(drawsvg.Rectangle(*box, class_=look))

    def ribbon(self, start: tuple[float, float, float], end: tuple[float, float, float], look: str) -> None:
        """A band that flows from (left, right, y) down to (left, right, y)."""
        import drawsvg

        (left, right, top), (to_left, to_right, bottom) = (tuple(round(v, 1) for v in side) for side in (start, end))
        half = round((top + bottom) / 2, 1)
        path = drawsvg.Path(class_=look).M(left, top).C(left, half, to_left, half, to_left, bottom).L(to_right, bottom)
        self._drawn.append(path.C(to_right, half, right, half, right, top).Z())

    def branch(self, start: tuple[float, float], end: tuple[float, float], look: str, thick: float) -> None:
        """A thread of some thickness that leaves downwards at `start` and arrives sideways at `end`, or the reverse."""
        import drawsvg

        (x, y), (to_x, to_y) = start, end
        path = drawsvg.Path(class_=f"thread {look}", stroke_width=round(max(thick, 1.0), 1), stroke_opacity=0.75)
        self._drawn.append(
            path.M(round(x, 1), round(y, 1)).Q(round(x, 1), round(to_y, 1), round(to_x, 1), round(to_y, 1))
        )

    def svg(self, height: float, title: str, *, alone: bool) -> str:
        """The picture as SVG text; `alone`: with its own colours and paper, else those of the page it stands in."""
        import drawsvg

        drawing = drawsvg.Drawing(self.width, round(height), class_="picture", role="img")
        drawing.append_title(NOT_XML.sub("\ufffd", title))
        if alone:
            # On paper of its own: the Dagster UI can be dark where the system is light.
            drawing.append_css(colours() + classes())
            drawing.append(drawsvg.Rectangle(0, 0, self.width, round(height), rx=6, class_="paper"))
        drawing.extend(self._drawn)
        return str(drawing.as_svg(header="", skip_js=True))


def markdown(svg: str, words: str) -> str:
    """The picture as Markdown that shows it inline, without a file or a server."""
    described = re.sub(r"[^\w ,.;:+%-]", "", words)
    return f"![{described}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def percent(share: float | None) -> str:
    """A share for a person."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"
