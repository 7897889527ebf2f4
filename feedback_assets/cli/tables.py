"""What a person sees in the terminal, and the same as JSON."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from feedback_assets.materialize.batches import notices
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.at_a_glance import since_previous
from feedback_assets.provenance.release import folder, training_files
from feedback_assets.snapshots.store import Store

if TYPE_CHECKING:  # Dagster takes a second and more; what only reads a store or a manifest does without
    from feedback_assets.orchestration.assets import Listener
    from feedback_assets.orchestration.run import Ran


def open_console() -> Console:
    """The terminal; what is piped is 120 columns wide. What people called things is shown as it is."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    return console


@contextmanager
def progress(*, quiet: bool) -> "Iterator[Listener | None]":
    """A progress bar on standard error, one step a stage, if that is a terminal; gives what moves it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # Dagster redirects standard error while a step runs; a file of its own keeps the bar on the terminal.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal, _bar(Console(file=terminal, highlight=False)) as bar:
        task = bar.add_task("starting", total=len(STAGES))

        def listen(asset: str, moment: Literal["started", "done"], commit: Commit | None) -> None:
            if moment == "started":
                bar.update(task, description=asset)
            elif commit is not None:
                seconds = sum(commit.circumstances["seconds"].values())
                bar.advance(task)
                line = f"  {asset:<17} {commit.content['rows_out']:>9,} rows  {seconds:5.1f} s"
                bar.console.print(Text(line, style="dim"))

        yield listen


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<17}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} stages"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def run_as_json(ran: "Ran") -> dict[str, Any]:
    """What `run --json` prints."""
    return {
        "release": ran.release.id if ran.release else None,
        "run_id": ran.run_id,
        "problems": ran.problems,
        "stages": [
            {
                "asset": name,
                "rows_in": commit.content["rows_in"],
                "rows_out": commit.content["rows_out"],
                "fates": {_fate(entry): entry["rows"] for entry in commit.content["fates"]},
                "data_version": commit.data_version,
                "code_version": commit.code_version,
                "checks": {
                    "passed": sum(c["status"] == "passed" for c in commit.checks),
                    "failed": [check for check in commit.failed if check not in ran.waived[name]],
                    "waived": [waiver.model_dump(mode="json") for waiver in ran.waived[name].values()],
                },
                "drift": {
                    entry["column"]: {key: entry[key] for key in ("psi", "kl", "ks")}
                    for entry in commit.content["drift"]
                },
            }
            for name, commit in ran.commits.items()
        ],
    }


def _fate(entry: dict[str, Any]) -> str:
    rule = f":{entry['rule']}" if entry["rule"] else ""
    version = f"@{entry['rule_version']}" if entry["rule_version"] else ""
    return f"{entry['fate']}{rule}{version}"


def show_run(project: Project, ran: "Ran", *, sample: bool) -> None:
    """The table that a run ends with, and where everything lies."""
    console = open_console()
    if sample:
        console.print(
            "Synthetic sample: generated text, made-up annotators. Nothing in it was said by anyone.\n", style="yellow"
        )
    table = Table(box=None, pad_edge=False, header_style="bold", row_styles=["", "dim"])
    for name, right in (
        ("stage", 0),
        ("rows in", 1),
        ("rows out", 1),
        ("fates by rule", 0),
        ("checks", 0),
        ("drift (PSI)", 0),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "stage", overflow="fold")
    for name, commit in ran.commits.items():
        table.add_row(
            name,
            f"{commit.content['rows_in']:,}",
            f"{commit.content['rows_out']:,}",
            _fates(commit),
            _checks(commit, ran.waived[name]),
            _drift(commit),
        )
    console.print(table)
    console.print()
    for name, commit in ran.commits.items():
        for change in commit.circumstances["unversioned_changes"]:
            console.print(f"notice    {name}: {change}", style="yellow")
        for check, waiver in ran.waived[name].items():
            console.print(f"notice    {name}: {check} is {waiver.sentence()}", style="yellow", soft_wrap=True)
    if "ingested" in ran.commits:
        for notice in notices(project, ran.commits["ingested"]):
            console.print(f"notice    ingested: {notice}", style="yellow", soft_wrap=True)
    for said in since_previous({name: commit.circumstances for name, commit in ran.commits.items()}):
        console.print(f"notice    {said}", style="yellow", soft_wrap=True)
    if ran.release is not None:
        console.print(f"release   {ran.release.id}", style="bold", soft_wrap=True)
        console.print(
            f"manifest  {_near(project.store.uri(f'{folder(ran.release.id)}/manifest.json'))}", soft_wrap=True
        )
        for path in training_files(project.store, ran.release):
            console.print(f"training  {_near(path)}", soft_wrap=True)
    where = "" if sample else f" --policy {_near(project.path)} --store {_near(project.store.place)}"
    console.print(f"UI        feedback-assets ui{where}", soft_wrap=True)


def _near(place: Path | str) -> str:
    """The place as seen from the working directory, where it lies below it."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(place)


