"""The policy's description of a source: where its files are, their format, and how they map to the record."""

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from feedback_assets.expressions import Sql
from feedback_assets.policy import Section
from feedback_assets.record import FROM_SOURCE, TIME
from feedback_assets.sources.place import Place

Format = Literal["jsonl", "csv", "parquet", "arrow", "xlsx"]
PROMPT_FORMATS = ("text", "turns", "roles", "anthropic")
SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".json.gz": "jsonl",
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
    """How one record column comes from the source's own columns; a plain string stands for its `expr`."""

    expr: Sql = Field(description="Polars SQL over the source's own columns and __line; a constant is \"'text'\"")
    format: str | None = Field(
        default=None, description="time: a strptime format; prompt: " + ", ".join(PROMPT_FORMATS) + " (default text)"
    )
    unit: Literal["s", "ms", "us", "ns", "days"] | None = Field(
        default=None, description="time given as a number: since 1970-01-01 UTC; days are a spreadsheet's serial days"
    )
    timezone: str | None = Field(default=None, description="IANA zone of a time that names none")
    optional: bool = Field(default=False, description="a column that a file lacks is null there, instead of an error")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        from zoneinfo import available_timezones

        zones = available_timezones()
        if value is not None and value not in zones:
            close = get_close_matches(value, zones, n=1)
            raise ValueError(f"{value!r} is no IANA time zone" + (f"; did you mean {close[0]!r}?" if close else ""))
        return value


class Source(Place):
    """A source of feedback: files or rows of one shape, and the expressions that make records of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the source; part of every row_id")
    format: Format | None = Field(default=None, description="None: by the file name's ending")
    sheet: str | None = Field(default=None, description="sheet of a spreadsheet; None: the first")
    delimiter: str | None = Field(
        default=None, pattern=r"^[^\n\r\"]$", description="of a CSV: one character; None: a tab in .tsv, else a comma"
    )
    max_bytes: int = Field(default=2**31, ge=1, description="a file that holds more, unpacked, is not read")
    batch: Sql | None = Field(default=None, description="name of a record's batch; None: the file's name")
    columns: dict[str, ColumnMapping] = Field(description="record column: expression over the source's columns")

    @field_validator("columns", mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: {"expr": given} if isinstance(given, str) else given for key, given in value.items()}
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
            _check_options(name, mapping)
        if "kind" not in value:
            raise ValueError("`kind` is required, for example kind: \"'preference'\"")
        return value

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
    if mapping.format and not is_time and name != "prompt":
        raise ValueError(f"{name}: `format` is for times and the prompt only")
