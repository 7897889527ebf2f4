"""Digests: what counts, what does not, and values that must never change."""

import hashlib
import struct

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.digests import (
    canonical_json,
    digest,
    distinct,
    file_digest,
    fingerprint,
    repeated,
    schema_of,
    text_hash,
    text_id,
)
from feedback_assets.record import TIME, TURNS


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": [1, None, "é"], "a": 0.5}) == '{"a":0.5,"b":[1,null,"é"]}'.encode()
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        digest({"a": value})


def ids(*columns: list[str | None]) -> list[str]:
    frame = pl.DataFrame({f"c{i}": pl.Series(column, dtype=pl.String) for i, column in enumerate(columns)})
    return frame.select(text_id(*map(pl.col, frame.columns))).to_series().to_list()


def test_a_text_id_is_the_sha_256_of_its_framed_columns():
    assert ids(["a"], ["bc"]) == [hashlib.sha256(b"1:a;2:bc;").hexdigest()[:32]]
    assert ids(["é"], [None]) == [hashlib.sha256("2:é;-;".encode()).hexdigest()[:32]]


def test_a_text_hash_is_the_xxh3_of_the_reference_implementation():
    found = pl.DataFrame({"text": ["", "a", "abc", None]}).select(text_hash(pl.col("text"))).to_series()
    assert found.to_list() == [0x2D06800538D394C2, 0xE6C632B61E964E1F, 0x78AF5F94892F3950, None]


def test_columns_do_not_run_into_each_other_and_null_is_not_empty():
    found = ids(["a", "ab", "", None, "a;1:b"], ["bc", "c", "abc", "abc", ""])
    assert len(set(found)) == 5
    assert ids(["-;"])[0] != ids([None])[0]


@given(st.lists(st.tuples(*[st.text("a1:;-", max_size=5) | st.none()] * 2), min_size=2, max_size=20, unique=True))
@settings(max_examples=50, deadline=None)
def test_different_columns_have_different_ids(rows):
    assert len(set(ids(*map(list, zip(*rows, strict=True))))) == len(rows)


FRAME = pl.DataFrame(
    {
        "text": ["a", None, "", "é"],
        "number": [1, None, -1, 0],
        "score": [0.5, None, float("nan"), -0.0],
        "flag": [True, None, False, True],
        "at": [0, None, 1, 2],
        "turns": [[{"role": "user", "text": "x"}], None, [], [{"role": None, "text": ""}]],
        "parents": [["p", "q"], [None], None, []],
    },
    schema={
        "text": pl.String,
        "number": pl.Int64,
        "score": pl.Float64,
        "flag": pl.Boolean,
        "at": TIME,
        "turns": TURNS,
        "parents": pl.List(pl.String),
    },
)


def test_the_fingerprint_of_a_frame_is_the_same_in_every_run_and_version():
    assert fingerprint(FRAME) == "2045e7078dc1729f9cbdbb1b6513e2bb0d2e6a2f83301db4e3e6f15fefcb48dd"
    assert fingerprint(pl.DataFrame()) == hashlib.sha256(b"[[],0]").hexdigest()


def test_a_fingerprint_can_be_recomputed_with_ordinary_tools():
    header = b'[[["n","int64"],["t","string"],["f","float64"]],2]'
    numbers = b"+" + struct.pack("<2q", 7, -7)
    texts = b"+" + struct.pack("<2I", 1, 2) + "aé".encode()
    floats = b"\x01\x00" + struct.pack("<d", 0.0)
    frame = pl.DataFrame({"n": [7, -7], "t": ["a", "é"], "f": [-0.0, None]})
    assert fingerprint(frame) == hashlib.sha256(header + numbers + texts + floats).hexdigest()


def test_neither_chunks_slices_nor_a_parquet_file_change_a_fingerprint(tmp_path):
    expected = fingerprint(FRAME)
    chunked = pl.concat([FRAME[:1], FRAME[1:1], FRAME[1:3], FRAME[3:]], rechunk=False)
    assert fingerprint(chunked) == expected
    assert fingerprint(pl.concat([FRAME, FRAME, FRAME])[4:8]) == expected
    FRAME.write_parquet(tmp_path / "f.parquet", row_group_size=2)
    assert fingerprint(pl.read_parquet(tmp_path / "f.parquet")) == expected


