"""Human feedback becomes a training set with its provenance: a Dagster asset graph in which every row has a fate."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feedback_assets.provenance.opened import OpenedStore

__all__ = ["open_store"]


def open_store(path: str | Path) -> "OpenedStore":
    """Open a store, or the store of a project folder, to question its releases from Python.

        store = open_store("my-feedback")
        release = store.release("latest")   # or an id, its beginning, a number, a tag
        release.frame()                      # the training set: texts, weights, splits, and what explains each row
        release.manifest
        release.trace("ar-000100")

    Raises:
        feedback_assets.errors.FeedbackError: there is no store.
    """
    from feedback_assets.provenance.opened import open_store as opened

    return opened(path)
