"""How many independent rows tell as much as clustered ones: judgments of one annotator, or of one item, go together."""

from collections.abc import Sequence

import polars as pl

from feedback_assets.signal.histogram import NULL, cell_numbers, effective_size, mass_of, squares_of

LEAST_CLUSTERS = 10
"""With fewer clusters the variance between them is not estimated."""


def clustered_size(
    values: pl.Series, clusters: pl.Series, weights: pl.Series | None = None, edges: Sequence[float] | None = None
) -> float | None:
    """How many independent rows tell as much about the shares of `values` as these clustered ones.

    First-order correction of Rao and Scott (J. Am. Stat. Assoc. 76, 1981): (B−1) / Σ_k V(p_k)/p_k, where
    V(p_k) = G/(G−1) · Σ_c (m_ck − p_k·m_c)² / M² is the variance of a share between the G clusters. Weights are
    allowed for. A row without cluster is one of its own.

    Returns:
        The size, at most Kish's; None with fewer than 10 clusters or with one cell only.
    """
    cell = values.cast(pl.String).fill_null(NULL) if edges is None else cell_numbers(values, edges)
    own = pl.format("\0{}", pl.int_range(pl.len()))
    counted = (
        pl.DataFrame({"cell": cell, "cluster": clusters.cast(pl.String), "mass": mass_of(values, weights)})
        .lazy()
        .with_columns(pl.col("cluster").fill_null(own))
        .group_by("cluster", "cell")
        .agg(pl.col("mass").sum().cast(pl.Int128))
        .with_columns(pl.col("mass").sum().over("cluster").alias("all"))
        .collect()
    )
    by_cell = (
        counted.group_by("cell")
        .agg(
            pl.col("mass").sum(),
            (pl.col("mass") * pl.col("mass")).sum().alias("squares"),
            (pl.col("mass") * pl.col("all")).sum().alias("products"),
        )
        .filter(pl.col("mass") > 0)
        .sort("cell")
    )
    by_cluster = counted.select("cluster", "all").unique("cluster").get_column("all")
    groups, total = by_cluster.len(), int(by_cluster.sum())
    if groups < LEAST_CLUSTERS or by_cell.height < 2 or not total:
        return None
    squares = int((by_cluster * by_cluster).sum())
    variance = 0.0
    for _, mass, own_squares, products in by_cell.iter_rows():
        # exact in integers: Σ(m_ck − p_k·m_c)² · M²
        spread = own_squares * total**2 - 2 * mass * products * total + mass**2 * squares
        variance += groups / (groups - 1) * (spread / total**4) * (total / mass)
    kish = effective_size(total, squares_of(mass_of(values, weights)))
    return min(kish, (by_cell.height - 1) / variance) if variance > 0 else kish
