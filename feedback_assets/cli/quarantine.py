"""What is in quarantine, for people and machines: by reason, with file, line and the offending value."""

from difflib import get_close_matches
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from feedback_assets.cli.tables import open_console
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.sources.raw import WHOLE_FILE
from feedback_assets.stages.ingested import PLACE, IngestedSection

EXAMPLES = 3
ROWS = (*PLACE, "source", "batch", "reason", "column", "value")
MENDS = {
    "blank-row": "nothing is lost: the row is empty",
    "conflicting-duplicate": "one id, several contents in one batch: make feedback_id tell them apart",
    "different-prompts": "the two responses answer other prompts: correct what the source pairs",
    "duplicate-key": "a key stands twice in an object: correct what writes the file",
    "ends-before-it-starts": "check the zones and units of started_at and collected_at",
    "entries-share-an-id": "make the id of an entry: id || '#' || __position",
    "expression-fails": "correct the expression for such values",
    "in-the-future": "check unit and timezone of collected_at, or as_of",
    "invalid-utf8": "deliver the line in UTF-8",
    "json-document": "not one object a line: set `format: json`, or name the file .json",
    "lone-surrogate": "half of a character: correct what writes the file",
    "malformed-csv": "a quote stands wrong: deliver the line again",
    "malformed-json": "not one JSON object: deliver the line again",
    "mapping-fails": "correct the mapping for such files",
    "missing-column": "correct the expression, or set `optional: true`",
    "missing-value": "map the column, or deliver the value",
    "no-batch": "`batch` is null: correct the expression",
    "no-entry": "the list that `each` reads is empty",
    "no-header": "the first line must name the columns, in UTF-8",
    "no-such-sheet": "correct `sheet` of the source",
    "not-convertible": "correct the expression, or its `format` or `unit`",
    "other-encoding": "convert the file to UTF-8",
    "other-format": "convert the file, or give it the ending of what it is",
    "outside-scale": "correct score_min and score_max, or the expression",
    "outside-vocabulary": "translate the value with CASE … WHEN … THEN",
    "ragged-row": "fields and header differ in number: check the delimiter",
    "sheet-not-read": "only the first sheet is read: name the one to read with `sheet`, a source for each",
    "time-without-zone": "name the column's `timezone`",
    "too-large": "raise `max_bytes` of the source if it is meant",
    "truncated-file": "the file breaks off here: deliver it again",
    "unreadable-file": "deliver the file again",
}
"""How the rows of a reason come back."""


def quarantine(project: Project, batch: str | None = None) -> dict[str, Any]:
    """What the latest `ingested` holds in quarantine, all of it or that of a batch, as plain JSON values.

    What was replaced by another delivery under its name is not counted, nor is a file that came again as it was, unless
    it is the `batch` that is asked for.

    Returns:
        `commit`, `records` (in quarantine), `arrived` (all records that count), `share`, `limit` (of the policy),
        `reasons` (each with `records`, `batches` and `mend`, most records first) and `rows` (each with arrival,
        source, batch, line, position, reason, column, value; line 0 is a file as a whole), by arrival and line.

    Raises:
        FeedbackError: nothing was ingested yet, or no such batch arrived.
    """
    commit = project.commits.latest("ingested")
    if commit is None:
        raise FeedbackError(f"{project.store.place}: nothing is ingested yet; `feedback-assets run` does it")
    tables = commit.snapshot.tables
    batches = scan(project.store, tables["batches"]).collect()
    standing = batches.filter("stands")
    of_these = pl.col("arrival").is_in(standing.get_column("arrival").implode())
    if batch is not None:
        # A record may say of itself to which batch it belongs; then it is known by that name, too.
        itself = of_these & (pl.col("batch") == batch)
        standing = _named(batches, batch)
        of_these = itself | pl.col("arrival").is_in(standing.get_column("arrival").implode())
    rows = scan(project.store, tables["quarantine"]).filter(of_these).select(ROWS)
    found = rows.sort(*PLACE, "reason", nulls_last=True).collect()
    arrived = standing.get_column("records").sum()
    reasons = (
        found.group_by("reason", maintain_order=True)
        .agg(pl.len().alias("records"), pl.struct("source", "batch").n_unique().alias("batches"))
        .sort("records", "reason", descending=[True, False])
    )
    section = project.policy.ingested
    mends = _mends(section)
    return {
        "commit": commit.id,
        "batch": batch,
        "records": found.height,
        "arrived": arrived,
        "share": found.height / arrived if arrived else 0.0,
        "limit": section.max_quarantined_share,
        "reasons": [{**row, "mend": mends.get(row["reason"], "")} for row in reasons.to_dicts()],
        "rows": found.to_dicts(),
    }


