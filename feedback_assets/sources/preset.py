"""Presets: shapes of sources that many teams have, each a commented YAML file in `presets/`.

A preset gives what a policy does not say of a source itself: format, each, quarantine_when and columns. The policy's
own `columns` and `quarantine_when` replace single entries, null takes one away.
"""

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

GIVES = ("format", "sheet", "batch", "each", "quarantine_when", "columns")


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    folder = files("feedback_assets.sources").joinpath("presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@cache
def preset(name: str) -> dict[str, Any]:
    """What the file of a preset says: `version`, `description`, `signs` (how inspect recognises it), and of GIVES some.

    Raises:
        ValueError: there is no such preset; says which there are.
    """
    names = preset_names()
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
        raise ValueError(f"there is no preset {name!r}; {hint}")
    text = files("feedback_assets.sources").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def expanded(source: dict[str, Any]) -> dict[str, Any]:
    """A source's section with what its preset gives; `preset` then names the version too.

    A section whose preset names its version is complete already: an old policy stays what it was.

    Raises:
        ValueError: there is no such preset.
    """
    name = source["preset"]
    if not isinstance(name, str) or "@" in name:
        return source
    given = preset(name)
    whole = {key: given[key] for key in GIVES if key in given} | source
    for key in ("columns", "quarantine_when"):
        mine = source.get(key)
        if key in given and isinstance(mine, dict | None):
            merged = {**given[key], **(mine or {})}
            whole[key] = {entry: value for entry, value in merged.items() if value is not None}
    return whole | {"preset": f"{name}@{given['version']}"}
