"""CSV with a delimiter and double quotes; every column is text."""

import csv
import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl

from feedback_assets.sources.dialect import head, separator_line
from feedback_assets.sources.encoding import not_utf8, what_it_may_be
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import (
    LINE,
    Raw,
    Unreadable,
    bad_lines,
    content,
    is_gzip,
    is_utf8,
    numbered,
    occurrences,
    one_line,
    pieces,
)


def read_csv(path: Path, source: str, batch: str, *, delimiter: str, most: int) -> Raw:
    """Read a CSV file with a header, plain or gzip; all columns are String, an empty field is "".

    `__line` is the line on which the record starts, also after fields that hold newlines. Blank lines are
    counted and are no records. Quarantined, with their line: a row with more or fewer fields than the header
    ("ragged-row"), one that is not UTF-8 ("invalid-utf8"), the line at which a gzip breaks off ("truncated-file"),
    and each line from a quote that stands wrong to where its field ends, or to the end of the file
    ("malformed-csv"). In a file without a newline, carriage returns end the lines.

    A first line such as `sep=;`, which tells Excel the delimiter, tells it here, too.

    Raises:
        Unreadable: the file has no header, or unpacks to more than `most` bytes.
    """
    data, truncated = content(path, most) if is_gzip(path) else (None, False)
    returns = _has_only_returns(path if data is None else data)
    told = separator_line(head(path) if data is None else data)
    if returns or told:
        data = content(path, most)[0] if data is None else data
        data = data.replace(b"\r", b"\n") if returns else data
        data, delimiter = (data[told.end :], told.sign) if told else (data, delimiter)
    if not truncated and (clean := _clean(path if data is None else data, delimiter)) is not None:
        frame, lines = clean
        raw = Raw(numbered(frame, lines, path), pl.DataFrame(schema=QUARANTINE))
    else:
        data = content(path, most)[0] if data is None else data
        raw = _careful(data, truncated, path, source, batch, delimiter)
    if told:
        later = raw.malformed.with_columns(pl.col("line") + 1)
        raw = replace(raw, frame=raw.frame.with_columns(pl.col(LINE) + 1), malformed=later)
    return replace(raw, frame=_with_returns(raw.frame)) if returns else raw


def _has_only_returns(file: Path | bytes) -> bool:
    """Whether lines can only end with a carriage return, as some spreadsheets still write them."""
    found = False
    for piece in pieces(file):
        if b"\n" in piece:
            return False
        found = found or b"\r" in piece
    return found


def _with_returns(frame: pl.DataFrame) -> pl.DataFrame:
    """What stood in a field before the line ends were replaced."""
    texts = pl.col(pl.String).str.replace_all("\n", "\r", literal=True)
    return frame.with_columns(texts).rename(lambda name: name.replace("\n", "\r"))


def _clean(file: Path | bytes, delimiter: str) -> tuple[pl.DataFrame, pl.Series] | None:
    """The frame and its lines, or None if anything in the file is irregular.

    Polars fills a short row silently, takes what stands beside a quote into the field, and drops a lone return.
    Delimiters and newlines of the file must therefore be those of a regular one: as many as there are fields and rows,
    and those inside the fields.
    """
    try:
        frame = pl.read_csv(file, separator=delimiter, infer_schema=False, empty_string_is_null=False, glob=False)
    except pl.exceptions.PolarsError:
        return None
    if any("\ufffd" in name for name in frame.columns):  # which Polars writes for what is not UTF-8, in a header only
        return None
    (newlines, delimiters, quotes, returns), ended = occurrences(file, b"\n", delimiter.encode(), b'"', b"\r")
    if quotes or returns:
        data = file if isinstance(file, bytes) else file.read_bytes()
        if _stray_quote(data, delimiter.encode()) or returns > data.count(b"\r\n"):
            return None
    inside = frame.select(pl.all().str.count_matches(delimiter, literal=True).sum()).sum_horizontal().sum()
    inside += sum(name.count(delimiter) for name in frame.columns)
    if delimiters != inside + (frame.width - 1) * (frame.height + 1):
        return None
    # A row that is too short ends with an empty field, and the delimiters of one that is too long make up for it.
    if frame.height and frame.to_series(-1).str.len_bytes().min() in (0, None):
        return None
    in_header = sum(name.count("\n") for name in frame.columns)
    if newlines + (not ended) == frame.height + 1 and not in_header:
        return frame, pl.int_range(2, frame.height + 2, dtype=pl.Int64, eager=True)
    height = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True)).cast(pl.Int64) + 1)
    ends = height.to_series().cum_sum() + in_header + 1
    if not frame.height or newlines + (not ended) != ends[-1]:
        return None
    return frame, ends - height.to_series() + 1


def _stray_quote(data: bytes, delimiter: bytes) -> bool:
    """Whether a quote that is not doubled neither opens nor closes a field: Polars takes it, and its text, amiss."""
    beside = re.escape(delimiter)
    return re.search(rb'(?<=[^\n%b])"(?!\r?(?:\n|\Z)|%b)' % (beside, beside), data.replace(b'""', b"")) is not None


def _careful(data: bytes, truncated: bool, path: Path, source: str, batch: str, delimiter: str) -> Raw:
    lines = data.split(b"\n")
    broken = {number + 1 for number in bad_lines(lines, range(len(lines)), is_utf8)}
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.StringIO(data.decode(errors="replace"), newline="\n"), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        value, said = "the first line must name the columns", f": {one_line(str(error))}"
        raise Unreadable(f"{path}: {value}", "no-header", value=value, shown=said, shown_value=said) from None
    if not any(header) or not broken.isdisjoint(range(1, reader.line_num + 1)):
        is_not = "is empty" if not any(header) else what_it_may_be(b"\n".join(lines[: reader.line_num]))
        value = f"the header {is_not}"
        raise Unreadable(f"{path}: the first line must name the columns, in UTF-8; {value}", "no-header", value=value)
    rows: list[list[str]] = []
    starts: list[int] = []
    found: dict[str, list[int]] = {"ragged-row": [], "malformed-csv": []}
    other: dict[int, bytes] = {}
    start = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            found["malformed-csv"] += [line for line in range(start, reader.line_num + 1) if lines[line - 1].strip()]
            start = reader.line_num + 1
            continue
        if broken and not broken.isdisjoint(range(start, reader.line_num + 1)):
            other[start] = b"\n".join(lines[start - 1 : reader.line_num])
        elif row and len(row) != len(header):
            found["ragged-row"].append(start)
        elif row:
            rows.append(row)
            starts.append(start)
        start = reader.line_num + 1
    if truncated:
        found["truncated-file"] = [start]
    quarantine = pl.concat(
        [not_utf8(source, batch, other), *(quarantined(source, batch, some, reason) for reason, some in found.items())]
    ).sort("line")
    names = _unique(header)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Raw(numbered(frame, starts, path), quarantine)


def _unique(header: list[str]) -> list[str]:
    """Names as Polars gives them: the second `a` is `a_duplicated_0`."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for name in header:
        names.append(f"{name}_duplicated_{seen[name] - 1}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return names
