"""The batch files of a source: which there are, and what is in one.

Formats have a module each (`jsonl`, `json_document`, `delimited`, `spreadsheet`); here is what they share, and Parquet
and Arrow.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from glob import has_magic
from pathlib import Path

import polars as pl

from feedback_assets.digests import digest, file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of
from feedback_assets.sources.delimited import read_csv
from feedback_assets.sources.dialect import head, refuse_other
from feedback_assets.sources.encoding import refuse_wide
from feedback_assets.sources.json_document import read_json
from feedback_assets.sources.jsonl import read_jsonl
from feedback_assets.sources.landed import pseudonyms_of, read_landed
from feedback_assets.sources.privacy import pseudonyms, without
from feedback_assets.sources.quarantine import QUARANTINE
from feedback_assets.sources.raw import Raw, Unreadable, numbered, one_line, too_large, without_categories
from feedback_assets.sources.source import SUFFIXES, Format, Source, expressions, format_of
from feedback_assets.sources.spreadsheet import read_xlsx
from feedback_assets.threads import each

_CANNOT_BE_READ = (OSError, ValueError, RecursionError, pl.exceptions.PolarsError)
"""What readers raise at damaged files; besides, a panic in Rust, which is no Exception in Python."""
_UNFINISHED = ("~", ".tmp", ".part", ".crdownload")
_ABOUT_A_DATASET = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that Hugging Face `datasets` writes beside the data."""
SUBFOLDER, FOLDER = "in subfolders, for which `path` needs **", "folders, for which `path` needs **"
LINKED = "links to folders, which are not followed"


@dataclass(frozen=True)
class BatchFile:
    """One file of a source.

    `name` is its path below the fixed part of the source's `path`, with forward slashes: for most sources the
    file name. `digest` is the SHA-256 of its bytes, `bytes` their number. `waits`: it is not complete, as the
    source's `complete` says it, or `grew` while it was looked at. `unreadable` says why its bytes cannot be had;
    `digest` is then one of that. Within `at_hand()` it lies at `path`; `uri` is where it comes from, if from elsewhere.
    """

    source: str
    name: str
    path: Path
    digest: str
    bytes: int
    waits: bool = False
    at_hand: Callable[[], AbstractContextManager[object]] = field(default=nullcontext, compare=False)
    uri: str | None = None
    grew: bool = False
    unreadable: str | None = None

    def named(self, error: Exception) -> str:
        """What `error` says, with the place where the file comes from."""
        return str(error).replace(str(self.path), self.uri or str(self.path))


class Changed(FeedbackError):
    """A file is not as it was listed: somebody writes to it."""

    def __init__(self, place: Path | str) -> None:
        super().__init__(f"{place}: changed while it was being read; run again when it is complete")


@dataclass(frozen=True)
class NotRead:
    """A file that lies where a source looks, and is none of its batches: its name and why."""

    name: str
    why: str


def list_files(
    source: Source,
    folder: Path,
    now: datetime | None = None,
    *,
    may_be_empty: bool = False,
    digest_of: Callable[[Path], str] = file_digest,
) -> list[BatchFile]:
    """The files of `source`, sorted by name; a relative path starts at `folder`, the policy file's.

    Hidden files, unfinished ones (~, .tmp, .part, .crdownload), markers and what `not_read` tells of are left out. A
    folder that has no batch itself, as Hugging Face `datasets` writes them, stands for the files in its subfolders.
    `now`, by default the present, is what `settled_seconds` is counted from.

    Raises:
        FeedbackError: there is no such file and the folder is not one that `may_be_empty`, or it cannot be looked into.
    """
    looked_at = each(lambda entry: _batch_file(source, *entry, digest_of), list(_listed(source, folder, now)))
    files = [file for file in looked_at if file is not None]
    if not files and not (may_be_empty and _root(folder / Path(source.path).expanduser()).is_dir()):
        raise FeedbackError(
            f"source {source.name!r}: no file at {source.path!r} (looked in {folder}); correct `path`, "
            f"known endings: {', '.join(SUFFIXES)}"
        )
    return files


def waiting(source: Source, folder: Path, now: datetime | None = None) -> list[str]:
    """Names of the files of `source` that are not complete; none of them is opened."""
    return [name for name, _, waits in _listed(source, folder, now) if waits] if source.complete else []


def not_read(source: Source, folder: Path) -> list[NotRead]:
    """What lies where `source` looks and is not read, by name, but for hidden files and markers."""
    found = sorted(_found(source, folder))
    marker = source.complete.marker if source.complete else None
    markers = {path.with_name(marker.format(name=path.name)) for _, path, why in found if why is None and marker}
    return [NotRead(name, why) for name, path, why in found if why and path not in markers]