def _fates(commit: Commit) -> Text:
    gone = [entry for entry in commit.content["fates"] if entry["fate"] != "kept"]
    lines = []
    for entry in sorted(gone, key=lambda entry: -entry["rows"]):
        version = f" v{entry['rule_version']}" if entry["rule_version"] else ""
        lines.append(f"{entry['rows']:,} {entry['fate']}" + (f": {entry['rule']}{version}" if entry["rule"] else ""))
    return Text("\n".join(lines) or "all kept")


def _checks(commit: Commit, waived: Collection[str]) -> Text:
    counts = {
        status: sum(c["status"] == status for c in commit.checks)
        for status in ("passed", "failed", "error", "inconclusive")
    }
    blocked = set(commit.failed).difference(waived)
    text = Text(f"{counts['passed']} passed")
    for check in commit.checks:
        if check["name"] in blocked:
            text.append(f"\n{check['name']} {check['status']}", style="bold red")
        elif check["name"] in waived:
            text.append(f"\n{check['name']} {check['status']} (waived)", style="yellow")
        elif check["status"] in ("failed", "error"):
            text.append(f"\n{check['name']} {check['status']} (warning)", style="yellow")
    if counts["inconclusive"]:
        text.append(f"\n{counts['inconclusive']} inconclusive")
    return text


def _drift(commit: Commit) -> Text:
    measured = [entry for entry in commit.content["drift"] if entry["psi"] is not None]
    moved = sorted((e for e in measured if e["warning"] or e["verdict"] == "moved"), key=lambda e: -e["psi"])
    if not measured:
        return Text("")
    if moved:
        return Text("\n".join(f"{e['column']} {e['psi']:.3f}" for e in moved[:3]), style="yellow")
    most = max(measured, key=lambda e: e["psi"])
    if not most["psi"]:
        return Text("none")
    return Text(f"most: {most['column']} {most['psi']:.3f}")


SINCE = {"erased": "records erased by request", "collected": "only the manifest is left"}
"""What can have become of a release, and what that means: neither can be replayed."""


