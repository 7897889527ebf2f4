"""Spreadsheets (xlsx): the first non-blank row is the header, dates are dates, whole numbers integers."""

import logging
import posixpath
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import polars as pl
import polars.selectors as cs

from feedback_assets.sources.quarantine import excerpt, quarantined
from feedback_assets.sources.raw import (
    EXACT,
    NOT_CONVERTIBLE,
    NOT_TEXT,
    WHOLE_FILE,
    Raw,
    Unreadable,
    listed,
    numbered,
    one_line,
    too_large,
)

_ROW = re.compile(rb'<(?:\w+:)?row\b[^>]*?\br="(\d+)"')
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]*)([0-9]+)["']""")
_CELL_BYTES = 32  # what the reader needs for each cell between the first and the last, empty ones included
_FORMULA = rb"(?:<(?:\w+:)?f\b[^>]*/>|<(?:\w+:)?f\b[^>]*>[^<]*</[^>]*>)"
_LONG = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>" + _FORMULA + rb"?"
    rb"<(?:\w+:)?v\b[^>]*>\s*(-?(?:\d{16,}(?:\.\d*)?|\d\.?\d*[eE]\+?\d{2,3}))\s*<"
)
"""A cell with a number that may lie beyond EXACT: its attributes and the number."""
_TYPED = re.compile(
    rb"""<(?:\w+:)?c\b([^>]*\bt\s*=\s*["']([eb])["'][^>]*)>""" + _FORMULA + rb"?<(?:\w+:)?v\b[^>]*>([^<]*)<"
)
"""A cell with an error or a truth value: its attributes, which of them, and the value."""
_NOT_COMPUTED = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>" + _FORMULA + rb"(?:<(?:\w+:)?v\b[^>]*(?:/>|></[^>]*>))?</(?:\w+:)?c>"
)
"""A cell with a formula and without its value, as other programs than spreadsheets write it: its attributes."""
_OF_TEXT = re.compile(rb"""\bt\s*=\s*["']str["']""")
_OTHER_TYPE = re.compile(rb"""\bt\s*=\s*["'](?!n["'])""")
_WHOLE_ROW = re.compile(rb"<(?:\w+:)?row\b.*?</(?:\w+:)?row>", re.DOTALL)
NOT_READ = "sheet-not-read"
Cell = tuple[int, int, str]
"""Row, column and what is said of it."""
_VALUE = re.compile(rb"<(?:\w+:)?(?:v|is)\b[^/>]*>")


def read_xlsx(path: Path, source: str, batch: str, sheet: str | None, *, read: Collection[str], most: int) -> Raw:
    """Read one sheet, the first if none is named; `__line` is the row as the spreadsheet numbers it.

    Quarantined: blank rows, also those at the end which readers leave out ("blank-row"); a row with a number of more
    digits than a spreadsheet keeps, where its column has text, too, or in the columns `read` with an error such as #N/A
    or a formula without its value ("not-convertible"); and, if no sheet is named, each other one that has rows
    ("sheet-not-read"). Truth values beside text are in `not_text`.

    Raises:
        Unreadable: it is no spreadsheet, has no such sheet, or unpacks to more than `most` bytes.
    """
    import fastexcel

    quiet = logging.getLogger("fastexcel")
    quiet.setLevel(max(quiet.level, logging.ERROR))
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > most:
                raise too_large(path, most)
        book = fastexcel.read_excel(path)
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            value, has = f"there is no sheet {sheet!r}", f"; it has: {listed(names)}"
            raise Unreadable(f"{path}: {value}", "no-such-sheet", value=value, shown=has, shown_value=has)
        name = sheet if sheet is not None else names[0]
        others = [other for other in names if sheet is None and other != name]
        unread = {other: rows for other in others if (rows := _rows(_xml(path, other)))}
        xml = _xml(path, name)
        header, last = _extent(xml)
        _refuse_far_cells(xml, path, most)
        held = book.load_sheet(name, schema_sample_rows=None) if header else None
        frame = pl.DataFrame(held) if held is not None else pl.DataFrame()
        columns = held.available_columns() if held is not None else []
        names = {info.absolute_index + 1: info.name for info in columns}
        texts = {place: name for place, name in names.items() if frame.schema.get(name) == pl.String}
    except Unreadable:
        raise
    except Exception as error:  # zip, XML and the reader raise anything at a damaged book
        value, said = "cannot be read as xlsx", f": {one_line((str(error).splitlines() or [''])[0])}"
        raise Unreadable(f"{path}: {value}", value=value, shown=said, shown_value=said) from None
    rows = pl.int_range(header + 1, header + 1 + frame.height, dtype=pl.Int64, eager=True)
    tail = pl.int_range(header + 1 + frame.height, last + 1, dtype=pl.Int64, eager=True)
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series() if frame.width else rows.is_null()
    frame = frame.with_columns(pl.col(_whole(frame)).cast(pl.Int64))
    wanting = {place for place, name in names.items() if name in read}
    errors, truths = _typed(xml)
    lost = {row: value for row, place, value in (*errors, *_not_computed(xml)) if place in wanting and row > header}
    lost |= _inexact(xml, texts)
    made_text = [(row, [texts[place]], True) for row, place, _ in truths if place in texts and row > header]
    in_quarantine = [
        quarantined(source, batch, pl.concat([rows.filter(blank), tail]), "blank-row"),
        quarantined(source, batch, list(lost), NOT_CONVERTIBLE).with_columns(_values(lost.values())),
        quarantined(source, batch, [WHOLE_FILE] * len(unread), NOT_READ).with_columns(
            pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("position"),
            _values(f"sheet {other!r} has {count:,} rows; name it with `sheet`" for other, count in unread.items()),
        ),
    ]
    usable = numbered(frame, rows, path).filter(~blank & ~rows.is_in(list(lost)))
    not_text = pl.DataFrame(made_text, schema=NOT_TEXT, orient="row")
    return Raw(usable, pl.concat(in_quarantine).sort("line", "position"), not_text=not_text)


