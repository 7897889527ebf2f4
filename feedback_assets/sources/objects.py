"""The batch files of a source that lie in an S3 bucket: which there are. A listing finds batches; it is no record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from glob import has_magic
from posixpath import basename, dirname, join

from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.bucket import SCHEME, Bucket, Object
from feedback_assets.sources.files import SUBFOLDER, NotRead, is_batch, why_not
from feedback_assets.sources.source import SUFFIXES, Source, format_of


@dataclass(frozen=True)
class Found:
    """A batch file in a bucket; `name`, `waits`: as in BatchFile."""

    name: str
    bucket: Bucket
    object: Object
    waits: bool

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"{self.bucket.url}/{self.object.key}"


def list_objects(source: Source, now: datetime | None = None, *, may_be_empty: bool = False) -> list[Found]:
    """The objects of `source`, sorted by name, by the same rules as `files.list_files`; none is read.

    Raises:
        FeedbackError: there is none and there may not be, or the bucket cannot be asked.
    """
    bucket, held, why = _looked_at(source)
    names = [name for name, reason in why.items() if reason is None]
    found = [Found(key, bucket, held[key], waits) for key, waits in _with_wait(source, sorted(names), held, now)]
    if not found and not may_be_empty:
        raise FeedbackError(
            f"source {source.name!r}: nothing at {source.path!r}; correct `path`, known endings: {', '.join(SUFFIXES)}"
        )
    return found


def objects_not_read(source: Source) -> list[NotRead]:
    """The objects that lie where `source` looks and are not read, as `files.not_read`."""
    _, _, why = _looked_at(source)
    marker = source.complete.marker if source.complete else None
    read = [name for name, reason in why.items() if reason is None]
    markers = {join(dirname(name), marker.format(name=basename(name))) for name in read if marker}
    return [NotRead(name, reason) for name, reason in sorted(why.items()) if reason and name not in markers]


def _looked_at(source: Source) -> tuple[Bucket, dict[str, Object], dict[str, str | None]]:
    """The bucket, what it holds there, and why each of that is not read (empty: it is hidden), else None."""
    name, _, pattern = source.path.removeprefix(SCHEME).partition("/")
    fixed, wild = _parted(pattern)
    one = None if wild or not fixed else Bucket(f"{SCHEME}{name}/{dirname(fixed)}").standing(basename(fixed))
    bucket = Bucket(f"{SCHEME}{name}/{dirname(fixed) if one else fixed}")
    held = {found.key: found for found in ([one] if one else bucket.objects()) if found.key}
    if one is not None and source.complete and source.complete.marker:
        marker = bucket.standing(source.complete.marker.format(name=one.key))
        held |= {marker.key: marker} if marker else {}
    return bucket, held, {one.key: None} if one else _why(source, held, wild.split("/") if wild else [])


def waiting_objects(source: Source, now: datetime | None = None) -> list[str]:
    """Names of the objects of `source` that are not complete."""
    if source.complete is None:
        return []
    return [found.name for found in list_objects(source, now, may_be_empty=True) if found.waits]


def _parted(pattern: str) -> tuple[str, str]:
    """The part of a path before the first wildcard, and the rest."""
    parts = [part for part in pattern.split("/") if part]
    first = next((place for place, part in enumerate(parts) if has_magic(part)), len(parts))
    return "/".join(parts[:first]), "/".join(parts[first:])


def _why(source: Source, held: dict[str, Object], wild: Sequence[str]) -> dict[str, str | None]:
    # What a console shows as a folder is an empty object without an ending.
    names = [key for key, found in held.items() if found.bytes or format_of(key)]
    if wild:
        known = source.format is not None
        fit = [name for name in names if _fits(name.split("/"), wild)]
        return {name: why_not(source, name, known=known or format_of(name) is not None) for name in fit}
    why = {name: why_not(source, name, known=is_batch(source, basename(name))) for name in names}
    flat = any(reason is None and "/" not in name for name, reason in why.items())
    return {name: SUBFOLDER if reason is None and flat and "/" in name else reason for name, reason in why.items()}


def _fits(parts: Sequence[str], wild: Sequence[str]) -> bool:
    if not wild:
        return not parts
    if wild[0] == "**":
        return _fits(parts, wild[1:]) or (bool(parts) and _fits(parts[1:], wild))
    return bool(parts) and fnmatchcase(parts[0], wild[0]) and _fits(parts[1:], wild[1:])


def _with_wait(
    source: Source, names: list[str], held: dict[str, Object], now: datetime | None
) -> Iterator[tuple[str, bool]]:
    complete, moment = source.complete, now or datetime.now(UTC)
    markers = {}
    if complete is not None and complete.marker is not None:
        markers = {name: join(dirname(name), complete.marker.format(name=basename(name))) for name in names}
    for name in names:
        if name in markers.values():
            continue
        if markers:
            yield name, markers[name] not in held
        else:
            age = (moment - held[name].modified).total_seconds()
            yield name, complete is not None and age < (complete.settled_seconds or 0)
