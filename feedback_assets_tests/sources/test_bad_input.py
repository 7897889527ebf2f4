"""Bad input, on real bytes: each line becomes a record or is quarantined with its reason, and the rest goes on."""

import datetime as dt
import gzip
import json
import tracemalloc
from pathlib import Path

import polars as pl
import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.files import list_files, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.raw import Unreadable
from feedback_assets.sources.source import Source
from feedback_assets.stages.ingested import to_records
from feedback_assets_tests.sources.test_files import spreadsheet

COLUMNS = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "label": "w",
}


def record(number, **more):
    return {"id": f"r{number}", "p": "q?", "a": f"yes {number}", "b": "no", "w": "a", **more}


def line(number, **more):
    return json.dumps(record(number, **more)).encode()


def lines(*numbers):
    return b"".join(line(number) + b"\n" for number in numbers)


def taken(folder, name, data, columns=COLUMNS, **more):
    """What intake makes of a file: the ids and lines of its records, and (line, reason, column, value) of the rest."""
    (folder / name).write_bytes(data)
    source = Source(name="s", path=name, columns=columns, **more)
    file = list_files(source, folder)[0]
    mapped = map_records(read(file, source), source, file)
    intake = to_records(mapped.records, "s")
    bad = pl.concat([mapped.quarantined, intake.quarantined]).sort("line")
    return intake.rows.select("feedback_id", "line").rows(), bad.select("line", "reason", "column", "value").rows()


def reasons(bad):
    return [(number, reason) for number, reason, *_ in bad]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (line(2)[:30], "malformed-json"),
        (b'{"id": "\xff"}', "invalid-utf8"),
        (b'{"id": "x", "id": "y"}', "duplicate-key"),
        (line(2)[:-1] + b', "w": null}', "duplicate-key"),
        (line(2)[:-1] + b', "meta": {"k": 1, "k": 2}}', "duplicate-key"),
        (line(2)[:-1] + b', "turns": [{"k": 1}, {"k": 1, "k" : 2}]}', "duplicate-key"),
        (b'{"id": "\\ud83d"}', "lone-surrogate"),
        (b'{"id": "\\ud83d\\ud83d"}', "malformed-json"),
        (line(2).replace(b'"r2"', b"1" * 60), "malformed-json"),
        (line(2).replace(b'"r2"', b"1e999"), "malformed-json"),
        (line(2).replace(b'"r2"', b"NaN"), "malformed-json"),
        (b"[1, 2]", "malformed-json"),
        (b"\0\0\0", "malformed-json"),
        (line(2) + line(9), "malformed-json"),
        (b'{"id": "' + b"\0" + b'"}', "malformed-json"),
    ],
)
def test_one_bad_line_costs_itself(tmp_path, wrong, reason):
    kept, bad = taken(tmp_path, "x.jsonl", lines(1) + wrong + b"\n" + lines(3, 4))
    assert kept == [("r1", 1), ("r3", 3), ("r4", 4)]
    assert reasons(bad) == [(2, reason)]


def test_a_file_with_a_byte_order_mark_crlf_and_empty_lines_is_whole(tmp_path):
    data = b"\xef\xbb\xbf" + (line(1) + b"\r\n\r\n" + line(2) + b"\r\n  \r\n") + line(3)
    assert taken(tmp_path, "x.jsonl", data) == ([("r1", 1), ("r2", 3), ("r3", 5)], [])
    table = b"\xef\xbb\xbfid,p,a,b,w\r\n\r\nr1,q,yes,no,a\r\nr2,q,yes,no,b"
    assert taken(tmp_path, "x.csv", table) == ([("r1", 3), ("r2", 4)], [])


def test_a_byte_order_mark_is_none_of_the_first_line_where_the_name_looks_like_a_pattern(tmp_path):
    assert taken(tmp_path, "[x].jsonl", b"\xef\xbb\xbf" + lines(1, 2)) == ([("r1", 1), ("r2", 2)], [])


def test_text_that_looks_like_keys_is_no_duplicate(tmp_path):
    odd = ['"w": 1, "w": 2', '\\": "w": x', "\ud83d\ude00", '{"w": "a"}', "C:\\", '": null', "n\0n"]
    data = b"".join(line(number, p=text, a=text * 2) + b"\n" for number, text in enumerate(odd))
    kept, bad = taken(tmp_path, "x.jsonl", data)
    assert (len(kept), bad) == (len(odd), [])


