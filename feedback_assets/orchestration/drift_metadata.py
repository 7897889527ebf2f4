"""The four comparisons of a commit as metadata: a table each, led by what moved, and numbers that Dagster plots."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from feedback_assets.materialize.commit import Commit
from feedback_assets.provenance.at_a_glance import led

SHOWN = (
    *("column", "source", "batch", "verdict", "psi", "kl", "kl_reversed", "js", "ks", "ks_location"),
    *("psi_critical", "adjusted", "n_reference", "n_current", "effective_current", "because"),
)


def tables(commit: Commit) -> dict[str, list[dict[str, Any]]]:
    """By name of the metadata the rows of each comparison that was made, those that moved farthest first."""
    previous = (commit.circumstances.get("against_previous") or {}).get("columns", [])
    compared = {
        "drift_against_input": commit.content["drift"],
        "drift_of_newest_batches": commit.content["input"],
        "drift_against_baseline": commit.content["baseline"],
        "drift_against_previous": previous,
    }
    return {name: _shown(led(entries)) for name, entries in compared.items() if entries}


def numbers(commit: Commit) -> dict[str, float]:
    """The PSI of each column in each comparison; of several sources the largest."""
    found: dict[str, float] = {}
    told = tables(commit)
    for table, prefix in (
        ("drift_against_input", "psi"),
        ("drift_of_newest_batches", "psi_newest"),
        ("drift_against_baseline", "psi_baseline"),
        ("drift_against_previous", "psi_previous"),
    ):
        for entry in told.get(table, []):
            value, name = entry["psi"], f"{prefix}_{entry['column']}"
            if isinstance(value, float) and math.isfinite(value):
                found[name] = max(value, found.get(name, 0.0))
    return found


def _shown(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without what none of the entries has, rounded to the four places that a person reads."""
    names = [name for name in SHOWN if name == "psi" or any(entry.get(name) is not None for entry in entries)]
    return [
        {name: round(v, 4) if isinstance(v := entry.get(name), float) else v for name in names} for entry in entries
    ]
