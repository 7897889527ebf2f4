"""Two releases of one project, with three things changed between them, and a third by edited code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import feedback_assets
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.provenance.release import Release, find, listed
from feedback_assets.snapshots.store import LocalStore

RULE = {
    "id": "no-guideline",
    "version": 1,
    "reason": "a thumb under no guideline says nothing",
    "drop_when": "kind = 'thumbs' AND guideline_status = 'unmatched'",
}
FLIPPED = "preferences-2026-W35.jsonl"
EDITED = ("reweighted.py", "self.floor + (1 - self.floor) * pl.col", "self.floor + (1 - self.floor) ** 2 * pl.col")


def edited_policy(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    edit(policy)
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))


def _trust_every_guideline(policy: dict[str, Any]) -> None:
    policy["filtered"]["rules"] = [rule for rule in policy["filtered"]["rules"] if rule["id"] != "guideline-in-doubt"]


def _factor(policy: dict[str, Any], name: str) -> dict[str, Any]:
    return next(factor for factor in policy["reweighted"]["factors"] if factor["id"] == name)


def released(folder: Path) -> str:
    ran = run(Project.open(folder / "policy.yaml", folder / "store"))
    assert ran.problems == []
    assert ran.release is not None
    return ran.release.id


def flipped(line: str) -> str:
    """The same judgment by another annotator, who says the opposite; a line that is no JSON is left out."""
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    said |= {"id": f"again-{said['id']}", "rater": f"vendor-{said['rater']}"}
    said["choice"] = {"left": "right", "right": "left"}.get(said["choice"], said["choice"])
    return json.dumps(said) + "\n"


def change_three_things(folder: Path) -> None:
    """A rule, a guideline's date, and a batch with flipped labels."""
    edited_policy(folder, lambda policy: policy["filtered"]["rules"].append(RULE))
    guideline = folder / "guidelines" / "helpfulness-1.1.0.md"
    guideline.write_text(re.sub("effective_from: .*", "effective_from: 2026-08-20", guideline.read_text()))
    lines = (folder / "batches" / "preferences-2026-W33.jsonl").read_text().splitlines()
    (folder / "batches" / FLIPPED).write_text("".join(map(flipped, lines)))


@pytest.fixture(scope="session")
def two_releases(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with two releases, three changes between them. Not to be changed."""
    before = os.environ.pop("DAGSTER_HOME", None)
    folder = Path(shutil.copytree(sample_run, tmp_path_factory.mktemp("two") / "project"))
    edited_policy(folder, _trust_every_guideline)
    shutil.rmtree(folder / "store" / "releases")
    released(folder)
    change_three_things(folder)
    released(folder)
    os.environ.pop("DAGSTER_HOME", None)
    if before is not None:
        os.environ["DAGSTER_HOME"] = before
    return folder


@pytest.fixture
def project(two_releases: Path, tmp_path: Path) -> Path:
    """A copy of `two_releases` to do anything with."""
    return Path(shutil.copytree(two_releases, tmp_path / "project"))


@pytest.fixture(scope="session")
def by_other_code(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project whose first release was made by this code, and its second by edited code.

    With the code of the factor for confidence its reason was edited, which moves nothing.
    """
    place = tmp_path_factory.mktemp("edited")
    folder = Path(shutil.copytree(sample_run, place / "project"))
    edited_policy(folder, lambda policy: _factor(policy, "confidence").update(reason="a sure choice says more"))
    package = Path(feedback_assets.__file__).parent
    copy = Path(shutil.copytree(package, place / "code" / package.name, ignore=shutil.ignore_patterns("__pycache__")))
    name, before, after = EDITED
    source = (copy / "stages" / name).read_text()
    assert before in source
    (copy / "stages" / name).write_text(source.replace(before, after))
    done = subprocess.run(
        [sys.executable, "-c", "from feedback_assets.cli.main import main; main()", "run", "--policy", folder],
        env={**os.environ, "PYTHONPATH": str(place / "code"), "DAGSTER_HOME": ""},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def release_of(folder: Path, number: int) -> Release:
    store = LocalStore(folder / "store")
    return find(store, listed(store)[number - 1]["id"])


def history(folder: Path) -> dict[str, bytes]:
    """All that is in a store but hybrids, by name."""
    store = folder / "store"
    return {
        name: path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not (name := str(path.relative_to(store))).startswith(("hybrids/", "tmp/"))
    }
