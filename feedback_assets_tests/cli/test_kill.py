"""A killed run leaves nothing that reads as whole and is not, and the next run does what it would have done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from feedback_assets.digests import file_digest
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.release import listed
from feedback_assets.sample.generate import write_sample
from feedback_assets_tests.conftest import RECORDS

PATIENCE = 120  # seconds; a loaded machine takes long to import


def killed_after(asset: str, folder: Path) -> None:
    """Start `feedback-assets run` in a process of its own and SIGKILL it once `asset` is committed."""
    command = [
        sys.executable,
        "-c",
        "from feedback_assets.cli.main import main; main()",
        "run",
        "--policy",
        str(folder),
    ]
    environment = {**os.environ, "DAGSTER_HOME": ""}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        until = time.monotonic() + PATIENCE
        while not list((folder / "store" / "commits" / asset).glob("*.json")):
            assert process.poll() is None, f"the run ended before {asset} was committed"
            assert time.monotonic() < until, f"{asset} was not committed within {PATIENCE} s"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_run_after_a_kill_makes_the_release_of_an_undisturbed_one(sample_run: Path, tmp_path: Path) -> None:
    folder = write_sample(tmp_path / "project", records=RECORDS).parent
    project = Project.open(folder / "policy.yaml", folder / "store")
    killed_after("guideline_joined", folder)
    assert listed(project.store) == []
    committed = [commit for stage in STAGES for commit in project.commits.all(stage.name)]
    assert {"ingested", "guidelines", "guideline_joined"} <= {commit.asset for commit in committed}
    assert "training_set" not in {commit.asset for commit in committed}
    for commit in committed:
        for file in commit.snapshot.files:
            assert file_digest(project.store.path(file.key)) == file.digest

    ran = run(project)
    assert ran.problems == []
    assert ran.release is not None
    (undisturbed,) = listed(Project.open(sample_run / "policy.yaml", sample_run / "store").store)
    assert ran.release.id == undisturbed["id"]
