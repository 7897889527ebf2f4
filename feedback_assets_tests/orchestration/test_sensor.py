"""The sensor asks for a run when a batch has arrived, once."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_project import dagster, opened, start

from feedback_assets.orchestration.jobs import JOB, new_batches
from feedback_assets_tests.postgres_server import Server


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


def test_a_file_that_is_still_written_to_starts_nothing(sample: Path) -> None:
    policy = yaml.safe_load((sample / "policy.yaml").read_text())
    for source in policy["ingested"]["sources"]:
        source["complete"] = {"marker": "{name}.done"}
    (sample / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    batch = deliver(sample)
    assert isinstance(asked(sample), dg.SkipReason)
    batch.with_name(batch.name + ".done").touch()
    assert isinstance(asked(sample), dg.RunRequest)


def test_a_renamed_and_a_removed_file_start_nothing(sample: Path) -> None:
    first, second, *_ = sorted((sample / "batches").glob("preferences-*.jsonl"))
    first.rename(first.with_name("preferences-renamed.jsonl"))
    second.unlink()
    assert isinstance(asked(sample), dg.SkipReason)


def test_rows_that_are_new_in_a_database_are_one_run_until_they_are_landed(
    sample: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDBACK_TEST_DATABASE", postgres.uri())
    postgres.sql("DROP TABLE IF EXISTS thumbs", "CREATE TABLE thumbs (id int, at timestamptz, q text, a text, t text)")
    postgres.sql("INSERT INTO thumbs VALUES (1, '2026-01-02Z', 'Why?', 'So.', 'up')")
    policy = yaml.safe_load((sample / "policy.yaml").read_text())
    columns = {"feedback_id": "id", "kind": "'thumbs'", "prompt": "q", "response_a": "a", "label": "t"}
    source = {"name": "db", "connection": "FEEDBACK_TEST_DATABASE", "table": "thumbs", "key": "id", "watermark": "at"}
    policy["ingested"]["sources"].append({**source, "columns": columns})
    (sample / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    first, again = asked(sample), asked(sample)
    assert isinstance(first, dg.RunRequest)
    assert first.run_key == again.run_key
    for late in ("2026-01-03Z", "2020-01-01Z"):
        with dagster(sample) as instance:
            assert start(sample, instance, "ingested").success
        assert isinstance(asked(sample), dg.SkipReason)
        postgres.sql(f"INSERT INTO thumbs SELECT count(*) + 1, '{late}', 'Why?', 'So.', 'up' FROM thumbs")
        assert asked(sample).run_key not in (first.run_key, None)
    monkeypatch.delenv("FEEDBACK_TEST_DATABASE")
    answer = asked(sample)
    assert isinstance(answer, dg.SkipReason)
    assert "FEEDBACK_TEST_DATABASE is not set" in answer.skip_message
