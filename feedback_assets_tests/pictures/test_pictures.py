"""Pictures are well-formed, the same every time, and small enough for where they are shown."""

import base64
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_assets.pictures.bars import Cell, shares_svg, shown
from feedback_assets.pictures.flow import Step, flow_svg
from feedback_assets.pictures.glance import MOST, glance
from feedback_assets.pictures.stage import stage_svg

SVG = "{http://www.w3.org/2000/svg}"
shares = st.none() | st.floats(0, 1)
names = st.text(max_size=60) | st.just('<script>alert("x")</script>')
cells = st.lists(st.builds(Cell, names, shares, shares), max_size=40)


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert element.tag.startswith(SVG)
        assert element.tag != f"{SVG}script"
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "nan" not in value
            assert "inf" not in value
    return root


def words(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


@given(cells)
def test_bars_are_well_formed_whatever_the_cells_are_called(given: list[Cell]) -> None:
    svg = shares_svg("a column", given)
    parsed(svg)
    assert svg == shares_svg("a column", given)


@given(cells)
def test_cells_that_are_not_shown_are_summed_up(given: list[Cell]) -> None:
    kept = shown(given, 8)
    assert len(kept) == min(len(given), 8)
    for side in ("reference", "current"):
        before, after = (sum(getattr(cell, side) or 0 for cell in some) for some in (given, kept))
        assert math.isclose(before, after, abs_tol=1e-9)


def test_a_bar_is_as_long_as_its_share() -> None:
    root = parsed(shares_svg("language", [Cell("en", 0.8, 0.4), Cell("de", 0.2, 0.6)]))
    lengths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    assert [length / lengths[0] for length in lengths] == pytest.approx([1, 0.5, 0.25, 0.75], abs=0.01)
    assert [bar.attrib["class"] for bar in root.iter(f"{SVG}rect")] == ["before", "after"] * 2


def test_the_flow_says_what_left_and_why() -> None:
    filtered = Step("filtered", 100, 70, left=[("dropped: too-fast v2", 20), ("dropped: same v1", 10)])
    copied = Step("upsampled", 70, 90, joined=[("copies of 10 rows: more v1", 20)])
    svg = flow_svg([filtered, copied], first="batches", width=800)
    said = words(svg)
    assert [entry for entry in said if entry[0] not in "+−"] == ["batches  100", "filtered  70", "upsampled  90"]
    assert "−20 dropped: too-fast v2" in said
    assert "+20 copies of 10 rows: more v1" in said
    nodes = [float(bar.attrib["width"]) for bar in parsed(svg).iter(f"{SVG}rect")]
    assert [node / nodes[0] for node in nodes] == pytest.approx([1, 0.7, 0.9], abs=0.01)


@pytest.mark.parametrize("went", [0, 1])
def test_a_stage_that_loses_all_or_nearly_all_is_drawn(went: int) -> None:
    many = [(f"dropped: rule-{n} v1", 1) for n in range(50)]
    step = Step("filtered", 50 + went, went, left=many)
    said = words(flow_svg([step], first="in", width=350))
    assert "−44 for 44 other reasons" in said
    assert said[-1] == f"filtered  {went}"


@given(names, st.integers(0, 10**9), cells)
def test_the_small_picture_is_shown_in_place_by_the_ui(name: str, rows: int, given: list[Cell]) -> None:
    made = glance([f"in {rows:,} → {name} {rows:,}", name], given)
    assert len(made) <= MOST < 1000
    found = re.fullmatch(r"!\[\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", made)
    assert found
    parsed(base64.b64decode(found[1]).decode())


def test_the_small_picture_keeps_every_word() -> None:
    made = glance(["in 10 → filtered 9"], [Cell("gpt M4 h4", 0.25, 0.5)])
    assert words(base64.b64decode(made[30:-1]).decode()) == ["in 10 → filtered 9", "gpt M4 h4 25.0→50.0 %"]


def test_a_picture_that_stands_alone_has_colours_for_light_and_dark_and_loads_nothing() -> None:
    svg = stage_svg(Step("filtered", 10, 9), "in", [("language", "PSI 0.3", [Cell("en", 0.5, 0.6)])], "a note")
    assert "prefers-color-scheme:dark" in svg
    assert "href" not in svg.replace("xlink", "")
    assert "url(" not in svg
    assert 'class="paper"' in svg
