"""The causes: all that two releases were made from differently, one change each."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.recipe import Recipe
from feedback_assets.provenance.tree import ABSENT, ORDER, Difference, Path, differences, merged
from feedback_assets.sources.place import Place

Kind = Literal["batch", "guideline", "policy", "code", "environment"]
ONLY_CHECKED = ("max_quarantined_share", "lost_batches")
"""Keys of `ingested` that decide whether a release is made, and not what is in it."""
ABOUT = frozenset(["version", "reason"])
"""Keys of a rule that say something of it, and not what it does."""
NAMED = ("conversions", "rules", "factors", "targets", "retracted", "sources", "exports")
"""Keys of a section that hold a list of what has a name."""
IN_FORCE = ("effective_from", "effective_to", "supersedes", "change")
"""Keys of a guideline that say when, and after which, it is in force."""
READ = frozenset(["text", "note"])
"""Keys of a guideline that people read."""


@dataclass(frozen=True)
class Change:
    """One thing that is other in `after` than in `before`, or absent on one side.

    `id` names it for a person: "batch arena/w2.jsonl", "guideline helpfulness 1.0.0, 1.1.0" (one boundary, the end of
    the one and the start of the other), "text of guideline helpfulness 1.1.0", "filtered.rules/too-fast",
    "deduplicated.threshold", "code of filtered", "polars". `stage` is the first that it reaches. `paths` are its places
    in the trees of the recipes (`tree_of`); a change of code or environment has none: nobody can take it over.
    `again`: of a batch, that one of its name with other bytes is on both sides.
    """

    id: str
    kind: Kind
    stage: str
    before: Any
    after: Any
    paths: frozenset[Path] = frozenset()
    again: bool = False

    @property
    def what(self) -> Literal["added", "removed", "changed", "delivered again", "delivery removed"]:
        """Added, removed or changed; of a batch, too, that it was delivered again or that this delivery is gone."""
        if self.again:
            return "delivered again" if self.before is ABSENT else "delivery removed"
        return "added" if self.before is ABSENT else "removed" if self.after is ABSENT else "changed"

    @property
    def reaches_rows(self) -> bool:
        """Whether it can make the training rows other, as far as can be told without trying."""
        if self.kind != "policy":
            return bool(self.paths)
        (path,) = list(self.paths)[:1]
        section, *keys = path[1:]
        if section in ("project", "monitoring", "training_set", "guidelines"):
            return False
        if section == "ingested" and (keys[0] in ONLY_CHECKED or (len(keys) > 2 and keys[2] in Place.model_fields)):
            return False
        if isinstance(self.before, dict) and isinstance(self.after, dict):
            return any(self.before.get(key) != self.after.get(key) for key in {*self.before, *self.after} - ABOUT)
        return True

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an absent side is left out."""
        sides = {"before": self.before, "after": self.after}
        return {
            "id": self.id,
            "kind": self.kind,
            "what": self.what,
            "stage": self.stage,
            **{name: value for name, value in sides.items() if value is not ABSENT},
        }

    def lines(self) -> list[str]:
        """The change as a diff: key by key, "- " what was, "+ " what is."""
        if isinstance(self.before, dict) and isinstance(self.after, dict):
            keys = [key for key in {**self.before, **self.after} if self.before.get(key) != self.after.get(key)]
            return [
                line
                for key in keys
                for line in _sides(self.before.get(key, ABSENT), self.after.get(key, ABSENT), f"{key}: ")
            ]
        return _sides(self.before, self.after, "")


def _sides(before: Any, after: Any, key: str) -> list[str]:
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        from difflib import unified_diff

        diff = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
        return [f"{line[0]} {key}{line[1:]}" for line in diff if not line.startswith("@@")]
    sides = [("-", before), ("+", after)]
    return [f"{sign} {key}{_said(value)}" for sign, value in sides if value is not ABSENT]


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_said(given)}" for key, given in value.items() if key != "text")
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    return "null" if value is None else str(value)


