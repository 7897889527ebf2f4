"""What a reader gives back, and the bytes below it."""

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.quarantine import EXCERPT

Line = TypeVar("Line")
LINE, POSITION, EXTRA = "__line", "__position", "__extra"
SLICE = 512
PIECE = 1 << 20
_LONGEST = 1_000  # characters of an error
_LISTED, _NAME = 20, 40  # names in a list, and characters of each
NOT_TEXT = pl.Schema({LINE: pl.Int64, "path": pl.List(pl.String), "truth": pl.Boolean})
"""Objects, lists and truth values that are text in a frame, because others of their column are text."""
EXACT = 2**53  # up to here a float knows all digits of a whole number
WHOLE_FILE = 0
"""The line of what is wrong with a file as a whole."""
NOT_CONVERTIBLE = "not-convertible"
"""The reason for which a record is in quarantine: a value was there, and cannot be what it should be."""
MISFIT = "mapping-fails"
"""The reason for which a file that can be read is in quarantine: its source's expressions do not fit it."""


class Unreadable(FeedbackError):
    """A file of which no record can be made: it cannot be read, or does not fit its source's mapping.

    `reason` is the quarantine reason, `column` the record column at fault if one is, `value` what to show of it.
    What the file itself says, its names and values, is in `shown` alone, and what of that belongs to `value` in
    `shown_value`.
    """

    def __init__(
        self,
        message: str,
        reason: str = "unreadable-file",
        column: str | None = None,
        value: str = "",
        *,
        shown: str = "",
        shown_value: str = "",
    ):
        super().__init__(one_line(message + shown, _LONGEST))
        self.message, self.reason, self.column, self.own = message, reason, column, value or message
        self.value = self.own + shown_value

    def unquoted(self) -> "Unreadable":
        """The same without anything that the file says."""
        return Unreadable(self.message, self.reason, self.column, self.own)


def one_line(text: str, most: int = EXCERPT) -> str:
    """`text` without what moves a terminal's cursor, cut to `most` characters."""
    line = "".join(sign if sign.isprintable() else "�" for sign in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def listed(names: Collection[str]) -> str:
    """The first of some names that a file gives, each cut short."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(one_line(name, _NAME) for name in islice(names, _LISTED)) + more


@dataclass(frozen=True)
class Raw:
    """One file as it came.

    `frame` has the source's own columns and `__line` (Int64): the line of a JSONL or CSV file on which the record
    starts, the row of a sheet (the header counts in both), the number of a Parquet or Arrow row; all from 1. Where a
    file has very many columns, `__extra` (String, JSON) stands for those that no expression reads.
    `malformed` has a row for each record that could not be read (quarantine.QUARANTINE). The columns `pseudonyms`
    hold pseudonyms already. `not_text` (NOT_TEXT) names the values that only the frame makes text: their line, the
    names that lead to them, and whether they are truth values.
    """

    frame: pl.DataFrame
    malformed: pl.DataFrame
    pseudonyms: frozenset[str] = frozenset()
    not_text: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=NOT_TEXT))


def is_gzip(path: Path) -> bool:
    """Whether the file says by its first bytes that it is gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def content(path: Path, most: int) -> tuple[bytes, bool]:
    """The bytes of a file, unpacked, without a byte order mark, and whether the file broke off.

    Of a gzip that breaks off or is damaged, the complete lines before the break.

    Raises:
        Unreadable: there are more than `most` bytes; no more than those are ever held.
    """
    if not is_gzip(path):
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf"), False
    data, broken = _unpacked(path, most)
    if broken:
        data = data[: data.rfind(b"\n") + 1]
    return data.removeprefix(b"\xef\xbb\xbf"), broken


def too_large(path: Path, most: int) -> Unreadable:
    """The error of a file that holds more than `most` bytes."""
    message = f"holds more than {most:,} bytes; raise `max_bytes` of its source if that is meant"
    return Unreadable(f"{path}: {message}", "too-large", value=message)


def _unpacked(path: Path, most: int) -> tuple[bytes, bool]:
    # gzip.open throws away what it had unpacked when the file breaks off
    pieces: list[bytes] = []
    held = 0
    member = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while packed := file.read(1 << 20):
            more = True
            while packed or more:
                try:
                    pieces.append(member.decompress(packed, PIECE))
                except zlib.error:
                    return b"".join(pieces), True
                held += len(pieces[-1])
                if held > most:
                    raise too_large(path, most)
                packed, more = member.unconsumed_tail, len(pieces[-1]) == PIECE
                if member.eof:
                    packed = member.unused_data.lstrip(b"\0")
                    member = zlib.decompressobj(wbits=31) if packed else member
    return b"".join(pieces), not member.eof


def whole_lines(source: Path | bytes) -> Iterator[bytes]:
    """The bytes of a file in pieces of about PIECE, each of whole lines; the last may lack its newline."""
    if isinstance(source, bytes):
        start = 0
        while start < len(source):
            end = source.find(b"\n", start + PIECE) + 1 or len(source)
            yield source[start:end]
            start = end
        return
    with source.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece if piece.endswith(b"\n") else piece + file.readline()


def pieces(source: Path | bytes) -> Iterator[bytes]:
    """The bytes of a file in pieces of any length."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def occurrences(source: Path | bytes, *signs: bytes) -> tuple[list[int], bool]:
    """How often each one-byte sign is in the file, and whether the file ends with a newline (or is empty)."""
    counts, last = [0] * len(signs), b"\n"
    for piece in pieces(source):
        counts = [count + piece.count(sign) for count, sign in zip(counts, signs, strict=True)]
        last = piece[-1:] or last
    return counts, last == b"\n"


def bad_lines(lines: Sequence[Line], numbers: Sequence[int], good: Callable[[list[Line]], bool]) -> list[int]:
    """The `numbers` (indices into `lines`) of the lines that are not `good`, found by halving slices.

    `good` says of some lines whether all of them are. A line costs one look, a bad one a few more.
    """
    bad: list[int] = []
    pending = [list(numbers[at : at + SLICE]) for at in range(0, len(numbers), SLICE)]
    while pending:
        some = pending.pop()
        if good([lines[number] for number in some]):
            continue
        if len(some) == 1:
            bad.append(some[0])
        else:
            pending += [some[: len(some) // 2], some[len(some) // 2 :]]
    return sorted(bad)


def is_utf8(lines: list[bytes]) -> bool:
    """Whether all lines are UTF-8."""
    try:
        b"\n".join(lines).decode()
    except UnicodeDecodeError:
        return False
    return True


def numbered(frame: pl.DataFrame, lines: pl.Series | Sequence[int], path: Path) -> pl.DataFrame:
    """`frame` with `lines` as its column `__line`.

    Raises:
        Unreadable: the source has a column of a name that is ours.
    """
    ours = next((name for name in (LINE, EXTRA) if name in frame.columns), None)
    if ours is not None:
        raise Unreadable(f"{path}: the column name {ours} is ours; rename it", value=f"the column name {ours} is ours")
    return frame.with_columns(pl.Series(LINE, lines, dtype=pl.Int64))


def without_categories(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with text for dictionaries of text (Categorical, Enum), also inside lists and structs."""
    plain = {name: (dtype, _plain(dtype)) for name, dtype in frame.schema.items()}
    changed: dict[Any, Any] = {name: text for name, (dtype, text) in plain.items() if text != dtype}
    return frame.cast(changed) if changed else frame


def _plain(dtype: Any) -> Any:
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain(field.dtype) for field in dtype.fields})
    if isinstance(dtype, pl.List):
        return pl.List(_plain(dtype.inner))
    return pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype
