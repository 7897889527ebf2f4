"""A database as a source: each row arrives, however late it comes, and none arrives twice as it was."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize import landing as module
from feedback_assets.materialize import materialize as stage_module
from feedback_assets.materialize.batches import batches, notices
from feedback_assets.materialize.commit import Commit
from feedback_assets.materialize.landing import land, landed, landings, unlanded
from feedback_assets.materialize.materialize import materialize, rows
from feedback_assets.materialize.project import Project
from feedback_assets.snapshots.store import LocalStore
from feedback_assets.sources.landed import read_landed
from feedback_assets.sources.source import Source
from feedback_assets_tests.postgres_server import PASSWORD, Server

NOW = datetime(2024, 3, 1, tzinfo=UTC)
VARIABLE = "FEEDBACK_TEST_DATABASE"
COLUMNS = {
    "feedback_id": "id",
    "kind": "'thumbs'",
    "prompt": {"expr": "prompt", "format": "roles"},
    "response_a": '"left"',
    "label": "choice",
    "collected_at": "at",
}
PROMPT = """'[{"role": "user", "content": "Why?"}]'"""


class Desk:
    """A project that reads the table `feedback` of a real server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.runs = folder, server, 0
        self.source: dict[str, Any] = {
            "name": "db",
            "connection": VARIABLE,
            "table": "feedback",
            "key": "id",
            "watermark": "at",
            "columns": COLUMNS,
        }

    def add(self, *rows: tuple[int, str | None], choice: str = "up") -> None:
        """Rows by id and the day of January 2024 (as text) of their watermark."""
        for id_, at in rows:
            self.server.sql(
                f"INSERT INTO feedback VALUES ({id_}, {time(at)}, {PROMPT}, 'left {id_}', 'right {id_}', '{choice}')"
            )

    def project(self) -> Project:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump({"ingested": {"sources": [self.source]}}), encoding="utf-8")
        return Project.open(path, self.folder / "store")

    def run(self) -> Commit:
        self.runs += 1
        return materialize(self.project(), "ingested", run_id=f"run{self.runs}", now=NOW)

    def batches(self, commit: Commit) -> list[tuple[str, int]]:
        return batches(self.project(), commit).select("batch", "rows").rows()

    def fates(self, commit: Commit) -> dict[str, int]:
        return {fate["fate"]: fate["rows"] for fate in commit.content["fates"]}

    def records(self, commit: Commit) -> dict[int, str]:
        """Label by id, of the rows that went on."""
        found = rows(self.project(), commit).select(pl.col("feedback_id").cast(pl.Int64), "label")
        return dict(found.collect().iter_rows())


def time(at: str | None) -> str:
    return "NULL" if at is None else f"'{at}'" if not at.isdecimal() else f"'2024-01-{int(at):02d}T00:00:00Z'"


TABLE = 'CREATE TABLE feedback (id bigint, at timestamptz, prompt jsonb, "left" text, "right" text, choice text)'


