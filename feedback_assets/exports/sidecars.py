"""What stands beside the lines of an export: their weights, and whose judgments they are."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from feedback_assets.exports.lines import lines

PROVENANCE = (
    *("row_id", "source", "feedback_id", "batch", "line", "position", "revision", "parents", "conversion"),
    *("annotator_id", "annotator_kind", "collected_at", "annotator_agreement", "annotator_agreement_n"),
    *("task", "aspect", "guideline", "guideline_status", "guideline_digest", "cluster_id"),
    *("copies", "copy_index", "ways", "weight"),
)
"""Columns of the sidecar, where the training set has them: `weight` is that of the line, copies × Π w_<factor> / `ways`
(without copies, where they are lines of their own, told apart by `copy_index`)."""


def sidecars(index: pl.DataFrame, export: Mapping[str, Any], realise: str) -> dict[str, pl.DataFrame]:
    """What is told of each line, by kind.

    Args:
        index: rows of the training set, those of `exports.lines`.
        export: as in the policy.
        realise: "weights" (each record once, but for ties given both ways) or "copies" (repeated).

    Returns:
        `weights` (row_id, weight), where they are not realised as copies, and `provenance` (PROVENANCE and the
        factors), where the export asks for it; each with `split`, a row a line in the order of `index`.
    """
    of_record = pl.col("weight") if realise == "copies" else pl.col("training_weight")
    told = lines(index, export, realise).with_columns(weight=of_record / pl.col("ways")).collect()
    kinds: dict[str, list[str]] = {}
    if realise == "weights":
        kinds["weights"] = ["row_id", "weight"]
    if export["provenance"] == "sidecar":
        factors = [name for name in told.columns if name.startswith("w_")]
        kinds["provenance"] = [name for name in (*PROVENANCE, *factors) if name in told.columns]
    split = pl.col("assigned_split").alias("split")
    return {kind: told.select(split, *names) for kind, names in kinds.items()}
