import gzip
import zipfile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.digests import file_digest
from feedback_assets.errors import FeedbackError
from feedback_assets.sources.files import list_files, not_read, read
from feedback_assets.sources.quarantine import QUARANTINE
from feedback_assets.sources.raw import Unreadable
from feedback_assets.sources.source import Source


def source(path, **more):
    return Source(name="s", path=str(path), columns={"kind": "'preference'"}, **more)


def read_bytes(folder, name, data, **more):
    (folder / name).write_bytes(data)
    raw = read(list_files(source(name, **more), folder)[0], source(name, **more))
    assert raw.malformed.schema == QUARANTINE
    return raw


def lines(raw):
    return raw.frame["__line"].to_list()


def quarantine(raw):
    return raw.malformed.select("line", "reason").rows()


def test_files_come_sorted_by_name_without_hidden_and_unfinished_ones(tmp_path):
    for name in ("b.csv", "a.csv", ".hidden.csv", "c.csv.part", "c.csv~", "d.csv.tmp", "e.csv.crdownload", "README.md"):
        (tmp_path / name).write_text("x\n1\n")
    assert [file.name for file in list_files(source("."), tmp_path)] == ["a.csv", "b.csv"]
    assert [file.name for file in list_files(source("*.csv*"), tmp_path)] == ["a.csv", "b.csv"]
    found = list_files(source("a.csv"), tmp_path)[0]
    assert (found.source, found.bytes, found.digest) == ("s", 4, file_digest(tmp_path / "a.csv"))


def test_a_glob_over_folders_names_files_below_its_fixed_part(tmp_path):
    for week in ("w2", "w1", ".w0"):
        (tmp_path / "in" / week).mkdir(parents=True)
        (tmp_path / "in" / week / "x.csv").write_text("x\n1\n")
    assert [file.name for file in list_files(source("in/*/x.csv"), tmp_path)] == ["w1/x.csv", "w2/x.csv"]
    assert [file.name for file in list_files(source(tmp_path / "in/**/*.csv"), tmp_path)] == ["w1/x.csv", "w2/x.csv"]


def told(path, folder, **more):
    """Names of the batches, and of what is not read by why."""
    here = source(path, **more)
    left = {}
    for one in not_read(here, folder):
        left.setdefault(one.why.split(",")[0], []).append(one.name)
    return [file.name for file in list_files(here, folder, may_be_empty=True)], left


def test_what_lies_in_a_folder_and_is_not_read_is_told_with_why(tmp_path):
    (tmp_path / "sub").mkdir()
    names = ("top.jsonl", "sub/b.jsonl", "b.jsonl.bz2", "c.csv.zip", "d.xls", "e.txt", "g.pq", "h.csv", "i.jsonl.part")
    for name in (*names, ".hidden.txt", "state.json", "top.jsonl.done"):
        (tmp_path / name).write_text("")
    unknown = ["b.jsonl.bz2", "c.csv.zip", "d.xls", "e.txt", "g.pq"]
    files, left = told(".", tmp_path, format="jsonl", complete={"marker": "{name}.done"})
    assert files == ["top.jsonl"]
    assert left == {
        "of no known ending": unknown,
        "not jsonl": ["h.csv"],
        "unfinished": ["i.jsonl.part"],
        "in subfolders": ["sub/b.jsonl"],
    }
    files, left = told("*", tmp_path)
    assert files == ["h.csv", "top.jsonl"]
    assert left["of no known ending"] == [*unknown, "top.jsonl.done"]
    assert left["folders"] == ["sub/"]
    assert told("**/*.jsonl", tmp_path) == (["sub/b.jsonl", "top.jsonl"], {})


def test_links_to_folders_are_not_followed(tmp_path):
    (tmp_path / "in" / "week").mkdir(parents=True)
    (tmp_path / "in" / "week" / "a.jsonl").write_text("")
    for name in ("self", "week/up"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
    for path in ("in/**/*.jsonl", "in/**/*/*.jsonl", "in/**", "in"):
        assert told(path, tmp_path) == (["week/a.jsonl"], {"links to folders": ["self/", "week/up/"]}), path


def test_a_file_of_which_the_bytes_cannot_be_had_is_a_batch_that_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}')
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    first, second = list_files(source("."), tmp_path)
    assert (first.unreadable, second.unreadable) == (None, "No such file or directory")
    assert second == list_files(source("b.jsonl"), tmp_path)[0]
    with pytest.raises(Unreadable, match="cannot be read: No such file"):
        read(second, source("."))


