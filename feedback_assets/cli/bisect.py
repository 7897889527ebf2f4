"""What `bisect` shows while it searches, and what it found."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedback_assets.cli.diff import show_change, show_moved
from feedback_assets.cli.tables import open_console
from feedback_assets.provenance.bisect import Bisected, Trial
from feedback_assets.provenance.carriers import Carriers, Segment

OUTCOMES = {"good": "green", "bad": "red", "unresolved": "yellow"}
SHOWN = 3
"""As many values of a segment are shown; `--json` has more."""


@contextmanager
def searching(*, quiet: bool) -> Iterator[Callable[[Trial], None] | None]:
    """A spinner and one line a hybrid on standard error, if that is a terminal; gives what moves it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    tried: list[Trial] = []
    with console.status("rebuilding both releases") as status:

        def listen(trial: Trial) -> None:
            tried.append(trial)
            value = trial.problem or f"{trial.value:.6g}"
            line = f"  {len(tried):>3}  changes taken over: {len(trial.changes)}  {value}  {trial.seconds:.1f} s  "
            console.print(Text(line, style="dim").append(trial.outcome, style=OUTCOMES[trial.outcome]))
            status.update(f"hybrids built: {len(tried)}")

        yield listen


def bisect_as_json(found: Bisected) -> dict[str, Any]:
    """What `bisect --json` prints."""
    return {
        "metric": {"name": found.metric.name, "meaning": found.metric.meaning},
        "good": found.good,
        "bad": found.bad,
        "threshold": found.threshold,
        "found": [{**change.as_json(), "lines": change.lines()} for change in found.found],
        "value": found.value,
        "sentence": found.sentence,
        "carriers": None if found.carriers is None else asdict(found.carriers),
        "candidates": [change.id for change in found.candidates],
        "remaining": [change.as_json() for change in found.remaining],
        "trials": [asdict(trial) for trial in found.trials],
        "builds": len(found.trials) + 2,
        "seconds": round(found.seconds, 3),
    }


def show_bisect(found: Bisected) -> None:
    """The changes that carry the metric from good to bad, then what carries it within them."""
    console = open_console()
    good, bad = found.good["rebuilt"], found.bad["rebuilt"]
    console.print(f"{found.metric.name}: {_said(good)} (good) → {_said(bad)} (bad)", style="bold", soft_wrap=True)
    console.print(found.metric.meaning, style="dim")
    for side, values in (("good", found.good), ("bad", found.bad)):
        if values["gone"]:
            console.print(f"the {side} release is as rebuilt today: its recorded rows are gone", style="yellow")
        elif values["recorded"] != values["rebuilt"]:
            line = f"the {side} release was {_said(values['recorded'])} when it was made; today's code gives another"
            console.print(line, style="yellow", soft_wrap=True)
    unresolved = sum(trial.outcome == "unresolved" for trial in found.trials)
    work = f"{len(found.candidates):,} changes, {len(found.trials) + 2:,} builds, {found.seconds:.1f} s"
    console.print(work + (f"; {unresolved:,} could not be built or measured" if unresolved else ""), style="dim")
    if found.sentence is not None:
        console.print(f"\n{found.sentence}", soft_wrap=True)
        return
    many = len(found.found) > 1
    console.print(f"\n{'These changes together move' if many else 'This change moves'} it", style="bold", end="")
    console.print(f" to {_said(found.value)}, beyond {_said(found.threshold)}:" + (" none alone does" if many else ""))
    for change in found.found:
        show_change(console, {**change.as_json(), "lines": change.lines()}, "  ")
    if found.carriers is not None:
        _show_carriers(console, found.carriers)


def _show_carriers(console: Console, carried: Carriers) -> None:
    console.print("\nStage by stage", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  after", "good", "with it", "added"):
        table.add_column(name, justify="left" if name == "  after" else "right")
    for step in carried.steps:
        style = "bold" if step.stage == carried.stage else ""
        added = f"{step.added:+.4g}" if step.added else ""
        table.add_row(f"  {step.stage}", _said(step.good), _said(step.bad), added, style=style)
    console.print(table)
    if carried.moved:
        console.print("\nRules and factors", style="bold")
        show_moved(console, [entry.as_json() for entry in carried.moved])
    if carried.segments:
        console.print("\nHow much of the movement goes if these records are as they were", style="bold")
        _show_segments(console, carried.segments)


def _show_segments(console: Console, segments: Any) -> None:
    by_column: dict[str, list[Segment]] = {}
    for segment in segments:
        by_column.setdefault(segment.column, []).append(segment)
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "right", "right"):
        table.add_column(justify=justify, overflow="fold")
    for column, mine in by_column.items():
        for place, segment in enumerate(mine[:SHOWN]):
            share = "–" if segment.share is None else f"{segment.share:.0%}"
            name = "(none)" if segment.value is None else segment.value
            table.add_row(f"  {column}" if place == 0 else "", name, share, f"{segment.rows:,} records changed")
    console.print(table)


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
