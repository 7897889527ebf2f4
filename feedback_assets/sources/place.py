"""Where the batches of a source are: files, or the rows of a database."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from feedback_assets.policy import Section

_OF_A_DATABASE = ("connection", "key", "watermark")


class Complete(Section):
    """How a file shows that nobody writes to it any more; until then it waits."""

    marker: str | None = Field(
        default=None, description="a file that lies beside it then; {name} is the file's name, as in '{name}.done'"
    )
    settled_seconds: int | None = Field(default=None, ge=1, description="it was not changed for so many seconds")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Complete":
        if (self.marker is None) == (self.settled_seconds is None):
            raise ValueError("give `marker` or `settled_seconds`")
        if self.marker is not None and (
            "{name}" not in self.marker
            or self.marker == "{name}"
            or not re.fullmatch(r"[^/{}]*{name}[^/{}]*", self.marker)
        ):
            raise ValueError("`marker` is a file's name with {name} in it, as in '{name}.done'")
        return self


class Place(Section):
    """Files at `path`; or the rows of a `query` or a `table`, each with a `key`, in the order of a `watermark`."""

    path: str = Field(
        default="", description="file, folder or glob, relative to the policy file, ~ is the home; or s3://bucket/…"
    )
    complete: Complete | None = Field(default=None, description="how a file shows that it is complete; None: it is")
    connection: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the database's URI, postgresql://user:password@host/name",
    )
    query: str | None = Field(default=None, description="a SELECT; its columns are the source's own")
    table: str | None = Field(default=None, min_length=1, description="all of a table or view: name or schema.name")
    key: str | None = Field(default=None, description="column that tells a row from all others")
    watermark: str | None = Field(
        default=None, description="column that rises as rows are added: timestamptz, timestamp or an integer"
    )
    overlap: int | str = Field(
        default=0, description="how far below the highest watermark rows are compared in full: '1 day', or a number"
    )
    compare: Literal["keys", "rows"] = Field(
        default="keys", description="what is compared of older rows: key and watermark, or all that is in them"
    )

    @field_validator("query")
    @classmethod
    def _one_select(cls, value: str | None) -> str | None:
        if value is not None and value.rstrip().endswith(";"):
            raise ValueError("leave out the semicolon at its end")
        return value

    @field_validator("overlap")
    @classmethod
    def _a_distance(cls, value: int | str) -> int | str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Place":
        given = [name for name in ("path", "query", "table") if getattr(self, name)]
        if len(given) != 1:
            said = f", not {' and '.join(f'`{name}`' for name in given)}" if given else ""
            raise ValueError(f"give `path`, or `query` or `table` of a database{said}")
        of_files, of_rows = ("complete",), (*_OF_A_DATABASE, "overlap", "compare")
        missing = [name for name in _OF_A_DATABASE if self.in_database and getattr(self, name) is None]
        if missing:
            raise ValueError(f"`{missing[0]}` is required beside `{given[0]}`")
        for name in of_files if self.in_database else of_rows:
            if getattr(self, name) != Place.model_fields[name].default:
                raise ValueError(f"`{name}` does not go with `{given[0]}`")
        return self

    @property
    def in_bucket(self) -> bool:
        """Whether its batches are objects in S3."""
        return self.path.startswith("s3://")

    @property
    def in_database(self) -> bool:
        """Whether its batches are rows of a database, and not files."""
        return not self.path


def seconds(overlap: int | str) -> int | None:
    """An overlap such as "6 hours" in seconds; None for a number, which is counted in the watermark's own unit.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(overlap, int):
        if overlap < 0:
            raise ValueError("an overlap is not negative")
        return None
    units = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
    found = re.fullmatch(rf"(\d{{1,9}}) ({'|'.join(units)})s?", overlap.strip())
    if found is None:
        raise ValueError("give a number, or a time such as '6 hours' or '1 day'")
    return int(found[1]) * units[found[2]]
