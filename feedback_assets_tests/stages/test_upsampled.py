"""The upsampled stage: whole copies bring categories to their share of weight."""

import hashlib
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback_assets.checks.conservation import conservation
from feedback_assets.errors import FeedbackError
from feedback_assets.snapshots.snapshot import further_copies
from feedback_assets.stages.stage import Inputs, Output
from feedback_assets.stages.upsampled import UpsampledSection, promises, upsampled
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory
from feedback_assets_tests.stages.records import records


def target(shares: dict[str, float], name: str = "more", **options: Any) -> dict[str, Any]:
    return {"id": name, "version": 2, "reason": "because", "shares": shares, "max_copies": 10, **options}


def rows_of(weight: float = 1.0, **counts: int) -> pl.DataFrame:
    """So many records of each category, their ids hashed from category and number."""
    given = [
        {"category": None if name == "none" else name, "row_id": hashlib.sha256(f"{name}{i}".encode()).hexdigest()[:32]}
        for name, n in counts.items()
        for i in range(n)
    ]
    return records(*given).with_columns(pl.lit(weight).alias("weight"))


def copied(rows: pl.DataFrame, *targets: dict[str, Any], key: str = "k") -> Output:
    output = upsampled(
        Inputs(rows.lazy()), UpsampledSection.model_validate({"targets": targets, "key": key}), EngineInMemory()
    )
    assert output.rows.select(rows.columns).equals(rows)
    assert output.rows.columns == [*rows.columns, "copies", "copy_index"]
    output = replace(output, rows=pl.concat([output.rows, further_copies(output.rows)]))
    check = conservation(rows, output.rows, output.fates)
    assert check.passed, check.meaning
    return output


def copies_of(output: Output) -> dict[str, int]:
    return dict(output.rows.filter(pl.col("copy_index") == 0).select("row_id", "copies").iter_rows())


def shares(rows: pl.DataFrame) -> dict[str, float]:
    held = rows.group_by("category").agg(pl.col("weight").sum()).iter_rows()
    total = rows["weight"].sum()
    return {name: weight / total for name, weight in held}


def test_whole_copies_reach_a_share_exactly_where_they_can():
    output = copied(rows_of(chat=8, code=2), target({"code": 0.5}))
    assert dict(output.rows["category"].value_counts().iter_rows()) == {"chat": 8, "code": 8}
    assert output.facts["targets"]["more"] == {"asked": {"code": 0.5}, "reached": {"code": 0.5}, "copies_made": 6}


def test_a_share_is_reached_within_chance_and_the_others_keep_their_proportions():
    rows = rows_of(chat=3000, math=1000, code=700, none=300)
    output = copied(rows, target({"code": 0.3}))
    found = shares(output.rows)
    assert found["code"] == pytest.approx(0.3, abs=0.01)
    assert found["chat"] / found["math"] == pytest.approx(3.0)
    assert output.rows.filter(pl.col("category").is_null()).height == 300
    assert output.facts["targets"]["more"]["reached"]["code"] == pytest.approx(found["code"], abs=1e-6)


def test_a_share_is_of_weight_not_of_rows():
    rows = pl.concat([rows_of(0.5, chat=400), rows_of(2.0, code=40)])
    assert shares(copied(rows, target({"code": 0.5})).rows)["code"] == pytest.approx(0.5, abs=0.02)


def test_a_record_stands_at_most_as_often_as_its_cap():
    output = copied(rows_of(chat=90, code=10), target({"code": 0.9}, max_copies=3))
    assert output.rows["copies"].max() == 3
    assert output.facts["targets"]["more"]["reached"]["code"] == pytest.approx(30 / 120)


def test_the_cap_holds_for_what_two_targets_do_together():
    rows = rows_of(chat=50, code=10).with_columns(language=pl.when(pl.col("category") == "code").then(pl.lit("de")))
    both = (
        target({"code": 0.9}, max_copies=3),
        target({"de": 0.9}, "german", column="language", max_copies=2),
    )
    output = copied(rows, *both)
    assert output.rows["copies"].max() == 3
    most = [p.kwargs["max_value"] for p in promises(UpsampledSection.model_validate({"targets": both}))]
    assert most == [3]


def test_copies_are_numbered_and_say_how_many_there_are():
    rows = copied(rows_of(chat=20, code=7), target({"code": 0.6})).rows
    told = rows.group_by("row_id").agg("copy_index", pl.col("copies").unique())
    for indexes, copies in told.select("copy_index", "copies").iter_rows():
        assert copies == [len(indexes)]
        assert sorted(indexes) == list(range(len(indexes)))
    assert rows.schema["copies"] == rows.schema["copy_index"] == pl.Int32