def read(file: BatchFile, source: Source) -> Raw:
    """What is in `file`, in the source's own columns, but for those that are never stored.

    Raises:
        Unreadable: the file cannot be read as its format at all, or a column that is never stored has another name.
        Changed: it is not as it was listed.
        FeedbackError: it has no known format.
    """
    if file.unreadable is not None:
        value = f"cannot be read: {file.unreadable}"
        raise Unreadable(f"{file.path}: {value}", value=value)
    format_ = source.format or format_of(file.path.name)
    if format_ is None:
        raise FeedbackError(
            f"{file.path}: what format is it? Its ending is none of {', '.join(SUFFIXES)}; "
            f"set `format` of the source {source.name!r}"
        )
    try:
        if file.path.stat().st_size != file.bytes:
            raise Changed(file.path)
        if file.bytes > source.max_bytes:
            raise too_large(file.path, source.max_bytes)
        raw = _read(file, source, format_)
        if file.path.stat().st_size != file.bytes:
            raise Changed(file.path)
        return replace(raw, frame=without_categories(without(raw.frame, source, str(file.path))))
    except FeedbackError:
        raise
    except BaseException as error:
        if not isinstance(error, _CANNOT_BE_READ) and type(error).__name__ != "PanicException":
            raise
        value = f"cannot be read as {format_}"
        said = f": {first_line(error).replace(str(file.path), file.name)}"
        raise Unreadable(f"{file.path}: {value}", value=value, shown=said, shown_value=said) from None


def first_line(error: BaseException) -> str:
    """How what `error` says begins; readers quote what they stumble on."""
    return one_line(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))


def _read(file: BatchFile, source: Source, format_: Format) -> Raw:
    if format_ in ("jsonl", "json", "csv", "xlsx"):
        first = head(file.path)
        refuse_other(first, file.path, format_)
        refuse_wide(first, file.path)
    if format_ == "jsonl":
        return read_jsonl(file.path, source.name, file.name, read=_read_by(source), most=source.max_bytes)
    if format_ == "json":
        return read_json(file.path, source.name, file.name, read=_read_by(source), most=source.max_bytes)
    if format_ == "csv":
        delimiter = source.delimiter or ("\t" if file.name.lower().endswith((".tsv", ".tsv.gz")) else ",")
        return read_csv(file.path, source.name, file.name, delimiter=delimiter, most=source.max_bytes)
    if format_ == "xlsx":
        return read_xlsx(file.path, source.name, file.name, source.sheet, read=_read_by(source), most=source.max_bytes)
    if source.in_database:
        return _read_window(file, source)
    frame = _read_arrow(file.path) if format_ == "arrow" else _read_parquet(file.path)
    rows = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True)
    return Raw(numbered(frame, rows, file.path), pl.DataFrame(schema=QUARANTINE))


def _read_window(file: BatchFile, source: Source) -> Raw:
    frame, landed = read_landed(file.path), pseudonyms_of(file.path)
    made = pseudonyms(source.name, source)
    if landed is not None and made is not None and landed.check != made.check:
        raise FeedbackError(
            f"source {source.name!r}: its rows were landed with pseudonyms of another key than "
            f"{source.pseudonymise['annotator_id']} holds now (check value {landed.check}, now {made.check}); set "
            "that key again: what was landed has no ids of which others could be made"
        )
    taken = landed.columns if landed is not None else ()
    rows = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True)
    return Raw(numbered(frame, rows, file.path), pl.DataFrame(schema=QUARANTINE), frozenset(taken))


def _read_by(source: Source) -> set[str]:
    """The columns of which an expression makes something, or that are not for `extra`."""
    private = {*source.of_annotators(), *source.never_store}
    return private | {name for text in (*expressions(source), *(source.each or ())) for name in columns_of(text)}


def _read_parquet(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path, glob=False, hive_partitioning=False)


def _read_arrow(path: Path) -> pl.DataFrame:
    """An Arrow IPC file or stream: the endings do not tell. Offsets and text are checked, which Polars leaves out."""
    import pyarrow as pa

    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        try:
            table = (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).read_all()
            table.validate(full=True)
        except pa.ArrowException as error:
            raise pl.exceptions.ComputeError(first_line(error)) from None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  that is what a table becomes
    return frame


