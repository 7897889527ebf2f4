"""The card beside an export: by its head `datasets.load_dataset(folder)` knows the splits, and a person the rest.

Without it `datasets` would take a sidecar for a file of examples, by its name.
"""

from collections.abc import Mapping
from typing import Any

CARD = "README.md"
REASONS = {
    "another-kind": "are of another kind of feedback",
    "tie": "are ties",
    "no-answer": "have no answer",
    "no-margin": "have no margin",
}

SIDECAR = (
    "Line n of `provenance-<split>`, over its files in order, says of example n whose judgment it is, from which batch "
    "and line, under which guideline, and how its weight came about."
)


def card(release_id: str, project: str, export: Mapping[str, Any]) -> str:
    """The card of an export as the manifest describes it, in Markdown with YAML front matter."""
    splits = export["splits"]
    heads = [("default", {split: f"{split}/*.{export['file']}" for split in splits})]
    kinds = [kind for kind in ("weights", "provenance") if any(kind in told for told in splits.values())]
    heads += [(kind, {split: f"{kind}-{split}/*.{export['file']}" for split in splits}) for kind in kinds]
    said = [
        *_front_matter(heads if splits else []),
        f"# {project}: {export['name']}",
        "",
        f"Release `{release_id}`; its manifest, one folder up, says what was done to what.",
        "",
        f"- {_shape(export)}",
        *(f"- {split}: {told['rows']:,} examples" for split, told in splits.items()),
        f"- {_signal(export)}",
        *([f"- {SIDECAR}"] if "provenance" in kinds else []),
        *(f"- Left out: {count:,} records that {REASONS[why]}." for why, count in export["left_out"].items()),
        *_predicted(export),
    ]
    return "\n".join(said) + "\n"


def _front_matter(heads: list[tuple[str, dict[str, str]]]) -> list[str]:
    if not heads:
        return []
    rows = ["---", "configs:"]
    for name, files in heads:
        rows += [f"- config_name: {name}", *(["  default: true"] if name == "default" else []), "  data_files:"]
        for split, pattern in files.items():
            rows += [f"  - split: {split}", f'    path: "{pattern}"']
    return [*rows, "---", ""]


def _shape(export: Mapping[str, Any]) -> str:
    shape = "messages (role, content)" if export["conversational"] else "plain text"
    if export["ties"] == "both-ways" and export["format"] in ("preference", "reward"):
        shape += "; a tie stands twice, once in each order, at half its weight each"
    return f"Format `{export['format']}`, {shape}; `row_id` names the annotation of each example."


def _signal(export: Mapping[str, Any]) -> str:
    if export["realise"] == "copies":
        return "Weights are realised as copies: a record stands as often as it counts, its copies one after the other."
    return (
        "Each record stands once and counts by its weight: `weights-<split>` gives it line by line. A trainer "
        "that reads no weights trains on another distribution than the manifest tells."
    )


def _predicted(export: Mapping[str, Any]) -> list[str]:
    told = export["predicted_drops"]
    if told is None:
        return []
    said = (
        f"- Predicted from lengths in characters: {told['trainer']} at a `max_length` of {told['max_length']:,} would "
        f"drop {told['dropped']:,} of {told['examples']:,} examples"
    )
    groups = [
        f"{column} {group['value']} {group['dropped']:,} of {group['examples']:,}"
        for column, values in told["by"].items()
        for group in values
    ]
    return [f"{said}{' (' + '; '.join(groups) + ')' if groups else ''}."]