def show_releases(store: Store, entries: list[dict[str, Any]]) -> None:
    """The releases of a store."""
    console = open_console()
    if not entries:
        console.print(f"no release yet in {_near(store.place)}; `feedback-assets run` makes one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("number", "release", "records", "examples", "made at", "tags", "approved by"):
        right = name in ("number", "records", "examples")
        wraps = name in ("tags", "approved by")
        table.add_column(name, justify="right" if right else "left", no_wrap=not wraps, overflow="fold")
    if any(entry[key] for entry in entries for key in SINCE):
        table.add_column("since then", overflow="fold")
    for entry in entries:
        table.add_row(
            str(entry["number"]),
            entry["id"][:16],
            f"{entry['records']:,}",
            f"{entry['examples']:,}",
            entry["made_at"],
            ", ".join(entry["tags"]),
            "; ".join(f"{said['by']}: {said['note']}" for said in entry["approvals"]),
            *(["; ".join(said for key, said in SINCE.items() if entry[key])] if len(table.columns) > 7 else []),
        )
    console.print(table)


def show_questions(answered: dict[str, Any]) -> None:
    """The three answers."""
    console = open_console()
    console.print(f"release {answered['release']}", style="bold", soft_wrap=True)
    for said in answered.get("approvals", ()):
        console.print(f"approved by {said['by']} at {said['at'][:19]}Z: {said['note']}", style="green", soft_wrap=True)
    console.print()
    told = answered["annotations"]
    console.print("1. Which annotations are in it, and which guideline version produced each?", style="bold")
    _verdict(console, told)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  records", "task", "guideline", "text digest", "how it is known"):
        table.add_column(name, justify="right" if name == "  records" else "left")
    for entry in told["by_guideline"]:
        known = f"{entry['status']}: {entry['meaning']}"
        table.add_row(
            f"{entry['records']:,}",
            entry["task"] or "–",
            entry["guideline"] or "–",
            (entry["digest"] or "–")[:12],
            known,
        )
    console.print(table)
    _incomplete(console, told)
    console.print("2. Which transformations were applied, and what is each rule pinned to?", style="bold")
    _verdict(console, answered["transformations"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  stage", "rows in → out", "code version", "rule", "version", "content"):
        table.add_column(name, no_wrap=name == "  stage")
    for stage in answered["transformations"]["stages"]:
        pinned = stage["pinned"] or [{"id": "–", "version": "", "content_digest": ""}]
        for place, entry in enumerate(pinned):
            first = place == 0
            table.add_row(
                f"  {stage['asset']}" if first else "",
                f"{stage['rows_in']:,} → {stage['rows_out']:,}" if first else "",
                stage["code_version"].rsplit("-", 1)[-1] if first else "",
                entry["id"],
                str(entry["version"]),
                entry["content_digest"][:12],
            )
    console.print(table)
    _incomplete(console, answered["transformations"])
    console.print("3. What distribution was expected, and does the actual data match it?", style="bold")
    _verdict(console, answered["distribution"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  column", "expected", "actual", "PSI", "verdict"):
        table.add_column(name, justify="right" if name == "PSI" else "left", overflow="fold")
    declared = {name: e for name, e in answered["distribution"]["columns"].items() if e["expected"] is not None}
    for name, entry in declared.items():
        psi = f"{entry['psi']:.3f}" if entry["psi"] is not None else "–"
        table.add_row(f"  {name}", _shares(entry["expected"]), _actual(entry), psi, entry["verdict"])
    if declared:
        console.print(table)
    for waiver in answered["distribution"]["waivers"]:
        console.print(
            f"   let through by {waiver['who']} until {waiver['until']}: {waiver['stage']}, {waiver['check']}: "
            f"{waiver['meaning']} ({waiver['why']})",
            style="yellow",
        )
    _incomplete(console, answered["distribution"])


def _shares(shares: dict[str, Any], only: set[str] | None = None) -> str:
    if "edges" in shares:
        return f"{len(shares['shares'])} intervals"
    shown = {name: share for name, share in shares.items() if only is None or name in only}
    return ", ".join(f"{name} {share:.1%}" for name, share in sorted(shown.items(), key=lambda item: -item[1])[:6])


def _actual(entry: dict[str, Any]) -> str:
    actual = entry["actual"]
    if actual is None:
        return "–"
    if actual["kind"] == "numeric":
        return f"median {actual['quantiles']['0.5']:.4g}"
    return _shares(actual["shares"], set(entry["expected"]))


def _verdict(console: Console, answer: dict[str, Any]) -> None:
    console.print(f"   {answer['verdict']}.", style="yellow" if answer["incomplete"] else "green")


def _incomplete(console: Console, answer: dict[str, Any]) -> None:
    for sentence in answer["incomplete"]:
        console.print(f"   not answered: {sentence}", style="yellow")
    console.print()


def show_trace(traced: list[dict[str, Any]]) -> None:
    """One annotation through every stage."""
    console = open_console()
    for entry in traced:
        record = entry["record"]
        named = " / ".join(str(record[key]) for key in ("source", "feedback_id") if key in (record or {}))
        console.print(f"row_id {entry['row_id']}" + (f"  ({named})" if named else ""), style="bold", soft_wrap=True)
        if entry["erased"]:
            console.print(f"  erased by request  {entry['erased']}", style="bold")
        for delivery in entry["deliveries"]:
            rule = f": {delivery['rule']}" if delivery["rule"] else ""
            fault = f" ({delivery['column']})" if delivery["column"] else ""
            fault = f" ({delivery['column']}: {delivery['value']})" if delivery["value"] else fault
            place = delivery["batch"] + ("" if delivery["line"] is None else f" line {delivery['line']}")
            place += f", record {delivery['position']} of it" if (delivery["position"] or 1) > 1 else ""
            console.print(f"  ingested          {delivery['fate']}{rule}{fault}  from {place}", soft_wrap=True)
        if record is not None:
            said = {
                key: value
                for key, value in record.items()
                if value is not None and key not in ("source", "batch", "line", "position", "feedback_id")
            }
            console.print(
                "                    " + ", ".join(f"{key} {value}" for key, value in said.items()), style="dim"
            )
        for step in entry["steps"]:
            version = f" v{step['rule_version']}" if step["rule_version"] else ""
            rule = f": {step['rule']}{version}" if step["rule"] else ""
            into = f" → {step['into']}" if step["into"] else ""
            copies = f" × {step['copies']}" if (step["copies"] or 0) > 1 else ""
            copies += f"  by {step['model']}" if "model" in step else ""
            console.print(f"  {step['stage']:<17} {step['fate']}{rule}{into}{copies}", soft_wrap=True)
            added = {key: value for key, value in step["added"].items() if value is not None}
            if added:
                shown = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in added.items())
                console.print(f"                    {shown}", style="dim")
        if entry.get("told_by", "snapshots") != "snapshots":
            told = {"annotations": "the annotations beside the manifest", "manifest": "the manifest"}
            console.print(f"  the parts are gone; this is told by {told[entry['told_by']]}", style="yellow")
        for side, parent in zip("ab", entry.get("parents", ()), strict=False):
            console.print(f"  response {side} from   {_relative(parent)}", soft_wrap=True)
        for child in entry.get("children", ()):
            console.print(f"  became            {_relative(child)}", soft_wrap=True)
        children = entry.get("children", ())
        released = sum(child["in_release"] for child in children)
        through = f"; {released} of the {len(children)} that it became are" if children else ""
        console.print(
            ("  in the release" if entry["in_release"] else "  not in the release") + through,
            style="green" if entry["in_release"] or released else "yellow",
        )


def _relative(entry: dict[str, Any]) -> str:
    """A parent or child in one line: its name, what it says, and where its way ended."""
    said = entry["label"] if entry["label"] is not None else f"score {entry['score']:g}"
    rule = f": {entry['rule']} v{entry['rule_version']}" if entry["rule"] else ""
    ended = "in the release" if entry["in_release"] else f"{entry['fate']}{rule} at {entry['stage']}"
    return f"{entry['feedback_id']} ({entry['kind']}, {said})  {ended}"


def show_traces(traced: dict[str, list[dict[str, Any]]]) -> None:
    """One annotation in several releases."""
    console = open_console()
    for release, entries in traced.items():
        console.print(f"release {release[:16]}", style="bold cyan")
        show_trace(entries)
        console.print()


def show_example(example: dict[str, Any]) -> None:
    """A training example, what its annotator was told, and its annotation."""
    console = open_console()
    copies = "" if example["copies"] is None else f", copy_index {example['copy_index']} of {example['copies']} copies"
    console.print(
        f"example {example['number']:,} of {example['export']}/{example['split']}  ({example['file']} line "
        f"{example['line']:,}{copies})",
        style="bold",
        soft_wrap=True,
    )
    show_trace([example["annotation"]])
    guideline = example["annotation"]["guideline"]
    if guideline is None:
        console.print("  which guideline its annotator had is not known", style="yellow")
        return
    console.print(f"\nguideline {guideline['version']} of {guideline['task']}  ({guideline['file']})", style="bold")
    console.print(guideline["text"].strip())
