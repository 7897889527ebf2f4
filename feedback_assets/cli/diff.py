"""What `diff` shows."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedback_assets.cli.tables import open_console
from feedback_assets.provenance.effects import named

KINDS = {
    "batch": "batches",
    "guideline": "guidelines",
    "policy": "policy",
    "code": "code",
    "environment": "environment",
}
SIGN = {"+": "green", "-": "red"}
LONGEST = 8
"""As many lines of one change, batches of one kind or columns of one stage are shown; `--json` has all."""


def show_diff(found: dict[str, Any]) -> None:
    """Causes, then effects."""
    console = open_console()
    console.print(f"{found['before'][:16]} → {found['after'][:16]}", style="bold")
    console.print("\nCauses", style="bold")
    for kind, title in KINDS.items():
        mine = [cause for cause in found["causes"] if cause["kind"] == kind]
        if mine:
            console.print(f"  {title}")
            for cause in mine[: 3 * LONGEST]:
                show_change(console, cause)
            _more(console, len(mine) - 3 * LONGEST, "    ")
    if not found["causes"]:
        console.print("  none: both were made from the same")
    console.print("\nEffects, stage by stage", style="bold")
    _show_stages(console, found["stages"])
    _show_rows(console, found["rows"])
    for sentence in found["untold"]:
        console.print(f"not told: {sentence}", style="yellow", soft_wrap=True)


def show_change(console: Console, cause: dict[str, Any], indent: str = "    ") -> None:
    """One change with its diff."""
    counted = ", ".join(f"{count:,} {name}" for name, count in cause.get("rows", {}).items())
    what = f"{cause['what']}: {counted}" if counted else cause["what"]
    console.print(Text(f"{indent}{cause['id']}", style="bold").append(f"  {what}", style="not bold"), soft_wrap=True)
    if cause["kind"] in ("code", "batch"):
        return
    for line in cause["lines"][:LONGEST]:
        console.print(Text(f"{indent}  {line}", style=SIGN.get(line[0], "")), soft_wrap=True)
    _more(console, len(cause["lines"]) - LONGEST, f"{indent}  ")


def _more(console: Console, count: int, indent: str) -> None:
    if count > 0:
        console.print(f"{indent}and {count:,} more; --json has them all", style="dim")


def _show_stages(console: Console, stages: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", row_styles=["", "dim"])
    for name in ("  stage", "rows out", "fates that differ", "PSI, KL, KS of the later against the earlier"):
        table.add_column(name, justify="right" if name == "rows out" else "left", overflow="fold")
    for stage in stages:
        fates = [
            f"{named(fate['fate'], fate['rule'], fate['rule_version'])}  {fate['before']:,} → {fate['after']:,}"
            for fate in stage["fates"]
            if fate["before"] != fate["after"] and fate["fate"] != "kept"
        ]
        rows = " → ".join(f"{count:,}" for count in dict.fromkeys(stage["rows_out"]))
        same = "the same rows" if stage["same"] else ""
        table.add_row(f"  {stage['stage']}", rows, "\n".join(fates), same or _drift(stage["drift"]))
    console.print(table)


def _drift(found: list[dict[str, Any]] | None) -> Text:
    if found is None:
        return Text("not told", style="yellow")
    told = sorted((entry for entry in found if entry["psi"]), key=lambda entry: -entry["psi"])
    text = Text("\n").join(
        Text(_numbers(entry), style="yellow" if entry["verdict"] == "moved" else "") for entry in told[:3]
    )
    return text if told else Text("–")


def _numbers(entry: dict[str, Any]) -> str:
    ks = f", {entry['ks']:.3f}" if entry["ks"] is not None else ""
    return f"{entry['column']} {entry['psi']:.3f}, {entry['kl']:.3f}{ks}"


def _show_rows(console: Console, rows: dict[str, Any]) -> None:
    counted = [f"{rows['came']:,} came", f"{rows['went']:,} went"]
    if rows["changed_weight"] is not None:
        counted += [f"{rows['changed_weight']:,} changed weight", f"{rows['changed_answer']:,} changed their answer"]
    console.print("\nRecords", style="bold")
    console.print(f"  {rows['before']:,} → {rows['after']:,}: {', '.join(counted)}")
    show_moved(console, rows["moved"] or [])


def show_moved(console: Console, moved: list[dict[str, Any]]) -> None:
    """What came, went and changed weight, with what did it."""
    if not moved:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  records", "", "stage", "was → is", "because of"):
        table.add_column(name, justify="right" if name == "  records" else "left", overflow="fold")
    for entry in moved[: 2 * LONGEST]:
        became = entry["was"] if entry["was"] == entry["became"] else f"{entry['was']} → {entry['became']}"
        cause = entry["cause"] or "several of the causes"
        table.add_row(f"  {entry['rows']:,}", entry["what"], entry["stage"], became, cause)
    console.print(table)
    _more(console, len(moved) - 2 * LONGEST, "  ")