def test_an_integer_beyond_64_bits_keeps_its_digits(tmp_path):
    big = 2**63 + 2**64 + 1
    kept, bad = taken(tmp_path, "x.jsonl", line(1).replace(b'"r1"', str(big).encode()) + b"\n" + lines(2))
    assert (kept, bad) == ([(str(big), 1), ("r2", 2)], [])
    numbers = line(1, id=big) + b"\n" + line(2, id=7) + b"\n"
    assert taken(tmp_path, "x.jsonl", numbers)[0] == [(str(big), 1), ("7", 2)]
    assert taken(tmp_path, "x.jsonl", numbers + line(3, id=1.5))[0] == [(str(big), 1), ("7", 2), ("1.5", 3)]
    scores = {"feedback_id": "n", "kind": "'rating'", "prompt": "n", "response_a": "n", "score": "n"}
    pl.DataFrame({"n": [2.0**70, 3.0]}).write_parquet(tmp_path / "x.parquet")
    kept, bad = taken(tmp_path, "y.parquet", (tmp_path / "x.parquet").read_bytes(), {**scores, "prompt": "'q'"})
    assert kept == [("3", 2)]
    assert reasons(bad) == [(1, "not-convertible")]


def test_an_object_a_list_or_a_truth_value_is_no_id_beside_ids_that_are_text(tmp_path):
    data = line("x") + b"\n" + line(2, id=[2]) + b"\n" + line(3, id={"a": 3}) + b"\n" + line(4, id=True) + b"\n"
    kept, bad = taken(tmp_path, "x.jsonl", data + line(5, id=5))
    assert kept == [("rx", 1), ("5", 5)]
    values = {2: "[2]", 3: '{"a": 3}', 4: "true"}
    assert bad == [(number, "not-convertible", "feedback_id", value) for number, value in values.items()]


