"""Nothing disappears."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.checks.conservation import conservation
from feedback_assets.stages.stage import FATE_SCHEMA

SOME = settings(deadline=None, max_examples=40)


def ids(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"row_id": list(names)}, schema={"row_id": pl.String})


def fates(*rows: tuple) -> pl.DataFrame:
    """(row_id, fate, copies, into)."""
    full = [(*row, *[None] * (4 - len(row))) for row in rows]
    return pl.DataFrame(
        [
            {
                "row_id": r,
                "fate": f,
                "rule": None,
                "rule_version": None,
                "into": into,
                "copies": 1 if c is None and f == "kept" else c or 0,
            }
            for r, f, c, into in full
        ],
        schema=FATE_SCHEMA,
    )


def violations(*arguments) -> list[str]:
    return list(conservation(*arguments).observed["violations"])


def test_a_stage_that_accounts_for_every_row_passes():
    told = fates(("a", "kept"), ("b", "dropped"), ("c", "merged", 0, "a"), ("d", "copied", 2))
    out = pl.DataFrame({"row_id": ["a", "d", "d"], "copy_index": [0, 0, 1]})
    found = conservation(ids("a", "b", "c", "d"), out, told)
    assert (found.passed, found.blocking, found.kind) == (True, True, "conservation")
    assert found.meaning == "Each of 4 rows has one fate (1 copied, 1 dropped, 1 kept, 1 merged); 3 rows came out."


CASES = {
    "came in and have no fate": (ids("a", "b"), ids("a"), fates(("a", "kept"))),
    "have more than one fate": (ids("a"), ids("a"), fates(("a", "kept"), ("a", "dropped"))),
    "have a fate but did not come in": (ids("a"), ids("a"), fates(("a", "kept"), ("x", "dropped"))),
    "have a fate that is not known": (ids("a"), ids(), fates(("a", "lost"))),
    "have a fate that contradicts its number of copies": (ids("a"), ids(), fates(("a", "dropped", 1))),
    "should stand in the output and do not": (ids("a"), ids(), fates(("a", "kept"))),
    "stand in the output against their fate": (ids("a"), ids("a"), fates(("a", "dropped"))),
    "stand in the output another number of times than their fate says": (
        ids("a"),
        ids("a", "a", "a"),
        fates(("a", "copied", 2)),
    ),
    "repeat a copy_index": (
        ids("a"),
        pl.DataFrame({"row_id": ["a", "a"], "copy_index": [0, 0]}),
        fates(("a", "copied", 2)),
    ),
    "are new and name no parents": (ids("a"), ids("a", "x"), fates(("a", "kept"))),
    "are converted into nothing": (
        ids("a", "b"),
        pl.DataFrame({"row_id": ["p"], "parents": [["a"]]}),
        fates(("a", "converted"), ("b", "converted")),
    ),
    "name no row that they went into": (ids("a"), ids(), fates(("a", "merged"))),
    "went into a row that is not known": (ids("a"), ids(), fates(("a", "merged", 0, "x"))),
    "are merged into a row that is itself merged": (
        ids("a", "b", "c"),
        ids("a"),
        fates(("a", "kept"), ("b", "merged", 0, "a"), ("c", "merged", 0, "b")),
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_each_way_to_lose_or_invent_a_row_is_named(what):
    assert violations(*CASES[what]) == [what]
    assert not conservation(*CASES[what]).passed


def test_the_sentence_counts_and_gives_an_example():
    found = conservation(ids("a", "b", "c"), ids("a"), fates(("a", "kept")))
    assert found.meaning == "3 rows came in, 1 came out; 2 came in and have no fate (e.g. b, c)."


def test_a_rating_may_become_pairs_that_name_it():
    pairs = pl.DataFrame({"row_id": ["p1", "p2"], "parents": [["r1", "r2"], ["r1", "r3"]]})
    assert conservation(ids("r1", "r2", "r3"), pairs, fates()).passed
    told = fates(("r1", "kept"), ("r2", "converted"), ("r3", "converted"))
    assert conservation(ids("r1", "r2", "r3"), pl.concat([pairs, ids("r1")], how="diagonal"), told).passed
    assert violations(ids("r1", "r2"), pairs, fates()) == ["are new and name a parent that did not come in"]


def test_redelivered_rows_share_an_id_and_have_a_fate_each():
    told = fates(("a", "kept"), ("a", "redelivered", 0, "a"))
    assert conservation(ids("a", "a"), ids("a"), told).passed
    assert violations(ids("a", "a"), ids("a"), fates(("a", "kept"))) == ["came in and have no fate"]


def test_copies_that_come_in_have_one_fate_together():
    came = pl.DataFrame({"row_id": ["a", "a"], "copy_index": [0, 1]})
    assert conservation(came, ids("a"), fates(("a", "kept"))).passed
    stray = pl.DataFrame({"row_id": ["a", "b"], "copy_index": [0, 1]})
    assert violations(stray, ids("a"), fates(("a", "kept"))) == ["came in and have no fate"]


@SOME
@given(
    st.lists(st.sampled_from(["kept", "dropped", "quarantined", "copied"]), min_size=1, max_size=12),
    st.data(),
)
def test_removing_or_doubling_any_one_fate_fails(chosen, data):
    told = fates(*((f"r{i}", fate, 3 if fate == "copied" else None) for i, fate in enumerate(chosen)))
    out = (
        told.select("row_id", pl.col("copies")).with_columns(n=pl.int_ranges(0, "copies")).explode("n").drop_nulls("n")
    )
    came = told.select("row_id")
    assert conservation(came, out, told).passed
    victim = data.draw(st.integers(0, len(chosen) - 1))
    without = told.filter(pl.int_range(pl.len()) != victim)
    assert not conservation(came, out, without).passed
    assert not conservation(came, out, pl.concat([told, told[victim : victim + 1]])).passed


ROW = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["kept", "kept", "copied", "dropped", "merged", "redelivered", "converted", "odd", None]),
    st.sampled_from([0, 0, 1, 1, 2]),
    st.sampled_from(["a", "b", "z", None]),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(ROW, max_size=3), st.sampled_from(["", *"abcz"]), st.integers(0, 20))
def test_what_passes_is_what_the_rules_say(told, came_too, twice):
    came = [*dict.fromkeys(row for row, *_ in told), *came_too]
    out = [(row, n) for row, fate, copies, _ in told if fate in ("kept", "copied") for n in range(copies)]
    out += out[twice : twice + 1]
    merged = {row for row, fate, *_ in told if fate == "merged"}

    def sound(fate, copies, into):
        if fate in ("kept", "copied"):
            return copies == 1 or (fate == "copied" and copies > 1)
        known = fate == "dropped" or (into in came and not (fate == "merged" and into in merged))
        return fate in ("dropped", "merged", "redelivered") and copies == 0 and known

    right = all(sound(*rest) for _, *rest in told) and sorted(row for row, *_ in told) == sorted(came)
    output = pl.DataFrame(out, schema={"row_id": pl.String, "copy_index": pl.UInt32}, orient="row")
    telling = fates(*((row, fate, copies, into) for row, fate, copies, into in told))
    assert conservation(ids(*came), output, telling).passed == (right and len(set(out)) == len(out))
