"""Resubmissions, near-duplicates, clusters and the split.

What one annotator said twice counts once; what several annotators said about the same or nearly the same item
stays, under a common `cluster_id`, so that they can share weight. Training and evaluation never share a component.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from feedback_assets.digests import distinct, keyed_draw, repeated
from feedback_assets.engine.engine import Engine
from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.stages.near_duplicates import near_duplicates
from feedback_assets.stages.stage import Expectation, Inputs, Output, Stage, Units, fates

DRAWN, DRIFTED = 1_000, 0.01
"""Components that it takes to tell whether the split has its shares, and the divergence (in nats) that is too much."""
_JUDGED = ("who", "kind", "task", "aspect")
_SCORE = ("score", "score_min", "score_max")


class DeduplicatedSection(Section):
    """What counts as the same feedback, which of it survives, and how components are split."""

    version: int = Field(default=1, ge=1, description="raised whenever the section changes; stands in every fate")
    survivor: Literal["latest", "earliest"] = Field(
        default="latest",
        description="which of several survives, by collected_at (null is oldest), arrival, revision, line, row_id",
    )
    contradictions: Literal["keep_survivor", "drop_all"] = Field(
        default="keep_survivor", description="what becomes of an annotator's duplicates whose answers differ"
    )
    missing_annotator: Literal["distinct", "same"] | None = Field(
        default=None,
        description="records without annotator id: each by an annotator of its own, or one annotator a source",
    )
    near_duplicates: bool = Field(default=True, description="look for near-duplicates, not only the same item")
    threshold: float = Field(default=0.8, ge=0.5, le=1, description="least Jaccard of prompt and of each response")
    shingle: int = Field(default=5, ge=1, le=64, description="characters of a shingle")
    bands: int = Field(default=25, ge=1, le=256, description="band keys of an item")
    rows: int = Field(default=5, ge=2, le=32, description="values behind a band key; one of them is the prompt's")
    bucket: int = Field(
        default=32, ge=1, description="items with a common band key that a later one is compared with, at most"
    )
    split_on: tuple[Literal["prompt", "response", "cluster"], ...] = Field(
        default=("prompt", "response", "cluster"),
        min_length=1,
        description="what two rows share that must not lie on both sides of the split",
    )
    eval_share: float = Field(default=0.0, ge=0, le=1, description="share of components held out for evaluation")
    split_key: str = Field(default="split", description="key of the hash that gives a component its side")


def deduplicated(inputs: Inputs, section: DeduplicatedSection, engine: Engine) -> Output:
    """Merge what one annotator gave twice, cluster near-duplicate items, and split by component.

    A resubmission has the same annotator_id (a name for one person over all sources), item_id, kind, task and
    aspect; a near-duplicate has the same but another, similar item. Anchors are never merged. Merging picks
    survivors greedily in their order, so that every merged row is a near-duplicate of its survivor itself.

    Adds cluster_id (String: least item_id of the near-duplicates that hang together), component_id (String: least
    item_id of the earliest arrival in the component, so that a later arrival does not change it) and assigned_split
    (train, eval: a `split` that the source fixed, eval before train, else by a keyed hash of component_id).
    Clusters and components are those of the rows that came in, merged or not.

    Facts: rows merged and dropped by rule, duplicate sets with contradicting answers, candidates and verified pairs,
    sizes of clusters and components, what the split did.

    Raises:
        FeedbackError: records without annotator id while the policy does not say what they are; text is missing.
    """
    rows = inputs.rows.collect()
    # Beside the search what does not wait for it; beside the choice of survivors what does not ask who survives.
    with ThreadPoolExecutor(1) as beside:
        alone, shared = beside.submit(_alone, rows, section), beside.submit(_shared, rows, section)
        again = beside.submit(_judged_again, rows)
        edges, found = _near_duplicate_items(rows, inputs, section, engine)
        split = beside.submit(lambda: _split(_clustered(rows, edges), alone.result(), shared.result(), section))
        work = _ordered(rows, edges, again.result(), section)
        fate = _stars(work, edges, _resubmissions(work, rows.height, section), section)
        row_id, standing, tagged = rows.get_column("row_id"), pl.Series(fate.kept), split.result()
        sizes = beside.submit(_sizes, tagged, standing)
        verdict = rows.select(
            "row_id", rule=fate.rules(), into=row_id.gather(fate.into), kept=standing, dropped=pl.Series(fate.dropped)
        )
        decided = pl.col("rule").is_not_null()
        told = fates(
            verdict,
            pl.when("kept").then(pl.lit("kept")).when("dropped").then(pl.lit("dropped")).otherwise(pl.lit("merged")),
            rule=pl.col("rule"),
            rule_version=pl.when(decided).then(pl.lit(section.version)),
            into=pl.when(decided & ~pl.col("dropped")).then("into"),
            copies=pl.col("kept").cast(pl.Int32),
        ).collect()
        ruled = dict(verdict.get_column("rule").value_counts().drop_nulls().iter_rows())
        facts: dict[str, Any] = {
            "rules": {rule: ruled.get(rule, 0) for rule in ("resubmission", "near-duplicate", "contradiction")},
            "contradictions": fate.contradictions,
            "rows_without_annotator": rows.get_column("annotator_id").null_count(),
            **found,
        }
        output = Output(tagged.drop("fixed"), told, facts=facts, stands=standing)
        _ = output.standing  # all ask for it: it is made beside the sizes
        facts |= sizes.result()
    return output


def _judged_again(rows: pl.DataFrame) -> pl.Series:
    """Whether a row may judge the same item, by the same annotator, as another; kind, task and aspect may differ."""
    return repeated(rows.select(pl.col("item_id").hash(seed=0) ^ pl.col("annotator_id").hash(seed=1)).to_series())


def _ordered(rows: pl.DataFrame, edges: pl.DataFrame, again: pl.Series, section: DeduplicatedSection) -> pl.DataFrame:
    """The rows that may be merged, one line each: `at` (its place), who judged, and `rank`.

    `rank` is 0 for the row that would survive all others. Left out are rows that no other is like: most.
    """
    nameless = rows.filter(pl.col("annotator_id").is_null())
    if section.missing_annotator is None and not nameless.is_empty():
        source, batch, line = nameless.select("source", "batch", "line").row(0)
        raise FeedbackError(
            f"deduplicated: {nameless.height} records have no annotator id (the first: source {source}, batch {batch}, "
            f"line {line}); map annotator_id in the source, or say `missing_annotator: distinct` or `same`"
        )
    alone = pl.format("row:{}", "row_id")
    unnamed = pl.format("source:{}", "source") if section.missing_annotator == "same" else alone
    named = pl.when(pl.col("annotator_id").is_null()).then(unnamed).otherwise(pl.format("id:{}", "annotator_id"))
    by = ("collected_at", "arrival", "revision", "line", "position", "row_id")
    near = pl.concat([edges.get_column("one"), edges.get_column("two").alias("one")]).unique()
    at = (again | rows.get_column("item_id").is_in(near.implode())).arg_true()
    return (
        rows.select("item_id", "kind", "task", "aspect", "label", "annotator_id", "source", "anchor", *_SCORE, *by)[at]
        .lazy()
        .select(
            at.alias("at"),
            "item_id",
            "kind",
            "task",
            "aspect",
            "label",
            *by,
            scored=pl.when(pl.col("score").is_not_null()).then(pl.struct(_SCORE)),
            who=pl.when(pl.col("anchor").fill_null(value=False)).then(alone).otherwise(named),
        )
        .sort(by, descending=section.survivor == "latest", nulls_last=section.survivor == "latest")
        .drop(by)
        .with_row_index("rank")
        .sort("at")
        .collect()
    )


@dataclass(frozen=True)
class _Fate:
    """For each row, by place: the place of its survivor, whether it was dropped, and by which rule it was merged."""

    into: np.ndarray
    dropped: np.ndarray
    near: np.ndarray
    contradictions: dict[str, int]

    @property
    def kept(self) -> np.ndarray:
        return ~self.dropped & (self.into == np.arange(len(self.into)))

    def rules(self) -> pl.Expr:
        kept, dropped, near = (pl.lit(pl.Series(side)) for side in (self.kept, self.dropped, self.near))
        merged = pl.when(near).then(pl.lit("near-duplicate")).otherwise(pl.lit("resubmission"))
        return pl.when(~kept).then(pl.when(dropped).then(pl.lit("contradiction")).otherwise(merged))


def _resubmissions(work: pl.DataFrame, height: int, section: DeduplicatedSection) -> _Fate:
    into = np.arange(height)
    dropped = np.zeros(height, dtype=bool)
    sets = (
        work.group_by(*_JUDGED, "item_id")
        .agg(
            pl.len(),
            "at",
            survivor=pl.col("at").sort_by("rank").first(),
            contradict=(pl.col("label").drop_nulls().n_unique() > 1) | (pl.col("scored").drop_nulls().n_unique() > 1),
        )
        .filter(pl.col("len") > 1)
    )
    each = sets.explode("at")
    at = each.get_column("at").to_numpy()
    into[at] = each.get_column("survivor").to_numpy()
    if section.contradictions == "drop_all":
        dropped[at] = each.get_column("contradict").to_numpy()
    contradicting = {"resubmission": int(sets.get_column("contradict").sum()), "near-duplicate": 0}
    return _Fate(into, dropped, np.zeros(height, dtype=bool), contradicting)


def _stars(work: pl.DataFrame, edges: pl.DataFrame, fate: _Fate, section: DeduplicatedSection) -> _Fate:
    """Merge the near-duplicates of one annotator around survivors; their resubmissions go with them."""
    alive = work.filter(pl.Series(fate.kept[work.get_column("at")]) & pl.col("who").str.starts_with("row:").not_())
    if edges.is_empty() or alive.is_empty():
        return fate
    judged = [*_JUDGED, "item_id"]
    near = (
        edges.join(alive, left_on=["kind", "one"], right_on=["kind", "item_id"])
        .rename({"two": "item_id"})
        .join(alive, on=judged, nulls_equal=True, suffix="_two")
    )
    turned = pl.col("label_two").replace({"a": "b", "b": "a"})
    answer = pl.when("crossed").then(turned).otherwise("label_two")
    near = near.select(
        first=pl.when(pl.col("rank") < pl.col("rank_two")).then("at").otherwise("at_two"),
        second=pl.when(pl.col("rank") < pl.col("rank_two")).then("at_two").otherwise("at"),
        low=pl.min_horizontal("rank", "rank_two"),
        high=pl.max_horizontal("rank", "rank_two"),
        contradict=(pl.col("label") != answer).fill_null(value=False)
        | (~pl.col("crossed") & (pl.col("scored") != pl.col("scored_two")).fill_null(value=False)),
    ).sort("low", "high")
    star: dict[int, int] = {}
    contradicted: set[int] = set()
    for survivor, other, contradict in near.select("first", "second", "contradict").iter_rows():
        if survivor in star or other in star:
            continue
        star[other] = survivor
        if contradict:
            contradicted.add(survivor)
    places = np.arange(len(fate.into))
    into = places.copy()
    into[np.fromiter(star, np.int64, len(star))] = np.fromiter(star.values(), np.int64, len(star))
    lost = np.zeros(len(into), dtype=bool)
    if section.contradictions == "drop_all":
        lost[sorted(contradicted)] = True
    into = into[fate.into]
    return _Fate(
        into,
        fate.dropped | lost[into],
        (fate.into == places) & (into != places),
        {**fate.contradictions, "near-duplicate": len(contradicted)},
    )


def _near_duplicate_items(
    rows: pl.DataFrame, inputs: Inputs, section: DeduplicatedSection, engine: Engine
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return pairs of items (kind, one, two: item ids, crossed) and what the search met."""
    edges = pl.DataFrame(schema={"kind": pl.String, "one": pl.String, "two": pl.String, "crossed": pl.Boolean})
    if not section.near_duplicates or rows.is_empty():
        return edges, {}
    named = rows.get_column("content_part").rle().struct.unnest()
    if gone := named.filter(~pl.col("value").is_in([p.digest for p in inputs.content], nulls_equal=True))["len"].sum():
        raise FeedbackError(
            f"deduplicated: the text of {gone} records is in no part of `ingested`; materialize it again, "
            "or say `near_duplicates: false`"
        )
    found = near_duplicates(
        inputs.content,
        engine,
        threshold=section.threshold,
        shingle=section.shingle,
        bands=section.bands,
        rows=section.rows,
        bucket=section.bucket,
    )
    facts = {"candidates": found.candidates, "texts_cut_short": found.cut_short}
    if not found.pairs.is_empty():
        paired = found.texts.filter(
            pl.col("text").is_in(pl.concat([found.pairs["one"], found.pairs["two"]]).unique().implode())
        )
        items = (
            rows.select("content_part", "content_row", "item_id", "kind")
            .join(paired, on=["content_part", "content_row"])
            .select("text", "item_id", "kind")
            .unique()
        )
        edges = (
            found.pairs.join(items.rename({"item_id": "one_item"}), left_on="one", right_on="text")
            .join(items.rename({"item_id": "two_item"}), left_on=["two", "kind"], right_on=["text", "kind"])
            .filter(pl.col("one_item") != pl.col("two_item"))
            .select(
                "kind",
                one=pl.min_horizontal("one_item", "two_item"),
                two=pl.max_horizontal("one_item", "two_item"),
                crossed="crossed",
            )
            .sort(pl.all())
            .unique(["kind", "one", "two"], keep="first", maintain_order=True)
        )
    return edges, {**facts, "near_duplicate_pairs": edges.height}


