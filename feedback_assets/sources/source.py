"""The policy's description of a source: where its files are, their format, and how they map to the record."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from re import fullmatch
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from feedback_assets.expressions import Sql, columns_of
from feedback_assets.policy import Section
from feedback_assets.record import FROM_SOURCE, TIME
from feedback_assets.sources.place import Place
from feedback_assets.sources.preset import expanded
from feedback_assets.sources.privacy import ANNOTATOR, Privacy, hidden, refuse_reading

Format = Literal["jsonl", "json", "csv", "parquet", "arrow", "xlsx"]
PROMPT_FORMATS = ("text", "turns", "roles", "anthropic", "conversation")
RESPONSE_FORMATS = ("text", "conversation", "last-turn")
EACH = "each"
"""Column that holds the entry of a list, where a source has `each`."""
SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".json": "json",
    ".json.gz": "json",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
}
"""File name endings and the format that each stands for."""


class ColumnMapping(Section):
    """How one record column comes from the source's own columns; a plain string stands for its `expr`.

    A list of such stands for alternatives: of each file the first is used whose columns, fields and types are there.
    """

    expr: Sql = Field(
        description="Polars SQL over the source's own columns, each, __line and __position; a constant is \"'text'\""
    )
    format: str | None = Field(
        default=None,
        description="time: a strptime format; prompt: "
        + ", ".join(PROMPT_FORMATS)
        + " (default text; conversation: all but the last turn of one); response: "
        + ", ".join(RESPONSE_FORMATS)
        + " (default text; conversation: the last turn of one with the same prompt; last-turn: of any)",
    )
    unit: Literal["s", "ms", "us", "ns", "days"] | None = Field(
        default=None, description="time given as a number: since 1970-01-01 UTC; days are a spreadsheet's serial days"
    )
    timezone: str | None = Field(default=None, description="IANA zone of a time that names none")
    optional: bool = Field(default=False, description="a column that a file lacks is null there, instead of an error")
    otherwise: "ColumnMapping | None" = Field(
        default=None, description="what is used of a file that lacks the columns, fields or types that expr needs"
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"expr": value}
        if not isinstance(value, list):
            return value
        if not value:
            raise ValueError("a list of alternatives is empty")
        first = {"expr": value[0]} if isinstance(value[0], str) else value[0]
        if len(value) == 1 or not isinstance(first, dict):
            return first
        return {**first, "otherwise": value[1:]}

    def alternatives(self) -> "Iterator[ColumnMapping]":
        """This mapping, then what is used otherwise."""
        mapping: ColumnMapping | None = self
        while mapping is not None:
            yield mapping
            mapping = mapping.otherwise

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        from zoneinfo import ZoneInfo, available_timezones

        if value is None:
            return None
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            close = get_close_matches(value, available_timezones(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{value!r} is no IANA time zone{hint}") from None
        return value


class Source(Place, Privacy):
    """A source of feedback: files or rows of one shape, and the expressions that make records of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the source; part of every row_id")
    format: Format | None = Field(default=None, description="None: by the file name's ending")
    sheet: str | None = Field(
        default=None, description="sheet of a spreadsheet; None: the first, and others that have rows are in quarantine"
    )
    delimiter: str | None = Field(
        default=None, pattern=r"^[^\n\r\"]$", description="of a CSV: one character; None: a tab in .tsv, else a comma"
    )
    max_bytes: int = Field(default=2**31, ge=1, description="a file that holds more, unpacked, is not read")
    batch: Sql | None = Field(default=None, description="name of a record's batch; None: the file's name")
    preset: str | None = Field(
        default=None, description="a known shape, which gives what is not said here; once read with its version: name@1"
    )
    each: tuple[Sql, ...] | None = Field(
        default=None,
        description="a list, or alternatives of which the first that a file has is used: a record for each entry, "
        "which the other expressions read as `each`, its place as `__position`; an id of the row alone does not tell "
        "them apart, id || '#' || __position does",
    )
    quarantine_when: dict[str, tuple[Sql, ...]] = Field(
        default={}, description="reason: a condition, or alternatives; what meets it is no feedback, such as a draft"
    )
    columns: dict[str, ColumnMapping] = Field(description="record column: expression over the source's columns")

    @model_validator(mode="before")
    @classmethod
    def _of_the_preset(cls, value: Any) -> Any:
        return expanded(value) if isinstance(value, dict) and value.get("preset") is not None else value

    @field_validator("each", mode="before")
    @classmethod
    def _one_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("quarantine_when", mode="before")
    @classmethod
    def _one_condition(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {reason: (given,) if isinstance(given, str) else given for reason, given in value.items()}
        return value

    @field_validator("quarantine_when")
    @classmethod
    def _reasons(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for reason, alternatives in value.items():
            if not fullmatch(r"[a-z][a-z0-9-]{0,39}", reason):
                raise ValueError(f"{reason!r} is no reason; give a short one such as draft or by-a-test-user")
            if not alternatives:
                raise ValueError(f"{reason}: a condition is missing")
        return value

    @field_validator("columns")
    @classmethod
    def _columns_of_the_record(cls, value: dict[str, ColumnMapping]) -> dict[str, ColumnMapping]:
        for name, mapping in value.items():
            if name == "batch":
                raise ValueError("`batch` is said beside `columns`, not in it")
            if name not in FROM_SOURCE:
                close = get_close_matches(name, FROM_SOURCE, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(FROM_SOURCE)}"
                raise ValueError(f"{name!r} is no column that a source fills; {hint}")
            for alternative in mapping.alternatives():
                _check_options(name, alternative)
        if "kind" not in value:
            raise ValueError("`kind` is required, for example kind: \"'preference'\"")
        return value

    @model_validator(mode="after")
    def _nothing_private(self) -> "Source":
        told: dict[str, list[str]] = {f"columns.{name}": texts for name, texts in self._texts().items()}
        told |= {f"quarantine_when.{reason}": list(texts) for reason, texts in self.quarantine_when.items()}
        told |= {"each": list(self.each or ()), "batch": [self.batch] if self.batch else []}
        refuse_reading(self, told, in_database=self.in_database)
        for role in ("key", "watermark"):
            named = getattr(self, role)
            if named is not None and (named in self.never_store or named in self.of_annotators()):
                raise ValueError(
                    f"the {role} {named!r} is kept of each row, so it can be nothing private; name another"
                )
        return self

    def _texts(self) -> dict[str, list[str]]:
        return {name: [one.expr for one in mapping.alternatives()] for name, mapping in self.columns.items()}

    @property
    def hidden(self) -> frozenset[str]:
        """Record columns of which no value may be shown."""
        return hidden(self._texts(), self)

    def of_annotators(self) -> frozenset[str]:
        """The source's columns of which ids of annotators are made, where those become pseudonyms."""
        if not self.pseudonymise:
            return frozenset()
        return frozenset(
            name for mapping in self.columns[ANNOTATOR].alternatives() for name in columns_of(mapping.expr)
        )

    @model_validator(mode="after")
    def _sheet_of_a_spreadsheet(self) -> "Source":
        if self.sheet is not None and (self.format or format_of(self.path)) not in (None, "xlsx"):
            raise ValueError("`sheet` is for spreadsheets only")
        if self.delimiter is not None and (self.format or format_of(self.path)) not in (None, "csv"):
            raise ValueError("`delimiter` is for CSV only")
        if self.delimiter is not None and not self.delimiter.isascii():
            raise ValueError("`delimiter` must be an ASCII character such as ';' or '|'")
        return self


def format_of(name: str) -> Format | None:
    """The format that a file name's ending stands for, else None."""
    lowered = name.lower()
    return next((format_ for suffix, format_ in SUFFIXES.items() if lowered.endswith(suffix)), None)


def _check_options(name: str, mapping: ColumnMapping) -> None:
    is_time = FROM_SOURCE[name].dtype == TIME
    if not is_time and (mapping.unit or mapping.timezone):
        raise ValueError(f"{name}: `unit` and `timezone` are for times only")
    if is_time and mapping.format and mapping.unit:
        raise ValueError(f"{name}: give `format` for text or `unit` for numbers, not both")
    if name == "prompt" and mapping.format and mapping.format not in PROMPT_FORMATS:
        raise ValueError(f"prompt: format {mapping.format!r} is unknown; known: {', '.join(PROMPT_FORMATS)}")
    is_response = name in ("response_a", "response_b")
    if is_response and mapping.format and mapping.format not in RESPONSE_FORMATS:
        raise ValueError(f"{name}: format {mapping.format!r} is unknown; known: {', '.join(RESPONSE_FORMATS)}")
    if mapping.format and not is_time and not is_response and name != "prompt":
        raise ValueError(f"{name}: `format` is for times, the prompt and the responses only")


def expressions(source: Source) -> Iterable[str]:
    """All that the source's columns and conditions may read, alternatives included; not `each`."""
    for mapping in source.columns.values():
        for alternative in mapping.alternatives():
            yield alternative.expr
    for alternatives in source.quarantine_when.values():
        yield from alternatives
    if source.batch is not None:
        yield source.batch
