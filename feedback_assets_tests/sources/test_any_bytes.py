"""Any bytes in any format: an error of one line, or each line of the file is a record or in quarantine."""

import csv
import gzip
import io
import json
import zipfile

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feedback_assets.errors import FeedbackError
from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.files import list_files, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import to_records
from feedback_assets_tests.sources.test_files import spreadsheet

ROWS = [
    {"id": f"r{n}", "p": 'q, "x"\n€', "a": "yes", "b": "no", "w": "a" if n % 2 else "b", "s": n, "at": 1.7e9 + n}
    for n in range(12)
]
COLUMNS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "label": "LOWER(w)",
    "score": "CAST(s AS BIGINT)",
    "collected_at": {"expr": "at", "unit": "s", "optional": True},
}


def taken(folder, name, data):
    """Lines of the records and of the quarantine."""
    (folder / name).write_bytes(data)
    source = Source(name="s", path=name, columns=COLUMNS, max_bytes=10_000_000)
    file = list_files(source, folder)[0]
    mapped = map_records(read(file, source), source, file)
    intake = to_records(mapped.records, "s")
    assert mapped.records.columns == [*FROM_SOURCE, "line", "position", "extra"]
    return [
        *intake.rows["line"].to_list(),
        *pl.concat([mapped.quarantined, intake.quarantined])["line"].to_list(),
    ]


def valid(folder, name):
    frame = pl.DataFrame(ROWS)
    path = folder / name.removesuffix(".gz")
    if name.endswith(".xlsx"):
        spreadsheet(path, {1: ["id", "p", "a", "b", "w", "s"], 2: ["x", "q", "y", "n", "a", 1], 4: ["y", 2.5]})
    elif name.endswith(".arrows"):
        frame.write_ipc_stream(path)
    else:
        write = {"parquet": frame.write_parquet, "arrow": frame.write_ipc, "csv": frame.write_csv}
        write.get(name.split(".")[1], frame.write_ndjson)(path)
    data = path.read_bytes()
    return gzip.compress(data, mtime=0) if name.endswith(".gz") else data


NAMES = ("x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz", "x.parquet", "x.arrow", "x.arrows", "x.xlsx")


@pytest.fixture(scope="module", params=NAMES)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    return folder, request.param.replace(".arrows", ".arrow"), valid(folder, request.param)


def spliced(data, cuts):
    for at, length, put in cuts:
        start = at % (len(data) + 1)
        data = data[:start] + put + data[start + length :]
    return data


CUTS = st.lists(
    st.tuples(
        st.integers(0, 2**20),
        st.integers(0, 40) | st.just(2**20),
        st.binary(max_size=8)
        | st.sampled_from([b'"', b"\n", b",", b"{", b"}", b"\\", b"\0", b"\xff", b"\r", b"1e999"]),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS)
def test_a_valid_file_with_cuts_and_splices_is_read_or_refused_in_one_line(written, cuts):
    folder, name, data = written
    try:
        found = taken(folder, name, spliced(data, cuts))
    except FeedbackError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) == len(set(found))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
@example(data=b"\x1f\x8b")
@example(data=b"PK\x03\x04")
@example(data=b"PAR1PAR1")
@example(data=b"ARROW1\0\0")
@example(data=b":")
def test_random_bytes_are_read_or_refused_in_one_line(written, data):
    folder, name, _ = written
    try:
        taken(folder, name, data)
    except FeedbackError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS, part=st.sampled_from(["xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/worksheets/sheet1.xml"]))
def test_a_spreadsheet_with_cut_parts_is_read_or_refused_in_one_line(tmp_path, cuts, part):
    whole = zipfile.ZipFile(io.BytesIO(valid(tmp_path, "x.xlsx")))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as book:
        for name in whole.namelist():
            book.writestr(name, spliced(whole.read(name), cuts) if name == part else whole.read(name))
    try:
        taken(tmp_path, "x.xlsx", packed.getvalue())
    except FeedbackError as error:
        assert "\n" not in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS)
def test_each_line_of_json_is_a_record_or_in_quarantine_or_blank(tmp_path, cuts):
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    data = spliced(whole, cuts)
    expected = [n for n, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if line.strip()]
    try:
        assert sorted(taken(tmp_path, "x.jsonl", data)) == expected
    except FeedbackError as error:
        assert any(said in str(error) for said in ("columns.", "one JSON document", "convert it"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS)
def test_each_row_of_a_csv_is_what_an_independent_reader_makes_of_it(tmp_path, cuts):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    data = spliced(text.getvalue().encode(), cuts)
    (tmp_path / "x.csv").write_bytes(data)
    source = Source(name="s", path="x.csv", columns={"kind": "'preference'"})
    try:
        raw = read(list_files(source, tmp_path)[0], source)
    except FeedbackError:
        return
    kept = {row[-1]: list(row[:-1]) for row in raw.frame.iter_rows()}
    whole = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    whole = whole if "\n" in whole else whole.replace("\r", "\n")
    reader = csv.reader(io.StringIO(whole, newline="\n"), strict=True)
    bad = set(raw.malformed["line"].to_list())
    assert bad.isdisjoint(kept)
    start = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            row = None
        if start > 1 and row:
            assert start in bad or kept.pop(start, None) == row
        start = reader.line_num + 1
    assert not kept
