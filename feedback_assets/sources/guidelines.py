"""The guideline registry: what annotators were told, as Markdown files with YAML front matter, one file a version."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import yaml
from pydantic import BeforeValidator, Field, ValidationError

from feedback_assets.errors import FeedbackError
from feedback_assets.policy import Section
from feedback_assets.record import TIME

REGISTRY = pl.Schema(
    {
        "task": pl.String,
        "aspect": pl.String,  # null: the whole task
        "version": pl.String,
        "major": pl.Int32,
        "minor": pl.Int32,
        "patch": pl.Int32,
        "effective_from": TIME,
        "effective_to": TIME,  # exclusive; null: still in force
        "supersedes": pl.String,  # version of the same task and aspect
        "change": pl.String,  # clarifying or breaking
        "note": pl.String,
        "file": pl.String,  # name only
        "digest": pl.String,  # SHA-256 of the file's bytes
        "text": pl.String,  # the Markdown below the front matter
    }
)
"""Columns of the registry. The text is ours, not a user's: it stays, so that an old release can be read years later."""

_SEMVER = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", re.ASCII)
_FENCE = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


class GuidelinesSection(Section):
    """Where the guidelines are."""

    path: str | None = Field(
        default=None, min_length=1, description="glob of Markdown files, relative to the policy; null: no registry"
    )


def _semver(value: Any) -> Any:
    if not isinstance(value, str) or not _SEMVER.fullmatch(value):
        raise ValueError("expected three numbers such as 1.2.0 (semver)")
    return value


