"""A store in Python, as a notebook uses it: `from feedback_assets import open_store`."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.materialize import content_parts
from feedback_assets.provenance.names import approvals, tags
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import (
    Release,
    annotations_of,
    approved_release,
    commits_of,
    find,
    folder,
    listed,
)
from feedback_assets.provenance.trace_release import trace_everywhere, trace_example, trace_release
from feedback_assets.snapshots.held import Held
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import LocalStore, Store, store_at

FIRST = ("row_id", "split", "training_weight", "copies", "kind", "label", "score", "prompt", "response_a", "response_b")


class OpenedRelease:
    """One release of a store."""

    def __init__(self, store: Store, release: Release) -> None:
        self.store = store
        self._release = release

    def __repr__(self) -> str:
        told = self._release.content["annotations"]
        return f"<release {self.id[:16]}: {told['records']:,} records, {told['examples']:,} examples>"

    @property
    def id(self) -> str:
        """SHA-256 of the manifest's content."""
        return self._release.id

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest: `id`, `content` (what was done to what) and `circumstances` (when, where, in which files)."""
        return {
            "id": self._release.id,
            "content": self._release.content,
            "circumstances": self._release.circumstances,
        }

    @property
    def approvals(self) -> list[dict[str, Any]]:
        """Who approved it: `by`, `note`, `at`, oldest first."""
        return approvals(self.store, folder(self.id))

    def questions(self) -> dict[str, Any]:
        """The three answers; see `feedback_assets.provenance.questions`."""
        return questions(self._release)

    def diff(self, other: "OpenedRelease") -> dict[str, Any]:
        """What `other`, a later release, was made from that this one was not, and what that did.

        See `feedback_assets.provenance.differences`.
        """
        from feedback_assets.provenance.differences import diff

        return diff(self.store, self._release, other._release)

    def frame(self, *, text: bool = True) -> pl.DataFrame:
        """The training set, one row a record, in the order of arrival.

        Args:
            text: with `prompt` (list of role, text), `response_a` and `response_b` (String). Without it the frame is
                read from the files beside the manifest, and needs no part of the store.

        Returns:
            `row_id`, `split` (train, eval), `training_weight` (Float64: the signal as realised, copies included),
            `copies` (Int32), `kind`, `label`, `score`, the texts; then what explains the annotation: source, batch,
            line, annotator, guideline with its digest, agreement as known then, cluster, `weight` (of one copy).

        Raises:
            FeedbackError: parts that hold the text are gone.
        """
        rows = annotations_of(self.store, self._release).rename({"assigned_split": "split"})
        try:
            frame = rows.collect()
            if text:
                frame = frame.join(self._text(), on="row_id", how="left", maintain_order="left", validate="1:1")
        except FileNotFoundError as error:
            raise FeedbackError(
                f"release {self.id[:16]}: {str(error).splitlines()[0]}; restore it, or ask for frame(text=False), "
                "which reads the annotations beside the manifest alone"
            ) from None
        first = [name for name in FIRST if name in frame.columns]
        return frame.select(*first, pl.exclude(first))

    def trace(self, name: str) -> list[dict[str, Any]]:
        """All that the release says of an annotation: a feedback_id, a row_id, or BATCH_FILE:LINE.

        Raises:
            FeedbackError: the release knows no annotation of this name.
        """
        return trace_release(self.store, self._release, name)

    def trace_example(self, number: int, *, export: str | None = None, split: str = "train") -> dict[str, Any]:
        """From a training example, counted from 0 over the files of its split, back to its annotation.

        Raises:
            FeedbackError: there is no such export, split or example.
        """
        return trace_example(self.store, self._release, number, export=export, split=split)

    @cached_property
    def commits(self) -> dict[str, Commit]:
        """The commit records behind the release, by asset in the order of the pipeline."""
        return commits_of(self._release)

    def _text(self) -> pl.DataFrame:
        """row_id, prompt, response_a, response_b, read part by part."""
        place = ("row_id", "content_part", "content_row")
        index = scan(self.store, self.commits["training_set"].snapshot.tables["rows"]).select(place).collect()
        return pl.concat(
            [
                part.frame.with_row_index("content_row")
                .select(pl.col("content_row").cast(index.schema["content_row"]), "prompt", "response_a", "response_b")
                .join(held.lazy(), on="content_row", how="inner")
                .select("row_id", "prompt", "response_a", "response_b")
                .collect()
                for part in content_parts(Held(self.store), self.commits["ingested"], self.commits.get("converted"))
                if (held := index.filter(pl.col("content_part") == part.digest)).height
            ]
        )


class OpenedStore:
    """A store: its releases, by id, the beginning of an id, number, tag or `latest`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __repr__(self) -> str:
        return f"<store {self.store.place}>"

    def release(self, name: str = "latest") -> OpenedRelease:
        """The release that `name` means: an id, the beginning of one, a number, a tag, or `latest`.

        Raises:
            FeedbackError: there is none, or several ids begin like this.
        """
        return OpenedRelease(self.store, find(self.store, name))

    def releases(self) -> pl.DataFrame:
        """`number`, `id`, `made_at`, `tags` (list) and `approved` of each release, oldest first."""
        names = tags(self.store)
        schema = {
            "number": pl.Int64,
            "id": pl.String,
            "made_at": pl.String,
            "tags": pl.List(pl.String),
            "approved": pl.Boolean,
        }
        rows = [
            {
                **{key: entry[key] for key in ("number", "id", "made_at")},
                "tags": sorted(name for name, release_id in names.items() if release_id == entry["id"]),
                "approved": bool(approvals(self.store, folder(entry["id"]))),
            }
            for entry in listed(self.store)
        ]
        return pl.DataFrame(rows, schema=schema)

    def approved(self) -> OpenedRelease | None:
        """The release that was approved last, or None."""
        found = approved_release(self.store)
        return None if found is None else self.release(found)

    def trace(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """What each release says of an annotation, by the release's id; releases that do not know it are left out.

        Raises:
            FeedbackError: no release knows an annotation of this name.
        """
        return trace_everywhere(self.store, name)


def open_store(path: str | Path) -> OpenedStore:
    """Open a store, `s3://bucket/prefix` among them, or the store of a project folder.

    Raises:
        FeedbackError: there is no store.
    """
    if str(path).startswith("s3:"):
        return OpenedStore(store_at(str(path), Path()))
    given = Path(path)
    for root in (given, given / "store", given.parent / "store"):
        if (root / "releases").is_dir() or (root / "commits").is_dir():
            return OpenedStore(LocalStore(root))
    raise FeedbackError(f"{given}: no store and no folder with one; `feedback-assets run` makes it")
