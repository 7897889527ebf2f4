import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.errors import FeedbackError
from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.files import BatchFile
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.quarantine import QUARANTINE, quarantined
from feedback_assets.sources.raw import Raw
from feedback_assets.sources.source import Source

UTC = dt.UTC
NONE = pl.DataFrame(schema=QUARANTINE)


def mapped(columns, data, *, suffix="parquet", malformed=NONE, **more):
    source = Source(name="s", path=f"x.{suffix}", columns={"kind": "'preference'", **columns}, **more)
    frame = data if isinstance(data, pl.DataFrame) else pl.DataFrame(data)
    frame = frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("__line"))
    path = Path(f"x.{suffix}")
    return map_records(Raw(frame, malformed), source, BatchFile("s", path.name, path, "0" * 64, 1))


def one(column, values, suffix="parquet", **options):
    """What `column` becomes of the raw `values`: the records' values and the quarantined (line, reason, value)."""
    result = mapped({column: {"expr": "v", **options}}, {"v": values}, suffix=suffix)
    return result.records[column].to_list(), result.quarantined.select("line", "reason", "value").rows()


def test_the_records_have_every_column_of_the_record_and_its_type():
    result = mapped({"label": "w"}, {"w": ["a"], "note": ["n"]})
    assert result.records.columns == [*FROM_SOURCE, "line", "position", "extra"]
    assert all(result.records.schema[name] == column.dtype for name, column in FROM_SOURCE.items())
    row = result.records.row(0, named=True)
    assert (row["batch"], row["kind"], row["label"], row["line"]) == ("x.parquet", "preference", "a", 1)
    assert row["extra"] == '{"note":"n"}'
    assert row["prompt"] is None


def test_a_batch_can_be_an_expression():
    result = mapped({}, {"week": [5, 6, None]}, batch="week")
    assert result.records["batch"].to_list() == ["5", "6"]
    assert result.quarantined.row(0) == ("s", "x.parquet", 3, 1, "no-batch", "batch", None)


@pytest.mark.parametrize(
    ("values", "expected", "bad"),
    [
        ([213.0, 1.5, None], ["213", "1.5", None], []),
        ([1.0, float("nan"), float("inf")], ["1"], [(2, "not-convertible", "NaN"), (3, "not-convertible", "inf")]),
        ([7, None], ["7", None], []),
        ([True], ["true"], []),
        ([" x ", "", " \t"], [" x ", None, None], []),
        ([dt.date(2024, 1, 2)], ["2024-01-02"], []),
    ],
)
def test_an_id_becomes_text(values, expected, bad):
    assert one("feedback_id", values) == (expected, bad)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "xlsx"])
@pytest.mark.parametrize("column", ["annotator_id", "feedback_id", "group_id"])
def test_blank_text_is_nobody_and_no_id_whatever_the_format(column, suffix):
    assert one(column, ["ann", "", "  ", "\u00a0"], suffix) == (["ann", None, None, None], [])
    blank = pl.Series(["ann", " "], dtype=pl.Categorical)
    assert one(column, blank, suffix) == (["ann", None], [])


@pytest.mark.parametrize(
    ("values", "expected", "bad"),
    [
        ([1, 2], [1.0, 2.0], []),
        (["1", "2.5", None], [1.0, 2.5, None], []),
        (["1", "x\ny", " 3", "nan", ""], [1.0], [(2, "x\\ny"), (3, " 3"), (4, "nan"), (5, "")]),
        ([0.5, float("nan")], [0.5], [(2, "NaN")]),
    ],
)
def test_a_score_becomes_a_number_or_is_quarantined(values, expected, bad):
    got, wrong = one("score", values)
    assert got == expected
    assert wrong == [(line, "not-convertible", value) for line, value in bad]


@pytest.mark.parametrize(
    ("values", "expected", "bad"),
    [
        ([True, None], [True, None], []),
        (["true", "False", "1", "0", "yes"], [True, False, True, False], [(5, "not-convertible", "yes")]),
        ([1, 0, 2], [True, False], [(3, "not-convertible", "2")]),
    ],
)
def test_a_truth_value_is_not_guessed(values, expected, bad):
    assert one("anchor", values) == (expected, bad)


