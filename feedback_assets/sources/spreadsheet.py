"""Spreadsheets (xlsx): the first non-blank row is the header, dates are dates, whole numbers integers."""

import logging
import posixpath
import re
import zipfile
from pathlib import Path

import polars as pl
import polars.selectors as cs

from feedback_assets.sources.quarantine import quarantined
from feedback_assets.sources.raw import Raw, Unreadable, listed, numbered, one_line, too_large

_ROW = re.compile(rb'<(?:\w+:)?row\b[^>]*?\br="(\d+)"')
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]*)([0-9]+)["']""")
_CELL_BYTES = 32  # what the reader needs for each cell between the first and the last, empty ones included
_VALUE = re.compile(rb"<(?:\w+:)?(?:v|is)\b[^/>]*>")


def read_xlsx(path: Path, source: str, batch: str, sheet: str | None, *, most: int) -> Raw:
    """Read one sheet; `__line` is the row as the spreadsheet numbers it.

    Blank rows, also those at the end which readers leave out, are quarantined as "blank-row".

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
        header, last = _extent(path, name, most)
        frame = pl.DataFrame(book.load_sheet(name, schema_sample_rows=None)) if header else pl.DataFrame()
    except Unreadable:
        raise
    except Exception as error:  # zip, XML and the reader raise anything at a damaged book
        value, said = "cannot be read as xlsx", f": {one_line((str(error).splitlines() or [''])[0])}"
        raise Unreadable(f"{path}: {value}", value=value, shown=said, shown_value=said) from None
    rows = pl.int_range(header + 1, header + 1 + frame.height, dtype=pl.Int64, eager=True)
    tail = pl.int_range(header + 1 + frame.height, last + 1, dtype=pl.Int64, eager=True)
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series() if frame.width else rows.is_null()
    frame = frame.with_columns(pl.col(_whole(frame)).cast(pl.Int64))
    return Raw(
        numbered(frame, rows, path).filter(~blank),
        quarantined(source, batch, pl.concat([rows.filter(blank), tail]), "blank-row"),
    )


def _whole(frame: pl.DataFrame) -> list[str]:
    """The float columns whose values are all whole: a spreadsheet knows no integers."""
    whole = frame.select((cs.float().fill_null(0) % 1 == 0).all() & (cs.float().abs() <= 2**53).all())
    return [column for column in whole.columns if whole[column].all()]


def _extent(path: Path, sheet: str, most: int) -> tuple[int, int]:
    """Numbers of the header's row (0: the sheet is empty) and of the last row that the sheet's XML holds.

    Raises:
        Unreadable: a cell lies so far out that the rectangle up to it takes more than `most` bytes; the reader, which
            is not Python, would end the process.
    """
    from xml.etree import ElementTree

    with zipfile.ZipFile(path) as book:
        relations = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
        targets = {relation.get("Id"): relation.get("Target", "") for relation in relations}
        sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter()  # noqa: S314
        ids = next(node.attrib for node in sheets if node.tag.endswith("}sheet") and node.get("name") == sheet)
        target = targets[next(value for key, value in ids.items() if key.endswith("}id"))]
        xml = book.read(posixpath.normpath(posixpath.join("/xl", target)).lstrip("/"))
    places = _PLACE.findall(xml)
    width = max((_column(letters) for letters in {letters for letters, _ in places}), default=0)
    if width * max((int(row) for _, row in places), default=0) * _CELL_BYTES > most:
        raise too_large(path, most)
    first_value = _VALUE.search(xml)
    rows = [int(found) for found in _ROW.findall(xml)]
    if first_value is None:
        return 0, max(rows, default=0)
    before = _ROW.findall(xml, 0, first_value.start())
    return (int(before[-1]), max(rows)) if before else (1, 0)


def _column(letters: bytes) -> int:
    """The number of a column: A is 1, AA is 27."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number
