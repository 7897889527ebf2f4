"""A commit's content as pictures: the flow of its rows, and before and after of what moved most."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_assets.materialize.examine import REGISTRIES
from feedback_assets.pictures.bars import Cell
from feedback_assets.pictures.canvas import markdown
from feedback_assets.pictures.flow import Step
from feedback_assets.pictures.stage import stage_svg

STAYS = ("kept", "copied")
MOST_COLUMNS = 4
START = "batches"
COPIES = "copies, which stand as a number beside their record"


def flow_step(content: Mapping[str, Any]) -> Step:
    """The rows of one stage: those that left by fate and rule, and those that joined."""
    left = [(reason(fate), fate["rows"]) for fate in content["fates"] if fate["fate"] not in STAYS]
    more = content["rows_out"] - (content["rows_in"] - sum(rows for _, rows in left))
    copied = [fate for fate in content["fates"] if fate["fate"] == "copied"]
    joined = []
    if more > 0:
        rules = ", ".join(sorted({rule_of(fate) for fate in copied}))
        of = f"copies of {sum(fate['rows'] for fate in copied):,} rows: {rules}" if copied else "made here"
        joined.append((of, more))
    elif more < 0:
        left.append((COPIES, -more))
    return Step(content["asset"], content["rows_in"], content["rows_out"], left, joined)


def reason(fate: Mapping[str, Any]) -> str:
    """A fate and what decided it, in a few words."""
    return f"{fate['fate']}: {rule_of(fate)}" if fate.get("rule") else fate["fate"]


def rule_of(fate: Mapping[str, Any]) -> str:
    """A rule with its version."""
    return f"{fate['rule']} v{fate['rule_version']}" if fate.get("rule_version") else str(fate.get("rule"))


def is_flow(content: Mapping[str, Any]) -> bool:
    """Whether feedback flows through this stage."""
    return content["asset"] not in REGISTRIES


def led(drifts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Drifts, those that could not be computed and those that moved first."""
    order = {"error": 0, "moved": 1, "inconclusive": 3, "stable": 4}
    return sorted(
        drifts,
        key=lambda d: (
            2 if d["verdict"] == "stable" and d.get("warning") else order.get(d["verdict"], 2),
            -(d.get("psi") or 0.0),
            d["column"],
        ),
    )


def cells(drift: Mapping[str, Any]) -> list[Cell]:
    """The cells of a drift; none where they were not kept."""
    return [Cell(str(cell["cell"]), cell["reference"], cell["current"]) for cell in drift.get("cells") or ()]


def picture(content: Mapping[str, Any]) -> str:
    """The stage at a glance, as Markdown that shows it inline."""
    drifts = led(content["drift"])
    shown = [(drift["column"], f"PSI {drift['psi']:.3f}", cells(drift)) for drift in drifts if drift.get("cells")]
    measured = [drift for drift in drifts if drift.get("psi") is not None]
    if shown:
        note = f"columns that moved: {len(shown)} of {len(drifts)}"
        note += f", the first {MOST_COLUMNS} shown" if len(shown) > MOST_COLUMNS else ""
    elif measured:
        most = max(measured, key=lambda drift: drift["psi"])
        note = f"{len(measured)} columns, none moved; largest PSI: {most['column']} {most['psi']:.3f}"
    else:
        note = "the start of the graph: nothing to compare with" if not content["inputs"] else ""
    svg = stage_svg(flow_step(content), "in" if content["inputs"] else START, shown[:MOST_COLUMNS], note)
    return markdown(svg, f"{content['asset']}: {content['rows_in']} rows in, {content['rows_out']} rows out; {note}")