def test_an_empty_field_of_a_csv_is_null_but_in_text():
    result = mapped({"score": "v", "label": "v", "response_a": "v"}, {"v": [""]}, suffix="csv")
    assert result.records.select("score", "label", "response_a").row(0) == (None, None, "")
    assert one("score", [""])[1] == [(1, "not-convertible", "")]


NOON = dt.datetime(2024, 7, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2024-07-01T12:00:00Z",
        "2024-07-01 12:00:00+00:00",
        "2024-07-01T14:00:00.000+02:00",
        "2024-07-01T14:00+0200",
        "2024-07-01T06:30:00,0-05:30",
        "2024-07-01T14:00:00.000000000 +02",
    ],
)
def test_an_iso_time_with_its_offset_needs_no_zone(written):
    assert one("collected_at", [written]) == ([NOON], [])
    assert one("collected_at", [written], timezone="Asia/Tokyo") == ([NOON], [])


def test_a_time_without_zone_needs_one():
    values = ["2024-07-01T14:00:00", "2024-07-01T12:00:00Z", "2024-07-01", "soon", "2024-07-01T14:00:001"]
    expected = [
        (1, "time-without-zone", values[0]),
        (3, "time-without-zone", values[2]),
        (4, "not-convertible", "soon"),
        (5, "not-convertible", values[4]),
    ]
    assert one("collected_at", values) == ([NOON], expected)
    got, wrong = one("collected_at", values, timezone="Europe/Berlin")
    assert got == [NOON, NOON, dt.datetime(2024, 6, 30, 22, 0, tzinfo=UTC)]
    assert [line for line, *_ in wrong] == [4, 5]


def test_an_hour_that_is_there_twice_or_not_at_all_is_quarantined():
    values = ["2024-10-27T02:30:00", "2024-03-31T02:30:00", "2024-07-01T14:00:00"]
    got, wrong = one("collected_at", values, timezone="Europe/Berlin")
    assert got == [NOON]
    assert [reason for _, reason, _ in wrong] == ["not-convertible"] * 2


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([1719835200], {"unit": "s"}, [NOON]),
        ([1719835200.25], {"unit": "s"}, [NOON.replace(microsecond=250_000)]),
        ([1719835200123], {"unit": "ms"}, [NOON.replace(microsecond=123_000)]),
        ([1719835200123456], {"unit": "us"}, [NOON.replace(microsecond=123_456)]),
        ([1719835200123456789], {"unit": "ns"}, [NOON.replace(microsecond=123_456)]),
        (["1719835200", "1719835200.5"], {"unit": "s"}, [NOON, NOON.replace(microsecond=500_000)]),
        ([45474.5], {"unit": "days", "timezone": "UTC"}, [NOON]),
        (["45474.5"], {"unit": "days", "timezone": "UTC"}, [NOON]),
        ([dt.datetime(2024, 7, 1, 14)], {"timezone": "Europe/Berlin"}, [NOON]),
        ([NOON], {}, [NOON]),
        (["01.07.2024 14:00"], {"format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"}, [NOON]),
        (["01.07.2024 14:00 +0200"], {"format": "%d.%m.%Y %H:%M %z"}, [NOON]),
        (["07/01/2024"], {"format": "%m/%d/%Y", "timezone": "UTC"}, [NOON.replace(hour=0)]),
    ],
)
def test_times_of_every_kind_become_utc(values, options, expected):
    assert one("collected_at", values, **options) == (expected, [])


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (["0001-01-01T00:00:00+01:00"], {}),
        (["0001-01-01", "0000-05-05"], {"timezone": "Europe/Berlin"}),
        (["0000-12-31"], {"timezone": "UTC"}),
        (["01.01.0001 +0100"], {"format": "%d.%m.%Y %z"}),
        (["01.01.0001"], {"format": "%d.%m.%Y", "timezone": "Asia/Tokyo"}),
        (["9999-12-31T23:59:59-01:00"], {}),
        ([dt.date(1, 1, 1)], {"timezone": "Asia/Tokyo"}),
        ([dt.datetime(1, 1, 1)], {"timezone": "Asia/Tokyo"}),
        (pl.Series([-62_135_596_801_000, 9 * 10**18], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")), {}),
        (pl.Series([-62_135_596_801_000_000]).cast(pl.Datetime("us")), {"timezone": "UTC"}),
        ([-693_593.5], {"unit": "days", "timezone": "Asia/Tokyo"}),
    ],
)
def test_a_time_outside_the_years_1_to_9999_does_not_convert(values, options):
    got, wrong = one("collected_at", values, **options)
    assert got == []
    assert [reason for _, reason, _ in wrong] == ["not-convertible"] * len(wrong)
    first, last = (dt.datetime(*when, tzinfo=UTC) for when in ((1, 1, 1), (9999, 12, 31, 23, 59, 59, 999999)))
    assert one("collected_at", [first, last]) == ([first, last], [])


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        ([1719835200123], {"unit": "s"}, "not-convertible"),
        ([2**63 - 1], {"unit": "ms"}, "not-convertible"),
        ([float("nan")], {"unit": "s"}, "not-convertible"),
        (["x"], {"unit": "s"}, "not-convertible"),
        ([45474.5], {"unit": "days"}, "time-without-zone"),
        ([dt.datetime(2024, 7, 1)], {}, "time-without-zone"),
        (["1.7.24 x"], {"format": "%d.%m.%Y", "timezone": "UTC"}, "not-convertible"),
    ],
)
def test_a_time_that_does_not_convert_is_quarantined(values, options, reason):
    got, wrong = one("collected_at", values, **options)
    assert (got, [found for _, found, _ in wrong]) == ([], [reason])