def _values(values: Iterable[str]) -> pl.Expr:
    return excerpt(pl.lit(pl.Series(list(values), dtype=pl.String))).alias("value")


def _inexact(xml: bytes, texts: Collection[int]) -> dict[int, str]:
    """Rows with a number beyond EXACT in one of the columns `texts`, to which the reader gives digits of its own."""
    found: dict[int, str] = {}
    for attributes, digits in _LONG.findall(xml):
        place = _PLACE.search(attributes)
        if place and _column(place[1]) in texts and not _OTHER_TYPE.search(attributes) and abs(float(digits)) > EXACT:
            found.setdefault(int(place[2]), digits.decode())
    return dict(sorted(found.items()))


def _typed(xml: bytes) -> tuple[list[Cell], list[Cell]]:
    """The cells with an error, which readers make null, and those with a truth value."""
    found: dict[bytes, list[Cell]] = {b"e": [], b"b": []}
    for attributes, kind, value in _TYPED.findall(xml):
        if place := _PLACE.search(attributes):
            found[kind].append((int(place[2]), _column(place[1]), value.decode()))
    return found[b"e"], found[b"b"]


def _not_computed(xml: bytes) -> Iterator[Cell]:
    """The cells with a formula and without its value, which readers make null."""
    for attributes in _NOT_COMPUTED.findall(xml):
        place = _PLACE.search(attributes)
        if place and not _OF_TEXT.search(attributes):
            yield int(place[2]), _column(place[1]), "a formula without its value"


def _whole(frame: pl.DataFrame) -> list[str]:
    """The float columns whose values are all whole: a spreadsheet knows no integers."""
    whole = frame.select((cs.float().fill_null(0) % 1 == 0).all() & (cs.float().abs() <= 2**53).all())
    return [column for column in whole.columns if whole[column].all()]


def _xml(path: Path, sheet: str) -> bytes:
    """The XML of a sheet."""
    from xml.etree import ElementTree

    with zipfile.ZipFile(path) as book:
        relations = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
        targets = {relation.get("Id"): relation.get("Target", "") for relation in relations}
        sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter()  # noqa: S314
        ids = next(node.attrib for node in sheets if node.tag.endswith("}sheet") and node.get("name") == sheet)
        target = targets[next(value for key, value in ids.items() if key.endswith("}id"))]
        return book.read(posixpath.normpath(posixpath.join("/xl", target)).lstrip("/"))


def _refuse_far_cells(xml: bytes, path: Path, most: int) -> None:
    """Refuse a sheet with a cell so far out that the rectangle up to it takes more than `most` bytes.

    The reader, which is not Python, would end the process.

    Raises:
        Unreadable: there is one.
    """
    places = _PLACE.findall(xml)
    width = max((_column(letters) for letters in {letters for letters, _ in places}), default=0)
    if width * max((int(row) for _, row in places), default=0) * _CELL_BYTES > most:
        raise too_large(path, most)


def _extent(xml: bytes) -> tuple[int, int]:
    """Numbers of the header's row (0: the sheet is empty) and of the last row that a sheet's XML holds."""
    first_value = _VALUE.search(xml)
    rows = [int(found) for found in _ROW.findall(xml)]
    if first_value is None:
        return 0, max(rows, default=0)
    before = _ROW.findall(xml, 0, first_value.start())
    return (int(before[-1]), max(rows)) if before else (1, 0)


def _rows(xml: bytes) -> int:
    """How many rows with a value a sheet has below its header."""
    return max(sum(_VALUE.search(row) is not None for row in _WHOLE_ROW.findall(xml)) - 1, 0)


def _column(letters: bytes) -> int:
    """The number of a column: A is 1, AA is 27."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number
