"""The batch files of a source that lie in an S3 bucket: which there are. A listing finds batches; it is no record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from glob import has_magic
from posixpath import basename, dirname, join

from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.bucket import SCHEME, Bucket, Object
from feedback_assets.sources.files import is_batch, passed_over
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
    name, _, pattern = source.path.removeprefix(SCHEME).partition("/")
    fixed, wild = _parted(pattern)
    one = None if wild or not fixed else Bucket(f"{SCHEME}{name}/{dirname(fixed)}").standing(basename(fixed))
    bucket = Bucket(f"{SCHEME}{name}/{dirname(fixed) if one else fixed}")
    held = {found.key: found for found in ([one] if one else bucket.objects()) if found.key}
    if one is not None and source.complete and source.complete.marker:
        marker = bucket.standing(source.complete.marker.format(name=one.key))
        held |= {marker.key: marker} if marker else {}
    names = [one.key] if one else _wanted(source, held, wild.split("/") if wild else [])
    found = [Found(key, bucket, held[key], waits) for key, waits in _with_wait(source, sorted(names), held, now)]
    if not found and not may_be_empty:
        raise FeedbackError(
            f"source {source.name!r}: nothing at {source.path!r}; correct `path`, known endings: {', '.join(SUFFIXES)}"
        )
    return found


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


def _wanted(source: Source, held: dict[str, Object], wild: Sequence[str]) -> list[str]:
    # What a console shows as a folder is an empty object without an ending.
    names = [key for key, found in held.items() if not passed_over(key) and (found.bytes or format_of(key))]
    if wild:
        return [name for name in names if _fits(name.split("/"), wild)]
    names = [name for name in names if is_batch(source, basename(name))]
    return [name for name in names if "/" not in name] or names


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