def test_a_file_that_grows_while_it_is_looked_at_waits(tmp_path):
    def digest_of(path):
        with path.open("a") as file:
            file.write("2\n")
        return file_digest(path)

    (tmp_path / "x.csv").write_text("x\n1\n")
    (found,) = list_files(source("x.csv"), tmp_path, digest_of=digest_of)
    assert (found.waits, found.grew) == (True, True)


def test_a_source_without_a_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(FeedbackError, match=r"^source 's': no file at 'no\*\.csv' .*$"):
        list_files(source("no*.csv"), tmp_path)


def test_a_file_of_unknown_format_is_refused(tmp_path):
    with pytest.raises(FeedbackError, match="set `format`"):
        read_bytes(tmp_path, "x.dat", b"x\n1\n")
    assert lines(read_bytes(tmp_path, "x.dat", b"x\n1\n", format="csv")) == [2]


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("x\n1\n")
    listed = list_files(source("x.csv"), tmp_path)[0]
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    with pytest.raises(FeedbackError, match="changed while it was being read"):
        read(listed, source("x.csv"))


def test_a_malformed_json_line_is_quarantined_by_number_and_blank_ones_only_count(tmp_path):
    data = b'{"a": 1}\n\n{"a": \n  \n[1]\nnull\n{"a": 2, "late": "x"}\n{"a": "\xff"}\n{"a": 3} {"a": 4}'
    raw = read_bytes(tmp_path, "x.jsonl", data)
    assert raw.frame.rows() == [(1, None, 1), (2, "x", 7)]
    assert quarantine(raw) == [
        (3, "malformed-json"),
        (5, "malformed-json"),
        (6, "malformed-json"),
        (8, "invalid-utf8"),
        (9, "malformed-json"),
    ]


def test_blank_lines_alone_cost_no_record(tmp_path):
    raw = read_bytes(tmp_path, "x.jsonl", b'\n{"a": 1}\r\n\r\n{"a": 2}\n\n')
    assert lines(raw) == [2, 4]
    assert quarantine(raw) == []


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n\n"])
def test_an_empty_jsonl_file_has_no_records(tmp_path, data):
    raw = read_bytes(tmp_path, "x.jsonl", data)
    assert (raw.frame.height, raw.malformed.height) == (0, 0)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'{"a": 1}\n{"a": "x"}\n', ["1", "x"]),
        (b'{"a": true}\n{"a": 1}\n', ["true", "1"]),
        (b'{"a": "s"}\n{"a": {"b": 1}}\n', ["s", '{"b": 1}']),
        (b"\xef\xbb\xbf" + b'{"a": 1}\n{"a": 2}\n', [1, 2]),
        (b'{"a": 123456789012345678901234567890}\n', [123456789012345678901234567890]),
    ],
)
def test_unusual_json_is_read(tmp_path, data, values):
    raw = read_bytes(tmp_path, "x.jsonl", data)
    assert raw.frame["a"].to_list() == values
    assert quarantine(raw) == []


