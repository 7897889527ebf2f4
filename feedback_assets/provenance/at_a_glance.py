"""Commits at a glance: the flow of rows and before and after of what moved most as pictures; what moved since when."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_assets.pictures.bars import Cell
from feedback_assets.pictures.canvas import markdown
from feedback_assets.pictures.flow import Step
from feedback_assets.pictures.glance import glance
from feedback_assets.pictures.stage import stage_svg
from feedback_assets.required import REGISTRIES
from feedback_assets.sources.privacy import shown

STAYS = ("kept", "copied")
MOST_COLUMNS = 4
MOST_REASONS = 1
MOST_MOVED = 3
LONGEST = 75
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
    """Drifts, those that could not be computed and those that moved first, then those that are a warning."""
    order = {"error": 0, "moved": 1, "inconclusive": 3, "stable": 4}
    return sorted(
        drifts,
        key=lambda d: (
            2 if d["verdict"] == "stable" and d.get("warning") else order.get(d["verdict"], 2),
            -(d.get("psi") or 0.0),
            d["column"],
        ),
    )


def since_previous(circumstances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What moved since the previous materialization: a sentence for each stage at which columns moved first.

    `circumstances` are those of commits by asset, in the order of the pipeline.
    """
    found, known = [], set[str]()
    for asset, own in circumstances.items():
        columns = (own.get("against_previous") or {}).get("columns", [])
        moved = [drift for drift in led(columns) if drift["verdict"] == "moved" and drift["column"] not in known]
        known |= {drift["column"] for drift in moved}
        said = [
            f"{drift['column']}, PSI {_three(drift['psi'])}" + (f", {drift['because']}" if drift["because"] else "")
            for drift in moved[:MOST_MOVED]
        ]
        more = f"; and {len(moved) - MOST_MOVED} more" if len(moved) > MOST_MOVED else ""
        if said:
            found.append(f"moved since the previous materialization, at `{asset}` first: {'; '.join(said)}{more}")
    return found


def cells(drift: Mapping[str, Any], *, quotes: bool = True) -> list[Cell]:
    """The cells of a drift; none where they were not kept. `quotes`: whether what a source says may be shown."""
    by_name = drift["kind"] == "categorical"

    def said(cell: str) -> str:
        return shown(drift["column"], cell, quotes=quotes) if by_name else cell

    return [Cell(said(str(cell["cell"])), cell["reference"], cell["current"]) for cell in drift.get("cells") or ()]


def pictures(content: Mapping[str, Any], *, quotes: bool) -> dict[str, str]:
    """The stage as Markdown: `picture` small enough to be shown in place, `picture_in_full` behind a click.

    `quotes`: whether what a source says may be shown.
    """
    step, drifts = flow_step(content), led(content["drift"])
    moved = [drift for drift in drifts if drift.get("cells")]
    bars_of = [
        (drift["column"], f"PSI {_three(drift['psi'])}", cells(drift, quotes=quotes)) for drift in moved[:MOST_COLUMNS]
    ]
    note = _note(content, drifts, moved)
    first = "in" if content["inputs"] else START
    small = [f"{first} {step.came:,} → {step.name} {step.went:,}"]
    if moved:
        small += [*_in_short(step), f"{bars_of[0][0]}, {bars_of[0][1]}: before → after"]
        bars = bars_of[0][2]
    else:
        small.append(note)
        fates = sorted(content["fates"], key=lambda fate: (fate["fate"] != "kept", -fate["rows"], reason(fate)))
        told = sum(fate["rows"] for fate in fates) or 1
        bars = [Cell(reason(fate), None, fate["rows"] / told) for fate in fates]
    described = f"{step.name}: {step.came} rows in, {step.went} rows out; {note}"
    return {
        "picture": glance(small, bars),
        "picture_in_full": markdown(stage_svg(step, first, bars_of, note), described),
    }


def _note(content: Mapping[str, Any], drifts: Sequence[Mapping[str, Any]], moved: Sequence[Any]) -> str:
    measured = [drift for drift in drifts if drift.get("psi") is not None]
    if moved:
        more = f", the first {MOST_COLUMNS} shown" if len(moved) > MOST_COLUMNS else ""
        return f"columns that moved: {len(moved)} of {len(drifts)}{more}"
    if measured:
        most = max(measured, key=lambda drift: drift["psi"])
        return f"{len(measured)} columns, none moved; largest PSI: {most['column']} {_three(most['psi'])}"
    return "" if content["inputs"] else "the start of the graph: nothing to compare with"


def _in_short(step: Step) -> list[str]:
    left = sorted(step.left, key=lambda entry: (-entry[1], entry[0]))
    told = [f"−{rows:,} {label}" for label, rows in left] + [f"+{rows:,} {label}" for label, rows in step.joined]
    more = f", and {len(told) - MOST_REASONS} more" if len(told) > MOST_REASONS else ""
    return [", ".join(told[:MOST_REASONS])[:LONGEST] + more] if told else []


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
