"""A source's section as it is proposed: YAML with comments, which a person checks, fills in and copies."""

import json
import re
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import yaml

from feedback_assets.record import FROM_SOURCE
from feedback_assets.sources.preset import preset
from feedback_assets.sources.source import Source


@dataclass
class Proposal:
    """What a source's section may say of a file.

    `columns`: record column to expression or mapping; `notes`: record column to what is uncertain of it; `asked`: lines
    for a person to fill in; `fits`: the preset, if one fits.
    """

    name: str
    path: str
    fits: str | None = None
    each: str | None = None
    delimiter: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def section(self) -> str:
        """The policy section, as YAML with comments."""
        lines = ["ingested:", "  sources:", f"    - name: {_scalar(self.name)} # part of every row's identity: keep it"]
        lines += [f"      path: {_scalar(self.path)} # relative to the policy file"]
        if self.delimiter:
            lines += [f"      delimiter: {json.dumps(self.delimiter)} # by the first line"]
        if self.fits:
            lines += [f"      preset: {self.fits} # {preset(self.fits)['description']}"]
        if self.each:
            lines += [f"      each: {_scalar(self.each)} # a record for each entry"]
        if self.columns:
            lines += ["      columns:"]
            order = [name for name in ("kind", *FROM_SOURCE) if name in self.columns]
            for name in dict.fromkeys(order):
                lines += _entry(name, self.columns[name], self.notes.get(name))
        lines += [f"      {'  ' if self.columns else ''}# {asked}" for asked in self.asked]
        return "\n".join(lines) + "\n"

    def source(self) -> Source:
        """The section as the policy's loader reads it."""
        return Source.model_validate(yaml.safe_load(self.section())["ingested"]["sources"][0])


def _entry(name: str, value: Any, note: str | None) -> list[str]:
    """The lines of one column; a long expression folded, which spaces in a row would not survive."""
    line = f"        {name}: {_flow(value)}"
    if note and len(line) + len(note) < 88:
        return [f"{line} # {note}"]
    said = [f"        # {note}"] if note else []
    if len(line) < 100 or not isinstance(value, str) or re.search(r"\s\s|[^\S ]", value):
        return [*said, line]
    folded = fill(
        value, 76, initial_indent=" " * 10, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False
    )
    return [*said, f"        {name}: >-", *folded.split("\n")]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {_scalar(given, inside=True)}" for key, given in value.items()) + " }"
    return _scalar(value)


def _scalar(text: str, *, inside: bool = False) -> str:
    """`text` as a YAML scalar: plain where that is the same text, else in double quotes."""
    plain = f"{{ k: {text} }}" if inside else f"k: {text} # note"
    try:
        same = yaml.safe_load(plain) == {"k": text}
    except yaml.YAMLError:
        same = False
    return text if same and "\n" not in text else json.dumps(text, ensure_ascii=False)