def test_a_truncated_gzip_gives_its_complete_lines(tmp_path):
    import random

    noise = random.Random(0)
    whole = b"".join(b'{"a": "%x"}\n' % noise.getrandbits(800) for _ in range(3000))
    packed = gzip.compress(whole)
    raw = read_bytes(tmp_path, "x.jsonl.gz", packed[: len(packed) // 2])
    assert 0 < raw.frame.height < 3000
    assert quarantine(raw) == [(raw.frame.height + 1, "truncated-file")]
    assert read_bytes(tmp_path, "y.jsonl.gz", packed).frame.height == 3000
    table = gzip.compress(b"a\n" + b"".join(b"%x\n" % noise.getrandbits(800) for _ in range(3000)))
    raw = read_bytes(tmp_path, "x.csv.gz", table[: len(table) // 2])
    assert quarantine(raw) == [(lines(raw)[-1] + 1, "truncated-file")]


def test_csv_is_text_and_lines_are_those_of_the_file(tmp_path):
    raw = read_bytes(tmp_path, "x.csv", b'a,b\n1,"x\ny"\n2,"p, ""q"""\n,\n')
    assert raw.frame.rows() == [("1", "x\ny", 2), ("2", 'p, "q"', 4), ("", "", 5)]
    raw = read_bytes(tmp_path, "x.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4")
    assert raw.frame.rows() == [("1", "2", 2), ("3", "4", 3)]


def test_ragged_and_garbled_rows_of_a_csv_are_quarantined(tmp_path):
    raw = read_bytes(tmp_path, "x.csv", b'a,b\n1\n2,3\n\n4,5,6\n\xff,7\n"8\n8",9\n')
    assert raw.frame.rows() == [("2", "3", 3), ("8\n8", "9", 7)]
    assert quarantine(raw) == [(2, "ragged-row"), (5, "ragged-row"), (6, "invalid-utf8")]


def test_carriage_returns_alone_end_the_lines_of_a_csv_without_a_newline(tmp_path):
    data = b'\xef\xbb\xbfa,b\r1,"x\ry"\r\r2\r3,4\r'
    for name, written in (("x.csv", data), ("x.csv.gz", gzip.compress(data))):
        raw = read_bytes(tmp_path, name, written)
        assert raw.frame.rows() == [("1", "x\ry", 2), ("3", "4", 6)]
        assert quarantine(raw) == [(5, "ragged-row")]
    assert read_bytes(tmp_path, "x.csv", b"a\r1\r2").frame.rows() == [("1", 2), ("2", 3)]


@pytest.mark.parametrize("data", [b"a,b\r1,2\r\n", b"a\r1\r2\r\n"])
def test_a_csv_of_which_the_header_holds_a_carriage_return_is_refused(tmp_path, data):
    with pytest.raises(FeedbackError, match="the first line must name the columns"):
        read_bytes(tmp_path, "x.csv", data)
    assert quarantine(read_bytes(tmp_path, "x.csv", b"a\n1\r2\n3\n")) == [(2, "malformed-csv")]


def test_a_csv_without_a_header_is_refused(tmp_path):
    with pytest.raises(FeedbackError, match="first line must name the columns"):
        read_bytes(tmp_path, "x.csv", b"")


FIELD = st.text(alphabet='ab,"\n é', max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD), max_size=6), st.booleans())
def test_every_csv_row_is_found_on_its_line(tmp_path_factory, rows, ragged):
    def quoted(value):
        return '"' + value.replace('"', '""') + '"'

    text, starts, line = "a,b\n", [], 2
    for row in rows:
        written = ",".join(map(quoted, row)) + "\n"
        starts.append(line)
        text, line = text + written, line + written.count("\n")
    folder = tmp_path_factory.mktemp("csv")
    raw = read_bytes(folder, "x.csv", (text + ("x\n" if ragged else "")).encode())
    assert raw.frame.rows() == [(*row, start) for row, start in zip(rows, starts, strict=True)]
    assert quarantine(raw) == ([(line, "ragged-row")] if ragged else [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b'{"a":1}', b'{"b":"x"}', b"", b" ", b"{", b"3", b"\xff", b'{"a":"y"}']), max_size=12))
def test_every_jsonl_line_is_a_record_or_quarantined_or_blank(tmp_path_factory, given_lines):
    raw = read_bytes(tmp_path_factory.mktemp("jsonl"), "x.jsonl", b"\n".join(given_lines))
    expected = [number for number, line in enumerate(given_lines, 1) if line.strip()]
    assert sorted(lines(raw) + raw.malformed["line"].to_list()) == expected


def spreadsheet(path, rows, **others):
    """A minimal xlsx: {row number: [values]}; an empty list is a row without values. `others` are more sheets.

    Bytes are what stands in a cell's XML after its place.
    """
    sheets = {"votes": rows, **others}
    cells = {
        name: "".join(
            f'<row r="{number}">' + "".join(_cell(number, at, value) for at, value in enumerate(values)) + "</row>"
            for number, values in held.items()
        )
        for name, held in sheets.items()
    }
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    sheet_type = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="{sheet_type}.sheet.main+xml"/>'
        + "".join(
            f'<Override PartName="/xl/worksheets/sheet{at}.xml" ContentType="{sheet_type}.worksheet+xml"/>'
            for at in range(1, len(sheets) + 1)
        )
        + "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
        f'Type="{kind}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{kind}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{at}" r:id="r{at}"/>' for at, name in enumerate(sheets, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{at}" Type="{kind}/worksheet" Target="worksheets/sheet{at}.xml"/>'
            for at in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
        **{
            f"xl/worksheets/sheet{at}.xml": f'<worksheet xmlns="{main}"><sheetData>{held}</sheetData></worksheet>'
            for at, held in enumerate(cells.values(), 1)
        },
    }
    with zipfile.ZipFile(path, "w") as book:
        for name, text in parts.items():
            book.writestr(name, text)


def _cell(row, at, value):
    reference = f"{'ABCDEF'[at]}{row}"
    if value is None:
        return f'<c r="{reference}"/>'
    if isinstance(value, bytes):
        return f'<c r="{reference}" {value.decode()}</c>'
    if isinstance(value, str):
        return f'<c r="{reference}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{reference}"><v>{value}</v></c>'