@pytest.mark.parametrize("column", ["p", "a", "b"])
@pytest.mark.parametrize("value", [[{"role": "user", "content": "hi"}], {"text": "hi"}, True])
def test_json_is_no_text_beside_texts_whether_it_lies_in_lines_or_in_an_array(column, value, tmp_path):
    rows = [record(1), record(2, **{column: value}), record(3)]
    name = {"p": "prompt", "a": "response_a", "b": "response_b"}[column]
    for file, data in (
        ("x.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
        ("x.json", json.dumps(rows)),
        ("y.json", json.dumps(rows, indent=2)),
    ):
        kept, bad = taken(tmp_path, file, data.encode())
        assert (kept, bad) == ([("r1", 1), ("r3", 3)], [(2, "not-convertible", name, None)])


def test_only_what_an_expression_makes_of_an_object_counts(tmp_path):
    rows = [record(1), record(2, p={"x": 1}, q="second"), record(3, w=True), record(4, w={"x": 1})]
    rows = [{"in": {**row, "w": row["w"]}, "q": row.get("q")} for row in rows]
    columns = {name: text if "'" in text else f"in.{text}" for name, text in COLUMNS.items()}
    columns |= {"prompt": "COALESCE(q, in.p)", "label": "CASE in.w WHEN 'true' THEN 'b' ELSE in.w END"}
    kept, bad = taken(tmp_path, "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), columns)
    assert kept == [("r1", 1), ("r2", 2), ("r3", 3)]
    assert bad == [(4, "not-convertible", "label", '{"x": 1}')]


def test_a_truncated_gzip_keeps_its_whole_lines(tmp_path):
    import random

    noise = random.Random(0)
    packed = gzip.compress(b"".join(line(n, x=f"{noise.getrandbits(900):x}") + b"\n" for n in range(500)))
    kept, bad = taken(tmp_path, "x.jsonl.gz", packed[: len(packed) // 2])
    assert 100 < len(kept) < 400
    assert reasons(bad) == [(len(kept) + 1, "truncated-file")]
    both = taken(tmp_path, "y.jsonl.gz", packed + gzip.compress(lines(500)))
    assert (len(both[0]), both[1]) == (501, [])


def test_a_gzip_bomb_stops_at_the_limit_of_the_policy(tmp_path):
    bomb = gzip.compress(b'{"id": "' + b"0" * 200_000_000 + b'"}')
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    with pytest.raises(Unreadable, match="holds more than 10,000,000 bytes; raise `max_bytes`") as error:
        taken(tmp_path, "x.jsonl.gz", bomb, max_bytes=10_000_000)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    assert error.value.reason == "too-large"
    with pytest.raises(Unreadable, match="holds more than"):
        taken(tmp_path, "x.csv", b"id,p,a,b,w\n" + b"r1,q,yes,no,a\n" * 10, max_bytes=100)


def test_a_label_outside_the_vocabulary_and_a_score_outside_its_scale(tmp_path):
    kept, bad = taken(tmp_path, "x.jsonl", lines(1) + line(2, w="both\nof them") + b"\n" + lines(3))
    assert len(kept) == 2
    assert bad == [(2, "outside-vocabulary", "label", "both\\nof them")]
    columns = {**COLUMNS, "kind": "'rating'", "label": "CASE WHEN w = '' THEN w END", "score": "s", "score_max": "5"}
    kept, bad = taken(tmp_path, "x.jsonl", line(1, s=5) + b"\n" + line(2, s=5.5) + b"\n" + line(3, s="x"), columns)
    assert kept == [("r1", 1)]
    assert bad == [(2, "outside-scale", "score", "5.5"), (3, "not-convertible", "score", "x")]


def test_times_without_zone_and_in_seconds_or_milliseconds_are_not_guessed(tmp_path):
    noon = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    at = [noon.timestamp(), noon.timestamp() * 1000, None]
    data = b"".join(line(number, at=value and int(value)) + b"\n" for number, value in enumerate(at))
    seconds = {**COLUMNS, "collected_at": {"expr": "at", "unit": "s"}}
    assert reasons(taken(tmp_path, "x.jsonl", data, seconds)[1]) == [(2, "not-convertible")]
    with pytest.raises(Unreadable, match="a number with its `unit`"):
        taken(tmp_path, "x.jsonl", data, {**COLUMNS, "collected_at": "at"})
    local = line(1, at="2024-07-01T12:00:00") + b"\n" + line(2, at="2024-07-01T12:00:00Z")
    kept, bad = taken(tmp_path, "x.jsonl", local, {**COLUMNS, "collected_at": "at"})
    assert (kept, reasons(bad)) == ([("r2", 2)], [(1, "time-without-zone")])


def test_an_expression_that_fails_on_a_record_costs_that_record(tmp_path):
    columns = {**COLUMNS, "score": "CAST(s AS BIGINT) + 1"}
    data = b"".join(line(number, s="x" if number % 5 == 2 else str(number)) + b"\n" for number in range(20))
    kept, bad = taken(tmp_path, "x.jsonl", data, columns)
    assert [number for _, number in kept] == [number + 1 for number in range(20) if number % 5 != 2]
    assert bad == [(number, "expression-fails", "score", "x") for number in (3, 8, 13, 18)]
    with pytest.raises(Unreadable, match=r"columns\.score: 'CAST\(s AS BIGINT\) \+ 1' fails on"):
        taken(tmp_path, "x.jsonl", b"".join(line(number, s="x") + b"\n" for number in range(20)), columns)


@pytest.mark.parametrize(
    ("mapping", "one", "other", "label"),
    [
        ("w", 1, "1", "1"),
        ("LOWER(w)", 1, "1", "1"),
        ("CASE WHEN w = 'x' THEN 'b' ELSE 'a' END", 1, "1", "a"),
        ("CASE WHEN w = 1 THEN 'b' ELSE 'a' END", 1, "1", "b"),
        ("CASE WHEN w.v = 1 THEN 'b' END", {"v": 1}, {"v": 1, "more": 2}, "b"),
        ("CASE WHEN LOWER(w) = 'a' THEN 'b' END", None, "x", None),
        ("w.v", None, {"v": None}, None),
    ],
)
def test_a_column_whose_type_changes_between_batches_gives_the_same_records(tmp_path, mapping, one, other, label):
    columns = {"kind": "'rating'", "label": mapping}
    for value in (one, other):
        (tmp_path / "x.jsonl").write_bytes(line(1, w=value))
        source = Source(name="s", path="x.jsonl", columns=columns)
        file = list_files(source, tmp_path)[0]
        mapped = map_records(read(file, source), source, file)
        assert mapped.records["label"].to_list() == [label]


def test_a_column_that_the_file_lacks_is_null_where_the_mapping_says_optional(tmp_path):
    columns = {**COLUMNS, "annotator_id": {"expr": "who", "optional": True}}
    columns["language"] = {"expr": "COALESCE(meta.lang, lang)", "optional": True}
    assert taken(tmp_path, "x.jsonl", lines(1), columns) == ([("r1", 1)], [])
    assert taken(tmp_path, "x.jsonl", line(1, who=7, meta={"lang": "en"}), columns) == ([("r1", 1)], [])
    columns["annotator_id"] = "who"
    with pytest.raises(Unreadable, match="reads column 'who'") as error:
        taken(tmp_path, "x.jsonl", lines(1), columns)
    assert (error.value.reason, error.value.column) == ("missing-column", "annotator_id")


def test_an_expression_of_an_optional_column_still_says_what_a_missing_one_means(tmp_path):
    columns = {**COLUMNS, "label": {"expr": "CASE WHEN tied IS NULL THEN w ELSE 'tie' END", "optional": True}}
    assert taken(tmp_path, "x.jsonl", lines(1, 2), columns) == ([("r1", 1), ("r2", 2)], [])


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.arrow"])
def test_a_batch_of_no_rows_is_no_error(tmp_path, name):
    frame = pl.DataFrame(schema=dict.fromkeys("pabw", pl.String) | {"id": pl.Int64})
    write = {"x.csv": frame.write_csv, "x.parquet": frame.write_parquet, "x.arrow": frame.write_ipc}
    write.get(name, Path.touch)(tmp_path / name)
    assert taken(tmp_path, name, (tmp_path / name).read_bytes()) == ([], [])


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.arrow", "x.xlsx"])
def test_an_empty_file_of_another_format_is_one_clear_error(tmp_path, name):
    with pytest.raises(Unreadable, match=name):
        taken(tmp_path, name, b"")


def test_ten_million_characters_and_nul_are_text_like_any_other(tmp_path):
    kept, bad = taken(tmp_path, "x.jsonl", line(1, a="x" * 10_000_000) + b"\n" + line(2, a="\0 \0"))
    assert (kept, bad) == ([("r1", 1), ("r2", 2)], [])
    rows = b"id,p,a,b,w\nr1,q," + b"x" * 10_000_000 + b",no,a\nr2,q,y\0es,no,a\n"
    assert taken(tmp_path, "x.csv", rows) == ([("r1", 2), ("r2", 3)], [])


def test_a_hundred_thousand_columns_that_nothing_reads_are_kept_in_extra(tmp_path):
    wide = {f"k{number}": number for number in range(100_000)}
    (tmp_path / "x.jsonl").write_bytes(line(1, **wide, none=None) + b"\n" + line(2, z={"x": None}) + b"\n")
    source = Source(name="s", path="x.jsonl", columns=COLUMNS)
    file = list_files(source, tmp_path)[0]
    records = map_records(read(file, source), source, file).records
    assert json.loads(records["extra"][0]) == wide
    assert records["extra"][1] == '{"z":{}}'
    assert records["feedback_id"].to_list() == ["r1", "r2"]


def test_a_wide_table_and_a_narrow_one_give_the_same_extra(tmp_path):
    narrow = "id,p,a,b,w,x,é\nr1,q,yes,no,a,1,\n"
    columns = [f"c{number}" for number in range(3_000)]
    wide = f"id,p,a,b,w,x,é,{','.join(columns)}\nr1,q,yes,no,a,1,{',' * len(columns)}\n"
    extras = []
    for text in (narrow, wide):
        (tmp_path / "x.csv").write_text(text, encoding="utf-8")
        source = Source(name="s", path="x.csv", columns=COLUMNS)
        file = list_files(source, tmp_path)[0]
        extras.append(json.loads(map_records(read(file, source), source, file).records["extra"][0]))
    assert {name: value for name, value in extras[1].items() if not name.startswith("c")} == extras[0]


@pytest.mark.parametrize(("name", "more", "sign"), [("x.csv", {"delimiter": ";"}, ";"), ("x.tsv", {}, "\t")])
def test_a_delimiter_other_than_a_comma(tmp_path, name, more, sign):
    rows = [
        ["id", "p", "a", "b", "w"],
        ["r1", '"q, and\nmore"', "yes,", "no", "a"],
        ["r2", "q", f'"{sign}"', "no", "b"],
    ]
    data = "\n".join(sign.join(row) for row in rows).encode()
    assert taken(tmp_path, name, data, **more) == ([("r1", 2), ("r2", 4)], [])
    kept, bad = taken(tmp_path, name, data + b"\nragged" + sign.encode() + b"\n" + data.split(b"\n")[3], **more)
    assert (kept, reasons(bad)) == ([("r1", 2), ("r2", 4), ("r2", 6)], [(5, "ragged-row")])


@pytest.mark.parametrize("told", [b"sep=;\n", b"\xef\xbb\xbfsep=;\r\n", b'"sep=;"\n'])
def test_a_line_that_tells_excel_the_delimiter_is_no_header_and_counts_as_a_line(tmp_path, told):
    rows = b'id;p;a;b;w\nr1;"q;\nq";yes,;no;a\nr2;q;yes;no;a\n'
    assert taken(tmp_path, "x.csv", told + rows) == ([("r1", 3), ("r2", 5)], [])
    kept, bad = taken(tmp_path, "x.csv", told + rows + b"ragged;\nr3;q;yes;no;b\n")
    assert (kept, reasons(bad)) == ([("r1", 3), ("r2", 5), ("r3", 7)], [(6, "ragged-row")])
    returns = (told + b"id;p;a;b;w\nr1;q;yes;no;a\n").replace(b"\r", b"").replace(b"\n", b"\r")
    assert taken(tmp_path, "x.csv.gz", gzip.compress(returns)) == ([("r1", 3)], [])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("data", [[record(1), record(2)], record(1)])
def test_one_json_document_that_is_named_as_lines_says_what_it_is(tmp_path, data, indent):
    text = json.dumps(data, indent=indent).encode()
    if data == record(1) and indent is None:
        assert taken(tmp_path, "x.jsonl", text) == ([("r1", 1)], [])
        return
    with pytest.raises(Unreadable, match="this is one JSON document, no JSON lines: set `format: json`") as error:
        taken(tmp_path, "x.jsonl", text)
    assert error.value.reason == "json-document"
    assert taken(tmp_path, "x.jsonl", text, format="json")[0][0] == ("r1", 1)


def test_an_array_of_which_one_line_is_an_object_is_no_lines_with_one_record(tmp_path):
    with pytest.raises(Unreadable, match="one JSON document"):
        taken(tmp_path, "x.jsonl", b"[\n" + line(1) + b",\n" + line(2) + b"\n]\n")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_an_encoding_of_several_bytes_a_sign_is_named_with_what_mends_it(tmp_path, name, encoding):
    data = f"id,p,a,b,w\nr1,{'q' * 99},yes,no,a\n" if "csv" in name else json.dumps(record(1))
    known = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    with pytest.raises(Unreadable, match=f"looks like {known}, not UTF-8; convert it: iconv -f {known} -t") as error:
        taken(tmp_path, name, (gzip.compress if name.endswith("gz") else bytes)(data.encode(encoding)))
    assert error.value.reason == "other-encoding"


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("x.csv", b"PK\x03\x04", "a zip archive or a spreadsheet, not csv"),
        ("x.jsonl", b"PK\x03\x04", "a zip archive or a spreadsheet, not jsonl"),
        ("x.jsonl.gz", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "packed twice, not jsonl"),
        ("x.json", b"BZh91AY&SY", "packed with bzip2, not json"),
        ("x.csv", b"PAR1\x15\x04", "Parquet, not csv"),
        ("x.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or one with a password, not xlsx"),
        ("x.csv", b"SQLite format 3\0" + b"\0" * 99, "a SQLite database, not csv"),
    ],
)
def test_a_file_of_another_format_than_its_name_says_so(tmp_path, name, data, what):
    with pytest.raises(Unreadable, match=f"this is {what}; convert it") as error:
        taken(tmp_path, name, data)
    assert error.value.reason == "other-format"


def test_a_name_that_has_blanks_in_the_file_is_shown_with_them(tmp_path):
    with pytest.raises(Unreadable, match=r"reads column 'id' which .* does not have; did you mean ' id '"):
        taken(tmp_path, "x.csv", b" id , p , a , b , w \nr1,q,yes,no,a\n")


@pytest.mark.parametrize("data", [b'{"error": "the token has expired"}\n', b"<html></html>", b"id,p,a,b\n"])
def test_one_line_that_names_no_column_of_the_mapping_is_no_table_without_rows(tmp_path, data):
    with pytest.raises(Unreadable, match="reads column") as error:
        taken(tmp_path, "x.csv", data)
    assert error.value.reason == "missing-column"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.csv", b'"a"b,c\n1,2\n'),
        ("x.csv", b"\n1,2\n"),
        ("x.csv", b"a\xff\n1\n"),
        ("x.csv", b"PK\x03\x04"),
        ("x.csv", "a\n1\n".encode("utf-16")),
        ("x.json", b'[{"a": 1'),
        ("x.json", b"[" * 5_000),
        ("x.json.gz", gzip.compress(b"[1]", mtime=0)[:-6]),
        ("x.jsonl", b'[\n{"a": 1}\n]'),
        ("x.jsonl", b'{"__position": 1}'),
        ("x.jsonl", b'{"__line": 1}'),
        ("x.jsonl", b'{"other": 1}'),
        ("x.parquet", b"PAR1"),
        ("x.arrow", b"ARROW1"),
        ("x.xlsx", b"PK\x03\x04"),
    ],
)
def test_what_quarantine_says_of_a_file_does_not_depend_on_where_it_lies(tmp_path, name, data):
    with pytest.raises(Unreadable) as error:
        taken(tmp_path, name, data)
    assert tmp_path.name not in error.value.value
    assert error.value.value


