"""A store laid over another: it reads through to it, and writes to a folder of its own."""

from pathlib import Path
from typing import Any

from feedback_assets.snapshots.store import LocalStore, Store


class Overlay(LocalStore):
    """A store over `below`, with its own objects in the folder `root`; it never writes to `below`.

    What is built to answer a question is written here: parts are shared, because their names say what they hold.
    With `forgetful` it does not see what `below` remembers, so that everything is computed anew.
    """

    def __init__(self, below: Store, root: Path, *, forgetful: bool = False) -> None:
        super().__init__(root)
        self.below, self.forgetful = below, forgetful
        self._own = LocalStore(root)

    def path(self, key: str) -> Path:
        """The file behind `key`: its own, or else the one below, if there is one."""
        mine = super().path(key)
        return self.below.path(key) if not mine.exists() and self.below.exists(key) else mine

    def recall(self, key: str) -> Any:
        """The JSON value that it remembers itself, or else, unless forgetful, that the store below does."""
        mine = self._own.recall(key)
        return self.below.recall(key) if mine is None and not self.forgetful else mine

    def remember(self, key: str, value: Any) -> None:
        """Remember a JSON value here."""
        self._own.remember(key, value)
