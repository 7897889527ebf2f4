"""The batches of a commit of `ingested`, as a person sees them."""

from datetime import UTC, datetime

import polars as pl

from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.landing import landings
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.sources.files import waiting
from feedback_assets.sources.objects import waiting_objects


def batches(project: Project, commit: Commit) -> pl.DataFrame:
    """The table of batches (intake.BATCHES), in order of arrival, with `arrived`.

    To the states that belong to the data ("current", "redelivered", "retracted", "mapped earlier") come those of the
    files when the commit was made: "removed", "renamed", "replaced".
    """
    told = commit.circumstances["arrived"]
    places = range(len(told))
    beside = pl.DataFrame(
        {
            "arrival": list(places),
            "file": [told[str(place)]["state"] for place in places],
            "arrived": [told[str(place)]["at"] for place in places],
        },
        schema={"arrival": pl.Int64, "file": pl.String, "arrived": pl.String},
    )
    state, file = (pl.when(pl.col(name) != "current").then(name) for name in ("state", "file"))
    both = pl.concat_str(state, file, separator=", ", ignore_nulls=True)
    return (
        scan(project.store, commit.snapshot.tables["batches"])
        .join(beside.lazy(), on="arrival", how="left", maintain_order="left")
        .with_columns(pl.when(both == "").then(pl.lit("current")).otherwise(both).alias("state"))
        .drop("file", "stands", strict=False)
        .collect()
    )


def waiting_files(project: Project, commit: Commit) -> list[tuple[str, str]]:
    """Source and name of each file that is not complete now, and is no batch of the commit."""
    known = scan(project.store, commit.snapshot.tables["batches"]).select("source", "batch").collect()
    held = set(known.iter_rows())
    now = datetime.now(UTC)
    return [
        (source.name, name)
        for source in project.policy.ingested.sources
        for name in (waiting_objects(source, now) if source.in_bucket else waiting(source, project.folder, now))
        if (source.name, name) not in held
    ]


def notices(project: Project, commit: Commit) -> list[str]:
    """What a person should know of the batches, a sentence each."""
    told = [
        f"batch {name!r} of source {source!r}: its file is gone, and the mapping or the code has changed since; "
        "it stays as it was mapped"
        for source, name in batches(project, commit)
        .filter(pl.col("state").str.contains("mapped earlier", literal=True))
        .select("source", "batch")
        .iter_rows()
    ]
    told += commit.circumstances.get("noticed", ())
    told += [
        f"file {name!r} of source {source!r} waits: it is not complete yet"
        for source, name in waiting_files(project, commit)
    ]
    for source in project.policy.ingested.sources:
        if source.in_database and (gone := sum(landing.gone for landing in landings(project.store, source.name))):
            told.append(
                f"{gone:,} rows that were read from source {source.name!r} are in the database no more; "
                "they stay until their batch is retracted"
            )
    return told