def test_blank_rows_of_a_sheet_are_quarantined_with_their_row_number(tmp_path):
    rows = {1: [None], 2: ["id", "x"], 3: [1.0, 1.5], 4: [None, None], 5: [2.0, 2.5], 6: [None], 7: []}
    spreadsheet(tmp_path / "x.xlsx", rows)
    files = list_files(source("x.xlsx"), tmp_path)
    raw = read(files[0], source("x.xlsx"))
    assert raw.frame.rows() == [(1, 1.5, 3), (2, 2.5, 5)]
    assert raw.frame.schema["id"] == pl.Int64
    assert quarantine(raw) == [(4, "blank-row"), (6, "blank-row"), (7, "blank-row")]
    with pytest.raises(FeedbackError, match="no sheet 'other'; it has: votes"):
        read(files[0], source("x.xlsx", sheet="other"))


def test_sheets_with_rows_that_are_not_read_are_in_quarantine_until_one_is_named(tmp_path):
    more = {"other": {1: ["id"], 2: [3], 3: [4]}, "title": {1: ["About"]}, "empty": {}, "third": {2: ["id"], 5: [5]}}
    spreadsheet(tmp_path / "x.xlsx", {1: ["id"], 2: [1], 3: [2]}, **more)
    raw = read(list_files(source("x.xlsx"), tmp_path)[0], source("x.xlsx"))
    assert raw.frame.rows() == [(1, 2), (2, 3)]
    assert raw.malformed.select("line", "position", "reason", "value").rows() == [
        (0, 1, "sheet-not-read", "sheet 'other' has 2 rows; name it with `sheet`"),
        (0, 2, "sheet-not-read", "sheet 'third' has 1 rows; name it with `sheet`"),
    ]
    named = source("x.xlsx", sheet="third")
    raw = read(list_files(named, tmp_path)[0], named)
    assert raw.frame.rows() == [(5, 5)]
    assert {reason for _, reason in quarantine(raw)} <= {"blank-row"}
    spreadsheet(tmp_path / "y.xlsx", {1: ["About this book"]}, **more)
    raw = read(list_files(source("y.xlsx"), tmp_path)[0], source("y.xlsx"))
    assert raw.frame.height == 0
    assert quarantine(raw) == [(0, "sheet-not-read")] * 2


def test_a_number_with_more_digits_than_a_spreadsheet_keeps_does_not_become_text(tmp_path):
    rows = {2: [None, "id", "n"], 3: [None, "a", 1], 4: [None, 12345678901234567, 2], 5: [None, 9007199254740992, 3]}
    rows |= {6: [None, "12345678901234567", 4], 7: [None, "1.2345678901234567E+16", 5], 8: [None, -2.5e300, 6]}
    spreadsheet(tmp_path / "x.xlsx", rows)
    raw = read(list_files(source("x.xlsx"), tmp_path)[0], source("x.xlsx"))
    kept = [("a", 3), ("9007199254740992", 5), ("12345678901234567", 6), ("1.2345678901234567E+16", 7)]
    assert raw.frame.select("id", "__line").rows() == kept
    assert raw.malformed.select("line", "reason", "value").rows() == [
        (4, "not-convertible", "12345678901234567"),
        (8, "not-convertible", "-2.5e+300"),
    ]


@pytest.mark.parametrize("name", ["x.xlsx", "x.parquet", "x.jsonl.gz"])
def test_a_file_that_is_not_what_its_name_says_is_refused_or_quarantined(tmp_path, name):
    try:
        raw = read_bytes(tmp_path, name, b"\x1f\x8bnot what it says\n")
    except FeedbackError as error:
        assert "\n" not in str(error)
    else:
        assert raw.malformed.height


def test_parquet_rows_are_numbered_from_one(tmp_path):
    pl.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "x[1].parquet")
    raw = read(list_files(source("x[1].parquet"), tmp_path)[0], source("x[1].parquet"))
    assert raw.frame.rows() == [(1, 1), (2, 2)]


@pytest.mark.parametrize("row", ['"q, "z"x"","y"', '"q"\r,y', "\r,y"])
def test_a_quote_or_a_return_that_stands_wrong_is_not_read_as_something_else(tmp_path, row):
    raw = read_bytes(tmp_path, "x.csv", f"a,b\n1,2\n{row}\n3,4\n".encode())
    assert [line for line in lines(raw) if line == 3] == []
    assert 3 in [line for line, _ in quarantine(raw)]