def _named(batches: pl.DataFrame, batch: str) -> pl.DataFrame:
    """The deliveries under a name that count; all of them, if none does."""
    whole_name = pl.format("{}/{}", "source", "batch")
    found = batches.filter((pl.col("batch") == batch) | (whole_name == batch))
    if found.is_empty():
        names = batches.get_column("batch").unique(maintain_order=True).to_list()
        close = get_close_matches(batch, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "leave --batch out to see all"
        raise FeedbackError(f"no batch {batch!r} ever arrived; {hint}")
    return found.filter("stands") if found.get_column("stands").any() else found


def _mends(section: IngestedSection) -> dict[str, str]:
    named = {reason for source in section.sources for reason in source.quarantine_when}
    return {**MENDS, **dict.fromkeys(named, "the policy's own: quarantine_when")}


def show_quarantine(found: dict[str, Any], *, everything: bool) -> None:
    """For the terminal: the reasons, each with a few examples or, with `everything`, all that there is."""
    out = open_console()
    where = f" of batch {found['batch']}" if found["batch"] else ""
    if not found["records"]:
        out.print(f"Nothing{where} is in quarantine; {found['arrived']:,} records arrived.", style="green")
        return
    allowed = "" if found["batch"] else f"; the policy allows {found['limit']:.1%}"
    out.print(
        f"{found['records']:,} of {found['arrived']:,} records{where} are in quarantine "
        f"({found['share']:.2%}{allowed})",
        style="bold" if found["batch"] or found["share"] <= found["limit"] else "bold red",
        soft_wrap=True,
    )
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        by_reason.setdefault(row["reason"], []).append(row)
    for reason in found["reasons"]:
        rows = by_reason[reason["reason"]]
        shown = rows if everything else _various(rows)
        title = Text(f"\n{reason['reason']}", style="bold").append(f"  {len(rows):,}", style="default")
        out.print(title.append(f"  {reason['mend']}", style="yellow"))
        out.print(_table(shown))
        if len(shown) < len(rows):
            out.print(f"  and {len(rows) - len(shown):,} more", style="dim")
    if not everything and any(len(rows) > EXAMPLES for rows in by_reason.values()):
        out.print("\n--all lists each; --batch B those of one batch; --json is for machines", style="dim")


def _various(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few examples, of which no two show the same as long as there are others."""
    first: dict[tuple[Any, Any], int] = {}
    for place, row in enumerate(rows):
        first.setdefault((row["column"], row["value"]), place)
    places = [*first.values(), *range(len(rows))]
    return [rows[place] for place in sorted([*dict.fromkeys(places)][:EXAMPLES])]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name in ("place", "column", "value"):
        table.add_column(name, overflow="fold")
    for row in rows:
        line = "the file" if row["line"] == WHOLE_FILE else f"line {row['line']:,}"
        entry = f" #{row['position']}" if (row["position"] or 1) > 1 else ""
        value = Text("–", style="dim") if row["value"] is None else Text(row["value"])
        table.add_row(Text(f"  {row['batch']} {line}{entry}"), Text(row["column"] or "–"), value)
    return table
