import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback_assets_tests import postgres_server, s3_server

RECORDS = 1_000
LONG = ("test_readme.py", "test_real_sets.py", "test_in_s3.py")

gc.set_threshold(100_000, 50, 100)  # Dagster and Great Expectations are a million objects that stay: seldom look at all


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: at the end no processor waits for the other to finish one."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def connections_kept() -> Iterator[None]:
    """Dagster's event log connects anew for each event, and compiles each statement anew: that is half of a small run.

    Here its files stay connected while an instance is open, and nothing waits until an event is on the disk.
    """
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from sqlalchemy import event, pool

    create, kept = sqlite_event_log.create_engine, {}
    storage, dispose = sqlite_event_log.SqliteEventLogStorage, sqlite_event_log.SqliteEventLogStorage.dispose

    def connected(url: str, **_: Any) -> Any:
        if url not in kept:
            options = {"timeout": 30, "check_same_thread": False}
            engine = kept[url] = create(url, poolclass=pool.QueuePool, connect_args=options)
            engine.dispose = lambda: None  # it is asked to after each event
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return kept[url]

    def closed(log: Any) -> None:
        while kept:
            kept.popitem()[1].pool.dispose()
        dispose(log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_event_log, "create_engine", connected)
        patch.setattr(storage, "dispose", closed)
        yield


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a small synthetic sample after one whole run, store beside the policy. Not to be changed."""
    from feedback_assets.materialize.project import Project
    from feedback_assets.orchestration.run import run
    from feedback_assets.sample.generate import write_sample

    before = os.environ.get("DAGSTER_HOME")
    policy = write_sample(tmp_path_factory.mktemp("sample") / "project", records=RECORDS)
    ran = run(Project.open(policy, policy.parent / "store"))
    assert ran.problems == []
    assert ran.release is not None
    yield policy.parent
    os.environ.pop("DAGSTER_HOME", None)
    if before is not None:
        os.environ["DAGSTER_HOME"] = before


@pytest.fixture
def sample(sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `sample_run` to do anything with."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")
    return Path(shutil.copytree(sample_run, tmp_path / "project"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """A running Postgres."""
    if postgres_server.programs() is None:
        pytest.skip("Postgres is not installed; on Debian: apt-get install postgresql")
    with postgres_server.server() as running:
        yield running


@pytest.fixture(scope="session")
def s3_running() -> Iterator[s3_server.Server]:
    """A running S3 server."""
    pytest.importorskip("moto.server", reason="moto is not installed; it is among the tools of `dev`")
    with s3_server.server() as running:
        yield running


@pytest.fixture
def s3(s3_running: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> s3_server.Server:
    """A running S3 server, named by the environment."""
    s3_running.name_in(monkeypatch)
    return s3_running
