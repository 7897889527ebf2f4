"""What the first bytes of a file say of it against its name: another delimiter."""

import csv
import re
from pathlib import Path

from feedback_assets.sources.raw import PIECE, is_gzip

DELIMITERS = ",;\t|"


def head(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    import gzip

    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
            return file.read(PIECE)
    except (OSError, EOFError):  # the reader says what is wrong with a gzip
        return b""


def delimiter_of(first: bytes, usual: str) -> str | None:
    """The delimiter of a CSV that begins so, where its header has none of the `usual` ones but of others."""
    line = first.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").partition("\n")[0].rstrip("\r")
    if not line.strip():
        return None
    counts = {sign: len(next(csv.reader([line], delimiter=sign), [])) for sign in DELIMITERS}
    best = max(counts, key=lambda sign: counts[sign])
    return best if counts[usual] == 1 and counts[best] > 1 else None


def is_separator_line(first: bytes) -> bool:
    """Whether it begins with the line by which Excel is told the delimiter, which is no header."""
    return re.match(rb"(\xef\xbb\xbf)?sep=[^\r\n]?\r?\n", first) is not None
