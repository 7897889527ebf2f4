"""The report of a release: one page, without network or script, that a reviewer reads before training.

Everything on it stands in the manifest. What a manifest does not have is left out, and the page says so where a
reviewer would look for it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any

from feedback_assets.materialize.commit import HOLDS_BACK
from feedback_assets.pictures.bars import Cell, shares_svg
from feedback_assets.pictures.canvas import classes, colours, percent
from feedback_assets.pictures.flow import Step, flow_svg
from feedback_assets.provenance.at_a_glance import (
    COPIES,
    START,
    cells,
    flow_step,
    is_flow,
    led,
    reason,
    rule_of,
    since_previous,
)
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, folder
from feedback_assets.required import baseline_name

FIRST_LOSSES = 15
MOST_LOSSES = 500
NULLS = "(null)"
SEAL = b"\n<!-- SHA-256 of what stands above: "


def report(release: Release, approvals: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as HTML text, the same bytes for the same manifest and approvals (as `names.approvals` gives them)."""
    import jinja2
    from markupsafe import Markup, escape

    def coded(text: str) -> Markup:
        whole = str(escape(text)).replace(" %", "\u00a0%")  # a number stays on the line of its sign
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", whole))  # noqa: S704  escaped before

    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"number": _number, "percent": percent, "count": lambda value: f"{value:,}", "coded": coded}
    page = pages.from_string(_beside("report.html"))
    text = page.render(**told(release), approvals=approvals, css=_css())
    return f"{text}{SEAL.decode()}{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_whole(page: bytes) -> bool:
    """Whether a page is as it was written: its last line holds the digest of what stands above."""
    text, _, seal = page.rpartition(SEAL)
    return seal == f"{hashlib.sha256(text).hexdigest()} -->\n".encode()


def report_key(release: Release) -> str:
    """Where the report that a run writes lies in the store: beside the manifest, as it was when it was made."""
    return f"{folder(release.id)}/report.html"


def _beside(name: str) -> str:
    return files("feedback_assets.provenance").joinpath(name).read_text(encoding="utf-8")


def _css() -> str:
    return colours() + classes(".picture ") + _beside("report.css")


def told(release: Release) -> dict[str, Any]:
    """What the page says, as plain values and pictures."""
    content, circumstances = release.content, release.circumstances
    commits = {entry["asset"]: content["commits"][entry["asset"]] for entry in content["transformations"]}
    answers = questions(release)
    checks = [{**check, "asset": asset} for asset, commit in commits.items() for check in commit["checks"]]
    waivers = _waivers(content)
    since = since_previous({asset: circumstances["commits"].get(asset, {}) for asset in commits})
    verdict = _verdict(content, answers, checks, waivers, since)
    flowing = [commit for commit in commits.values() if is_flow(commit)]
    steps = [flow_step(commit) for commit in flowing]
    columns = answers["distribution"]["columns"]
    return {
        "release": release.id,
        "project": content["project"],
        "made_at": circumstances["made_at"],
        "run_id": circumstances["run_id"],
        "environment": circumstances["environment"],
        "policy_file": circumstances["policy_file"],
        "files": circumstances["files"],
        "exports": content["exports"],
        "gate": content["gate"],
        "verdict": verdict,
        "answers": answers,
        "guidelines": content["guidelines"],
        "flow": {"wide": _flow(steps, 860), "narrow": _flow(steps, 350)},
        "steps": steps,
        "stages": [_stage(entry, commits, circumstances) for entry in content["transformations"]],
        "expected": [_column(name, entry, content) for name, entry in columns.items() if _is_declared(entry)],
        "undeclared": [_column(name, entry, content) for name, entry in columns.items() if not _is_declared(entry)],
        "batches": _batches(commits),
        "losses": _losses(commits),
        "first_losses": FIRST_LOSSES,
        "checks": checks,
        "waivers": waivers,
        "sizes": commits["training_set"]["effective_sample_size"],
    }


def _flow(steps: Sequence[Step], width: int) -> str:
    return flow_svg(steps, first=START, width=width)


def _waivers(content: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{key: str(value) for key, value in waiver.items()} for waiver in content["waivers"]]


def _verdict(
    content: Mapping[str, Any],
    answers: Mapping[str, Any],
    checks: Sequence[Mapping[str, Any]],
    waivers: Sequence[Mapping[str, str]],
    since: Sequence[str],
) -> dict[str, Any]:
    """Whether anything stands against training, in one line, and what to read first."""
    waived = {(waiver["stage"], waiver["check"]): waiver for waiver in waivers}
    points = []
    stop = not content["gate"]["opens"]
    for check in checks:
        if check["status"] in HOLDS_BACK:
            excused = waived.get((check["asset"], check["name"]))
            level = "waived" if excused else "stop" if check["blocking"] else "warning"
            stop = stop or level == "stop"
            by = f" (by {excused['who']} until {excused['until']}: {excused['why']})" if excused else ""
            says = f"{check['meaning']}{by}"
            points.append({"level": level, "where": check["asset"], "name": check["name"], "says": says})
    held = {point["name"] for point in points}
    moved = [
        name
        for name, column in answers["distribution"]["columns"].items()
        if column["verdict"] in ("moved", "error") and baseline_name(name) not in held
    ]
    if moved:
        says = f"not as expected, though no check holds it: {', '.join(moved)}"
        points.append({"level": "warning", "where": "distributions", "name": "", "says": says})
    points += [{"level": "warning", "where": "stages", "name": "", "says": says} for says in since]
    for number, question in enumerate(("annotations", "transformations", "distribution"), start=1):
        first, *others = answers[question]["incomplete"] or [None]
        if first is not None:
            more = f" (and {len(others)} more)" if others else ""
            says = f"answer {number} is incomplete: {first}{more}"
            points.append({"level": "open", "where": "answers", "name": "", "says": says})
    unsure = sum(check["status"] == "inconclusive" for check in checks)
    order = ["stop", "waived", "warning", "open"]
    points.sort(key=lambda point: order.index(point["level"]))
    level = "stop" if stop else "look" if points else "fine"
    headline = {
        "stop": "Do not train on this release as it stands",
        "look": f"Released; {len(points)} point{'s' if len(points) > 1 else ''} to read before training",
        "fine": "Released; nothing stands against training on it",
    }[level]
    return {"level": level, "headline": headline, "points": points, "inconclusive": unsure}


