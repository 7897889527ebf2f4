"""Two trees, their differences, and what lies between."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from feedback_assets.provenance.tree import ABSENT, ORDER, differences, merged

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["x", "y"]))
RULES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 2)), unique_by=lambda rule: rule[0]).map(
    lambda rules: [{"id": name, "version": version} for name, version in rules]
)
NAMED = st.lists(st.tuples(st.sampled_from("pq"), SCALARS), unique_by=lambda entry: entry[0]).map(
    lambda entries: [{"name": name, "columns": {"label": {"expr": str(value)}}} for name, value in entries]
)
TREES = st.fixed_dictionaries(
    {
        "rules": RULES,
        "sources": NAMED,
        "plain": st.lists(st.integers(0, 2)),
        "nested": st.dictionaries(st.sampled_from("uvw"), SCALARS),
    }
)


@given(TREES, TREES)
def test_with_all_differences_taken_over_the_one_is_the_other_and_with_none_itself(left: Any, right: Any) -> None:
    paths = {unlike.path for unlike in differences(left, right)}
    assert merged(left, right, paths) == right
    assert merged(left, right, set()) == left
    assert bool(paths) == (left != right)


@given(TREES, TREES, st.data())
def test_a_difference_that_was_taken_over_is_none_any_more_and_the_others_stay(
    left: Any, right: Any, data: Any
) -> None:
    paths = sorted({unlike.path for unlike in differences(left, right)})
    chosen = data.draw(st.sets(st.sampled_from(paths))) if paths else set()
    left_over = {unlike.path for unlike in differences(merged(left, right, chosen), right)}
    # The order of a list shows only where two entries are on both sides.
    assert {path for path in left_over if path[-1] != ORDER} == {
        path for path in paths if path not in chosen and path[-1] != ORDER
    }


def test_a_rule_is_one_difference_and_a_mapping_is_one_a_column() -> None:
    left = {
        "rules": [{"id": "fast", "version": 1, "drop_when": "a"}],
        "sources": [{"name": "s", "columns": {"x": {"expr": "1"}, "y": {"expr": "2"}}}],
    }
    right = {
        "rules": [{"id": "fast", "version": 2, "drop_when": "b"}],
        "sources": [{"name": "s", "columns": {"x": {"expr": "1"}, "y": {"expr": "3"}, "z": {"expr": "4"}}}],
    }
    found = {unlike.path: (unlike.before, unlike.after) for unlike in differences(left, right)}
    assert found == {
        ("rules", "fast"): (left["rules"][0], right["rules"][0]),
        ("sources", "s", "columns", "y"): ({"expr": "2"}, {"expr": "3"}),
        ("sources", "s", "columns", "z"): (ABSENT, {"expr": "4"}),
    }


def test_a_new_rule_comes_right_after_the_one_that_it_follows() -> None:
    def rules(names: str) -> Any:
        return [{"id": name, "version": 1} for name in names]

    got = merged({"rules": rules("abz")}, {"rules": rules("anb")}, {("rules", "n")})
    assert [rule["id"] for rule in got["rules"]] == ["a", "n", "b", "z"]
