"""Text that is not UTF-8: what encoding it seems to have, and how to convert it."""

import codecs
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from feedback_assets.sources.quarantine import quarantined
from feedback_assets.sources.raw import Unreadable

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 64
_IN_A_ROW = re.compile(rb"[\x80-\xff]{4}")


def refuse_wide(first: bytes, path: Path) -> None:
    """Refuse what begins with the mark of an encoding of two or four bytes a sign, or with every second byte zero.

    Raises:
        Unreadable: it does so.
    """
    known = next((name for mark, name in _MARKS.items() if first.startswith(mark)), None) or _by_zeros(first)
    if known is not None:
        value = f"looks like {known}, not UTF-8; convert it: iconv -f {known} -t UTF-8"
        raise Unreadable(f"{path}: {value}", "other-encoding", value=value)


def _by_zeros(first: bytes) -> str | None:
    high, low = first[:_LOOKED_AT:2], first[1:_LOOKED_AT:2]
    if len(low) < 2 or any(high) == any(low):
        return None
    return "UTF-16LE" if any(high) else "UTF-16BE"


def not_utf8(source: str, batch: str, lines: Mapping[int, bytes]) -> pl.DataFrame:
    """A quarantine row for each line that is not UTF-8, with what may be done about it."""
    values = pl.Series("value", [what_it_may_be(text) for text in lines.values()], dtype=pl.String)
    return quarantined(source, batch, list(lines), "invalid-utf8").with_columns(values)


def what_it_may_be(text: bytes) -> str:
    """Of bytes that are not UTF-8; nothing tells encodings of one byte a sign apart for certain."""
    try:
        western = bool(text.decode("cp1252")) and not _IN_A_ROW.search(text)
    except UnicodeDecodeError:
        western = False
    return "may be Windows-1252; convert it: iconv -f WINDOWS-1252 -t UTF-8" if western else "is not UTF-8; convert it"
