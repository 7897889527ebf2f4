"""What a request to erase means: which records, on which lines of which batches, and where their text lies."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.downloads import downloads
from feedback_assets.materialize.landing import landed, landed_key
from feedback_assets.materialize.project import Project
from feedback_assets.materialize.withdrawn import identified
from feedback_assets.provenance.remembered import memos, referred
from feedback_assets.provenance.rewrite import Erased, is_text
from feedback_assets.record import row_ids
from feedback_assets.snapshots.store import Store
from feedback_assets.sources.files import BatchFile, list_files
from feedback_assets.sources.quarantine import EXCERPT, QUARANTINE
from feedback_assets.sources.source import Source

_ALIKE = 5


@dataclass(frozen=True)
class Request:
    """Who asks for what: a record (by its feedback_id or row_id), or an annotator; in one `source`, or in all."""

    record: str | None = None
    annotator: str | None = None
    source: str | None = None
    reason: str | None = None

    def said(self) -> str:
        """For a person."""
        what = f"record {self.record!r}" if self.record is not None else f"annotator {self.annotator!r}"
        return f"{what} of source {self.source!r}" if self.source else what

    def asked_before(self, store: Store) -> bool:
        """Whether the annotator was erased before."""
        return self.annotator is not None and any(
            erasure.annotator.means(self.annotator) and erasure.annotator.source == self.source
            for erasure in store.erasures.all()
            if erasure.annotator is not None
        )


class NothingKnown(FeedbackError):
    """No record, no line of a batch and no earlier erasure is of what is asked for."""

    def __init__(self, place: str, request: Request, alike: Sequence[str]) -> None:
        self.alike = alike
        hint = "name a record by its source's feedback_id or its row_id, an annotator as the batches do"
        if alike:
            hint = f"did you mean {' or '.join(alike[:_ALIKE])}? --annotator takes a name letter by letter"
        super().__init__(f"{place}: nothing is known of {request.said()}; {hint}")


@dataclass(frozen=True)
class Sought:
    """What a request means: what is `erased`, in which `parts` of the store (key → a file) something of it may stand.

    `orphans`: keys of files of text that nothing refers to, whosever it is. `memos`: all that is remembered, by key.
    `alike`: names of other annotators that differ from the one asked for in case or blanks around them alone.
    """

    erased: Erased
    parts: Mapping[str, Path]
    orphans: list[str]
    memos: Mapping[str, bytes]
    alike: Sequence[str]


def sought(project: Project, request: Request) -> Sought:
    """What a request means. Of the files of text none is read.

    Raises:
        NothingKnown: nothing is known of it.
        FeedbackError: several sources have a record of this id.
    """
    store = project.store
    remembered = memos(store)
    texts, known = referred(store, remembered)
    of_text = {key for keys in texts.values() for key in keys}
    listed = {key for key, _, _ in store.objects("parts")}
    # What a listing does not have yet may stand all the same.
    known |= {key for key in store.erasures.written() if key.startswith("parts/")}
    unlisted = (key for key in sorted(known - of_text - listed) if store.stands(key))
    keys = [*sorted(listed - of_text), *unlisted]
    parts = dict(zip(keys, store.paths(keys), strict=True))
    schemas = {key: pl.read_parquet_schema(path) for key, path in parts.items()}
    narrow = [parts[key] for key, schema in schemas.items() if {"annotator_id", "parents"} <= set(schema)]
    row_ids = _with_children(narrow, _meant(project, request, narrow))
    lines, alike = _lines(project, request, narrow, row_ids)
    if not row_ids and lines.is_empty() and not request.asked_before(store):
        raise NothingKnown(store.place, request, alike)
    placed = [parts[key] for key, schema in schemas.items() if set(PLACE) <= set(schema)]
    content = {key: rows for key, rows in _content(placed, texts, row_ids).items() if store.stands(key)}
    parts |= dict(zip(content, store.paths(content), strict=True))
    erased = Erased(frozenset(row_ids), request.annotator, request.source, lines, content)
    orphans = [key for key, schema in schemas.items() if is_text(schema)]
    return Sought(erased, dict(sorted(parts.items())), orphans, remembered, alike)


def batch_files(project: Project) -> Iterator[tuple[Source, BatchFile]]:
    """Every batch file that is there, in the team's folder and landed."""
    for source in project.policy.ingested.sources:
        if source.in_database:
            files = [file for file in landed(project.store, source) if project.store.stands(landed_key(file))]
        elif source.in_bucket:
            files = downloads(project.store, source, datetime.now(UTC), may_be_empty=True)
        else:
            files = list_files(source, project.folder, may_be_empty=True)
        yield from ((source, file) for file in files if not file.waits)


def ids_of(row_ids: set[str] | frozenset[str]) -> pl.Expr:
    """Row ids, for `is_in`."""
    return pl.lit(pl.Series(sorted(row_ids), dtype=pl.String)).implode()


