"""What people say of a release after it was made: its tags, and who approved it. Nothing said is ever taken back."""

import re
from datetime import UTC, datetime
from typing import Any

from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.log import append, logged
from feedback_assets.snapshots.store import Store

TAGS = "releases/tags"
APPROVED = "approved"
"""Stands for the release that was approved last, where a baseline is named."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


def tags(store: Store) -> dict[str, str]:
    """The release's id by tag. A tag that was moved names the last one it was given to; the log keeps the others."""
    return {entry["name"]: entry["id"] for entry in logged(store, TAGS)}


def tag(store: Store, release_id: str, name: str, *, move: bool = False, now: datetime | None = None) -> None:
    """Let `name` stand for a release.

    Raises:
        FeedbackError: the name could be mistaken for another, or stands for another release and `move` is not set.
    """
    if NAME.fullmatch(name) is None or name.endswith(".json"):
        raise FeedbackError(f"{name!r} cannot be a tag; use letters, digits, '.', '_' and '-', and no ending .json")
    if name in ("latest", APPROVED) or name.isdecimal() or re.fullmatch(r"[0-9a-f]{6,}", name):
        raise FeedbackError(
            f"{name!r} cannot be a tag; it reads as `latest`, `{APPROVED}`, a number or the beginning of an id"
        )
    standing = tags(store).get(name)
    if standing == release_id:
        return
    if standing is not None and not move:
        raise FeedbackError(f"the tag {name!r} names release {standing[:16]}; `--move` lets it name another")
    append(store, TAGS, {"name": name, "id": release_id, "at": _at(now)})


def approve(
    store: Store, folder: str, release_id: str, *, by: str, note: str, now: datetime | None = None
) -> dict[str, Any]:
    """Record an approval beside the manifest in `folder`; gives the record: id, by, note, at.

    Raises:
        FeedbackError: nobody, or nothing, is said.
    """
    if not by.strip() or not note.strip():
        raise FeedbackError("an approval says who (--by) and why (--note)")
    said = {"id": release_id, "by": by.strip(), "note": note.strip(), "at": _at(now)}
    append(store, approvals_of(folder), said)
    return said


def approvals(store: Store, folder: str) -> list[dict[str, Any]]:
    """The approvals of the release in `folder`, oldest first."""
    return logged(store, approvals_of(folder))


def approvals_of(folder: str) -> str:
    """The log of the approvals of the release in `folder`."""
    return f"{folder}/approvals"


def _at(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).isoformat(timespec="microseconds")
