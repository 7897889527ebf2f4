"""What Dagster records of a materialization, and what it calls stale."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import dagster as dg
import polars as pl
import pytest
from dagster_project import KEEPS_ALL, add_rule, dagster, latest, opened, stale, start, tags

from feedback_assets.orchestration.run import run
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.release import listed
from feedback_assets.snapshots.snapshot import scan

NAMES = [stage.name for stage in STAGES]
DROPS_SOME = "source = 'app' AND line < 20"


@pytest.fixture(scope="module")
def instance(sample_run: Path) -> Iterator[dg.DagsterInstance]:
    with dagster(sample_run) as found:
        yield found


def test_dagster_shows_of_a_materialization_what_its_commit_says(
    sample_run: Path, instance: dg.DagsterInstance
) -> None:
    for asset in NAMES:
        commit = opened(sample_run).commits.latest(asset)
        shown = latest(instance, asset).asset_materialization
        assert shown.tags["dagster/data_version"] == commit.data_version
        assert shown.tags["dagster/code_version"] == commit.code_version
        assert shown.metadata["dagster/row_count"].value == commit.content["rows_out"]
        columns = shown.metadata["dagster/column_schema"].value.columns
        assert {column.name: column.type for column in columns} == commit.snapshot.tables["rows"].schema


def test_dagster_has_every_check_of_a_materialization_with_the_result_of_its_commit(
    sample_run: Path, instance: dg.DagsterInstance
) -> None:
    project = opened(sample_run)
    for stage in STAGES:
        storage_id = instance.fetch_materializations(dg.AssetKey(stage.name), limit=1).records[0].storage_id
        found = {}
        for name in project.policy.required_checks(stage.name):
            (record,) = instance.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(dg.AssetKey(stage.name), name), limit=5
            )
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            assert evaluation.target_materialization_data.storage_id == storage_id
            found[name] = evaluation.passed
        assert found == {check["name"]: check["passed"] for check in project.commits.latest(stage.name).checks}


def test_dagster_records_the_input_versions_that_were_read(sample_run: Path, instance: dg.DagsterInstance) -> None:
    for asset in NAMES:
        recorded = tags(instance, asset)
        for name, read in opened(sample_run).commits.latest(asset).content["inputs"].items():
            assert recorded[f"dagster/input_data_version/{name}"] == read["data_version"]
            storage_id = instance.fetch_materializations(dg.AssetKey(name), limit=1).records[0].storage_id
            assert recorded[f"dagster/input_event_pointer/{name}"] == str(storage_id)


def test_no_text_of_a_person_reaches_the_event_log(sample_run: Path) -> None:
    project = opened(sample_run)
    content = scan(project.store, project.commits.latest("ingested").snapshot.tables["content"])
    said = content.select(pl.col("response_a").str.slice(0, 60)).unique().head(300).collect().to_series().to_list()
    log = b"".join(path.read_bytes() for path in (sample_run / "store" / "dagster").rglob("*.db"))
    assert [text for text in said if text and text.encode() in log] == []


def test_a_whole_run_leaves_nothing_stale(sample_run: Path, instance: dg.DagsterInstance) -> None:
    assert stale(sample_run, instance) == {}


def test_an_edited_rule_makes_its_stage_stale_and_no_other_until_the_data_changed(sample: Path) -> None:
    add_rule(sample, DROPS_SOME)
    with dagster(sample) as instance:
        assert stale(sample, instance) == {"filtered": ["CODE: has a new code version"]}
        assert start(sample, instance, "filtered").success
        assert stale(sample, instance) == {"deduplicated": ["DATA: has a new dependency data version"]}
        assert start(sample, instance, "deduplicated").success
        assert stale(sample, instance) == {"reweighted": ["DATA: has a new dependency data version"]}
        # One asset alone has read the latest of its inputs.
        newest = opened(sample).commits.latest("filtered")
        assert newest.number == 2
        assert tags(instance, "deduplicated")["dagster/input_data_version/filtered"] == newest.data_version


def test_an_edited_rule_that_drops_nothing_more_leaves_everything_below_fresh(sample: Path) -> None:
    before = opened(sample).commits.latest("filtered").data_version
    add_rule(sample, KEEPS_ALL)
    with dagster(sample) as instance:
        assert start(sample, instance, "filtered").success
        assert opened(sample).commits.latest("filtered").data_version == before
        assert stale(sample, instance) == {}


def test_an_unchanged_rerun_gives_the_same_versions_and_the_same_release(sample: Path) -> None:
    before = {name: opened(sample).commits.latest(name) for name in NAMES}
    ran = run(opened(sample))
    assert ran.problems == []
    assert {name: commit.id for name, commit in ran.commits.items()} == {name: c.id for name, c in before.items()}
    first, second = listed(opened(sample).store)
    assert first["id"] == second["id"] == ran.release.id
    assert {commit.number for commit in ran.commits.values()} == {2}
    with dagster(sample) as instance:
        assert stale(sample, instance) == {}


def test_a_run_reads_its_own_inputs_though_another_run_made_newer_ones_meanwhile(sample: Path) -> None:
    """Dagster alone would note the other run's version, which was not read."""
    with dagster(sample) as instance:

        def another_run(asset: str, moment: str, commit: object) -> None:
            if (asset, moment) != ("deduplicated", "started"):
                return
            add_rule(sample, DROPS_SOME)
            thread = Thread(target=start, args=(sample, instance, "filtered"))
            thread.start()
            thread.join()

        assert start(sample, instance, "filtered", "deduplicated", listener=another_run).success
        project = opened(sample)
        mine, others = project.commits.read("filtered", 2), project.commits.read("filtered", 3)
        assert mine.data_version != others.data_version
        assert project.commits.latest("deduplicated").content["inputs"]["filtered"]["commit"] == mine.id
        recorded = tags(instance, "deduplicated")
        assert recorded["dagster/input_data_version/filtered"] == mine.data_version
        newest, older = instance.fetch_materializations(dg.AssetKey("filtered"), limit=2).records
        assert newest.asset_materialization.tags["dagster/data_version"] == others.data_version
        assert recorded["dagster/input_event_pointer/filtered"] == str(older.storage_id)
        assert stale(sample, instance) == {"deduplicated": ["DATA: has a new dependency data version"]}
