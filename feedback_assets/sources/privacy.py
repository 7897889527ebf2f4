"""What a source says of people: ids become pseudonyms, named columns are never stored, and no error quotes a value."""

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import polars as pl
from pydantic import Field, StringConstraints, field_validator

from feedback_assets.errors import FeedbackError
from feedback_assets.expressions import columns_of, paths_of
from feedback_assets.policy import Section
from feedback_assets.record import IDS
from feedback_assets.sources.raw import LINE, MISFIT, POSITION, Unreadable

PSEUDONYM = "p-"  # how each begins
ANNOTATOR = "annotator_id"
SHORTEST_KEY = 16
"""Characters of a key; a shorter one could be tried out."""
_CHOSEN = ("kind", "label", "gold", "shown_order", "annotator_kind", "split", "anchor")
"""Record columns of few fixed values: they can be decided by an annotator's id without holding it."""
_VOCABULARY = ("source", "batch", "kind", "outcome", "position_win", "chosen_longer", "cluster")
"""Columns whose values the product or the policy gave, and no source."""

_NO_VALUE = ("(null)", "(other)")
"""Cells of a distribution that are no value of a source."""

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Privacy(Section):
    """What of a source is not kept as it came."""

    pseudonymise: dict[Literal["annotator_id"], Variable] = Field(
        default={},
        description="annotator_id: the environment variable with the key of which its pseudonyms are made. The same id "
        "gives the same pseudonym in every source of that key; another key goes into another variable",
    )
    never_store: tuple[str, ...] = Field(
        default=(), description="columns of the source that are forgotten as soon as they are read"
    )
    excerpts: bool = Field(
        default=True,
        description="whether quarantine and errors show the beginning of the value at fault, and what is said of a "
        "run, also in pictures, the names of categories",
    )

    @field_validator("never_store")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            raise ValueError(f"{twice[0]!r} stands twice" if twice else "a column has a name")
        return names

    @property
    def quotes(self) -> bool:
        """Whether an error may quote what is in the source: where something is private, it could be that."""
        return self.excerpts and not self.pseudonymise and not self.never_store


def shown(column: str, value: str, *, quotes: bool) -> str:
    """`value` of a column for a sentence; the beginning of its SHA-256 where what a source says may not be quoted.

    An annotator is never named: sentences stand in records that are not rewritten.
    """
    if value in _NO_VALUE or (column != ANNOTATOR and (quotes or column in _VOCABULARY)):
        return value
    return f"#{hashlib.sha256(value.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of one key: HMAC-SHA-256 (RFC 2104) of the id's UTF-8, cut to 128 bits."""

    key: bytes = field(repr=False)

    @property
    def check(self) -> str:
        """Tells whether a key is the same (16 hex characters), and not which it is."""
        return hmac.digest(self.key, b"feedback_assets: check value of a key", "sha256").hex()[:16]

    def of(self, ids: pl.Series) -> pl.Series:
        """The pseudonym (String, `p-` and 32 hex characters) of each id (String); null of null and of blank text."""
        distinct = ids.filter(ids.str.strip_chars() != "").unique()
        made = [f"{PSEUDONYM}{hmac.digest(self.key, b'id:' + name.encode(), 'sha256').hex()[:32]}" for name in distinct]
        return ids.replace_strict(distinct, pl.Series(made, dtype=pl.String), default=None, return_dtype=pl.String)


def pseudonyms(source: str, privacy: Privacy) -> Pseudonyms | None:
    """The pseudonyms that a source asks for; None if it asks for none.

    Raises:
        FeedbackError: the environment variable with the key is not set, or the key is too short.
    """
    variable = privacy.pseudonymise.get(ANNOTATOR)
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if len(key) < SHORTEST_KEY:
        what = f"holds fewer than {SHORTEST_KEY} characters" if key else "is not set"
        raise FeedbackError(
            f"source {source!r}: the environment variable {variable} {what}; it holds the key of which the pseudonyms "
            "of annotator_id are made, such as `openssl rand -hex 32` gives; keep it where you keep secrets"
        )
    return Pseudonyms(key.encode())


def refuse_reading(privacy: Privacy, expressions: Mapping[str, Iterable[str]], *, in_database: bool) -> None:
    """Hold a source's expressions, by the key that they stand under, against what it says is private.

    Raises:
        ValueError: an expression reads a column that is never stored, or would keep an annotator's id.
    """
    for key, texts in expressions.items():
        for name in privacy.never_store:
            if any(name in columns_of(text) for text in texts):
                raise ValueError(f"{key} reads {name!r}, which `never_store` names; take it out of one of the two")
    if not privacy.pseudonymise:
        return
    ids = list(expressions.get(f"columns.{ANNOTATOR}", ()))
    if not ids:
        raise ValueError("`pseudonymise` names annotator_id, for which `columns` has no expression")
    if in_database and not all(_is_column(text) for text in ids):
        raise ValueError(
            "to be pseudonymised before it is landed, annotator_id must be one column of the query; compute it there"
        )
    for key, texts in expressions.items():
        stem, _, name = key.partition(".")
        decides = stem == "quarantine_when" or name in _CHOSEN
        if key == "each" or name in IDS or (decides and not in_database):
            continue
        if shared := next((text for text in texts if _same_place(text, ids)), None):
            query = "; let the query compute it from the id" if in_database else ""
            raise ValueError(
                f"{key}: {shared!r} reads what annotator_id is made of, and would keep the id or miss it once it is "
                f"a pseudonym{query or '; map it from another column'}"
            )


def hidden(columns: Mapping[str, Iterable[str]], privacy: Privacy) -> frozenset[str]:
    """Record columns of which no value may be shown: they are made of an annotator's id, or hold it."""
    if not privacy.pseudonymise:
        return frozenset()
    ids = list(columns[ANNOTATOR])
    shared = (name for name, texts in columns.items() if any(_same_place(text, ids) for text in texts))
    return frozenset((ANNOTATOR, *shared))


def pseudonymised(records: pl.DataFrame, made: Pseudonyms, names: Iterable[str]) -> pl.DataFrame:
    """`records` with pseudonyms in those of the columns `names` that only tell things apart (IDS)."""
    return records.with_columns(made.of(records.get_column(name)) for name in IDS if name in names)


def without(frame: pl.DataFrame, privacy: Privacy, where: str) -> pl.DataFrame:
    """`frame` without the columns that are never stored.

    Raises:
        Unreadable: it has none of such a name, but one that differs in case, spaces or signs alone.
    """
    for name in privacy.never_store:
        other = next((own for own in frame.columns if _plain(own) == _plain(name)), None)
        if name not in frame.columns and other is not None and other not in privacy.never_store:
            value = f"never_store names {name!r}, which the file lacks"
            raise Unreadable(
                f"{where}: {value} while it has one that differs in case or signs alone; name it as the file does",
                MISFIT,
                value=value,
            )
    return frame.drop(name for name in privacy.never_store if name in frame.columns)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold() or name


def _is_column(text: str) -> bool:
    paths = paths_of(text)
    return not paths or text.strip().strip('"') in [path[0] for path in paths if len(path) == 1]


def _same_place(text: str, ids: Iterable[str]) -> bool:
    return any(
        mine[: len(theirs)] == theirs[: len(mine)] for mine in _paths(text) for one in ids for theirs in _paths(one)
    )


def _paths(text: str) -> list[tuple[str, ...]]:
    return [path for path in paths_of(text) if path[0] not in (LINE, POSITION)]
