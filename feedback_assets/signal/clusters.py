"""How many independent rows tell as much as clustered ones: judgments of one annotator, or of one item, go together."""

from collections.abc import Sequence

import polars as pl

from feedback_assets.digests import distinct
from feedback_assets.signal.histogram import NULL, UNIT, cell_numbers, effective_size, mass_of, squares_of
from feedback_assets.signal.profile import Frame, Watched, records

LEAST_CLUSTERS = 10
"""With fewer clusters the variance between them is not estimated."""


def clustered_size(
    values: pl.Series,
    clusters: pl.Series | Sequence[pl.Series],
    weights: pl.Series | None = None,
    edges: Sequence[float] | None = None,
) -> float | None:
    """How many independent rows tell as much about the shares of `values` as these clustered ones.

    First-order correction of Rao and Scott (J. Am. Stat. Assoc. 76, 1981): (B−1) / Σ_k V(p_k)/p_k, where
    V(p_k) = G/(G−1) · Σ_c (m_ck − p_k·m_c)² / M² is the variance of a share between the G clusters. For two ways of
    clustering V = V_1 + V_2 − V_12, with V_12 between the clusters of both (Cameron, Gelbach and Miller, J. Bus. Econ.
    Stat. 29, 2011), and at least the larger of V_1 and V_2. A row without cluster is one of its own.

    Args:
        values: of one column.
        clusters: who judged each row, or which item it is: one way of clustering, or two.
        weights: Float64, at least 0; None counts each row once.
        edges: inner edges of the intervals of a numeric column.

    Returns:
        The size, at most Kish's; None with one cell only, or where no way has 10 clusters.
    """
    ways = [clusters] if isinstance(clusters, pl.Series) else list(clusters)
    mass = mass_of(values, weights)
    own = pl.int_range(pl.len()).hash(seed=1)
    rows = pl.DataFrame(
        {
            "cell": values.cast(pl.String).fill_null(NULL) if edges is None else cell_numbers(values, edges),
            "mass": mass,
            **{f"way{place}": way for place, way in enumerate(ways)},
        }
    ).with_columns(pl.when(pl.col("^way.*$").is_null()).then(own).otherwise(pl.col("^way.*$").hash()).name.keep())
    counts = {name: distinct(rows.get_column(name)) for name in rows.columns if name.startswith("way")}
    names = [name for name, count in counts.items() if count >= LEAST_CLUSTERS]
    cells = rows.filter(pl.col("mass") > 0).get_column("cell").n_unique()
    if not names or cells < 2:
        return None
    spreads = [_spread(rows, rows.get_column(name), counts[name]) for name in names]
    if len(names) == 2:
        # Where one way tells all rows apart, both do.
        alone = [spread for name, spread in zip(names, spreads, strict=True) if counts[name] == rows.height]
        if not alone:
            both = rows.select(pl.struct(names).hash()).to_series()
            alone = [_spread(rows, both, distinct(both))]
        spreads.append(sum(spreads) - alone[0])
    kish = effective_size(int(mass.sum()), squares_of(mass))
    return min(kish, (cells - 1) / max(spreads)) if max(spreads) > 0 else kish


def _spread(rows: pl.DataFrame, cluster: pl.Series, groups: int) -> float:
    """Σ_k V(p_k)/p_k between the clusters, of which there are `groups`, in integers up to the last division."""
    counted = rows.select("cell", "mass", cluster=cluster)
    if groups < counted.height:
        by_both = counted.lazy().group_by("cluster", "cell").agg(pl.col("mass").sum())
        counted = by_both.with_columns(pl.col("mass").sum().over("cluster").alias("all")).collect()
    else:
        counted = counted.with_columns(pl.col("mass").alias("all"))
    wide = pl.col("mass").cast(pl.Int128)
    by_cell = (
        counted.group_by("cell")
        .agg(
            mass=pl.col("mass").sum(),
            squares=(wide * wide).sum(),
            products=(wide * pl.col("all")).sum(),
        )
        .filter(pl.col("mass") > 0)
        .sort("cell")
    )
    # Σ_c m_c² = Σ_k Σ_c m_ck·m_c
    total, squares = (sum(by_cell.get_column(name).to_list()) for name in ("mass", "products"))
    found = 0.0
    for _, mass, own_squares, products in by_cell.iter_rows():
        # exact in integers: Σ(m_ck − p_k·m_c)² · M²
        spread = own_squares * total**2 - 2 * mass * products * total + mass**2 * squares
        found += groups / (groups - 1) * (spread / total**4) * (total / mass)
    return found


def size_in(
    frame: Frame, entry: Watched, weight: str | None, clusters: Sequence[str], edges: tuple[float, ...] | None
) -> float | None:
    """`clustered_size` of a watched column of `frame`, by those columns of `clusters` that it has; None without any."""
    schema = frame.lazy().collect_schema()
    there = [name for name in clusters if name in schema]
    if not there:
        return None
    rows, mass = records(frame, [*entry.needs, *there], weight)
    if entry.applies is not None:
        applies = rows.select(entry.applies.fill_null(False)).to_series()
        rows, mass = rows.filter(applies), None if mass is None else mass.filter(applies)
    weights = None if mass is None else mass / UNIT
    values = rows.select(entry.value.cast(pl.Float64 if entry.kind == "numeric" else pl.String)).to_series()
    return clustered_size(values, [rows.get_column(name) for name in there], weights, edges)
