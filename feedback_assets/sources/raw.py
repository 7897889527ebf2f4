"""What a reader gives back, and the bytes below it."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from feedback_assets.errors import FeedbackError

LINE, POSITION = "__line", "__position"
SLICE = 8192


@dataclass(frozen=True)
class Raw:
    """One file as it came.

    `frame` has the source's own columns and `__line` (Int64): the line of a JSONL or CSV file on which the record
    starts, the row of a sheet (the header counts in both), the number of a Parquet row; all from 1.
    `malformed` has a row for each record that could not be read (quarantine.QUARANTINE).
    """

    frame: pl.DataFrame
    malformed: pl.DataFrame


def is_gzip(path: Path) -> bool:
    """Whether the file says by its first bytes that it is gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def content(path: Path) -> tuple[bytes, bool]:
    """The bytes of a file, unpacked, without a byte order mark, and whether the file broke off.

    Of a gzip that breaks off or is damaged, the complete lines before the break.
    """
    if not is_gzip(path):
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf"), False
    data, broken = _unpacked(path)
    if broken:
        data = data[: data.rfind(b"\n") + 1]
    return data.removeprefix(b"\xef\xbb\xbf"), broken


def _unpacked(path: Path) -> tuple[bytes, bool]:
    # gzip.open throws away what it had unpacked when the file breaks off
    pieces: list[bytes] = []
    member = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while packed := file.read(1 << 20):
            while packed:
                try:
                    pieces.append(member.decompress(packed))
                except zlib.error:
                    return b"".join(pieces), True
                packed = member.unused_data.lstrip(b"\0")
                if member.eof and packed:
                    member = zlib.decompressobj(wbits=31)
    return b"".join(pieces), not member.eof


def occurrences(source: Path | bytes, *signs: bytes) -> tuple[list[int], bool]:
    """How often each one-byte sign is in the file, and whether the file ends with a newline (or is empty)."""
    if isinstance(source, bytes):
        return [source.count(sign) for sign in signs], source[-1:] in (b"\n", b"")
    counts, last = [0] * len(signs), b"\n"
    with source.open("rb") as file:
        while piece := file.read(1 << 22):
            counts = [count + piece.count(sign) for count, sign in zip(counts, signs, strict=True)]
            last = piece[-1:]
    return counts, last == b"\n"


def bad_lines(lines: Sequence[bytes], numbers: Sequence[int], good: Callable[[list[bytes]], bool]) -> list[int]:
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
        FeedbackError: the source has a column of that name.
    """
    if LINE in frame.columns:
        raise FeedbackError(f"{path}: the column name {LINE} is ours; rename it")
    return frame.with_columns(pl.Series(LINE, lines, dtype=pl.Int64))
