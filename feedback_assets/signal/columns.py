"""Which columns of the record are monitored: the signal that a reward model would learn from.

Labels are monitored as what they say (tie, position win, longer chosen), not as raw a or b.
"""

from collections.abc import Sequence

import polars as pl

from feedback_assets.signal.profile import Frame, Kind, Profile, Watched, profile, profiles

IDENTITIES = ("annotator_id", "batch", "guideline_version", "guideline")
"""Columns whose values are names: a PSI over them is noise."""

_LABEL = pl.col("label")
_DECIDED = (pl.col("kind") == "preference") & _LABEL.is_in(["a", "b"])
_SINGLE = pl.col("response_b_id").is_null()
_A_CHARS, _B_CHARS = (pl.col(f"response_{side}_chars").cast(pl.Int64) for side in "ab")
_LONGER = pl.when(_LABEL == "a").then(_A_CHARS - _B_CHARS).otherwise(_B_CHARS - _A_CHARS)


def _plain(name: str, kind: Kind = "categorical") -> Watched:
    return Watched(name, kind, (name,), pl.col(name))


MONITORED: tuple[Watched, ...] = (
    Watched(
        "outcome",
        "categorical",
        ("kind", "label"),
        pl.when((pl.col("kind") == "preference") & (_LABEL != "tie")).then(pl.lit("decided")).otherwise(_LABEL),
        pl.col("kind") != "rating",
    ),
    Watched(
        "position_win",
        "categorical",
        ("kind", "label", "shown_order"),
        pl.when(pl.col("shown_order").is_in(["ab", "ba"])).then(
            pl.when(pl.col("shown_order").str.starts_with(_LABEL)).then(pl.lit("first")).otherwise(pl.lit("second"))
        ),
        _DECIDED,
    ),
    Watched(
        "chosen_longer",
        "categorical",
        ("kind", "label", "response_a_chars", "response_b_chars"),
        pl.when(_LONGER > 0)
        .then(pl.lit("longer"))
        .when(_LONGER < 0)
        .then(pl.lit("shorter"))
        .when(_LONGER == 0)
        .then(pl.lit("equal")),
        _DECIDED,
    ),
    Watched(
        "score",
        "numeric",
        ("kind", "score", "score_min", "score_max"),
        pl.when(pl.col("score_max") > pl.col("score_min")).then(
            (pl.col("score") - pl.col("score_min")) / (pl.col("score_max") - pl.col("score_min"))
        ),
        pl.col("kind") == "rating",
    ),
    *(_plain(name) for name in ("category", "source", "task", "language", "kind")),
    Watched(
        "origin",
        "categorical",
        ("label", "origin_a", "origin_b", "response_b_id"),
        pl.when((_LABEL == "b") & ~_SINGLE)
        .then(pl.col("origin_b"))
        .otherwise(pl.col("origin_a"))
        .str.strip_prefix("model:"),
        _SINGLE | _LABEL.is_in(["a", "b"]),
    ),
    _plain("prompt_chars", "numeric"),
    Watched(
        "response_chars",
        "numeric",
        ("label", "response_a_chars", "response_b_chars", "response_b_id"),
        pl.when((_LABEL == "b") & ~_SINGLE).then(_B_CHARS).otherwise(_A_CHARS),
        _SINGLE | _LABEL.is_in(["a", "b"]),
    ),
    _plain("guideline_version"),
    _plain("guideline"),
)
"""`origin` and `response_chars` are those of the chosen response, or of the only one."""


def watched(schema: pl.Schema, columns: Sequence[str] = ()) -> list[Watched]:
    """What is counted of rows with this schema: MONITORED, IDENTITIES, and `columns` by their dtype."""
    found = {entry.name: entry for entry in (*MONITORED, *(_plain(name) for name in IDENTITIES))}
    for name in columns:
        if name in schema and not schema[name].is_nested():
            found.setdefault(name, _plain(name, "numeric" if schema[name].is_numeric() else "categorical"))
    return list(found.values())


def signal_of(frame: Frame, weight: str | None = None, columns: Sequence[str] = ()) -> Profile:
    """The profile of all watched columns that `frame` has.

    Raises:
        FeedbackError: there is no column `weight`, or a weight is null, negative or not finite.
    """
    return profile(frame, watched(frame.lazy().collect_schema(), columns), weight)


def signals_of(
    frame: Frame, lengths: Sequence[int], weight: str | None = None, columns: Sequence[str] = ()
) -> list[Profile]:
    """The profiles of all watched columns that `frame` has, of consecutive parts with these numbers of rows.

    Raises:
        FeedbackError: as `signal_of`.
    """
    return profiles(frame, watched(frame.lazy().collect_schema(), columns), lengths, weight)