def tree_of(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe can be taken over into another: batches, guidelines, policy."""
    return {
        "batches": [
            {"id": "\0".join(key), "version": key[2], "source": key[0], "batch": key[1], "digest": key[2]}
            for key in recipe.arrivals or ()
        ],
        "guidelines": {
            "\0".join((entry["task"], entry["aspect"] or "", entry["version"])): dict(entry)
            for entry in recipe.guidelines
        },
        "policy": dict(recipe.policy),
    }


def changes(before: Recipe, after: Recipe) -> list[Change]:
    """All changes: batches, guidelines, the policy in the order of the pipeline, code, environment.

    Where the batches of one side are not known, there is none of them.
    """
    left, right = tree_of(before), tree_of(after)
    if before.arrivals is None or after.arrivals is None:
        left["batches"] = right["batches"] = []
    stays = {(key[0], key[1]) for key in (before.arrivals or {}).keys() & (after.arrivals or {}).keys()}
    found = [*_batches(differences(left["batches"], right["batches"], ("batches",)), stays)]
    found += _guidelines(left["guidelines"], right["guidelines"])
    policies = [_of_policy(unlike) for unlike in differences(left["policy"], right["policy"], ("policy",))]
    order = {entry.name: place for place, entry in enumerate(STAGES)}
    found += sorted(policies, key=lambda change: order.get(change.stage, len(order)))
    found += [
        Change(f"code of {name}", "code", name, was, now) for name, was, now in _code(before, after) if was != now
    ]
    names = dict.fromkeys((*before.environment, *after.environment))
    sides = [(name, before.environment.get(name, ABSENT), after.environment.get(name, ABSENT)) for name in names]
    found += [Change(name, "environment", "ingested", was, now) for name, was, now in sides if was != now]
    return found


def hybrid(before: Recipe, after: Recipe, chosen: Iterable[Change], mapped_after: Iterable[str] = ()) -> Recipe:
    """`before` with the chosen changes taken over from `after`.

    `mapped_after` are sources whose batches, if their files are gone, are as `after` mapped them.
    """
    paths = {path for change in chosen for path in change.paths}
    value = merged(tree_of(before), tree_of(after), paths)
    left, right = before.arrivals or {}, after.arrivals or {}
    turned = ("batches", ORDER) in paths
    arrivals: dict[Any, Mapping[str, str]] = {}
    for entry in value["batches"]:
        key = (entry["source"], entry["batch"], entry["digest"])
        first, second = (right, left) if turned else (left, right)
        told = first.get(key) or second[key]
        mapped = right.get(key, told) if key[0] in mapped_after else left.get(key, told)
        arrivals[key] = {**told, "mapped": mapped["mapped"]}
    guidelines = [*value["guidelines"].values()]
    return Recipe(arrivals, guidelines, value["policy"], after.code, after.code_versions, after.environment)


def _at(unlike: Difference) -> frozenset[Path]:
    return frozenset([unlike.path])


def _batches(unlikes: Iterable[Difference], stays: Collection[tuple[str, str]]) -> list[Change]:
    """One change a batch; one that was replaced, other bytes under one name, is one change and not two.

    `stays`: source and name of the batches of which both sides have a delivery.
    """
    by_name: dict[tuple[str, str], list[Difference]] = {}
    found = []
    for unlike in unlikes:
        if unlike.path[-1] == ORDER:
            was, now = ([name.split("\0")[1] for name in side] for side in (unlike.before, unlike.after))
            found.append(Change("order of arrival", "batch", "ingested", was, now, _at(unlike)))
        else:
            source, batch, _ = unlike.path[1].split("\0")
            by_name.setdefault((source, batch), []).append(unlike)
    changed = []
    for (source, batch), mine in by_name.items():
        gone = [unlike for unlike in mine if unlike.after is ABSENT]
        new = [unlike for unlike in mine if unlike.before is ABSENT]
        pairs = [(gone[0], new[0])] if len(gone) == len(new) == 1 else [(unlike,) for unlike in mine]
        for pair in pairs:
            before = next((_plain(unlike.before) for unlike in pair if unlike.before is not ABSENT), ABSENT)
            after = next((_plain(unlike.after) for unlike in pair if unlike.after is not ABSENT), ABSENT)
            digest = "" if len(pairs) == 1 else f" {pair[0].path[1].split(chr(0))[2][:12]}"
            paths = frozenset(unlike.path for unlike in pair)
            again = len(pair) == 1 and (source, batch) in stays
            changed.append(Change(f"batch {source}/{batch}{digest}", "batch", "ingested", before, after, paths, again))
    return changed + found


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("source", "batch", "digest")}


def _guidelines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """One change a boundary between versions, that none is made with a gap or an overlap; and one an edited text."""
    moved: dict[str, list[Difference]] = {}
    edited: dict[str, list[Difference]] = {}
    for unlike in differences(before, after, ("guidelines",)):
        dates = unlike.path[2:] in ((), *((key,) for key in IN_FORCE))
        (moved if dates else edited).setdefault(unlike.path[1], []).append(unlike)
    for name in moved.keys() & edited.keys():
        if not READ & {unlike.path[2] for unlike in edited[name]}:
            moved[name] += edited.pop(name)  # the digest of a file with another date in it
    together = {name: (name,) for name in moved}
    for side in (before, after):
        for first, second in pairwise(sorted(side, key=lambda name: (_series(name), side[name]["effective_from"]))):
            turned = _turned(moved.get(first, ()), "effective_to") and _turned(moved.get(second, ()), "effective_from")
            if turned and _series(first) == _series(second):
                joined = tuple(dict.fromkeys((*together[first], *together[second])))
                together |= dict.fromkeys(joined, joined)
    groups = dict.fromkeys(together.values())
    found = [_of_guidelines("guideline", {name: moved[name] for name in names}) for names in groups]
    return found + [_of_guidelines("text of guideline", {name: mine}) for name, mine in edited.items()]


def _series(name: str) -> str:
    return name.rpartition("\0")[0]


def _turned(unlikes: Iterable[Difference], key: str) -> bool:
    return any(unlike.path[2:] in ((), (key,)) for unlike in unlikes)


def _of_guidelines(kind: str, unlikes: Mapping[str, Sequence[Difference]]) -> Change:
    """What is other in versions of one task and aspect: key by key; of several, version by version."""
    versions = {name.rpartition("\0")[2]: mine for name, mine in unlikes.items()}
    series = _series(next(iter(unlikes))).replace("\0", " ").strip()
    name = f"{kind} {series} {', '.join(versions)}"
    paths = frozenset(unlike.path for mine in unlikes.values() for unlike in mine)
    return Change(name, "guideline", "guideline_joined", _told(versions, "before"), _told(versions, "after"), paths)


def _told(versions: Mapping[str, Sequence[Difference]], side: str) -> Any:
    told = {
        version: getattr(mine[0], side)
        if len(mine[0].path) == 2  # all of it came or went
        else {unlike.path[2]: getattr(unlike, side) for unlike in mine}
        for version, mine in versions.items()
    }
    there = {version: entry for version, entry in told.items() if entry is not ABSENT}
    return next(iter(told.values())) if len(told) == 1 else there or ABSENT


def _of_policy(unlike: Difference) -> Change:
    stage, *keys = unlike.path[1:]
    named = f"{stage}." + ".".join(keys)
    if len(keys) > 1 and keys[0] in NAMED:
        named = f"{stage}.{keys[0]}/{'.'.join(keys[1:])}"
    return Change(named if keys else stage, "policy", stage, unlike.before, unlike.after, _at(unlike))


def _code(before: Recipe, after: Recipe) -> Iterable[tuple[str, Any, Any]]:
    """By stage the code of both sides: equal where it is the same, or where it cannot be told from the policy's part.

    Commits that recorded no digest of the code alone have one of code and policy: with the same policy it tells.
    """
    for name in after.code_versions:
        was, now = before.code.get(name), after.code.get(name)
        if was is None or now is None:
            same = before.policy.get(name) == after.policy.get(name)
            was, now = (before.code_versions.get(name), after.code_versions[name]) if same else (None, None)
        yield name, was, now
