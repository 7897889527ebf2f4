"""Small frames for the tests of the stages: records as a source maps them, and as they leave `ingested`."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from feedback_assets.record import FROM_SOURCE, SCHEMA
from feedback_assets.stages.ingested import Resolved, resolve, to_records

DAY_ZERO = datetime(2024, 1, 1, tzinfo=UTC)
MAPPED = {
    **{name: column.dtype for name, column in FROM_SOURCE.items()},
    "line": pl.Int64,
    "position": pl.Int64,
    "extra": pl.String,
}


def day(number: float) -> datetime:
    return DAY_ZERO + timedelta(days=number)


def judgment(**given: Any) -> dict[str, Any]:
    """A preference as a source gives it; `None` takes a value away."""
    return {
        "batch": "b0",
        "line": None,
        "position": 1,
        "kind": "preference",
        "prompt": [{"role": "user", "text": "Why is the sky blue?"}],
        "response_a": "Rayleigh scattering.",
        "response_b": "It mirrors the sea.",
        "label": "a",
        **given,
    }


def mapped(*records: dict[str, Any]) -> pl.DataFrame:
    numbered = [{**record, "line": record.get("line") or 1} for record in records]
    return pl.DataFrame([{name: record.get(name) for name in MAPPED} for record in numbered], schema=MAPPED)


def arrive(
    *batches: list[dict[str, Any]],
    not_after: datetime | None = None,
    shuffled: int | None = None,
    names: Sequence[str] = (),
) -> Resolved:
    """What becomes of batches that arrive one after the other; records that name no line are numbered from 1.

    `names` are those of their files, by default each its own. With `shuffled`, a seed, the rows lie in another order.
    """
    rows, quarantined = [], []
    for arrival, records in enumerate(batches):
        numbered = [
            {"batch": f"b{arrival}", **record, "line": line + 1 if record["line"] is None else record["line"]}
            for line, record in enumerate(records)
        ]
        intake = to_records(mapped(*numbered), "s")
        rows.append(intake.rows.with_columns(pl.lit(arrival, pl.Int64).alias("arrival")))
        quarantined.append(intake.quarantined.with_columns(pl.lit(arrival, pl.Int64).alias("arrival")))
    called = names or [f"b{arrival}" for arrival in range(len(batches))]
    limits = pl.DataFrame(
        [(arrival, not_after or day(10_000), called.index(name)) for arrival, name in enumerate(called)],
        schema={"arrival": pl.Int64, "not_after": SCHEMA["collected_at"], "first": pl.Int64},
        orient="row",
    )
    tables = pl.concat(rows), pl.concat(quarantined)
    if shuffled is not None:
        tables = tuple(table.sample(fraction=1, shuffle=True, seed=shuffled) for table in tables)
    return resolve(*tables, limits)


def records(*given: dict[str, Any]) -> pl.DataFrame:
    """Records as they leave `ingested`; what is not given is null, and the rows are numbered."""
    filled = [
        {
            "source": "s",
            "batch": "b0",
            "arrival": 0,
            "line": place + 1,
            "position": 1,
            "row_id": f"r{place}",
            "revision": 0,
            "parents": [],
            "kind": "preference",
            "label": "a",
            "item_id": f"i{place}",
            "anchor": False,
            "content_part": "p",
            "content_row": place,
            **record,
        }
        for place, record in enumerate(given)
    ]
    return pl.DataFrame([{name: record.get(name) for name in SCHEMA} for record in filled], schema=SCHEMA)