def test_a_line_that_may_be_of_windows_1252_says_so_and_what_mends_it(tmp_path):
    hint = "may be Windows-1252; convert it: iconv -f WINDOWS-1252 -t UTF-8"
    cafe, privet = "Café\u00a0– «no»".encode("cp1252"), "привет".encode("cp1251")
    rows = [line(number).replace(b"no", text) for number, text in enumerate((b"no", cafe, privet), 1)]
    kept, bad = taken(tmp_path, "x.jsonl", b"\n".join(rows))
    assert kept == [("r1", 1)]
    assert bad == [(2, "invalid-utf8", None, hint), (3, "invalid-utf8", None, "is not UTF-8; convert it")]
    rows = b'id,p,a,b,w\nr1,q,yes,no,a\nr2,q,"yes\n' + cafe + b'",no,a\nr3,q,yes,' + privet + b",a\n"
    assert taken(tmp_path, "x.csv", rows) == (
        [("r1", 2)],
        [(3, "invalid-utf8", None, hint), (5, "invalid-utf8", None, "is not UTF-8; convert it")],
    )
    with pytest.raises(Unreadable, match="the first line must name the columns, in UTF-8; the header may be Windows-1"):
        taken(tmp_path, "x.csv", b"id,p,a,b,w,Caf\xe9\nr1,q,yes,no,a,1\n")
    assert taken(tmp_path, "x.csv", "id,p,a,b,w,\ufffd\nr1,q,yes,no,a,1\n".encode()) == ([("r1", 2)], [])


