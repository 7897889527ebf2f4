"""The deduplicated stage: what becomes of resubmissions, near-duplicates, clusters and the split."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_assets.checks.expectations import run_suite
from feedback_assets.engine.engine import ContentPart
from feedback_assets.errors import FeedbackError
from feedback_assets.record import CONTENT_SCHEMA, SCHEMA
from feedback_assets.stages.deduplicated import STAGE, DeduplicatedSection, deduplicated, promises
from feedback_assets.stages.stage import FATE_SCHEMA, Inputs, Output
from feedback_assets_tests.independent_reading import DATA
from feedback_assets_tests.stages.engine_in_memory import EngineInMemory

UKP = DATA / "ukpconvarg1"
LONG = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all, being lazy. "
OTHER = "Completely unrelated words about gardening, roses, soil and the patience that both of them need. "


def ident(*texts: str | None) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:32]


def row(row_id: str, a: str = "left", b: str | None = "right", **values: Any) -> dict[str, Any]:
    """A preference with the text given, in the order given (a test decides what is canonical)."""
    prompt = values.pop("prompt", "prompt")
    return {
        "row_id": row_id,
        "source": "s",
        "batch": "b",
        "arrival": 0,
        "line": 1,
        "revision": 0,
        "kind": "preference" if b is not None else "thumbs",
        "label": "a" if b is not None else "up",
        "annotator_id": "ann",
        "anchor": False,
        "text": (prompt, a, b),
        "prompt_id": ident(prompt),
        "response_a_id": ident(a),
        "response_b_id": None if b is None else ident(b),
        "item_id": ident(prompt, a, b),
    } | values


def inputs(rows: list[dict[str, Any]]) -> Inputs:
    texts = [r["text"] for r in rows]
    content = pl.DataFrame(
        {
            "prompt": [[{"role": "user", "text": prompt}] for prompt, _, _ in texts],
            "response_a": [a for _, a, _ in texts],
            "response_b": [b for _, _, b in texts],
            "extra": [None] * len(rows),
        },
        schema=CONTENT_SCHEMA,
    )
    full = [
        {name: r.get(name) for name in SCHEMA} | {"content_part": "part", "content_row": i} for i, r in enumerate(rows)
    ]
    frame = pl.DataFrame(full, schema=SCHEMA).with_columns(added=pl.lit(7))
    return Inputs(frame.lazy(), content=(ContentPart("part", len(rows), content.lazy),))


def run(rows: list[dict[str, Any]], **section: Any) -> Output:
    return deduplicated(inputs(rows), DeduplicatedSection(**section), EngineInMemory())


def fate_of(output: Output) -> dict[str, tuple[str, str | None, str | None]]:
    return {
        r: (f, rule, into) for r, f, rule, into in output.fates.select("row_id", "fate", "rule", "into").iter_rows()
    }


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def test_of_a_resubmission_the_latest_survives_and_the_other_names_it() -> None:
    rows = [row("r1", collected_at=day(2)), row("r2", collected_at=day(3)), row("r3", collected_at=None, arrival=9)]
    output = run(rows)
    assert fate_of(output) == {
        "r1": ("merged", "resubmission", "r2"),
        "r2": ("kept", None, None),
        "r3": ("merged", "resubmission", "r2"),
    }
    assert output.standing.get_column("row_id").to_list() == ["r2"]
    assert output.fates.schema == FATE_SCHEMA
    assert output.fates.get_column("rule_version").to_list() == [1, None, 1]
    assert output.fates.get_column("copies").to_list() == [0, 1, 0]
    assert fate_of(run(rows, survivor="earliest"))["r3"] == ("kept", None, None)


def test_without_dates_arrival_revision_line_and_row_id_decide() -> None:
    rows = [row("r1", arrival=1), row("r2", revision=5, line=9), row("r3", arrival=1, line=2)]
    assert fate_of(run(rows))["r3"][0] == "kept"
    assert fate_of(run([row("r1"), row("r2")]))["r2"][0] == "kept"


@pytest.mark.parametrize(
    "other",
    [{"annotator_id": "other"}, {"task": "t"}, {"aspect": "safety"}, {"anchor": True}, {"prompt": "another question"}],
)
def test_another_annotator_task_aspect_item_or_an_anchor_is_no_resubmission(other: dict[str, Any]) -> None:
    output = run([row("r1"), row("r2", **other)])
    assert {fate for fate, _, _ in fate_of(output).values()} == {"kept"}


def test_contradicting_resubmissions_are_counted_and_dropped_if_the_policy_says_so() -> None:
    rows = [row("r1"), row("r2", label="b"), row("r3", annotator_id="x"), row("r4", annotator_id="x")]
    output = run(rows)
    assert output.facts["contradictions"] == {"resubmission": 1, "near-duplicate": 0}
    assert fate_of(output)["r1"] == ("merged", "resubmission", "r2")
    dropped = run(rows, contradictions="drop_all")
    assert fate_of(dropped)["r1"] == fate_of(dropped)["r2"] == ("dropped", "contradiction", None)
    assert fate_of(dropped)["r3"] == ("merged", "resubmission", "r4")


def test_ratings_contradict_when_their_scores_differ() -> None:
    scale = {"kind": "rating", "label": None, "score_min": 1.0, "score_max": 5.0}
    rows = [row("r1", b=None, score=3.0, **scale), row("r2", b=None, score=4.0, **scale)]
    assert run(rows).facts["contradictions"]["resubmission"] == 1


def test_records_without_annotator_need_a_word_in_the_policy() -> None:
    rows = [row("r1", annotator_id=None, line=4), row("r2", annotator_id=None)]
    with pytest.raises(FeedbackError, match=r"2 records have no annotator id .*line 4.*missing_annotator") as error:
        run(rows)
    assert "\n" not in str(error.value)
    distinct = run(rows, missing_annotator="distinct")
    assert {fate for fate, _, _ in fate_of(distinct).values()} == {"kept"}
    assert distinct.standing.get_column("cluster_id").n_unique() == 1
    same = [*rows, row("r3", annotator_id=None, source="elsewhere")]
    assert fate_of(run(same, missing_annotator="same")) == {
        "r1": ("kept", None, None),
        "r2": ("merged", "resubmission", "r1"),
        "r3": ("kept", None, None),
    }


def test_near_duplicates_of_one_annotator_merge_and_of_several_share_a_cluster() -> None:
    near = row("r2", LONG + "!", OTHER)
    output = run([row("r1", LONG, OTHER), near, row("r3", LONG, OTHER + "!", annotator_id="x")])
    assert fate_of(output) == {
        "r1": ("merged", "near-duplicate", "r2"),
        "r2": ("kept", None, None),
        "r3": ("kept", None, None),
    }
    assert output.standing.get_column("cluster_id").n_unique() == 1
    assert output.facts["clusters_of_several_items"] == 1
    assert set(fate_of(run([row("r1", LONG, OTHER), near], near_duplicates=False)).values()) == {("kept", None, None)}


def test_shared_context_and_a_response_of_its_own_do_not_merge() -> None:
    output = run([row("r1", LONG * 5, "Yes, certainly."), row("r2", LONG * 5, "No, on no account.")])
    assert {fate for fate, _, _ in fate_of(output).values()} == {"kept"}
    assert output.standing.get_column("cluster_id").n_unique() == 2


def test_crossed_counterparts_are_found_and_their_labels_compared_crossed() -> None:
    rows = [row("r1", LONG, OTHER, label="a"), row("r2", OTHER + "!", LONG + "!", label="b")]
    agree = run(rows)
    assert fate_of(agree)["r1"] == ("merged", "near-duplicate", "r2")
    assert agree.facts["contradictions"]["near-duplicate"] == 0
    rows[1]["label"] = "a"
    assert run(rows).facts["contradictions"]["near-duplicate"] == 1
    assert {fate for fate, _, _ in fate_of(run(rows, contradictions="drop_all")).values()} == {"dropped"}


def test_a_resubmission_follows_its_survivor_into_a_near_duplicate() -> None:
    rows = [row("r1", LONG, OTHER), row("r2", LONG, OTHER), row("r3", LONG + "!", OTHER)]
    assert fate_of(run(rows)) == {
        "r1": ("merged", "resubmission", "r3"),
        "r2": ("merged", "near-duplicate", "r3"),
        "r3": ("kept", None, None),
    }


def test_every_merged_row_is_similar_to_its_survivor_itself() -> None:
    words = [f"word{i:03}" for i in range(60)]
    steps = [" ".join(words[shift : shift + 40]) for shift in range(0, 12, 2)]  # neighbours .86, next but one .74
    rows = [row(f"r{i}", text, OTHER, line=i) for i, text in enumerate(steps)]
    output = run(rows)
    fate = fate_of(output)
    assert any(what == "merged" for what, _, _ in fate.values())
    for i, text in enumerate(steps):
        what, _, into = fate[f"r{i}"]
        if what == "merged":
            other = steps[int(str(into)[1:])]
            one = {text[k : k + 5] for k in range(len(text) - 4)}
            two = {other[k : k + 5] for k in range(len(other) - 4)}
            assert len(one & two) / len(one | two) >= 0.8
    assert sum(what == "kept" for what, _, _ in fate.values()) > 1
    assert output.standing.get_column("cluster_id").n_unique() == 1


def test_the_order_of_the_rows_makes_no_difference() -> None:
    rows = [
        row(f"r{i}", LONG + "!" * (i % 3), OTHER + "?" * (i % 2), annotator_id=f"a{i % 4}", line=i) for i in range(24)
    ]
    given_rows = inputs(rows)
    shuffled = Inputs(
        given_rows.rows.collect().sample(fraction=1, shuffle=True, seed=3).lazy(), content=given_rows.content
    )
    one = deduplicated(given_rows, DeduplicatedSection(eval_share=0.5), EngineInMemory())
    two = deduplicated(shuffled, DeduplicatedSection(eval_share=0.5), EngineInMemory())
    assert one.fates.sort("row_id").equals(two.fates.sort("row_id"))
    assert one.standing.sort("row_id").equals(two.standing.sort("row_id"))
    assert one.facts == two.facts


def test_columns_of_earlier_stages_stay_as_they_are() -> None:
    output = run([row("r1", split="eval"), row("r2", annotator_id="x")])
    assert output.standing.columns == [*SCHEMA, "added", "cluster_id", "component_id", "assigned_split"]
    assert output.standing.get_column("split").to_list() == ["eval", None]


def test_a_side_that_the_source_fixed_wins_and_eval_wins_over_train() -> None:
    rows = [row("r1", split="train"), row("r2", split="eval", annotator_id="x"), row("r3", "c", "d", prompt="another")]
    output = run([*rows, row("r4", "e", "f", prompt="a third", split="train")], eval_share=1.0)
    assert output.standing.get_column("assigned_split").to_list() == ["eval", "eval", "eval", "train"]
    assert output.facts["components_fixed_to_both_sides"] == 1


def test_the_split_shares_no_prompt_response_or_cluster() -> None:
    rows = [row(f"r{i}", f"answer {i % 7}", f"reply {i}", prompt=f"question {i // 2}") for i in range(40)]
    output = run(rows, eval_share=0.5)
    assert output.facts["rows_of_largest_component"] == 40
    by_prompt = run(rows, eval_share=0.5, split_on=("prompt",))
    sides = by_prompt.standing.group_by("prompt_id").agg(pl.col("assigned_split").n_unique())
    assert sides.get_column("assigned_split").max() == 1
    assert by_prompt.standing.get_column("assigned_split").n_unique() == 2
    assert by_prompt.facts["components"] == 20


def test_a_side_stays_when_later_batches_bring_rows() -> None:
    rows = [row(f"r{i}", ident("a", str(i)), ident("b", str(i)), prompt=ident(str(i))) for i in range(30)]
    later = [
        row(f"n{i}", ident("c", str(i)), ident("d", str(i)), prompt=ident(str(i * 2)), arrival=1, annotator_id="x")
        for i in range(30)
    ]
    before = run(rows, eval_share=0.5).standing.select("row_id", "component_id", "assigned_split")
    after = run([*rows, *later], eval_share=0.5).standing.select("row_id", "component_id", "assigned_split")
    assert before.equals(after.filter(pl.col("row_id").str.starts_with("r")))
    assert before.get_column("assigned_split").n_unique() == 2


def test_the_share_of_components_held_out_is_near_the_one_asked_for() -> None:
    rows = [row(f"r{i}", f"answer {i}", f"reply {i}", prompt=f"question {i}") for i in range(1000)]
    sides = run(rows, eval_share=0.1, near_duplicates=False).facts["rows_by_split"]
    assert 70 <= sides["eval"] <= 130
    assert sides["train"] + sides["eval"] == 1000


def test_missing_text_is_an_error_that_says_how_to_go_on() -> None:
    given_rows = inputs([row("r1")])
    with pytest.raises(FeedbackError, match="the text of 1 records"):
        deduplicated(Inputs(given_rows.rows), DeduplicatedSection(), EngineInMemory())


def test_no_rows_give_no_rows() -> None:
    output = run([])
    assert output.standing.is_empty()
    assert output.fates.is_empty()


def test_no_held_out_row_is_trained_on_is_promised() -> None:
    assert STAGE.inputs == ("filtered",)
    names = [promise.name for promise in promises(DeduplicatedSection())]
    assert len(set(names)) == len(names)
    assert any("held_out" in name for name in names)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from("ab"), st.booleans(), st.booleans()),
        max_size=20,
    ),
    st.sampled_from(["keep_survivor", "drop_all"]),
    st.sampled_from(["latest", "earliest"]),
)
def test_each_row_has_one_fate_and_each_merged_row_a_survivor(
    drawn: list[tuple[int, int, str, bool, bool]], contradictions: str, survivor: str
) -> None:
    rows = [
        row(
            f"r{i}",
            LONG + "!" * marks,
            OTHER,
            label=label,
            annotator_id=None if nameless else f"a{who % 2}",
            anchor=anchor,
        )
        for i, (who, marks, label, nameless, anchor) in enumerate(drawn)
    ]
    output = run(rows, contradictions=contradictions, survivor=survivor, missing_annotator="same")
    kept = set(output.standing.get_column("row_id"))
    assert output.fates.get_column("row_id").to_list() == [r["row_id"] for r in rows]
    for row_id, (fate, rule, into) in fate_of(output).items():
        assert (fate == "kept") == (row_id in kept)
        assert (fate == "merged") == (into in kept) == (into is not None)
        assert (rule is None) == (fate == "kept")


@pytest.mark.skipif(not UKP.exists(), reason=f"{UKP} is not here")
def test_on_ukp_only_near_duplicates_of_one_worker_merge() -> None:
    raw = pl.concat([pl.read_parquet(UKP / f"2016-W0{week}.parquet") for week in (4, 5)]).with_row_index("content_row")
    text = [("title", "prompt"), ("arg1_text", "response_a"), ("arg2_text", "response_b")]
    content = raw.select(
        pl.concat_list(pl.struct(role=pl.lit("user"), text="title")).alias("prompt"),
        pl.col("arg1_text").alias("response_a"),
        pl.col("arg2_text").alias("response_b"),
        extra=pl.lit(None, pl.String),
    )
    rows = raw.select(
        "content_row",
        row_id=pl.format("r{}", "content_row"),
        source=pl.lit("ukp"),
        arrival=pl.lit(0, pl.Int64),
        line=pl.col("content_row").cast(pl.Int64),
        position=pl.lit(1, pl.Int64),
        revision=pl.lit(0, pl.Int32),
        kind=pl.lit("preference"),
        annotator_id="worker",
        collected_at=pl.col("submitted_at"),
        label=pl.col("value").replace_strict({"a1": "a", "a2": "b", "equal": "tie"}),
        prompt_id="title",
        response_a_id="arg1_text",
        response_b_id="arg2_text",
        item_id=pl.concat_str("title", "arg1_text", "arg2_text", separator="|"),
        content_part=pl.lit("part"),
        **{name: pl.lit(None, SCHEMA[name]) for name in ("batch", "task", "aspect", "score", "score_min", "score_max")},
        anchor=pl.lit(value=False),
        split=pl.lit(None, pl.String),
    )
    part = ContentPart("part", raw.height, content.lazy)
    output = deduplicated(Inputs(rows.lazy(), content=(part,)), DeduplicatedSection(), EngineInMemory())
    merged = output.fates.filter(pl.col("fate") == "merged")
    pairs = (
        merged.select("row_id", "into")
        .join(raw.select(pl.format("r{}", "content_row").alias("row_id"), "worker", *(t for t, _ in text)), on="row_id")
        .join(
            raw.select(pl.format("r{}", "content_row").alias("into"), "worker", *(t for t, _ in text)),
            on="into",
            suffix="_into",
        )
    )
    assert pairs.height == merged.height
    assert (pairs["worker"] == pairs["worker_into"]).all()

    def similar(one: str, two: str) -> float:
        left, right = ({t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in (one, two))
        return len(left & right) / len(left | right)

    for line in pairs.iter_rows(named=True):
        a, b, c, d = line["arg1_text"], line["arg2_text"], line["arg1_text_into"], line["arg2_text_into"]
        assert similar(f"user: {line['title']}", f"user: {line['title_into']}") >= 0.8
        assert max(min(similar(a, c), similar(b, d)), min(similar(a, d), similar(b, c))) >= 0.8
    assert output.fates.filter(pl.col("fate") != "kept").height < raw.height * 0.05


def test_the_share_held_out_is_promised_where_a_share_is_drawn_and_kept_by_components():
    rows = [
        row(f"r{n}", f"answer {n}", f"other {n}", prompt=f"question {n // 2}", annotator_id=f"a{n}")
        for n in range(4_000)
    ]
    output = run(rows, eval_share=0.1, near_duplicates=False)
    assert output.standing["component_id"].n_unique() == 2_000

    def held(share: float) -> list[str]:
        asked = [promise for promise in promises(DeduplicatedSection(eval_share=share)) if promise.units is not None]
        return [result.status for result in run_suite(output.standing, asked, "deduplicated")]

    assert [held(share) for share in (0.1, 0.2, 0.0, 1.0)] == [["passed"], ["failed"], [], []]
