"""What the first bytes of a file say of it against its name: another format, another delimiter."""

import csv
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from feedback_assets.sources.raw import PIECE, Unreadable, is_gzip

DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(rb'"?sep=([\t -~])"?(?:\r\n|\n|\r)', re.IGNORECASE)
_SIGNS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1\x15": "Parquet",
    b"ARROW1\0\0": "Arrow",
    b"\x1f\x8b\x08": "packed twice",
    b"BZh91AY&SY": "packed with bzip2",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\xfd7zXZ\0": "packed with xz",
    b"\xd0\xcf\x11\xe0\xa1\xb1": "an old Office file, or one with a password",
    b"SQLite format 3\0": "a SQLite database",
    b"%PDF-": "a PDF",
}
"""What a file is that begins so."""


class Separator(NamedTuple):
    """A delimiter, and where the line that says so ends."""

    sign: str
    end: int


def head(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    try:
        with path.open("rb") as file:
            first = file.read(PIECE)
        return zlib.decompressobj(wbits=31).decompress(first, PIECE) if is_gzip(path) else first
    except (OSError, zlib.error):  # the reader says what is wrong with it
        return b""


def refuse_other(first: bytes, path: Path, format_: str) -> None:
    """Refuse a file of one of several formats that is no text, where `format_` is another.

    Raises:
        Unreadable: it is one, by its first bytes.
    """
    known = next((what for sign, what in _SIGNS.items() if first.startswith(sign)), None)
    if known is not None and not (format_ == "xlsx" and first.startswith(b"PK")):
        value = f"this is {known}, not {format_}; convert it, or name it as what it is"
        raise Unreadable(f"{path}: {value}", "other-format", value=value)


def delimiter_of(first: bytes, usual: str) -> str | None:
    """The delimiter of a CSV that begins so, where its header has none of the `usual` ones but of others."""
    line = first.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").partition("\n")[0].rstrip("\r")
    if not line.strip():
        return None
    counts = {sign: len(next(csv.reader([line], delimiter=sign), [])) for sign in DELIMITERS}
    best = max(counts, key=lambda sign: counts[sign])
    return best if counts[usual] == 1 and counts[best] > 1 else None


def separator_line(first: bytes) -> Separator | None:
    """The line by which Excel is told the delimiter, which is no header, if a CSV begins so."""
    found = _SEPARATOR_LINE.match(first.removeprefix(b"\xef\xbb\xbf"))
    return None if found is None else Separator(found[1].decode(), found.end())