def test_a_quote_that_never_closes_swallows_no_line_in_silence(tmp_path):
    rows = b"id,p,a,b,w\nr1,q,yes,no,a\n" + b'r2,"q,yes,no,a\n' + b"r3,q,yes,no,a\n\nr4,q,yes,no,a\n"
    kept, bad = taken(tmp_path, "x.csv", rows)
    assert kept == [("r1", 2)]
    assert reasons(bad) == [(3, "malformed-csv"), (4, "malformed-csv"), (6, "malformed-csv")]


def test_a_quote_that_closes_in_a_later_record_costs_the_lines_between(tmp_path):
    rows = b'id,p,a,b,w\nr1,"q,yes,no,a\nr2,"q",yes,no,a\nr3,q,yes,no,a\n'
    kept, bad = taken(tmp_path, "x.csv", rows)
    assert kept == [("r3", 4)]
    assert reasons(bad) == [(2, "malformed-csv"), (3, "malformed-csv")]


def test_an_arrow_file_and_an_arrow_stream_are_told_apart_by_their_bytes(tmp_path):
    frame = pl.DataFrame([record(1), record(2)])
    for name in ("x.arrow", "x.feather"):
        for write in (frame.write_ipc, frame.write_ipc_stream):
            write(tmp_path / name)
            assert taken(tmp_path, name, (tmp_path / name).read_bytes()) == ([("r1", 1), ("r2", 2)], [])