def test_what_lies_behind_a_null_does_not_count():
    hidden = pl.DataFrame({"x": [1, 2], "ok": [True, False]}).select(pl.when("ok").then("x"))
    assert fingerprint(hidden) == fingerprint(pl.DataFrame({"x": [1, None]}))


def of(values: list, dtype: pl.DataType | type[pl.DataType]) -> str:
    return fingerprint(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}))


def test_every_nan_is_one_value_and_so_is_zero():
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0], dtype=np.uint64).view(np.float64)
    assert of(odd.tolist(), pl.Float64) == of([float("nan"), float("nan"), -0.0], pl.Float64)
    assert fingerprint(pl.DataFrame({"x": odd})) == of([float("nan"), float("nan"), 0.0], pl.Float64)


def test_values_that_differ_have_different_fingerprints():
    found = [
        of([None], pl.String),
        of([""], pl.String),
        of([], pl.String),
        of([None, ""], pl.String),
        of(["", None], pl.String),
        of(["a", "bc"], pl.String),
        of(["ab", "c"], pl.String),
        of([0.0], pl.Float64),
        of([None], pl.Float64),
        of([float("nan")], pl.Float64),
        of([0.0], pl.Float32),
        of([0], pl.Int64),
        of([0], pl.Int32),
        of([False], pl.Boolean),
        of([None], pl.Null),
        of([0], TIME),
        of([0], pl.Datetime("ms", "UTC")),
        of([0], pl.Datetime("us")),
        of([None], pl.List(pl.String)),
        of([[]], pl.List(pl.String)),
        of([[None]], pl.List(pl.String)),
        of([[""]], pl.List(pl.String)),
        of([["a"], []], pl.List(pl.String)),
        of([[], ["a"]], pl.List(pl.String)),
        of([b""], pl.Binary),
        of([b"a", b"bc"], pl.Binary),
        of([b"ab", b"c"], pl.Binary),
        fingerprint(pl.DataFrame({"y": [""]})),
        fingerprint(pl.DataFrame({"x": [""], "y": [""]})),
        fingerprint(pl.DataFrame({"y": [""], "x": [""]})),
    ]
    assert len(set(found)) == len(found)


def test_a_dtype_without_canonical_bytes_is_refused():
    with pytest.raises(TypeError, match="Object has no fingerprint"):
        fingerprint(pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object)}))


COLUMN = st.lists(st.none() | st.lists(st.none() | st.text("ab\0", max_size=2), max_size=3), max_size=5)


@given(COLUMN, COLUMN)
@settings(max_examples=80, deadline=None)
def test_two_frames_have_one_fingerprint_only_if_they_are_equal(one, other):
    dtype = pl.List(pl.String)
    assert (of(one, dtype) == of(other, dtype)) == (one == other)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=4).map(sorted))
@settings(max_examples=30, deadline=None)
def test_wherever_a_frame_is_cut_its_fingerprint_is_the_same(cuts):
    pieces = [FRAME[start:end] for start, end in zip([0, *cuts], [*cuts, 4], strict=True)]
    assert fingerprint(pl.concat(pieces, rechunk=False)) == fingerprint(FRAME)


def test_dtypes_are_named_in_words_of_our_own():
    assert schema_of(FRAME)["turns"] == "list<struct<role:string,text:string>>"
    assert schema_of(FRAME)["at"] == "datetime<us,UTC>"


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(2**64 - 3, 2**64 - 1)), max_size=30))
def test_repeated_and_distinct_hashes_are_those_that_a_count_finds(hashes: list[int]):
    series = pl.Series("hash", hashes, pl.UInt64)
    assert repeated(series).to_list() == [hashes.count(one) > 1 for one in hashes]
    assert distinct(series) == len(set(hashes))