def _utc(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError("expected a date such as 2026-08-12, or a time such as 2026-08-12T09:00:00Z")


Semver = Annotated[str, BeforeValidator(_semver)]
Instant = Annotated[datetime, BeforeValidator(_utc)]


class FrontMatter(Section):
    """What a front matter says. In force from `effective_from` up to, without, `effective_to` (UTC)."""

    task: str = Field(min_length=1)
    aspect: str | None = Field(default=None, min_length=1)
    version: Semver
    effective_from: Instant
    effective_to: Instant | None = None
    supersedes: Semver | None = None
    change: Literal["clarifying", "breaking"] | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Guideline:
    matter: FrontMatter
    path: Path
    lines: Mapping[str, int]
    digest: str
    text: str

    @property
    def key(self) -> tuple[str, str | None, str]:
        return self.matter.task, self.matter.aspect, self.matter.version

    def wrong(self, key: str, message: str) -> FeedbackError:
        return _wrong(self.path, self.lines.get(key, 1), key, message)


def read_guidelines(section: GuidelinesSection, folder: Path) -> pl.DataFrame:
    """Read the registry, in REGISTRY, sorted by task, aspect, effective_from and version.

    Args:
        section: where the files are.
        folder: that of the policy file, where a relative path starts.

    Raises:
        FeedbackError: no file matches; a file has no front matter, an unknown key, a bad version or date; a version
            stands twice; `supersedes` or `change` does not fit the versions. One line, with file, line and key.
    """
    if section.path is None:
        return pl.DataFrame(schema=REGISTRY)
    found = glob(section.path, root_dir=folder, recursive=True)  # noqa: PTH207  the pattern may be absolute
    paths = sorted(folder / name for name in found)
    guidelines = [_read(path) for path in paths if path.is_file()]
    if not guidelines:
        raise FeedbackError(
            f"guidelines: no file at {section.path!r} (looked in {folder}); correct `path`, or set it to null"
        )
    _check_versions(guidelines)
    rows = [
        {
            **guideline.matter.model_dump(),
            **dict(zip(("major", "minor", "patch"), _numbers(guideline.matter.version), strict=True)),
            "file": guideline.path.name,
            "digest": guideline.digest,
            "text": guideline.text,
        }
        for guideline in guidelines
    ]
    return pl.DataFrame(rows, schema=REGISTRY).sort(
        "task", "aspect", "effective_from", "major", "minor", "patch", nulls_last=False
    )


def overlaps(registry: pl.DataFrame) -> pl.DataFrame:
    """Pairs of versions of one task and aspect that are in force at the same time.

    Args:
        registry: as from `read_guidelines`.

    Returns:
        task, aspect, version, other_version (String), overlap_from, overlap_to (UTC; null: open), in the order of the
        registry. The join calls records of that time "ambiguous".
    """
    one = registry.lazy().select("task", "aspect", "version", "effective_from", "effective_to").with_row_index("place")
    return (
        one.join(one, on=["task", "aspect"], nulls_equal=True, suffix="_other")
        .filter(
            pl.col("place") < pl.col("place_other"),
            pl.col("effective_to").is_null() | (pl.col("effective_from_other") < pl.col("effective_to")),
            pl.col("effective_to_other").is_null() | (pl.col("effective_from") < pl.col("effective_to_other")),
        )
        .sort("place", "place_other")
        .select(
            "task",
            "aspect",
            "version",
            pl.col("version_other").alias("other_version"),
            pl.max_horizontal("effective_from", "effective_from_other").alias("overlap_from"),
            pl.min_horizontal("effective_to", "effective_to_other").alias("overlap_to"),
        )
        .collect()
    )


def _read(path: Path) -> _Guideline:
    try:
        data = path.read_bytes()
        content = data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FeedbackError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    fenced = _FENCE.match(content)
    if fenced is None:
        raise FeedbackError(
            f"{path}:1: no front matter; begin the file with --- task, version, effective_from --- (one key a line), "
            "or let `path` leave it out"
        )
    value, lines = _front_matter(path, fenced.group(1))
    try:
        matter = FrontMatter.model_validate(value)
    except ValidationError as error:
        raise _first_problem(path, lines, error) from None
    guideline = _Guideline(matter, path, lines, hashlib.sha256(data).hexdigest(), content[fenced.end() :].lstrip("\n"))
    if matter.effective_to is not None and matter.effective_to <= matter.effective_from:
        raise guideline.wrong(
            "effective_to", "must be after effective_from; leave it out while the version is in force"
        )
    return guideline


def _front_matter(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The keys' values, and the line of the file on which each stands."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise FeedbackError(
            f"{path}:{line}: the front matter is not valid YAML: {error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML reads 2026-02-31 as a date and lets the ValueError out.
        reason = str(error).splitlines()[0]
        raise FeedbackError(f"{path}: the front matter is not valid YAML: {reason}; correct the value") from None
    if not isinstance(value, dict) or not isinstance(root, yaml.MappingNode):
        raise FeedbackError(f"{path}:2: the front matter must be keys and values, such as `task: helpfulness`")
    lines: dict[str, int] = {}
    for key, _ in root.value:
        if key.value in lines:
            raise _wrong(path, key.start_mark.line + 2, key.value, "stands twice; keep one")
        lines[key.value] = key.start_mark.line + 2
    return {str(key): entry for key, entry in value.items()}, lines


def _first_problem(path: Path, lines: Mapping[str, int], error: ValidationError) -> FeedbackError:
    problems = sorted(error.errors(include_url=False), key=lambda problem: lines.get(str(problem["loc"][0]), 0))
    first = problems[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        close = get_close_matches(key, FrontMatter.model_fields, n=1)
        known = ", ".join(FrontMatter.model_fields)
        message = "unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known: {known}")
    elif first["type"] == "missing":
        message = "this key is required and is missing"
    else:
        shown = " ".join(str(first["input"]).split())[:60]
        message = f"{first['msg'].removeprefix('Value error, ')} (got {shown!r})"
    return _wrong(path, lines.get(key, 1), key, message[0].lower() + message[1:])


def _check_versions(guidelines: list[_Guideline]) -> None:
    known: dict[tuple[str, str | None, str], _Guideline] = {}
    for guideline in guidelines:
        earlier = known.setdefault(guideline.key, guideline)
        if earlier is not guideline:
            raise guideline.wrong(
                "version",
                f"{guideline.matter.version} of this task and aspect is also in {earlier.path.name}; raise one",
            )
    for guideline in guidelines:
        _check_succession(guideline, known)


def _check_succession(guideline: _Guideline, known: Mapping[tuple[str, str | None, str], _Guideline]) -> None:
    matter = guideline.matter
    before = matter.supersedes
    if before is None:
        if matter.change is not None:
            raise guideline.wrong("change", "says how this version differs from another; name that one in `supersedes`")
        return
    if (matter.task, matter.aspect, before) not in known:
        versions = [version for task, aspect, version in known if (task, aspect) == (matter.task, matter.aspect)]
        there = ", ".join(sorted((v for v in versions if v != matter.version), key=_numbers)) or "none"
        raise guideline.wrong(
            "supersedes", f"there is no version {before} of this task and aspect; others there: {there}"
        )
    if _numbers(matter.version) <= _numbers(before):
        raise guideline.wrong("supersedes", f"{matter.version} is not higher than {before}; raise `version`")
    bumped = _numbers(matter.version)[0] > _numbers(before)[0]
    if matter.change == "clarifying" and bumped:
        raise guideline.wrong(
            "change",
            f"clarifying, yet {before} → {matter.version} is a major change; say breaking, or keep the major number",
        )
    if matter.change == "breaking" and not bumped:
        raise guideline.wrong(
            "change", f"breaking, yet {before} → {matter.version} keeps the major number; raise it, or say clarifying"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _wrong(path: Path, line: int, key: str, message: str) -> FeedbackError:
    return FeedbackError(f"{path}:{line}: {key}: {message}")