def test_a_folder_of_datasets_is_a_source(tmp_path):
    frame = pl.DataFrame([record(1), record(2)])
    saved, splits, hub = tmp_path / "saved", tmp_path / "splits", tmp_path / "hub"
    for folder in (saved, splits / "train", splits / "test"):
        folder.mkdir(parents=True)
        frame.write_ipc_stream(folder / "data-00000-of-00001.arrow")
        for name in ("dataset_info.json", "state.json"):
            (folder / name).write_text("{}")
    (splits / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (hub / "data").mkdir(parents=True)
    (hub / ".cache").mkdir()
    (hub / "README.md").write_text("# A dataset")
    for name in ("data/train-00000-of-00001.parquet", ".cache/x.parquet"):
        frame.write_parquet(hub / name)

    def names(folder):
        source = Source(name="s", path=folder.name, columns=COLUMNS)
        files = list_files(source, tmp_path)
        for file in files:
            assert map_records(read(file, source), source, file).records["feedback_id"].to_list() == ["r1", "r2"]
        return [file.name for file in files]

    assert names(saved) == ["data-00000-of-00001.arrow"]
    assert names(splits) == ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert names(hub) == ["data/train-00000-of-00001.parquet"]


def test_a_name_that_is_ours_is_one_clear_error(tmp_path):
    for name in ("__line", "__extra"):
        with pytest.raises(FeedbackError, match=f"the column name {name} is ours"):
            taken(tmp_path, "x.jsonl", line(1, **{name: 1}))


def test_a_cell_that_lies_far_out_ends_no_process(tmp_path):
    spreadsheet(tmp_path / "x.xlsx", {1: list(COLUMNS), 9_999_999_999: ["far out"]})
    with pytest.raises(Unreadable, match="holds more than") as error:
        taken(tmp_path, "x.xlsx", (tmp_path / "x.xlsx").read_bytes())
    assert error.value.reason == "too-large"


def test_an_error_in_a_cell_a_formula_without_a_value_and_a_truth_value_become_no_null_and_no_text(tmp_path):
    error, formula, truth = b't="e"><v>#N/A</v>', b'><f>"x"&amp;"y"</f><v/>', b't="b"><v>1</v>'
    empty, computed = b't="str"><f>""</f><v></v>', b't="str"><f>A1</f><v>b</v>'
    rows = [
        ["id", "p", "a", "b", "w", "other"],
        ["r2", "q", "yes", "no", "a", error],
        ["r3", error, "yes", "no", "a", "x"],
        ["r4", "q", formula, "no", "a", formula],
        ["r5", "q", "yes", "no", computed, empty],
        ["r6", "q", truth, "no", "a", truth],
        ["r7", "q", b't="e"><f>1/0</f><v>#DIV/0!</v>', "no", "a", "x"],
    ]
    spreadsheet(tmp_path / "x.xlsx", dict(enumerate(rows, 1)))
    kept, bad = taken(tmp_path, "x.xlsx", (tmp_path / "x.xlsx").read_bytes())
    assert kept == [("r2", 2), ("r5", 5)]
    assert bad == [
        (3, "not-convertible", None, "#N/A"),
        (4, "not-convertible", None, "a formula without its value"),
        (6, "not-convertible", "response_a", None),
        (7, "not-convertible", None, "#DIV/0!"),
    ]


def test_an_error_is_one_line_whatever_columns_are_called(tmp_path):
    with pytest.raises(Unreadable) as error:
        taken(tmp_path, "x.csv", b'"a\n' + b"b" * 100_000 + b'",c\n1,2\n')
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 1_000


def test_a_key_that_stands_twice_with_values_of_two_types_costs_its_line_and_no_other(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"id": "a", "s": 1}\n{"id": "b", "s": "r", "s": 2}\n{"id": "c", "s": 3}\n')
    source = Source(name="s", path="x.jsonl", columns={"kind": "'preference'"})
    raw = read(list_files(source, tmp_path)[0], source)
    assert raw.frame["id"].to_list() == ["a", "c"]
    assert raw.malformed["line"].to_list() == [2]