def turns(*pairs):
    return [{"role": role, "text": text} for role, text in pairs]


@pytest.mark.parametrize(
    ("values", "format_", "expected", "bad"),
    [
        (["q", None, ""], None, [turns(("user", "q")), None, turns(("user", ""))], []),
        (
            [["q", "r", "s"], [], None],
            "turns",
            [turns(("user", "q"), ("assistant", "r"), ("user", "s")), [], None],
            [],
        ),
        ([["q", None]], "turns", [], [1]),
        (
            [[{"role": "System", "content": "be"}, {"role": "human", "content": "q"}], [{"role": "x", "content": "q"}]],
            "roles",
            [turns(("system", "be"), ("user", "q"))],
            [2],
        ),
        ([[{"from": "gpt", "value": "q"}]], "roles", [turns(("assistant", "q"))], []),
        (
            [
                "\n\nHuman: q\n\nr\n\nAssistant:  s\n\nHuman: Assistant: t",
                "no marks",
                "x\n\nHuman: y",
                "\n\nHuman: \x1ez",
            ],
            "anthropic",
            [turns(("user", "q\n\nr"), ("assistant", " s"), ("user", "Assistant: t"))],
            [2, 3, 4],
        ),
    ],
)
def test_a_prompt_becomes_turns(values, format_, expected, bad):
    got, wrong = one("prompt", values, **({"format": format_} if format_ else {}))
    assert got == expected
    assert wrong == [(line, "not-convertible", None) for line in bad]


def test_extra_holds_what_no_expression_reads_and_depends_on_the_record_alone():
    data = {
        "z": ['é\n"', None],
        "at": [dt.datetime(2024, 1, 1, 2, 3), None],
        "n": [1.5, None],
        "st": [{"a": 1, "b": None}, None],
        "l": [["x"], None],
        "bytes": [b"\x01", None],
        "read": ["r", "r"],
    }
    extra = mapped({"label": "read"}, data).records["extra"].to_list()
    assert json.loads(extra[0]) == {
        "at": "2024-01-01T02:03:00.000000",
        "bytes": "01",
        "l": ["x"],
        "n": 1.5,
        "st": {"a": 1},
        "z": 'é\n"',
    }
    assert list(json.loads(extra[0])) == sorted(json.loads(extra[0]))
    assert extra[1] is None
    alone = mapped({"label": "read"}, {"z": ["q"], "read": ["r"]}).records["extra"].to_list()
    assert mapped({"label": "read"}, {"z": ["q"], "new": [None], "read": ["r"]}).records["extra"].to_list() == alone


