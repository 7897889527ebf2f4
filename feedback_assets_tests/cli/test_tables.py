"""What the terminal shows."""

from pathlib import Path

import pytest

from feedback_assets.cli.tables import show_trace
from feedback_assets.provenance.trace_release import trace_release
from feedback_assets_tests.provenance.votes import Votes, vote


def test_what_people_called_things_is_neither_markup_nor_a_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    votes = Votes(tmp_path / "votes")
    votes.put("[red]:m:.jsonl", vote("r[bold]0", "amy", "red"))
    made = votes.run()
    show_trace(trace_release(votes.project.store, made, "r[bold]0"))
    said = capfd.readouterr().out
    assert "(votes / r[bold]0)" in said
    assert "kept  from [red]:m:.jsonl line 1" in said