def theirs_of(row_ids: set[str] | frozenset[str], annotator: str | None) -> pl.Expr:
    """Whether a row (`row_id`, `annotator_id`) is one of these records, or by this annotator."""
    named = pl.lit(value=False) if annotator is None else pl.col("annotator_id") == annotator
    return pl.col("row_id").is_in(ids_of(row_ids)).fill_null(value=False) | named.fill_null(value=False)


def _meant(project: Project, request: Request, narrow: list[Path]) -> set[str]:
    rows = [pl.scan_parquet(path, glob=False).select("row_id", "source", *NAMED) for path in narrow]
    if request.record is not None:
        meant = pl.col("row_id").is_in(ids_of(_ids(project, request.record)))
        meant |= pl.col("feedback_id") == request.record
    else:
        meant = pl.col("annotator_id") == request.annotator
    if request.source is not None:
        meant &= pl.col("source") == request.source
    empty = pl.LazyFrame(schema=dict.fromkeys(("row_id", "source", *NAMED), pl.String))
    records = pl.concat([empty, *rows]).filter(meant).select("row_id", "source").unique().collect()
    sources = records.get_column("source").unique().sort().to_list()
    if request.record is not None and len(sources) > 1:
        raise FeedbackError(f"{request.said()} stands in several sources: {', '.join(sources)}; choose with --source")
    return set(records.get_column("row_id"))


NAMED = ("feedback_id", "annotator_id")
PLACE = ("content_part", "content_row", "row_id")


def _ids(project: Project, record: str) -> set[str]:
    """The row_ids that a record's name can mean: itself, or that of a feedback_id in any source."""
    return {record, *row_ids((source.name for source in project.policy.ingested.sources), record)}


def _with_children(narrow: list[Path], row_ids: set[str]) -> set[str]:
    """The records, and those that were made from them: the pairs of a rating."""
    empty = pl.LazyFrame(schema={"row_id": pl.String, "parents": pl.List(pl.String)})
    rows = pl.concat([empty, *(pl.scan_parquet(path, glob=False).select("row_id", "parents") for path in narrow)])
    pairs = rows.explode("parents").drop_nulls("parents").unique().collect()
    found = set(row_ids)
    while not (children := set(pairs.filter(pl.col("parents").is_in(ids_of(found))).get_column("row_id"))) <= found:
        found |= children
    return found


def _lines(project: Project, request: Request, narrow: list[Path], row_ids: set[str]) -> tuple[pl.DataFrame, list[str]]:
    """The lines of batches that the records came on (source, batch, line), also those that are in quarantine.

    And, as they are to be shown, the names of other annotators that are like the one asked for.
    """
    alike = [_alike(pl.scan_parquet(path, glob=False), request).collect() for path in narrow]
    theirs = pl.col("row_id").is_in(ids_of(row_ids))
    found = [
        pl.scan_parquet(path, glob=False).filter(theirs).select("source", "batch", "line").collect() for path in narrow
    ]
    for source, file in batch_files(project):
        if request.source not in (None, source.name):
            continue
        with file.at_hand():
            records = identified(file, source)
        if records is None:
            continue
        ids = row_ids if request.record is None else row_ids | _ids(project, request.record)
        mine = records.filter(theirs_of(ids, request.annotator))
        found.append(mine.select("source", pl.lit(file.name).alias("batch"), "line"))
        alike.append(_alike(records.lazy(), request).collect())
    schema = {name: QUARANTINE[name] for name in ("source", "batch", "line")}
    names = pl.concat([pl.DataFrame(schema=dict.fromkeys(("source", "annotator_id"), pl.String)), *alike])
    silent = {source.name for source in project.policy.ingested.sources if not source.excerpts}
    shown = {
        f"one of source {source!r}, which shows no values" if source in silent else repr(name[:EXCERPT])
        for source, name in names.iter_rows()
    }
    return pl.concat([pl.DataFrame(schema=schema), *found]).unique(maintain_order=True), sorted(shown)


def _alike(records: pl.LazyFrame, request: Request) -> pl.LazyFrame:
    """The names (source, annotator_id) that differ from the one asked for in case or blanks around them alone."""
    asked, name = pl.lit(request.annotator, pl.String), pl.col("annotator_id")
    same, plain = name == asked, [one.str.strip_chars().str.to_lowercase() for one in (name, asked)]
    here = pl.lit(value=True) if request.source is None else pl.col("source") == request.source
    return records.select("source", name).filter(plain[0] == plain[1], ~same, here).unique()


def _content(placed: list[Path], texts: Mapping[str, Collection[str]], row_ids: set[str]) -> dict[str, list[int]]:
    """For each file of text the rows that go: those to which erased records alone refer."""
    rows: dict[str, list[int]] = {}
    if placed:
        gone = (
            pl.concat([pl.scan_parquet(path, glob=False).select(PLACE) for path in placed])
            .group_by("content_part", "content_row")
            .agg(pl.col("row_id").is_in(ids_of(row_ids)).all().alias("gone"))
            .filter("gone")
            .group_by("content_part")
            .agg("content_row")
            .collect()
        )
        for part, numbers in gone.iter_rows():
            for key in texts.get(part, ()):
                rows.setdefault(key, []).extend(numbers)
    return rows