def _stage(entry: Mapping[str, Any], commits: Mapping[str, Any], circumstances: Mapping[str, Any]) -> dict[str, Any]:
    commit = commits[entry["asset"]]
    reasons = {pinned["id"]: pinned["reason"] for pinned in entry["pinned"]}
    facts = commit["facts"]
    rules = facts.get("rules", {}) if isinstance(facts, dict) else {}
    drifts = led(commit["drift"])
    step = flow_step(commit)
    own = circumstances["commits"].get(entry["asset"], {})
    since = (own.get("against_previous") or {}).get("columns", [])
    return {
        **entry,
        "inputs": sorted(commit["inputs"]),
        "besides": [*step.joined, *((label, -rows) for label, rows in step.left if label == COPIES)],
        "fates": [
            {
                **fate,
                "says": reason(fate),
                "share": fate["rows"] / commit["rows_in"] if commit["rows_in"] else None,
                "because": reasons.get(fate["rule"]),
                "alone": _of_rule(rules, fate["rule"], "alone"),
                "undecided": _of_rule(rules, fate["rule"], "undecided"),
            }
            for fate in sorted(commit["fates"], key=lambda fate: (fate["fate"] != "kept", -fate["rows"]))
        ],
        "idle": [
            {**pinned, "named": rule_of({"rule": pinned["id"], "rule_version": pinned["version"]})}
            for pinned in entry["pinned"]
            if pinned["id"] not in {fate["rule"] for fate in commit["fates"]}
        ],
        "facts": json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True) if facts else "",
        "drifts": drifts,
        "panels": [_panel(drift, "before", "after") for drift in drifts if drift.get("cells")],
        "since": [drift for drift in led(since) if drift["verdict"] != "stable" or drift.get("warning")],
        "identities": commit["identities"],
        "sizes": commit["effective_sample_size"],
        "failed": [check for check in commit["checks"] if check["status"] in HOLDS_BACK],
        "unsure": [check for check in commit["checks"] if check["status"] == "inconclusive"],
        "passed": [check for check in commit["checks"] if check["status"] == "passed"],
    }


def _of_rule(rules: Any, rule: str | None, key: str) -> int | None:
    told = rules.get(rule) if isinstance(rules, dict) else None
    return told.get(key) if isinstance(told, dict) else None


def _panel(drift: Mapping[str, Any], reference: str, current: str) -> dict[str, Any]:
    title = f"{drift['column']}: {reference} and {current}"
    return {**drift, "svg": shares_svg(title, cells(drift)), "because": drift.get("because")}


def _is_declared(entry: Mapping[str, Any]) -> bool:
    return entry["psi"] is not None or entry["expected"] is not None or entry["verdict"] == "error"


def _column(name: str, entry: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    held = next((d for d in content["commits"]["training_set"]["baseline"] if d["column"] == name), None)
    actual = entry["actual"]
    drawn = cells(held) if held and held.get("cells") else _actual_cells(actual)
    return {
        "column": name,
        "verdict": entry["verdict"],
        "psi": entry["psi"],
        "kl": entry["kl"],
        "ks": entry["ks"],
        "because": (held or {}).get("because") or (held or {}).get("problem"),
        "rows": actual["rows"] if actual else None,
        "median": actual["quantiles"]["0.5"] if actual and actual["kind"] == "numeric" else None,
        "svg": shares_svg(f"{name}: expected and actual", drawn) if drawn else "",
    }


def _actual_cells(actual: Mapping[str, Any] | None) -> list[Cell]:
    if actual is None:
        return []
    if actual["kind"] != "numeric":
        shares = sorted(actual["shares"].items(), key=lambda item: (-item[1], item[0]))
        return [Cell(name, None, share) for name, share in shares]
    edges = [f"{edge:g}" for edge in actual["edges"]]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    names = [f"below {edges[0]}", *between, f"from {edges[-1]}"] if edges else ["all"]
    found = [Cell(name, None, share) for name, share in zip(names, actual["shares"], strict=False)]
    return [*found, Cell(NULLS, None, actual["nulls"])] if actual.get("nulls") else found


def _batches(commits: Mapping[str, Any]) -> dict[str, Any] | None:
    ingested = commits.get("ingested", {})
    drifts = led(ingested.get("input") or ingested.get("input_drift") or [])
    if not drifts:
        return None
    return {
        "drifts": drifts,
        "panels": [_panel(drift, "earlier", "newest") for drift in drifts if drift.get("cells")],
    }


def _losses(commits: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {**loss, "asset": asset} for asset, commit in commits.items() for loss in commit["losses"]
    ]
    found.sort(key=lambda loss: (-loss["share"], -loss["lost"], loss["asset"], loss["column"], str(loss["value"])))
    return found[:MOST_LOSSES]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    return "<0.001" if abs(value) < 0.0005 else f"{value:,.3f}"
