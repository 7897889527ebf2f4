"""What `inspect` says of a file: the section that is proposed, ten records, and what would be quarantined."""

from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from feedback_assets.cli.tables import open_console
from feedback_assets.record import TIME
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.proposal import propose
from feedback_assets.sources.quarantine import excerpt
from feedback_assets.sources.source import format_of
from feedback_assets.stages.ingested import Intake, Resolved, resolve, to_records

PREVIEWED = 10
SHOWN = ("line", "position", "kind", "label", "score", "aspect", "annotator_id", "collected_at")


def inspected(path: Path, name: str | None) -> dict[str, Any]:
    """Everything that is said of a file, as plain JSON values.

    Returns:
        `file`, `looked_at` (the file's own name), `format`, `rows`, `preset`, `section` (YAML), `open` (what a person
        has to fill in), `records` (how many), `preview` (ten of them, texts cut short) and `quarantined` (by reason and
        column: how many, the first line, its value).

    Raises:
        FeedbackError: the file cannot be read.
    """
    proposal, raw, file = propose(path, name)
    mapped = map_records(raw, proposal.source(), file)
    intake = to_records(mapped.records, proposal.name)
    resolved = _alone(intake, pl.concat([mapped.quarantined, intake.quarantined]))
    counted = (
        resolved.quarantined.sort("line", "position")
        .group_by("reason", "column", maintain_order=True)
        .agg(pl.len().alias("records"), pl.col("line").first().alias("first_line"), pl.col("value").first())
        .sort("records", "reason", "column", descending=[True, False, False], nulls_last=True)
    )
    return {
        "file": str(path),
        "looked_at": file.name,
        "format": format_of(file.path.name),
        "rows": raw.frame.height + raw.malformed.height,
        "columns": [column for column in raw.frame.columns if column != "__line"],
        "preset": proposal.fits,
        "section": proposal.section(),
        "open": proposal.asked,
        "records": resolved.rows.height,
        "preview": _preview(intake.rows, intake.content),
        "quarantined": counted.to_dicts(),
    }


def _alone(intake: Intake, quarantined: pl.DataFrame) -> Resolved:
    """What becomes of a file that is the first batch of its source; no time in it counts as in the future."""
    first = pl.lit(0, pl.Int64).alias("arrival")
    schema = {"arrival": pl.Int64, "not_after": TIME, "first": pl.Int64}
    limits = pl.DataFrame({"arrival": [0], "not_after": [None], "first": [0]}, schema=schema)
    return resolve(intake.rows.with_columns(first), quarantined.with_columns(first), limits)


def _preview(rows: pl.DataFrame, content: pl.DataFrame) -> list[dict[str, Any]]:
    last = pl.col("prompt").list.last().struct.field("text").alias("prompt")
    texts = content.head(PREVIEWED).select(excerpt(last), excerpt(pl.col("response_a")), excerpt(pl.col("response_b")))
    shown = rows.head(PREVIEWED).select(SHOWN).with_columns(pl.col("collected_at").dt.strftime("%Y-%m-%d %H:%M"))
    return shown.hstack(texts).to_dicts()


def show_inspected(found: dict[str, Any]) -> None:
    """For the terminal: the section can be copied as it stands."""
    out = open_console()
    of = "" if Path(found["file"]).name == found["looked_at"] else f", of which {found['looked_at']} was looked at"
    out.print(f"{found['file']}{of}: {found['format']}, {found['rows']:,} rows", style="bold", soft_wrap=True)
    known = f"this is the preset {found['preset']}" if found["preset"] else "no preset fits: by names and values"
    out.print(f"Proposed, {known}. Check each line, fill in what is open:\n")
    for line in found["section"].splitlines():
        code, sign, comment = line.partition(" # ") if not line.lstrip().startswith("#") else ("", "", line)
        out.print(Text(code).append(sign + comment, style="yellow"), soft_wrap=True)
    _records(out, found)
    _quarantined(out, found)


def _records(out: Any, found: dict[str, Any]) -> None:
    preview = found["preview"]
    out.print(f"\n{found['records']:,} records, of which the first {len(preview)} (in canonical order):", style="bold")
    if not preview:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    given = [name for name in preview[0] if name != "position" and any(row[name] is not None for row in preview)]
    texts = ("prompt", "response_a", "response_b")
    for name in given:
        wide = name in texts
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", ratio=1 if wide else None, max_width=None if wide else 20
        )
    table.expand = True
    for row in preview:
        table.add_row(*(Text("" if row[name] is None else str(row[name])) for name in given))
    out.print(table)


def _quarantined(out: Any, found: dict[str, Any]) -> None:
    if not found["rows"]:
        out.print("\nThe file has no rows: nothing can be said of what would be quarantined.", style="yellow")
        return
    if not found["quarantined"]:
        out.print("\nNothing would be quarantined.", style="green")
        return
    out.print(f"\n{sum(row['records'] for row in found['quarantined']):,} would be quarantined:", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("reason", "column", "records", "first line", "its value"):
        table.add_column(name, justify="right" if name in ("records", "first line") else "left", overflow="fold")
    for row in found["quarantined"]:
        count, line = f"{row['records']:,}", str(row["first_line"])
        table.add_row(row["reason"], row["column"] or "–", count, line, Text(row["value"] or "–"))
    out.print(table)
