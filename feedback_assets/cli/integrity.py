"""`verify`, `erase` and `gc`, as a person sees them."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from feedback_assets.cli.project import open_made, open_store
from feedback_assets.cli.tables import open_console
from feedback_assets.errors import Refused
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.erase import Plan, erase
from feedback_assets.provenance.gc import Keep, gc
from feedback_assets.provenance.sought import NothingKnown, Request
from feedback_assets.provenance.verify import Listener, Verified, verify
from feedback_assets.sources.privacy import PSEUDONYM, pseudonyms

SHOWN = 50  # damages that are listed; --json has all


@contextmanager
def bar(*, quiet: bool) -> Iterator[Listener]:
    """A progress bar on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task("", total=0)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def verify_store(
    policy: Path | None, store: str | None, release: str | None, *, logical: bool, keys: list[str], as_json: bool
) -> None:
    """Verify, print what was found, and refuse if anything is damaged."""
    opened = open_store(policy, store)
    with bar(quiet=as_json) as listener:
        found = verify(opened, release, logical=logical, public_keys=keys, listener=listener)
    if as_json:
        _print_json(found.as_json())
    else:
        _show_verified(found)
    if found.damages:
        raise Refused(f"{len(found.damages):,} damaged; restore them from a backup, or make the release again")


def _show_verified(found: Verified) -> None:
    console = open_console()
    for damage in found.damages[:SHOWN]:
        console.print(damage.sentence(), style="red", soft_wrap=True)
    if len(found.damages) > SHOWN:
        console.print(f"and {len(found.damages) - SHOWN:,} more; --json lists all", style="red")
    console.print(f"{found.objects:,} objects, {size(found.bytes)}: {'damaged' if found.damages else 'whole'}")
    if found.erased:
        console.print(f"{len(found.erased):,} of them erased by request: a tombstone names what they were")
    if found.collected:
        console.print(f"{len(found.collected):,} more were collected as garbage: no kept release stands on them")


def erase_records(policy: Path | None, store: str | None, request: Request, *, do: bool, as_json: bool) -> None:
    """Erase, or say what that would be, and print it.

    Raises:
        NothingKnown: nothing is known of it, under any of its names.
        FeedbackError: as `as_stored` and `erase`.
    """
    project = open_made(policy, store)
    with bar(quiet=as_json) as listener:
        plans, alike = [], []
        for one in as_stored(project, request):
            try:
                plans.append((one, erase(project, one, do=do, listener=listener)))
            except NothingKnown as nothing:  # of one form of a name, where another source has another
                alike += nothing.alike
    if not plans:
        raise NothingKnown(project.store.place, request, alike)
    if as_json:
        _print_json([asdict(plan) for _, plan in plans] if len(plans) > 1 else asdict(plans[0][1]))
        return
    for one, plan in plans:
        _show_erased(one, plan, do=do)


def as_stored(project: Project, request: Request) -> list[Request]:
    """What is asked for by the names that the store has: where ids become pseudonyms, an annotator's is sought.

    Raises:
        FeedbackError: the key of the pseudonyms is not in the environment.
    """
    # One that is a pseudonym already is meant as it is.
    if request.annotator is None or request.annotator.startswith(PSEUDONYM):
        return [request]
    sources = [one for one in project.policy.ingested.sources if request.source in (None, one.name)]
    asked = pl.Series([request.annotator])
    made = [pseudonyms(one.name, one) for one in sources]
    names = [request.annotator if one is None else one.of(asked).item() for one in made]
    return [replace(request, annotator=name) for name in dict.fromkeys(names)] or [request]


def _show_erased(request: Request, plan: Plan, *, do: bool) -> None:
    console = open_console()
    if plan.continued:
        console.print("an erasure that was interrupted is done now")
    console.print(f"{request.said()}: {len(plan.row_ids):,} records", style="bold", soft_wrap=True)
    if plan.changes:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("erased from" if do else "would be erased from", "files", "rows", "size"):
            table.add_column(name, justify="left" if "erased" in name else "right")
        for kind, change in plan.changes.items():
            table.add_row(kind, f"{change.files:,}", f"{change.rows:,}" if change.rows else "", size(change.bytes))
        console.print(table)
    else:
        console.print("nothing of it is in the store")
    _listed(console, "releases concerned, which cannot be replayed" + ("" if do else " then"), plan.releases)
    _listed(console, "in files of yours, which stay; delete it there (a run takes it in no more)", plan.sources)
    _listed(console, "other names that differ in case or blanks alone, and stay", plan.alike)
    _listed(console, "named in records that are never rewritten, such as the text of a policy", plan.named)
    if not do:
        console.print("nothing was changed; with --yes it is done, and cannot be undone", style="yellow")


def collect(policy: Path | None, store: str | None, keep: Keep, *, do: bool, as_json: bool) -> None:
    """Collect garbage, or say what that would be, and print it."""
    sweep = gc(open_store(policy, store), keep, do=do)
    if as_json:
        _print_json(asdict(sweep))
        return
    console = open_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("collected" if do else "would be collected", "objects", "size"):
        table.add_column(name, justify="left" if "collected" in name else "right")
    for kind, count in sweep.objects.items():
        table.add_row(kind, f"{count:,}", size(sweep.bytes[kind]))
    if sweep.objects:
        console.print(table)
    else:
        console.print("nothing to collect")
    _listed(console, "releases that are given up; their manifests stay", sweep.given_up)
    _listed(console, "releases kept", sweep.kept)
    if not do and sweep.objects:
        console.print("nothing was changed; with --yes it is done, and cannot be undone", style="yellow")


def _listed(console: Console, what: str, entries: list[str]) -> None:
    if entries:
        console.print(f"{what}:", soft_wrap=True)
    for entry in entries[:SHOWN]:
        console.print(f"  {entry}", soft_wrap=True)
    if len(entries) > SHOWN:
        console.print(f"  and {len(entries) - SHOWN:,} more; --json lists all")


def size(bytes_: int) -> str:
    """A number of bytes for a person."""
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))  # noqa: T201
