"""One stage so small that the Dagster UI shows it in place: what it did to the rows, and the column that moved most.

The UI (1.13) shows Markdown in place up to 999 characters; what is longer waits behind a click.
"""

import re
from collections.abc import Sequence

from feedback_assets.pictures.bars import Cell, shown
from feedback_assets.pictures.canvas import DARK, LIGHT, NOT_XML, markdown, percent

MOST = 999
WIDTH = 460
LINE = 18
LEFT, BROAD = 240, 214
_STYLE = (
    "svg{{background:{paper};fill:{ink};font:12px sans-serif}}path{{stroke:{before};stroke-width:6}}"
    ".a{{stroke:{node}}}@media(prefers-color-scheme:dark){{svg{{background:{dark_paper};fill:{dark_ink}}}}}"
)


def glance(lines: Sequence[str], cells: Sequence[Cell]) -> str:
    """Lines of text, then the cells with bars for before (if known) and after, as Markdown shorter than the UI's limit.

    What does not fit is left out: first cells, then the last lines.
    """
    for most in range(min(len(cells), 6), 0, -1):
        made = _drawn(lines, shown(cells, most))
        if len(made) <= MOST:
            return made
    for kept in range(len(lines), 0, -1):
        made = _drawn(lines[:kept], ())
        if len(made) <= MOST:
            return made
    return _drawn((), ())


def _drawn(lines: Sequence[str], cells: Sequence[Cell]) -> str:
    import drawsvg

    drawing = drawsvg.Drawing(WIDTH, LINE * (len(lines) + len(cells)) + 8)
    colours = {"dark_paper": DARK["paper"], "dark_ink": DARK["ink"]}
    drawing.append_css(_STYLE.format(**LIGHT, **colours))
    told = [f"{_short(cell.name)} {_change(cell)}" for cell in cells]
    for place, words in enumerate([*lines, *told]):
        drawing.append(drawsvg.Text(NOT_XML.sub("\ufffd", words), 12, 6, LINE * place + 17))
    widest = max((cell.size for cell in cells), default=0.0) or 1.0
    for look, rise in (("b", 0), ("a", 6)):
        shares = [cell.reference if look == "b" else cell.current for cell in cells]
        path = drawsvg.Path(**({"class_": look} if look == "a" else {}))
        for place, share in enumerate(shares, start=len(lines)):
            if share:
                path.M(LEFT, LINE * place + 10 + rise).h(max(round(BROAD * share / widest), 1))
        if any(shares):
            drawing.append(path)
    return markdown(_tight(str(drawing.as_svg(header="", skip_js=True))), "")


def _tight(svg: str) -> str:
    """The same without what a browser does not need: every character counts. Only tags are touched, never text."""
    for unused in (' xmlns:xlink="http://www.w3.org/1999/xlink"', "/*<![CDATA[*/", "/*]]>*/"):
        svg = svg.replace(unused, "")
    svg = re.sub(r'(?<=>)\s+(?=<)|<defs>\s*</defs>|(?<=") (?=/>)', "", re.sub(r"\n\s+", " ", svg))
    svg = re.sub(r'(<svg[^>]*?) viewBox="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<text[^>]*?) font-size="12"', r"\1", svg)
    return re.sub(r'<path d="[^"]*"', lambda path: "<path " + path[0][6:].replace(" ", ""), svg)


def _change(cell: Cell) -> str:
    after = percent(cell.current)
    return after if cell.reference is None else f"{percent(cell.reference).removesuffix(' %')}→{after}"


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