def _listed(source: Source, folder: Path, now: datetime | None) -> list[tuple[str, Path, bool]]:
    """Name, path and whether it waits, of each file."""
    complete, moment = source.complete, (now or datetime.now(UTC)).timestamp()
    found = [(name, path) for name, path, why in sorted(_found(source, folder)) if why is None]
    if complete is None:
        return [(name, path, False) for name, path in found]
    if complete.marker is not None:
        markers = {path: path.with_name(complete.marker.format(name=path.name)) for _, path in found}
        return [(name, path, not markers[path].exists()) for name, path in found if path not in markers.values()]
    return [(name, path, moment - path.lstat().st_mtime < (complete.settled_seconds or 0)) for name, path in found]


def _batch_file(
    source: Source, name: str, path: Path, waits: bool, digest_of: Callable[[Path], str]
) -> BatchFile | None:
    """The file as a batch; None if it is gone since it was found."""
    try:
        size = path.stat().st_size
        known = digest_of(path)
        grew = path.stat().st_size != size
    except OSError as error:
        if not path.is_symlink() and not path.exists():
            return None
        why = error.strerror or type(error).__name__
        return BatchFile(source.name, name, path, digest(["unreadable", source.name, name, why]), 0, unreadable=why)
    return BatchFile(source.name, name, path, known, size, waits or grew, grew=grew)


def _root(path: Path) -> Path:
    """The folder that is looked in."""
    if path.is_dir():
        return path
    return Path(*_before_magic(path)) if has_magic(str(path)) else path.parent


def _found(source: Source, folder: Path) -> list[tuple[str, Path, str | None]]:
    """Name and path of what lies where a source looks, and why it is not read (empty: it is hidden), else None."""
    path = folder / Path(source.path).expanduser()
    try:
        if path.is_file() or (path.is_symlink() and not path.exists()):
            return [(path.name, path, None)]
        if path.is_dir():
            return list(_in_folder(source, path))
        return list(_matching(source, path)) if has_magic(str(path)) else []
    except OSError as error:
        raise FeedbackError(f"source {source.name!r}: {path} cannot be looked into: {error.strerror}") from None


def _in_folder(source: Source, folder: Path) -> Iterator[tuple[str, Path, str | None]]:
    entries = list(folder.rglob("*"))
    found = [
        (name, entry, why_not(source, name, known=is_batch(source, entry.name)))
        for name, entry in _files(folder, entries)
    ]
    flat = any(why is None and "/" not in name for name, _, why in found)
    for name, entry, why in found:
        yield name, entry, SUBFOLDER if why is None and flat and "/" in name else why
    yield from _folders(folder, entries, linked=True)


def _matching(source: Source, path: Path) -> Iterator[tuple[str, Path, str | None]]:
    root = _root(path)
    pattern = path.relative_to(root).as_posix()
    everywhere = "**" in pattern.split("/")
    for name, entry in _files(root, root.glob(f"{pattern}/*" if pattern.endswith("**") else pattern)):
        known = source.format is not None or format_of(name) is not None
        why = why_not(source, name, known=known)
        # A link may lead back to the folder that it lies in.
        linked = everywhere and any(above.is_symlink() for above in [*entry.parents][: name.count("/")])
        yield name, entry, "" if linked else why
    yield from _folders(root, root.rglob("*") if everywhere else root.glob(pattern), linked=everywhere)


def _files(root: Path, entries: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    return ((entry.relative_to(root).as_posix(), entry) for entry in dict.fromkeys(entries) if not entry.is_dir())


def _folders(root: Path, entries: Iterable[Path], *, linked: bool) -> Iterator[tuple[str, Path, str]]:
    """The folders among `entries` that are not looked into: all of them, or those that are links."""
    for entry in entries:
        name = entry.relative_to(root).as_posix()
        if entry.is_dir() and not is_hidden(name) and (entry.is_symlink() or not linked):
            yield f"{name}/", entry, LINKED if linked else FOLDER


def why_not(source: Source, name: str, *, known: bool) -> str | None:
    """Why a file is none of the batches of `source`, empty if it is hidden; None if it is one.

    `known`: its ending stands for a format that the source may have.
    """
    if is_hidden(name) or name.rsplit("/", 1)[-1] in _ABOUT_A_DATASET:
        return ""
    if name.lower().endswith(_UNFINISHED):
        return "unfinished, by the ending"
    if known:
        return None
    return f"not {source.format}" if format_of(name) else "of no known ending"


def is_batch(source: Source, name: str) -> bool:
    """Whether a file of this name, somewhere in the folder of `source`, is one of its batches."""
    known = format_of(name)
    return known is not None and known == (source.format or known) and name not in _ABOUT_A_DATASET


def _before_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if has_magic(part):
            return
        yield part


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden."""
    return any(part.startswith((".", "~$")) for part in name.split("/"))