@pytest.fixture
def desk(tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv(VARIABLE, postgres.uri())
    monkeypatch.setattr(stage_module, "examine", lambda *_: {"checks": []})  # takes longer than the work
    postgres.sql("DROP TABLE IF EXISTS feedback", TABLE)
    yield Desk(tmp_path, postgres)


def test_a_window_is_a_batch_and_without_a_new_row_there_is_none(desk: Desk):
    desk.add((1, "1"), (2, "2"))
    first = desk.run()
    assert desk.batches(first) == [("2024-01-01T00:00:00.000000Z..2024-01-02T00:00:00.000000Z", 2)]
    again = desk.run()
    assert again.id == first.id
    assert len(landings(desk.project().store, "db")) == 1
    desk.add((3, "3"))
    third = desk.run()
    assert desk.batches(third)[1:] == [("2024-01-03T00:00:00.000000Z..2024-01-03T00:00:00.000000Z", 1)]
    assert desk.fates(third) == {"kept": 3}
    assert rows(desk.project(), third).collect()["arrival"].to_list() == [0, 0, 1]


def test_the_same_rows_give_the_same_batch_whatever_the_order_in_the_table(desk: Desk, tmp_path: Path):
    desk.add((1, "1"), (2, "1"), (3, "2"))
    first = desk.run()
    desk.server.sql("DELETE FROM feedback")
    desk.add((3, "2"), (2, "1"), (1, "1"))
    (tmp_path / "other").mkdir()
    other = Desk(tmp_path / "other", desk.server).run()
    assert other.data_version == first.data_version


def test_a_transaction_that_began_before_the_window_and_ended_after_it_is_not_lost(desk: Desk):
    with desk.server.transaction() as slow:
        slow.execute(f"INSERT INTO feedback VALUES (1, {time('1')}, {PROMPT}, 'l', 'r', 'down')")
        desk.add((2, "2"))
        assert desk.records(desk.run()) == {2: "up"}
    assert desk.records(desk.run()) == {1: "down", 2: "up"}


@pytest.mark.parametrize("at", ["2001-05-05T00:00:00Z", "9", None, "infinity", "-infinity"])
def test_a_row_whose_watermark_is_no_news_is_not_lost(desk: Desk, at: str | None):
    desk.add((1, "1"), (2, "9"))
    desk.run()
    desk.add((3, at))
    project = desk.project()
    land(project.store, project.policy.ingested.sources[0])
    assert [batch.rows for landing in landings(project.store, "db") for batch in landing.batches] == [2, 1]


def test_an_edit_that_moves_the_watermark_is_a_revision_in_either_direction(desk: Desk):
    desk.add((1, "1"), (2, "9"))
    desk.run()
    desk.server.sql(f"UPDATE feedback SET choice = 'down', at = {time('10')} WHERE id = 1")
    assert desk.records(desk.run()) == {1: "down", 2: "up"}
    desk.server.sql(f"UPDATE feedback SET choice = 'up', at = {time('2')} WHERE id = 1")
    last = desk.run()
    assert desk.records(last) == {1: "up", 2: "up"}
    assert desk.fates(last) == {"kept": 2, "superseded": 2}


@pytest.mark.parametrize(
    ("settings", "seen"),
    [({}, False), ({"overlap": "1 day"}, False), ({"overlap": "9 days"}, True), ({"compare": "rows"}, True)],
)
def test_an_edit_that_leaves_the_watermark_is_seen_in_the_overlap_or_when_rows_are_compared(desk: Desk, settings, seen):
    desk.source |= settings
    desk.add((1, "1"), (2, "9"))
    desk.run()
    desk.server.sql("UPDATE feedback SET choice = 'down' WHERE id = 1")
    assert desk.records(desk.run()) == {1: "down" if seen else "up", 2: "up"}


def test_what_is_deleted_stays_until_it_is_retracted_and_is_told(desk: Desk):
    desk.add((1, "1"), (2, "2"))
    desk.run()
    desk.server.sql("DELETE FROM feedback WHERE id = 1")
    commit = desk.run()
    assert desk.records(commit) == {1: "up", 2: "up"}
    assert notices(desk.project(), commit) == [
        "1 rows that were read from source 'db' are in the database no more; they stay until their batch is retracted"
    ]
    desk.add((1, "1"))
    assert desk.fates(desk.run()) == {"kept": 2, "redelivered": 1}


def test_windows_that_were_landed_and_not_yet_taken_in_keep_their_order(desk: Desk):
    source = desk.project().policy.ingested.sources[0]
    for at, choice in (("2", "up"), ("1", "down")):
        desk.server.sql("DELETE FROM feedback")
        desk.add((1, at), choice=choice)
        land(desk.project().store, source)
    assert desk.records(desk.run()) == {1: "down"}


KEYS = st.integers(1, 6)
CHANGES = st.one_of(
    st.tuples(
        st.just("put"), KEYS, st.sampled_from(["1", "2", "3", "30", None, "infinity"]), st.sampled_from(["up", "down"])
    ),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("land")),
)


