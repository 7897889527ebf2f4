"""The batch files of a source: which there are, and what is in one.

Formats have a module each (`jsonl`, `json_document`, `delimited`, `spreadsheet`); here is what they share.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import polars as pl

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.sources.delimited import read_csv
from feedback_assets.sources.json_document import read_json
from feedback_assets.sources.jsonl import read_jsonl
from feedback_assets.sources.quarantine import QUARANTINE
from feedback_assets.sources.raw import LINE, Raw
from feedback_assets.sources.source import SUFFIXES, Format, Source, format_of
from feedback_assets.sources.spreadsheet import read_xlsx

_UNFINISHED = ("~", ".tmp", ".part", ".crdownload")


@dataclass(frozen=True)
class BatchFile:
    """One file of a source.

    `name` is its path below the fixed part of the source's `path`, with forward slashes: for most sources the
    file name. `digest` is the SHA-256 of its bytes, `bytes` their number.
    """

    source: str
    name: str
    path: Path
    digest: str
    bytes: int


def list_files(source: Source, folder: Path) -> list[BatchFile]:
    """The files of `source`, sorted by name; a relative path starts at `folder`, the policy file's.

    Hidden files and unfinished ones (~, .tmp, .part, .crdownload) are left out; of a folder, so is everything
    that has no known ending.

    Raises:
        FeedbackError: there is no such file, or one cannot be read.
    """
    files = [
        BatchFile(source.name, name, path, _digest(path), path.stat().st_size)
        for name, path in sorted(_found(source, folder))
        if not _passed_over(name)
    ]
    if not files:
        raise FeedbackError(
            f"source {source.name!r}: no file at {source.path!r} (looked in {folder}); correct `path`, "
            f"known endings: {', '.join(SUFFIXES)}"
        )
    return files


def read(file: BatchFile, source: Source) -> Raw:
    """What is in `file`, in the source's own columns.

    Raises:
        FeedbackError: the file cannot be read as its format at all, or has changed since it was listed.
    """
    format_ = source.format or format_of(file.path.name)
    if format_ is None:
        raise FeedbackError(
            f"{file.path}: what format is it? Its ending is none of {', '.join(SUFFIXES)}; "
            f"set `format` of the source {source.name!r}"
        )
    try:
        if file.path.stat().st_size != file.bytes:
            raise FeedbackError(f"{file.path}: changed while it was being read; run again when it is complete")
        raw = _read(file, source, format_)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FeedbackError(f"{file.path}: cannot be read as {format_}: {first_line(error)}") from None
    return raw


def first_line(error: BaseException) -> str:
    """What `error` says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _read(file: BatchFile, source: Source, format_: Format) -> Raw:
    if format_ == "jsonl":
        return read_jsonl(file.path, source.name, file.name)
    if format_ == "json":
        return read_json(file.path, source.name, file.name)
    if format_ == "csv":
        return read_csv(file.path, source.name, file.name)
    if format_ == "xlsx":
        return read_xlsx(file.path, source.name, file.name, source.sheet)
    frame = pl.read_parquet(file.path, glob=False, hive_partitioning=False)
    if LINE in frame.columns:
        raise FeedbackError(f"{file.path}: the column name {LINE} is ours; rename it")
    frame = frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(LINE))
    return Raw(frame, pl.DataFrame(schema=QUARANTINE))


def _found(source: Source, folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / Path(source.path).expanduser()
    if path.is_file():
        yield path.name, path
    elif path.is_dir():
        for entry in path.iterdir():
            known = format_of(entry.name)
            if entry.is_file() and known and known == (source.format or known):
                yield entry.name, entry
    elif has_magic(str(path)):
        root = Path(*_before_magic(path))
        for name in glob(str(path.relative_to(root)), root_dir=root, recursive=True):  # noqa: PTH207  leaves hidden files out
            if (root / name).is_file():
                yield Path(name).as_posix(), root / name


def _before_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if has_magic(part):
            return
        yield part


def _passed_over(name: str) -> bool:
    return name.lower().endswith(_UNFINISHED) or any(part.startswith((".", "~$")) for part in name.split("/"))


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise FeedbackError(f"{path}: cannot be read: {error.strerror}") from None
