"""What `replay` shows."""

from rich.table import Table
from rich.text import Text

from feedback_assets.cli.tables import open_console
from feedback_assets.provenance.replay import FILES, Replay

STYLES = {"identical": "green", "logically identical": "yellow", "different": "bold red", None: "dim"}


def show_replay(found: Replay) -> None:
    """The verdict, stage by stage, and what is other than when the release was made."""
    console = open_console()
    console.print(Text(f"release {found.release[:16]}: ").append(found.verdict, style=STYLES[found.verdict]))
    console.print(found.sentence, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "rows", "recorded", "rebuilt", "", "code"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for stage in found.stages:
        rows = " → ".join(f"{count:,}" for count in dict.fromkeys(stage.rows) if count is not None)
        said = Text(stage.verdict or "not told", style=STYLES[stage.verdict])
        if stage.note:
            said.append(f": {stage.note}", style="not bold")
        versions = ("", "") if stage.stage == FILES else (stage.recorded[:12], (stage.rebuilt or "–")[:12])
        code = "" if stage.stage == FILES else "changed since" if stage.code_changed else "the same"
        table.add_row(stage.stage, rows, *versions, said, code)
    console.print(table)
    if found.first is not None:
        console.print(f"the first stage that is {found.verdict}: {found.first.stage}", style="bold")
    made, now = found.made_at or "not recorded", found.today or "unknown"
    console.print(f"made at git commit {made}" + (f", replayed at {now}" if made != now else ""), soft_wrap=True)
    for name, (was, is_now) in found.environment.items():
        console.print(f"{name}: {was or 'not recorded'} then, {is_now or 'not there'} now", soft_wrap=True)