@given(st.lists(CHANGES, max_size=14), st.sampled_from([0, "1 day", "40 days"]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_in_the_table_the_last_landed_of_each_row_is_what_it_is(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory, changes: list[Any], overlap: Any
):
    store = LocalStore(tmp_path_factory.mktemp("store"))
    source = Source.model_validate({**desk.source, "overlap": overlap, "compare": "rows"})
    desk.server.sql("DELETE FROM feedback")
    table: dict[int, tuple[str | None, str]] = {}
    for what, *given_ in changes:
        if what == "put":
            key, at, choice = given_
            desk.server.sql(f"DELETE FROM feedback WHERE id = {key}")
            desk.add((key, at), choice=choice)
            table[key] = (at, choice)
        elif what == "delete":
            desk.server.sql(f"DELETE FROM feedback WHERE id = {given_[0]}")
            table.pop(given_[0], None)
        else:
            land(store, source)
    land(store, source)
    held = landings(store, "db")
    read = [read_landed(file.path).select("id", pl.col("at").is_null(), "choice") for file in landed(store, source)]
    last = {key: (no_time, choice) for frame in read for key, no_time, choice in frame.iter_rows()}
    assert {key: last[key] for key in table} == {key: (at is None, choice) for key, (at, choice) in table.items()}
    assert not held or unlanded(store, source) is None
    land(store, source)
    assert landings(store, "db") == held


def test_two_runs_at_once_land_each_row_once(desk: Desk):
    desk.server.sql(
        f"INSERT INTO feedback SELECT g, '2024-01-01Z'::timestamptz + g * interval '1 s', {PROMPT}, 'l', 'r', 'up' "
        "FROM generate_series(1, 3000) g"
    )
    project = desk.project()
    source = project.policy.ingested.sources[0]
    ready = threading.Barrier(3)

    def run() -> None:
        ready.wait()
        land(project.store, source)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = pl.concat([read_landed(file.path) for file in landed(project.store, source)]).get_column("id")
    assert ids.sort().to_list() == list(range(1, 3001))


def big(desk: Desk, megabytes: int) -> None:
    desk.server.sql(
        f"INSERT INTO feedback SELECT g, '2024-01-01Z'::timestamptz + g * interval '1 s', {PROMPT}, "
        f"repeat('x', 10000), 'r' || g, 'up' FROM generate_series(1, {megabytes * 100}) g"
    )


def test_a_large_result_is_landed_as_several_batches_of_one_moment_in_order(desk: Desk, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    big(desk, 60)
    project = desk.project()
    source = project.policy.ingested.sources[0]
    land(project.store, source)
    files = landed(project.store, source)
    assert len(files) > 2
    assert [file.name for file in files] == sorted(file.name for file in files)
    assert pl.concat([read_landed(file.path) for file in files]).get_column("id").to_list() == list(range(1, 6001))


def test_a_server_that_stops_in_the_middle_leaves_nothing_half_read(desk: Desk, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 1)

    class StopsAfterOneObject(LocalStore):
        def put_file(self, key: str, scratch: Path) -> bool:
            if not list(self.root.glob("landed/*/*")):
                desk.server.stop()
            return super().put_file(key, scratch)

    big(desk, 100)
    source = desk.project().policy.ingested.sources[0]
    store = StopsAfterOneObject(desk.project().store.root)
    try:
        with pytest.raises(
            FeedbackError, match=r"source 'db': the read broke off \(.*\); nothing of it was kept"
        ) as told:
            land(store, source)
        assert "\n" not in str(told.value)
        assert landed(store, source) == []
        with pytest.raises(FeedbackError, match="no server answers"):
            desk.run()
    finally:
        desk.server.start()
    assert desk.fates(desk.run()) == {"kept": 10_000}


TYPES = """CREATE TABLE types AS SELECT 9223372036854775807 AS id, 7 AS n,
'2024-01-02 03:04:05.678901+02'::timestamptz AS at,
'2024-01-02'::timestamp AS naive, '{"a": [1, null]}'::jsonb AS j, 12345678901234567890.50::numeric AS amount,
ARRAY['x', NULL, 'ü'] AS texts, ARRAY[1.5]::numeric[] AS amounts, '\\x00ff'::bytea AS raw, 'ok'::mood AS feels,
'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS u, '1 day'::interval AS i, 'ab'::char(4) AS c, '10.0.0.1'::inet AS ip,
NULL::text AS nothing, 1.5::float4 AS f, true AS b, '12:00'::time AS t, 'not {json'::text AS plain, '"x"'::json AS j2"""


def test_every_type_arrives_as_it_is_or_as_the_server_writes_it(desk: Desk):
    desk.server.sql("DROP TABLE IF EXISTS types", "DROP TYPE IF EXISTS mood")
    desk.server.sql("CREATE TYPE mood AS ENUM ('bad', 'ok')", TYPES)
    source = Source.model_validate({**desk.source, "table": "public.types", "watermark": "n"})
    store = desk.project().store
    land(store, source)
    (file,) = landed(store, source)
    assert file.name == "7..7"
    assert read_landed(file.path).row(0, named=True) == {
        "id": 9223372036854775807,
        "n": 7,
        "at": datetime(2024, 1, 2, 1, 4, 5, 678901, tzinfo=UTC),
        "naive": datetime(2024, 1, 2),
        "j": {"a": [1, None]},
        "amount": "12345678901234567890.50",
        "texts": ["x", None, "ü"],
        "amounts": ["1.5"],
        "raw": b"\x00\xff",
        "feels": "ok",
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "i": "1 day",
        "c": "ab  ",
        "ip": "10.0.0.1/32",
        "nothing": None,
        "f": 1.5,
        "b": True,
        "t": datetime(2024, 1, 1, 12).time(),
        "plain": "not {json",
        "j2": "x",
    }


def test_what_a_window_holds_is_read_only(desk: Desk):
    desk.server.sql("DROP SEQUENCE IF EXISTS counter", "CREATE SEQUENCE counter")
    desk.source |= {"query": "SELECT nextval('counter') AS id, now() AS at"}
    del desk.source["table"]
    with pytest.raises(FeedbackError, match="cannot execute nextval"):
        desk.run()


def test_a_query_may_start_with_with_and_end_in_a_comment(desk: Desk):
    desk.add((1, "1"), (2, "2"))
    desk.source |= {"query": "WITH f AS (SELECT * FROM feedback WHERE id > 1)\nSELECT * FROM f -- only these"}
    del desk.source["table"]
    assert desk.records(desk.run()) == {2: "up"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": "feedbak"}, r'the server refuses the query: relation "feedbak" does not exist; correct `table`'),
        ({"table": None, "query": "SELEC 1"}, r"the server refuses the query: syntax error .*; correct `query`"),
        ({"table": None, "query": "SELECT id, at, 1/(id - 1) AS x FROM feedback"}, "division by zero"),
        ({"table": None, "query": "SELECT 1; SELECT 2"}, "syntax error"),
        ({"table": None, "query": "SELECT *, id FROM feedback"}, "two columns called 'id'"),
        ({"table": None, "query": "SELECT *, 1 AS __line FROM feedback"}, "the column name __line is ours"),
        ({"table": None, "query": "SELECT * FROM feedback UNION ALL SELECT * FROM feedback"}, "1 rows repeat the 'id'"),
        ({"table": None, "query": "SELECT NULL::int AS id, at FROM feedback"}, "1 rows have no 'id'"),
        ({"key": "ident"}, "its `key` is 'ident', which the query does not give; it gives: id, at, prompt"),
        ({"watermark": "att"}, "its `watermark` is 'att', .*; did you mean 'at'?"),
        ({"watermark": "choice"}, "the watermark 'choice' is of type text; it must be timestamptz"),
    ],
)
def test_a_query_that_will_not_do_is_one_line_with_its_mend(desk: Desk, change: dict[str, Any], said: str):
    desk.add((1, "1"))
    desk.source = {key: value for key, value in {**desk.source, **change}.items() if value is not None}
    with pytest.raises(FeedbackError, match=f"^source 'db': .*{said}") as told:
        desk.run()
    assert "\n" not in str(told.value)


def test_an_overlap_that_does_not_fit_the_watermark_is_refused(desk: Desk):
    desk.add((1, "1"))
    desk.run()
    desk.source["overlap"] = 5
    with pytest.raises(FeedbackError, match="is of type timestamptz, so `overlap` must be a time such as '1 day'"):
        desk.run()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (None, f"the environment variable {VARIABLE} is not set"),
        ("postgresql://reader:wrong-{p}@127.0.0.1:{port}/postgres", "the server refuses the user"),
        ("postgresql://nobody:{p}@127.0.0.1:{port}/postgres", "the server refuses the user"),
        ("postgresql://reader:{p}@127.0.0.1:{port}/nothing", "the server has no such database"),
        ("postgresql://reader:{p}@127.0.0.1:1/postgres", "no server answers"),
        ("postgresql://reader:{p}@no-such-host.invalid/postgres", "no server answers"),
        ("postgresql://reader:x@{p}@127.0.0.1/postgres", "no server answers"),
        ("postgresql://reader:%{p}@127.0.0.1/postgres", "must be a URI that psql understands"),
        ("{p}", "must be a URI that psql understands"),
        ("postgresql://reader:{p}@127.0.0.1:{port}/postgres", "permission denied for table feedback; correct `table`"),
    ],
)
def test_no_connection_is_one_line_without_the_password(desk: Desk, monkeypatch, uri: str | None, said: str):
    desk.server.sql("DROP ROLE IF EXISTS reader", f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    if uri is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, uri.format(p=PASSWORD, port=desk.server.port))
    with pytest.raises(FeedbackError, match=said) as told:
        desk.run()
    assert PASSWORD not in str(told.value)
    assert "\n" not in str(told.value)


def test_without_the_driver_it_says_what_to_install(desk: Desk, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_postgresql", None)
    with pytest.raises(FeedbackError, match=r"the driver for Postgres is missing; pip install"):
        desk.run()


def test_a_record_of_a_landing_that_was_changed_is_refused(desk: Desk):
    desk.add((1, "1"))
    desk.run()
    path = desk.project().store.path("landings/db/0000000001.json")
    path.write_text(path.read_text().replace('"rows":1', '"rows":2'))
    with pytest.raises(FeedbackError, match="this record of a landing was changed"):
        desk.run()


def test_the_mapping_can_change_though_the_rows_are_gone(desk: Desk):
    desk.add((1, "1"))
    desk.run()
    desk.server.sql("DELETE FROM feedback")
    desk.source["columns"] = {**COLUMNS, "language": "'en'"}
    commit = desk.run()
    assert rows(desk.project(), commit).collect()["language"].to_list() == ["en"]
