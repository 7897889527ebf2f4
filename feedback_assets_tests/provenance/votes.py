"""A small project whose texts cannot be mistaken for others, run without Dagster; and a search through every byte."""

import gzip
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import yaml

from feedback_assets.cli.project import open_project
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.release import Release, release

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "q",
    "response_a": "one",
    "response_b": "two",
    "label": "CASE choice WHEN 'one' THEN 'a' WHEN 'two' THEN 'b' ELSE choice END",
    "annotator_id": "who",
    "collected_at": {"expr": "at"},
}


def vote(name: str, who: str, text: str, choice: str = "one", **more: Any) -> dict[str, Any]:
    """A line of a batch: a pair of responses around `text`."""
    told = {"id": name, "who": who, "q": f"What of {text}?", "one": f"{text} is well.", "two": f"{text} is not."}
    return {**told, "choice": choice, "at": "2026-02-01T10:00:00Z", **more}


ANNAS = (
    vote("1", "anna-7781", "the-violet-door", note="the-copper-lake"),
    vote("2", "ben", "the-green-roof", "two"),
    vote("3", "anna-7781", "the-shared-well"),
    vote("4", "cleo", "the-shared-well", "two"),
)
"""What Anna said, also beside others."""


class Votes:
    """A project with a folder of batches: a new one, or that which is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        if (folder / "policy.yaml").exists():
            return
        (folder / "batches").mkdir(parents=True)
        (folder / "policy.yaml").write_text(
            yaml.safe_dump(
                {
                    "ingested": {
                        "sources": [{"name": "votes", "path": "batches/*", "format": "jsonl", "columns": COLUMNS}],
                        "max_quarantined_share": 0.5,
                    },
                    "guidelines": {"path": None},
                    "training_set": {
                        "exports": [
                            {"name": "flat", "format": "preference", "file": "jsonl", "conversational": False},
                            {"name": "columns", "format": "preference", "file": "parquet"},
                        ]
                    },
                }
            )
        )

    def put(self, name: str, *lines: dict[str, Any] | str) -> Path:
        path = self.folder / "batches" / name
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    def copy(self, folder: Path) -> "Votes":
        """The project as it is now, in another folder."""
        copied = Votes(Path(shutil.copytree(self.folder, folder)))
        copied.runs = self.runs
        return copied

    @property
    def project(self) -> Project:
        return open_project(self.folder / "policy.yaml", self.folder / "store")

    def run(self) -> Release:
        self.runs += 1
        now = NOW + timedelta(days=self.runs)
        for stage in STAGES[:-1]:
            materialize(self.project, stage.name, run_id=f"run{self.runs}", now=now)
        _, made = release(self.project, run_id=f"run{self.runs}", now=now)
        assert made is not None
        return made

    def examples(self, made: Release) -> list[dict[str, Any]]:
        """The training examples of a release, by row_id."""
        folder = self.project.store.path(f"releases/{made.id[:16]}/flat")
        lines = [
            line
            for path in sorted([*folder.glob("train/*.jsonl"), *folder.glob("eval/*.jsonl")])
            for line in path.read_text().splitlines()
        ]
        return sorted(map(json.loads, lines), key=lambda example: example["row_id"])


def holding(folder: Path, *texts: str) -> dict[str, list[str]]:
    """In which files below `folder` each text stands: as bytes, in a column of a Parquet file, in a gzip, in SQLite."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        held = _bytes(path)
        for text in texts:
            if any(text.encode() in data for data in held):
                found.setdefault(text, []).append(path.relative_to(folder).as_posix())
    return found


def holding_objects(objects: dict[str, bytes], *texts: str) -> dict[str, list[str]]:
    """In which objects of a bucket (key → bytes) each text stands; as `holding`."""
    with TemporaryDirectory() as folder:
        for key, data in objects.items():
            path = Path(folder) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return holding(Path(folder), *texts)


def _bytes(path: Path) -> list[bytes]:
    data = path.read_bytes()
    found = [data]
    if data[:4] == b"PAR1":
        found.append(json.dumps(pl.read_parquet(path).to_dicts(), default=str, ensure_ascii=False).encode())
    if data[:2] == b"\x1f\x8b":
        found.append(gzip.decompress(data))
    if data[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(path)) as opened:
            found.append("\n".join(opened.iterdump()).encode())
    return found
