"""The sensor asks for a run when a batch has arrived, once."""

import shutil
from pathlib import Path

import dagster as dg
from dagster_project import opened

from feedback_assets.orchestration.jobs import JOB, new_batches


def asked(folder: Path) -> dg.RunRequest | dg.SkipReason:
    """What the sensor answers in a process of its own."""
    answer = new_batches(opened(folder))(dg.build_sensor_context())
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def deliver(folder: Path) -> Path:
    first = min((folder / "batches").glob("preferences-*.jsonl"))
    return Path(shutil.copy(first, first.with_name("preferences-2026-W99.jsonl")))


def test_nothing_new_is_no_run(sample: Path) -> None:
    answer = asked(sample)
    assert isinstance(answer, dg.SkipReason)
    assert "no new batch" in answer.skip_message


def test_a_new_batch_is_one_run_also_after_a_restart(sample: Path) -> None:
    deliver(sample)
    first, again = asked(sample), asked(sample)
    assert isinstance(first, dg.RunRequest)
    assert first.run_key == again.run_key
    assert first.tags == {"new_batches": "1"}


def test_an_edited_batch_is_another_arrival(sample: Path) -> None:
    batch = deliver(sample)
    first = asked(sample)
    batch.write_text("".join(batch.read_text().splitlines(keepends=True)[:-1]))
    assert asked(sample).run_key != first.run_key


def test_before_the_first_run_every_batch_is_new(sample: Path) -> None:
    shutil.rmtree(sample / "store" / "commits")
    answer = asked(sample)
    assert isinstance(answer, dg.RunRequest)
    assert answer.tags == {"new_batches": str(len(list((sample / "batches").iterdir())))}


def test_a_missing_folder_is_said_and_starts_nothing(sample: Path) -> None:
    shutil.rmtree(sample / "batches")
    answer = asked(sample)
    assert isinstance(answer, dg.SkipReason)
    assert "batches" in answer.skip_message
    assert "\n" not in answer.skip_message


def test_the_sensor_starts_the_whole_job(sample: Path) -> None:
    assert new_batches(opened(sample)).job_name == JOB