def test_a_copied_row_names_the_target_that_copied_it_and_its_version():
    rows = rows_of(chat=6, code=94).with_columns(language=pl.lit("en"))
    rows = rows.with_columns(language=pl.when(pl.col("line") == 7).then(pl.lit("de")).otherwise("language"))
    # code is above its share, so the one German record of code is copied by the second target alone.
    output = copied(rows, target({"code": 0.1}), target({"de": 0.05}, "german", column="language", version=5))
    told = output.fates.filter(pl.col("fate") == "copied")
    assert told.select("rule", "rule_version").unique().rows() == [("german", 5)]
    assert output.fates.filter(pl.col("fate") == "kept").select("rule", "rule_version").unique().rows() == [
        (None, None)
    ]


def test_who_gets_the_odd_copy_depends_on_key_target_and_record_only():
    rows = rows_of(chat=60, code=20)
    before = copies_of(copied(rows, target({"code": 0.33})))
    assert sorted(set(before.values())) == [1, 2]
    assert copies_of(copied(rows.reverse(), target({"code": 0.33}))) == before
    assert copies_of(copied(rows, target({"code": 0.33}), key="other")) != before
    assert copies_of(copied(rows, target({"code": 0.33}, "other"))) != before


def test_more_of_another_category_takes_no_copy_away():
    fewer = copies_of(copied(rows_of(chat=60, code=20), target({"code": 0.33})))
    more = copies_of(copied(rows_of(chat=66, code=20), target({"code": 0.33})))
    assert all(more[row_id] >= copies for row_id, copies in fewer.items())
    assert sum(more[row_id] - copies for row_id, copies in fewer.items()) <= 8
    unchanged = copies_of(copied(rows_of(chat=30, math=30, code=20), target({"code": 0.33})))
    assert {i: c for i, c in unchanged.items() if i in fewer} == {i: c for i, c in fewer.items() if i in unchanged}


def test_a_category_above_its_share_joins_the_rest():
    output = copied(rows_of(chat=60, math=10, code=30), target({"chat": 0.3, "math": 0.2}))
    found = copies_of(output)
    by_category = output.rows.filter(pl.col("copy_index") == 0).group_by("category").agg(pl.col("copies").max())
    assert dict(by_category.iter_rows()) == {"chat": 1, "math": 3, "code": 1}
    # 90 / 0.8 · 0.2 = 22.5 records of math
    assert sum(found.values()) - 90 == pytest.approx(22.5, abs=3)


def test_shares_that_leave_no_rest_are_proportions():
    output = copied(rows_of(chat=90, code=30), target({"chat": 0.5, "code": 0.5}))
    assert shares(output.rows) == {"chat": 0.5, "code": 0.5}
    only = copied(rows_of(code=30), target({"code": 0.3}))
    assert set(copies_of(only).values()) == {1}


def test_a_category_that_is_not_there_and_an_empty_table_change_nothing():
    assert set(copies_of(copied(rows_of(chat=5), target({"code": 0.5}))).values()) == {1}
    assert copied(rows_of(chat=5), target({"code": 0.5})).facts["targets"]["more"]["reached"] == {"code": 0.0}
    assert copied(rows_of(chat=1).clear(), target({"code": 0.5})).rows.is_empty()
    assert copied(rows_of(chat=3)).fates["fate"].to_list() == ["kept"] * 3


@given(
    st.dictionaries(st.sampled_from(["chat", "code", "math", "none"]), st.integers(1, 60), min_size=1),
    st.dictionaries(st.sampled_from(["chat", "code", "math"]), st.sampled_from([0.1, 0.25, 0.3]), min_size=1),
    st.integers(1, 5),
)
@settings(max_examples=30, deadline=None)
def test_copying_loses_nothing_keeps_to_its_cap_and_takes_no_wanted_share_down_by_itself(counts, wanted, cap):
    rows = rows_of(**counts)
    output = copied(rows, target(wanted, max_copies=cap))
    found = copies_of(output)
    assert set(found) == set(rows["row_id"])
    assert 1 <= min(found.values()) <= max(found.values()) <= cap
    others = output.rows.filter(~pl.col("category").is_in(list(wanted)).fill_null(value=False))
    assert (others["copies"] == 1).all()


def test_a_target_on_a_column_that_is_not_there_is_refused():
    with pytest.raises(FeedbackError, match=r"more: there is no column 'catgory'; did you mean 'category'\?"):
        copied(rows_of(chat=1), target({"code": 0.5}, column="catgory"))


def test_shares_above_one_are_refused():
    with pytest.raises(ValidationError, match=r"add up to 1\.2; they can be at most 1"):
        UpsampledSection.model_validate({"targets": [target({"a": 0.6, "b": 0.6})]})
