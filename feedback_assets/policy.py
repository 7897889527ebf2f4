"""The policy: the file in which people say what the pipeline shall do.

Here are its building blocks and its loader. Each stage declares its own section beside its function;
`pipeline.py` composes them. An error names file, line, key and what was expected.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from feedback_assets.digests import digest
from feedback_assets.errors import FeedbackError

Model = TypeVar("Model", bound=BaseModel)


def duration(text: str) -> timedelta:
    """A duration such as 30d, 12h, 90m or 0d.

    Raises:
        FeedbackError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})([wdhm])", text.strip())
    if not found:
        raise FeedbackError(f"{text!r} is no duration; give weeks, days, hours or minutes, such as 2w, 30d or 12h")
    units = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}
    return timedelta(**{units[found[2]]: int(found[1])})


def _duration(value: Any) -> timedelta:
    try:
        return duration(str(value))
    except FeedbackError as error:
        raise ValueError(str(error)) from None


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class Section(BaseModel):
    """Base of everything in the policy: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def pinned(self) -> dict[str, Any]:
        """The section in full as plain JSON values, defaults included: what a code version and a commit record hold."""
        return self.model_dump(mode="json")


Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name, unique in its list")]


class Pinned(Section):
    """Something that people change on purpose: a rule, a factor, a target."""

    id: Id
    version: int = Field(ge=1, description="raised whenever the content changes")
    reason: str = Field(min_length=1, description="why it is there")

    def content_digest(self) -> str:
        """Digest of everything but the version and the reason: what the rule does."""
        return digest({k: v for k, v in self.pinned().items() if k not in ("version", "reason")})


def unique_ids(entries: tuple[Pinned, ...]) -> tuple[Pinned, ...]:
    """Refuse a list in which two entries share an id.

    Raises:
        ValueError: names the id.
    """
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise ValueError(f"the id {entry.id!r} stands twice; give each entry its own")
        seen.add(entry.id)
    return entries


@dataclass(frozen=True)
class Loaded(Generic[Model]):
    """A policy with the file it came from."""

    policy: Model
    path: Path
    text: str


def load(path: Path, model: type[Model]) -> Loaded[Model]:
    """Read the YAML file at `path` as `model`.

    Raises:
        FeedbackError: the file is missing, is not YAML, or does not fit; one line, with file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FeedbackError(f"{path}: no such policy; `feedback-assets init DIR` writes a starter") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FeedbackError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        value = yaml.load(text, Loader=_NoDuplicates)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise FeedbackError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise FeedbackError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # PyYAML reads 2026-02-31 as a date and lets the ValueError out
        raise FeedbackError(f"{path}: not valid YAML: {str(error).splitlines()[0]}; correct the value") from None
    except RecursionError:
        raise FeedbackError(f"{path}: not valid YAML: nested too deeply") from None
    if not isinstance(value, Mapping):
        raise FeedbackError(f"{path}:1: expected a mapping of sections, such as `ingested:`")
    try:
        policy = model.model_validate(value)
    except ValidationError as error:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raise FeedbackError(_first_problem(path, root, error, model)) from None
    return Loaded(policy, path, text)


class _NoDuplicates(yaml.SafeLoader):
    pass


def _mapping(loader: _NoDuplicates, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in keys:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
        keys.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_NoDuplicates.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _first_problem(path: Path, root: yaml.Node | None, error: ValidationError, model: type[BaseModel]) -> str:
    from difflib import get_close_matches

    problems = error.errors(include_url=False)
    unknown = [one for one in problems if one["type"] == "extra_forbidden"]
    first = (unknown or problems)[0]
    steps = tuple(first["loc"])
    key = ".".join(str(step) for step in steps) or "the policy"
    line = _line_of(root, steps)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, steps[:-1])
        close = get_close_matches(str(steps[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        message = f"unknown key; {hint}"
        meant = (*steps[:-1], *close)
        problems = [one for one in problems if one["type"] != "missing" or tuple(one["loc"]) != meant]
    elif first["type"] == "missing":
        message = "this key is required and is missing"
    else:
        shown = repr(first.get("input"))
        if len(shown) <= 60 and not isinstance(first.get("input"), (dict, list)) and not message.startswith(key):
            message = f"{message[0].lower()}{message[1:]} (got {shown})"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(f"{path}:{line}: {key}: {message}{more}".split())


def _line_of(node: yaml.Node | None, steps: tuple[int | str, ...]) -> int:
    line = _start(node)
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                continue
            line, node = _start(found[0]), found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = _start(node)
    return line


def _start(node: yaml.Node | None) -> int:
    return node.start_mark.line + 1 if node and node.start_mark else 1


def _known_keys(model: type[BaseModel], steps: tuple[int | str, ...]) -> list[str]:
    from typing import get_args

    candidates: list[type[BaseModel]] = [model]
    for step in steps:
        if isinstance(step, int):
            continue
        reached: list[type[BaseModel]] = []
        for candidate in candidates:
            field = candidate.model_fields.get(step)
            pending = [field.annotation] if field else []
            while pending:
                annotation = pending.pop()
                if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                    reached.append(annotation)
                pending.extend(get_args(annotation))
        candidates = reached or candidates
    return sorted({name for candidate in candidates for name in candidate.model_fields})
