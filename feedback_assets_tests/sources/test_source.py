import pytest
from pydantic import ValidationError

from feedback_assets.sources.place import seconds
from feedback_assets.sources.source import Source

KIND = {"kind": "'preference'"}


def source(**columns):
    return Source(name="s", path="x.csv", columns={**KIND, **columns})


def test_a_plain_string_stands_for_its_expression():
    assert source(label="winner").columns["label"].expr == "winner"
    assert source(label="winner") == source(label={"expr": "winner"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lable": "x"}, "did you mean 'label'"),
        ({"row_id": "x"}, "'row_id' is no column that a source fills"),
        ({"batch": "x"}, "beside `columns`"),
        ({"label": "COUNT(x)"}, "COUNT is refused"),
        ({"collected_at": {"expr": "x", "timezone": "Europe/Berln"}}, "did you mean 'Europe/Berlin'"),
        ({"label": {"expr": "x", "unit": "s"}}, "for times only"),
        ({"label": {"expr": "x", "format": "text"}}, "for times, the prompt and the responses only"),
        ({"prompt": {"expr": "x", "format": "chat"}}, "known: text, turns, roles, anthropic, conversation"),
        ({"collected_at": {"expr": "x", "format": "%Y", "unit": "s"}}, "not both"),
        ({"collected_at": {"expr": "x", "zone": "UTC"}}, "Extra inputs"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_way_to_mend_it(columns, message):
    with pytest.raises(ValidationError, match=message):
        source(**columns)


def test_kind_is_required():
    with pytest.raises(ValidationError, match="`kind` is required"):
        Source(name="s", path="x.csv", columns={"label": "x"})


def test_what_is_pinned_holds_no_path_of_this_machine(tmp_path):
    assert source().pinned()["path"] == "x.csv"


DATABASE = {"connection": "DB", "query": "SELECT 1", "key": "id", "watermark": "at"}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, "give `path`, or `query` or `table` of a database"),
        ({"path": "x", "query": "SELECT 1"}, "not `path` and `query`"),
        ({**DATABASE, "table": "t"}, "not `query` and `table`"),
        ({"path": "x", "key": "id"}, "`key` does not go with `path`"),
        ({**DATABASE, "complete": {"settled_seconds": 1}}, "`complete` does not go with `query`"),
        ({**DATABASE, "connection": None}, "`connection` is required beside `query`"),
        ({**DATABASE, "key": None}, "`key` is required beside `query`"),
        ({**DATABASE, "watermark": None}, "`watermark` is required beside `query`"),
        ({**DATABASE, "query": "SELECT 1; "}, "leave out the semicolon"),
        ({**DATABASE, "connection": "postgresql://me:secret@host/db"}, "connection"),
        ({**DATABASE, "overlap": "1 month"}, "'6 hours' or '1 day'"),
        ({**DATABASE, "overlap": -1}, "not negative"),
    ],
)
def test_a_source_is_in_one_place_that_is_described_in_full(place, said):
    with pytest.raises(ValidationError, match=said):
        Source.model_validate({"name": "s", "columns": {"kind": "'rating'"}, **place})


def test_an_overlap_is_a_number_or_a_time():
    assert [seconds(overlap) for overlap in (0, 7)] == [None, None]
    assert [seconds(overlap) for overlap in ("1 second", "6 hours", "2 weeks")] == [1, 21_600, 1_209_600]
