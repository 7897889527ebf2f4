"""JSON documents: elements by their number, and one clear error where there is no document."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.json_document import read_json


def taken(folder, data):
    path = folder / "x.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    raw = read_json(path, "s", "x.json", read=(), most=10_000_000)
    return raw.frame.to_dicts(), raw.malformed.select("line", "reason").rows()


def test_the_elements_of_an_array_are_numbered(tmp_path):
    assert taken(tmp_path, '[{"a": 1},\n\n {"a": "x\\ny"},\r\n {"b": [{"c": "]"}]}]') == (
        [
            {"a": "1", "b": None, "__line": 1},
            {"a": "x\ny", "b": None, "__line": 2},
            {"a": None, "b": [{"c": "]"}], "__line": 3},
        ],
        [],
    )
    assert taken(tmp_path, " [ ] ") == ([], [])


def test_an_element_that_cannot_be_used_is_quarantined_by_its_number(tmp_path):
    frame, bad = taken(tmp_path, b'[{"a": "x"}, 3, {"a": "\xff"}, null, {"a": NaN}, {"a": "y"}]')
    assert [(row["a"], row["__line"]) for row in frame] == [("x", 1), ("y", 6)]
    assert bad == [(2, "malformed-json"), (3, "invalid-utf8"), (4, "malformed-json"), (5, "malformed-json")]


@pytest.mark.parametrize(
    ("document", "count"),
    [
        ('{"version": "1", "data": [{"a": 1}, {"a": 2}]}', 2),
        ('{"data": [{"a": 1}], "data": [{"a": 2}, {"a": 3}]}', 2),
        ('{"id": 1, "data": {"text": "x"}, "annotations": [{"id": 2}, {"id": 3}]}', 1),
        ('{"a": [{"x": 1}], "b": [{"y": 1}]}', 1),
    ],
)
def test_an_object_is_its_list_only_if_there_is_nothing_else_in_it(tmp_path, document, count):
    frame, bad = taken(tmp_path, document)
    assert (len(frame), bad) == (count, [])


def test_json_lines_under_the_name_of_a_document_are_read_as_such(tmp_path):
    assert taken(tmp_path, '{"a": 1}\nx\n{"a": 2}\n') == (
        [{"a": 1, "__line": 1}, {"a": 2, "__line": 3}],
        [(2, "malformed-json")],
    )


@pytest.mark.parametrize(
    ("document", "place"),
    [('[{"a": 1},', "1:11"), ('[{"a": 1}\n {"a": 2}]', "2:2"), ("", "1:1"), ('{"a": [{]}', "1:9"), ("[1] [2]", "1:5")],
)
def test_a_document_that_does_not_parse_is_one_error_with_its_place(tmp_path, document, place):
    with pytest.raises(FeedbackError, match=f"x.json:{place}: not valid JSON: ") as error:
        taken(tmp_path, document)
    assert "\n" not in str(error.value)


def test_a_document_of_nothing_but_brackets_is_an_error(tmp_path):
    with pytest.raises(FeedbackError, match="nested too deeply"):
        taken(tmp_path, "[" * 200_000)


def test_a_gzip_that_breaks_off_is_no_document(tmp_path):
    packed = gzip.compress(json.dumps([{"a": str(n)} for n in range(999)]).encode())
    assert len(taken(tmp_path, packed)[0]) == 999
    with pytest.raises(FeedbackError, match="breaks off"):
        taken(tmp_path, packed[:-30])


VALUE = st.one_of(st.text(max_size=6), st.integers(-(2**40), 2**40), st.none())
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUE, min_size=1), min_size=1, max_size=6)


@given(OBJECTS, st.sampled_from([None, 1]))
@settings(max_examples=60, deadline=None)
def test_layout_makes_no_difference(tmp_path_factory, objects, indent):
    folder = tmp_path_factory.mktemp("json")
    frame, bad = taken(folder, json.dumps(objects, indent=indent))
    same = taken(folder, "\n".join(["[", ",\n".join(json.dumps(entry) for entry in objects), "]"]))
    assert (frame, bad) == same
    assert [row["__line"] for row in frame] == list(range(1, len(objects) + 1))
