"""The three questions before training, answered from a release's manifest and nothing else."""

from typing import Any

from feedback_assets.materialize.commit import HOLDS_BACK
from feedback_assets.provenance.release import Release, unpacked

STATUS_MEANING = {
    "declared": "declared by the source, and in force then",
    "inferred": "not declared; the one in force by date",
    "conflict": "declared, but another was in force by date",
    "ambiguous": "two in force at once",
    "unknown-version": "declared, but not in the registry",
    "unmatched": "none in force by date, and none declared",
}
UNCERTAIN = ("conflict", "ambiguous", "unknown-version", "unmatched")


def questions(release: Release) -> dict[str, Any]:
    """Answer the three questions.

    Returns:
        `annotations`: records, examples, `by_guideline` (version, status, digest, records), `groups` (with row ids);
        `transformations`: `stages`, with what each rule is pinned to and what it did;
        `distribution`: `columns`, expected beside actual. Each has `incomplete`: what it cannot answer.
    """
    content = release.content
    return {
        "release": release.id,
        "annotations": _annotations(content),
        "transformations": _transformations(content, release.circumstances),
        "distribution": _distribution(content),
    }


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
        f"{e['records']:,} records of {e['task']}, guideline {e['guideline'] or 'unknown'}: {e['meaning']}"
        for e in rows
        if e["status"] in UNCERTAIN
    ]
    return {
        "records": told["records"],
        "examples": told["examples"],
        "by_guideline": rows,
        "guidelines": content["guidelines"],
        "groups": [{**group, "row_ids": unpacked(group["row_ids"])} for group in told["groups"]],
        "incomplete": incomplete,
    }


def _transformations(content: Any, circumstances: Any) -> dict[str, Any]:
    unpinned = [name for name, version in circumstances["environment"].items() if version == "not installed"]
    return {
        "stages": [
            {
                **entry,
                "policy": content["policy"][entry["asset"]],
                "checks": _checks(content["commits"][entry["asset"]]),
            }
            for entry in content["transformations"]
        ],
        "environment": circumstances["environment"],
        "incomplete": [f"the version of {name} is not known" for name in unpinned],
    }


def _checks(commit: Any) -> dict[str, Any]:
    checks = commit["checks"]
    return {
        "passed": sum(check["status"] == "passed" for check in checks),
        "inconclusive": [check["name"] for check in checks if check["status"] == "inconclusive"],
        "failed": [check["name"] for check in checks if check["status"] in HOLDS_BACK],
    }


def _distribution(content: Any) -> dict[str, Any]:
    baseline = {entry["column"]: entry for entry in content["commits"]["training_set"]["baseline"]}
    declared = content["policy"]["monitoring"]["expect"]
    expected = {**{name: _approved(entry) for name, entry in baseline.items() if entry.get("cells")}, **declared}
    columns = {}
    for name in sorted({*content["distribution"], *expected}):
        held = baseline.get(name)
        columns[name] = {
            "expected": expected.get(name),
            "actual": content["distribution"].get(name),
            "verdict": held["verdict"] if held else "nothing was expected",
            "psi": held["psi"] if held else None,
            "kl": held["kl"] if held else None,
            "ks": held["ks"] if held else None,
        }
    undeclared = [name for name, entry in columns.items() if entry["expected"] is None]
    unsure = [name for name, entry in columns.items() if entry["verdict"] in ("inconclusive", "error")]
    incomplete = [f"nobody declared what {', '.join(undeclared)} should look like"] if undeclared else []
    incomplete += [f"{name}: {columns[name]['verdict']}" for name in unsure]
    return {
        "columns": columns,
        "matches": not any(e["verdict"] in ("moved", "error") for e in columns.values()),
        "incomplete": incomplete,
    }


def _approved(entry: Any) -> dict[str, float]:
    """The shares that the approved release had, as the comparison with it keeps them."""
    return {cell["cell"]: cell["reference"] for cell in entry["cells"]}
