"""Write the report of a release to a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.release import Release
from feedback_assets.provenance.report import report, told


def write_report(release: Release, output: Path, approvals: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Write the page, with who approved the release, and return where it lies and what it says first.

    Raises:
        FeedbackError: the file cannot be written.
    """
    try:
        output.write_text(report(release, approvals), encoding="utf-8")
    except OSError as error:
        raise FeedbackError(
            f"{output}: cannot be written: {error.strerror or error}; give another file with -o"
        ) from None
    verdict = told(release)["verdict"]
    return {"report": str(output), "release": release.id, **verdict}
