"""The three questions before training, answered from a release's manifest and nothing else."""

from typing import Any

from feedback_assets.materialize.commit import HOLDS_BACK
from feedback_assets.materialize.environment import recorded, unpinned
from feedback_assets.provenance.release import Release, unpacked
from feedback_assets.signal.monitor import IDENTITIES

STATUS_MEANING = {
    "declared": "declared by the source, and in force then",
    "inferred": "not declared; the one in force by date",
    "conflict": "declared, but another was in force by date",
    "ambiguous": "two in force at once",
    "unknown-version": "declared, but not in the registry",
    "unmatched": "none in force by date, and none declared",
}
UNCERTAIN = ("conflict", "ambiguous", "unknown-version", "unmatched")
NOTHING_EXPECTED = "nothing was expected"


def questions(release: Release) -> dict[str, Any]:
    """Answer the three questions.

    Returns:
        `annotations`: records, examples, `by_guideline` (version, status, digest, records), `groups` (with row ids);
        `transformations`: `stages`, with what each rule is pinned to and what it did;
        `distribution`: `columns`, expected beside actual, and `waivers`, the failed checks that were let through.
        Each has `verdict`, one sentence, and `incomplete`: what it cannot answer. `complete`: whether that is nothing.
    """
    content = release.content
    answers = {
        "annotations": _annotations(content),
        "transformations": _transformations(content, release.circumstances),
        "distribution": _distribution(content),
    }
    return {
        "release": release.id,
        "complete": not any(answer["incomplete"] for answer in answers.values()),
        **answers,
    }


def _verdict(answer: str, incomplete: list[str]) -> str:
    if not incomplete:
        return answer
    return f"{answer}; {len(incomplete)} thing{'s' if len(incomplete) > 1 else ''} not answered"


def _annotations(content: Any) -> dict[str, Any]:
    told = content["annotations"]
    by_guideline: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in told["groups"]:
        key = (group["task"], group["guideline"], group["guideline_status"], group["guideline_digest"])
        entry = by_guideline.setdefault(
            key,
            {
                "task": key[0],
                "guideline": key[1],
                "status": key[2],
                "meaning": STATUS_MEANING[key[2]],
                "digest": key[3],
                "records": 0,
                "examples": 0,
            },
        )
        entry["records"] += group["records"]
        entry["examples"] += group["examples"]
    rows = sorted(by_guideline.values(), key=lambda entry: (-entry["records"], str(entry["guideline"])))
    incomplete = [
        f"{_records(e['records'])} of {e['task']}, guideline {e['guideline'] or 'unknown'}: {e['meaning']}"
        for e in rows
        if e["status"] in UNCERTAIN
    ]
    sure = sum(entry["records"] for entry in rows if entry["status"] not in UNCERTAIN)
    versions = len({entry["digest"] for entry in rows if entry["digest"] is not None})
    known = "all" if sure == told["records"] else f"{sure:,}"
    under = f"one of {versions} guideline versions" if versions > 1 else "one guideline version"
    answer = (
        f"{_records(told['records'])} ({told['examples']:,} examples), each listed by its row_id; "
        f"{f'{known} under {under}' if sure else 'none under a guideline that is known for sure'}"
    )
    return {
        "verdict": _verdict(answer, incomplete),
        "records": told["records"],
        "examples": told["examples"],
        "by_guideline": rows,
        "guidelines": content["guidelines"],
        "groups": [{**group, "row_ids": unpacked(group["row_ids"])} for group in told["groups"]],
        "incomplete": incomplete,
    }


def _records(number: int) -> str:
    return f"{number:,} record{'' if number == 1 else 's'}"


def _transformations(content: Any, circumstances: Any) -> dict[str, Any]:
    environment = circumstances["environment"]
    elsewhere = {
        asset: _differences(environment, commit["environment"]) for asset, commit in circumstances["commits"].items()
    }
    incomplete = list(unpinned(environment))
    for asset, commit in circumstances["commits"].items():
        incomplete += [f"{asset}: {said}" for said in unpinned(commit["environment"]) if said not in incomplete]
    pinned = [entry for stage in content["transformations"] for entry in stage["pinned"]]
    rules = "1 rule, factor or target" if len(pinned) == 1 else f"{len(pinned)} rules, factors and targets"
    answer = f"{len(content['transformations'])} stages and {rules}, each pinned to a version and a digest"
    if recorded(environment):
        answer += "; Python and every installed package are recorded with their versions"
    return {
        "verdict": _verdict(answer, incomplete),
        "stages": [
            {
                **entry,
                "policy": content["policy"][entry["asset"]],
                "checks": _checks(content["commits"][entry["asset"]]),
            }
            for entry in content["transformations"]
        ],
        "environment": environment,
        "other_environments": {asset: differs for asset, differs in elsewhere.items() if differs},
        "incomplete": incomplete,
    }


def _differences(one: dict[str, str], other: dict[str, str]) -> dict[str, str | None]:
    """What of `other` is not as in `one`."""
    return {name: other.get(name) for name in sorted({*one, *other}) if one.get(name) != other.get(name)}


def _checks(commit: Any) -> dict[str, Any]:
    checks = commit["checks"]
    return {
        "passed": sum(check["status"] == "passed" for check in checks),
        "inconclusive": [check["name"] for check in checks if check["status"] == "inconclusive"],
        "failed": [check["name"] for check in checks if check["status"] in HOLDS_BACK],
    }


def _distribution(content: Any) -> dict[str, Any]:
    expected = content["expected"]
    baseline = {entry["column"]: entry for entry in content["commits"]["training_set"]["baseline"]}
    columns = {}
    for name in sorted({*content["distribution"], *expected}):
        held = baseline.get(name)
        columns[name] = {
            "expected": expected.get(name),
            "actual": content["distribution"].get(name),
            "verdict": held["verdict"] if held else NOTHING_EXPECTED,
            "psi": held.get("psi") if held else None,
            "kl": held.get("kl") if held else None,
            "ks": held.get("ks") if held else None,
        }
    # Of names there is no distribution to expect: the first answer says which guidelines they are.
    undeclared = [
        name for name, entry in columns.items() if entry["verdict"] == NOTHING_EXPECTED and name not in IDENTITIES
    ]
    unsure = [name for name, entry in columns.items() if entry["verdict"] in ("inconclusive", "error")]
    moved = [name for name, entry in columns.items() if entry["verdict"] == "moved"]
    incomplete = [f"nobody declared what {', '.join(undeclared)} should look like"] if undeclared else []
    incomplete += [
        f"{name}: there is too little data to tell"
        if columns[name]["verdict"] == "inconclusive"
        else f"{name}: it could not be computed"
        for name in unsure
    ]
    waivers = content["waivers"]
    by = ", ".join(sorted({waiver["who"] for waiver in waivers}))
    but = f"; {len(waivers)} failed check{'s were' if len(waivers) > 1 else ' was'} let through by {by}" if by else ""
    return {
        "verdict": _verdict(f"{_matches(baseline, moved, unsure)}{but}", incomplete),
        "waivers": waivers,
        "columns": columns,
        "matches": bool(baseline) and not moved and not any(columns[n]["verdict"] == "error" for n in unsure),
        "incomplete": incomplete,
    }


def _matches(baseline: dict[str, Any], moved: list[str], unsure: list[str]) -> str:
    if not baseline:
        return "no distribution was declared"
    told = len(baseline) - len(unsure)
    if moved:
        return f"no: {', '.join(moved)} moved away from what was expected; {told - len(moved)} of {told} columns match"
    return f"yes: all {told} columns that could be compared match what was expected" if told else "it cannot be told"