def test_a_struct_of_which_a_field_is_read_is_not_extra():
    assert mapped({"label": "st.a"}, {"st": [{"a": "a", "b": 2}]}).records.select("label", "extra").row(0) == (
        "a",
        None,
    )


def test_a_column_that_the_file_lacks_is_named_with_what_it_has():
    with pytest.raises(FeedbackError) as error:
        mapped({"label": "winer"}, {"winner": ["a"], "x": [1]})
    assert str(error.value) == (
        "source 's', columns.label: reads column 'winer' which x.parquet does not have; "
        "did you mean 'winner'? it has: winner, x"
    )


@pytest.mark.parametrize(
    ("column", "mapping", "values", "message"),
    [
        ("label", "CAST(v AS BIGINT)", ["x"], "columns.label: 'CAST"),
        ("label", "v", [["x"]], "columns.label: 'v' gives List.String., of which no label can be made; give text"),
        ("collected_at", "v", [5], "columns.collected_at: .* a number with its `unit`"),
        ("prompt", "v", [["x"]], "`format: turns`"),
        ("label", "LOWER(v)", [[1]], "columns.label: 'LOWER"),
        ("collected_at", {"expr": "v", "format": "%H", "timezone": "UTC"}, ["x"], "columns.collected_at"),
    ],
)
def test_an_expression_that_fails_is_named_by_its_key(column, mapping, values, message):
    with pytest.raises(FeedbackError, match=message) as error:
        mapped({column: mapping}, {"v": values})
    assert "\n" not in str(error.value)


def test_a_record_with_two_faults_is_quarantined_once_under_the_first():
    result = mapped({"score": "v", "anchor": "w"}, {"v": ["x", "1"], "w": ["y", "1"]})
    assert result.quarantined.rows() == [("s", "x.parquet", 1, 1, "not-convertible", "score", "x")]
    assert result.records["line"].to_list() == [2]


def test_no_text_of_a_prompt_is_shown_in_quarantine():
    result = mapped({"prompt": {"expr": "p", "format": "anthropic"}, "score": "v"}, {"p": ["secret"], "v": ["x"]})
    reasons = result.quarantined.select("column", "value").rows()
    assert reasons in ([("prompt", None)], [("score", "x")])


def test_a_value_in_quarantine_is_short_and_on_one_line():
    (found,) = one("score", ["\n\x1b" + "9x" * 100])[1]
    assert len(found[2]) <= 80
    assert found[2].isprintable()


def test_an_empty_file_gives_no_record():
    source = Source(name="s", path="x.jsonl", columns={"kind": "'thumbs'", "label": "vote"})
    path = Path("x.jsonl")
    raw = Raw(pl.DataFrame(schema={"__line": pl.Int64}), quarantined("s", "x.jsonl", [3], "malformed-json"))
    result = map_records(raw, source, BatchFile("s", "x.jsonl", path, "0" * 64, 0))
    assert (result.records.height, result.quarantined.height) == (0, 1)
    assert result.records.columns == [*FROM_SOURCE, "line", "position", "extra"]


CELL = st.one_of(
    st.none(), st.sampled_from(["1", "x", "", "true", "2024-01-01", "2024-01-01T00:00Z", "nan", "\n\nHuman: q"])
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=8), st.sampled_from(["csv", "jsonl"]))
def test_every_raw_row_is_a_record_or_quarantined(rows, suffix):
    data = pl.DataFrame(rows, schema=dict.fromkeys("stbp", pl.String), orient="row")
    columns = {"score": "s", "collected_at": "t", "anchor": "b", "prompt": {"expr": "p", "format": "anthropic"}}
    result = mapped(columns, data, suffix=suffix, malformed=quarantined("s", "f", [99], "malformed-json"))
    lines = result.records["line"].to_list() + result.quarantined["line"].to_list()
    assert sorted(lines) == [*range(1, len(rows) + 1), 99]
    for line, score in result.records.select("line", "score").rows():
        given = rows[line - 1][0]
        assert score is not None or given is None or (given == "" and suffix == "csv")