def _clustered(rows: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    members = _components(edges.get_column("one"), edges.get_column("two"))
    clusters = members.with_columns(cluster_id=pl.col("name").min().over("component")).drop("component")
    item = rows.get_column("item_id")
    at = item.is_in(clusters.get_column("name").implode()).arg_true()  # few are like another
    theirs = item.gather(at).to_frame("name").join(clusters, on="name", how="left", maintain_order="left")
    return rows.hstack([item.alias("cluster_id").scatter(at, theirs.get_column("cluster_id"))])


def _alone(rows: pl.DataFrame, section: DeduplicatedSection) -> pl.DataFrame:
    """What `_split` adds to a row that is tied to no other."""
    lonely = rows.lazy().select(component_id="item_id", held=_fixed_to("eval"), trained=_fixed_to("train"))
    return lonely.select("component_id", *_sides(section)).collect()


def _fixed_to(side: str) -> pl.Expr:
    return (pl.col("split") == side).fill_null(value=False)


def _sides(section: DeduplicatedSection) -> tuple[pl.Expr, pl.Expr]:
    """assigned_split and `fixed` of a component, from component_id, `held` and `trained`."""
    draw = keyed_draw(section.split_key, pl.col("component_id"))
    drawn = pl.when(draw < section.eval_share).then(pl.lit("eval"))
    fixed = pl.when("held").then(pl.lit("eval")).when("trained").then(pl.lit("train"))
    side = fixed.otherwise(drawn.otherwise(pl.lit("train")))
    return side.alias("assigned_split"), (pl.col("held") & pl.col("trained")).alias("fixed")


def _shared(rows: pl.DataFrame, section: DeduplicatedSection) -> pl.DataFrame:
    """What rows share that must not lie on both sides: `row` (its place) and `other`, a hash that stands repeatedly.

    Prompts and responses are compared as 64-bit hashes with seeds of their own.
    """
    spokes = {
        "prompt": ["prompt_id"] if "prompt" in section.split_on else [],
        "response": ["response_a_id", "response_b_id"] if "response" in section.split_on else [],
    }
    found = [pl.DataFrame(schema={"row": pl.get_index_type(), "other": pl.UInt64})]
    for seed, columns in enumerate(spokes.values(), 1):
        hashed = [
            rows.select(other=pl.when(pl.col(spoke).is_not_null()).then(pl.col(spoke).hash(seed=seed)))
            .with_row_index("row")
            .drop_nulls()
            for spoke in columns
        ]
        if hashed:
            values = pl.concat(hashed)
            found.append(values.filter(repeated(values.get_column("other"))))
    return pl.concat(found)


def _split(rows: pl.DataFrame, alone: pl.DataFrame, shared: pl.DataFrame, section: DeduplicatedSection) -> pl.DataFrame:
    """Add component_id, assigned_split, and `fixed`: true where the source fixed both sides for one component."""
    hub = "cluster_id" if "cluster" in section.split_on else "item_id"
    hashed = rows.select(pl.col(hub).hash(seed=0).alias("hub"))
    # A value that stands at one hub only ties nothing together.
    ties = shared.select(hashed.get_column("hub").gather(shared.get_column("row")), "other").unique(maintain_order=True)
    parts = _components(ties.get_column("hub"), ties.get_column("other"))
    # A component is named by one of its members, until its id is known.
    named = parts.select(hub="name", component=pl.col("name").min().over("component"))
    found = hashed.select("hub").join(named, on="hub", how="left", maintain_order="left")
    component = found.select(pl.coalesce("component", "hub")).to_series()
    shared_one = repeated(component)
    if not shared_one.any():
        return rows.hstack(alone)
    arrival = pl.col("arrival").fill_null(-1)
    tied = (
        rows.lazy()
        .select("item_id", "arrival", "split", component=component)
        .filter(shared_one)
        .group_by("component")
        .agg(
            component_id=pl.col("item_id").filter(arrival == arrival.min()).min(),
            held=_fixed_to("eval").any(),
            trained=_fixed_to("train").any(),
        )
        .select("component", "component_id", *_sides(section))
        .collect()
    )
    at = shared_one.arg_true()
    theirs = component.gather(at).to_frame("component").join(tied, on="component", how="left", maintain_order="left")
    return rows.hstack([column.scatter(at, theirs.get_column(column.name)) for column in alone.get_columns()])


def _components(one: pl.Series, two: pl.Series) -> pl.DataFrame:
    """Return name and component (a number that means nothing outside) of everything that hangs together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = pl.concat([one, two.alias(one.name)]).alias("name").unique(maintain_order=True).to_frame()
    numbered = names.with_row_index("number")
    ends = [
        side.alias("name").to_frame().join(numbered, on="name", how="left", maintain_order="left")["number"].to_numpy()
        for side in (one, two)
    ]
    if names.is_empty():
        return names.with_columns(component=pl.lit(None, pl.Int32))
    graph = coo_array((np.ones(len(one), dtype=np.int8), tuple(ends)), shape=(names.height, names.height))
    _, component = connected_components(graph, directed=False)
    return names.with_columns(component=pl.Series(component))


def _sizes(tagged: pl.DataFrame, standing: pl.Series) -> dict[str, Any]:
    told = tagged.select("item_id", "cluster_id", "component_id", "assigned_split", "fixed")
    out = told if standing.all() else told.filter(standing)
    # Most items are alone, and give their cluster its name.
    together = out.get_column("cluster_id").filter(out.get_column("cluster_id") != out.get_column("item_id")).unique()
    items = out.lazy().select("cluster_id", "item_id").filter(pl.col("cluster_id").is_in(together.implode())).unique()
    clusters = items.group_by("cluster_id").len().collect().get_column("len")
    of_components = out.select(pl.col("component_id").hash()).to_series().to_numpy()
    components = pl.Series(np.sort(of_components)).rle().struct.field("len")
    held_out = int((out.get_column("assigned_split") == "eval").sum())
    return {
        "clusters": distinct(out.select(pl.col("cluster_id").hash()).to_series()),
        "clusters_of_several_items": int((clusters > 1).sum()),
        "items_of_largest_cluster": int(clusters.max() or min(out.height, 1)),  # type: ignore[arg-type]
        "components": len(components),
        "rows_of_largest_component": int(components.max() or 0),  # type: ignore[arg-type]
        "components_fixed_to_both_sides": told.filter("fixed").get_column("component_id").n_unique(),
        "rows_by_split": {"train": out.height - held_out, "eval": held_out},
    }


def promises(section: DeduplicatedSection) -> list[Expectation]:
    """What the output keeps, whatever came in."""
    return [
        *(
            Expectation("expect_column_values_to_not_be_null", f"every row has a {column}", {"column": column})
            for column in ("row_id", "cluster_id", "component_id")
        ),
        Expectation(
            "expect_column_values_to_be_in_set",
            "every row is on one side of the split",
            {"column": "assigned_split", "value_set": ["train", "eval"]},
        ),
        Expectation(
            "expect_column_values_to_not_be_null", "every row is on a side of the split", {"column": "assigned_split"}
        ),
        Expectation(
            "expect_column_pair_values_to_be_in_set",
            "no row that its source holds out for evaluation is trained on",
            {
                "column_A": "split",
                "column_B": "assigned_split",
                "value_pairs_set": [["train", "train"], ["train", "eval"], ["eval", "eval"]],
                "ignore_row_if": "either_value_is_missing",
            },
            id="held_out",
        ),
        *_drawn_share(section),
    ]


def _drawn_share(section: DeduplicatedSection) -> list[Expectation]:
    """The sides that were drawn have the shares of the policy: components count, and none whose side a source fixed.

    Drawn by chance, n components have a Kullback-Leibler divergence of t or more with a probability of at most
    2 exp(-n t) (Chernoff), whatever the shares: DRAWN and DRIFTED make that less than 1 in 10,000.
    """
    if not 0 < section.eval_share < 1:
        return []
    shares = {"values": ["train", "eval"], "weights": [1 - section.eval_share, section.eval_share]}
    return [
        Expectation(
            "expect_column_kl_divergence_to_be_less_than",
            f"of the components that no source put on a side, {section.eval_share:.1%} are held out for evaluation",
            {"column": "assigned_split", "partition_object": shares, "threshold": DRIFTED},
            id="drawn",
            blocking=False,
            units=Units("component_id", least=DRAWN, unless="split"),
        )
    ]


STAGE = Stage(
    name="deduplicated",
    description=(
        "What one annotator said twice about the same or nearly the same item counts once: each merged row names its "
        "survivor. Rows of several annotators stay; similar items get a common cluster. Training and evaluation "
        "are split so that they share no prompt, response or cluster."
    ),
    inputs=("filtered",),
    section=DeduplicatedSection,
    function=deduplicated,
    promises=promises,
    scope="whole",
    reads_content=True,
)
