"""Which records become lines: laws that hold for any training set and any export."""

from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from feedback_assets.exports.lines import left_out, lines
from feedback_assets.exports.section import Export

ANSWERS = {"preference": ("a", "b", "tie", None), "thumbs": ("up", "down", None), "rating": (None,)}
ROWS = st.lists(
    st.sampled_from(sorted(ANSWERS)).flatmap(
        lambda kind: st.fixed_dictionaries(
            {
                "kind": st.just(kind),
                "label": st.sampled_from(ANSWERS[kind]),
                "score": st.sampled_from([None, 1.0, 5.0]),
                "margin": st.sampled_from([None, 0.0, 2.5]),
                "copies": st.integers(1, 3),
                "training_weight": st.sampled_from([0.0, 0.25, 1.0, 3.0]),
            }
        )
    ),
    max_size=12,
)
EXPORTS = st.builds(
    lambda form, ties, missing: Export.model_validate(
        {"name": "e", "format": form, "ties": ties, "missing_margin": missing}
    ).pinned(),
    st.sampled_from(["preference", "reward", "kto", "rating"]),
    st.sampled_from(["drop", "both-ways"]),
    st.sampled_from(["drop", "zero"]),
)
SCHEMA = {
    "row_id": pl.String,
    "kind": pl.String,
    "label": pl.String,
    "score": pl.Float64,
    "margin": pl.Float64,
    "copies": pl.Int32,
    "training_weight": pl.Float64,
}


def frame(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame([{"row_id": f"r{n:02d}", **row} for n, row in enumerate(rows)], schema=SCHEMA)


@given(ROWS, EXPORTS)
def test_each_record_is_a_line_or_is_counted_with_its_reason(rows, export):
    index = frame(rows)
    made = lines(index, export, "weights").collect()
    assert made["row_id"].n_unique() + sum(left_out(index, export).values()) == index.height
    ties = sum(row["label"] == "tie" for row in rows)
    if export["ties"] == "drop" and export["format"] in ("preference", "reward"):
        assert left_out(index, export).get("tie", 0) == ties


@given(ROWS, EXPORTS)
def test_the_lines_of_a_record_carry_its_weight_and_no_more(rows, export):
    index = frame(rows)
    made = lines(index, export, "weights").collect()
    by_record = made.group_by("row_id").agg((pl.col("training_weight") / pl.col("ways")).sum()).sort("row_id")
    assert (
        by_record.rows()
        == index.filter(pl.col("row_id").is_in(made["row_id"].implode()))
        .select("row_id", "training_weight")
        .sort("row_id")
        .rows()
    )


@given(ROWS, EXPORTS.filter(lambda export: export["ties"] == "drop"))
def test_copies_stand_as_often_as_the_training_set_says_and_in_its_order(rows, export):
    index = frame(rows)
    once = lines(index, export, "weights").collect()
    made = lines(index, export, "copies").collect()
    assert Counter(made["row_id"]) == dict(once.select("row_id", "copies").iter_rows())
    assert made["row_id"].is_sorted()
    copies = dict(index.select("row_id", "copies").iter_rows())
    told = made.group_by("row_id", maintain_order=True).agg("copy_index")
    assert all(found == [*range(copies[row_id])] for row_id, found in told.iter_rows())


@given(ROWS, EXPORTS)
def test_no_line_lacks_what_its_trainer_reads(rows, export):
    made = lines(frame(rows), export, "weights").collect()
    read = {"preference": ["label"], "reward": ["label", "margin"], "kto": ["label"], "rating": ["score"]}
    assert not made.select(pl.any_horizontal(pl.col(read[export["format"]]).is_null().any())).item()
    assert set(made["label"]) <= {"preference": {"a", "b"}, "reward": {"a", "b"}, "kto": {"up", "down"}}.get(
        export["format"], {None}
    )
