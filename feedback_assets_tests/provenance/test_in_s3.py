"""`verify`, `erase` and `gc` on a store in S3: what they promise of a folder, over a wire that fails."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from feedback_assets.cli.project import open_project
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.materialize import materialize
from feedback_assets.materialize.project import Project
from feedback_assets.orchestration.run import run
from feedback_assets.pipeline import STAGES
from feedback_assets.provenance.erase import erase
from feedback_assets.provenance.gc import Keep, gc
from feedback_assets.provenance.names import tag
from feedback_assets.provenance.release import Release, annotations_of, find, listed, release
from feedback_assets.provenance.sought import Request
from feedback_assets.provenance.verify import MISSING, verify
from feedback_assets.snapshots.bucket import Bucket
from feedback_assets.snapshots.leases import live, writing
from feedback_assets.snapshots.s3_store import S3Store
from feedback_assets.snapshots.snapshot import scan
from feedback_assets.snapshots.store import OF_A_MACHINE
from feedback_assets_tests.provenance.votes import ANNAS, NOW, Votes, holding, holding_objects, vote
from feedback_assets_tests.s3_server import FAULTS, Server
from feedback_assets_tests.s3_server import Request as Asked

PATIENCE = {"timeout": timedelta(seconds=0.18), "pause": timedelta(milliseconds=5)}
LAST = Keep(number=1, grace=timedelta(0), unused=timedelta(0))
ANNA = ("anna-7781", "the-violet-door", "the-copper-lake")


class Lifted:
    """A project whose store was put into a bucket as it is; each machine has a folder of its own."""

    def __init__(self, votes: Votes, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.bucket = server.bucket(re.sub("[^a-z0-9]+", "-", folder.name)[-50:].strip("-"))
        self.place = f"s3://{self.bucket}/team one/store"
        self.machine("here", votes)
        for path in sorted((votes.folder / "store").rglob("*")):
            key = path.relative_to(votes.folder / "store").as_posix()
            if path.is_file() and not key.startswith(("tmp/", "dagster/")):
                self.put(key, path.read_bytes())

    def put(self, key: str, data: bytes) -> None:
        """Put an object of the store as another program would."""
        self.server.put(f"{self.place.removeprefix('s3://')}/{key}", data)

    def remove(self, key: str) -> None:
        """Remove an object of the store."""
        self.server.remove(f"{self.place.removeprefix('s3://')}/{key}")

    def machine(self, name: str, votes: Votes | None = None) -> Path:
        """The policy and the batches of the team on another machine."""
        to = self.folder / name
        source = self.folder / "here" if votes is None else votes.folder
        (to / "batches").mkdir(parents=True)
        (to / "policy.yaml").write_bytes((source / "policy.yaml").read_bytes())
        for path in (source / "batches").iterdir():
            (to / "batches" / path.name).write_bytes(path.read_bytes())
        return to

    def project(self, machine: str = "here") -> Project:
        """The project as a new process opens it."""
        return open_project(self.folder / machine / "policy.yaml", self.place)

    def impatient(self, machine: str = "here") -> Project:
        """The project as a new process opens it that soon gives up."""
        folder = self.folder / machine / ".feedback_assets" / "s3"
        return replace(self.project(machine), store=S3Store(Bucket(self.place, **PATIENCE), folder))

    def run(self) -> Release:
        """Make a release, without Dagster."""
        now = NOW + timedelta(days=10)
        for stage in STAGES[:-1]:
            materialize(self.project(), stage.name, run_id="after", now=now)
        _, made = release(self.project(), run_id="after", now=now)
        assert made is not None
        return made

    def objects(self) -> dict[str, bytes]:
        """Every object that lies in the bucket."""
        return self.server.objects(self.bucket)

    def holding(self, *texts: str) -> dict[str, list[str]]:
        """In which objects of the bucket each text stands."""
        return holding_objects(self.objects(), *texts)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Votes:
    """Two releases, of one batch and of two. Not to be changed."""
    votes = Votes(tmp_path_factory.mktemp("votes") / "project")
    votes.put(
        "w1",
        *ANNAS,
    )
    votes.run()
    votes.put("w2", vote("1", "anna-7781", "the-violet-door, edited"), *(vote(f"b{n}", "ben", f"b{n}") for n in "123"))
    votes.run()
    return votes


class Undisturbed(NamedTuple):
    """Requests of a verification, and the number of the one with which an erasure puts its tombstone."""

    verification: int
    tombstone: int


@pytest.fixture(scope="module")
def undisturbed(made: Votes, s3_running: Server, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    with pytest.MonkeyPatch.context() as environment:
        s3_running.name_in(environment)
        lifted = Lifted(made, s3_running, tmp_path_factory.mktemp("undisturbed"))
        with s3_running.watched():
            verify(lifted.project().store)
            verification = len(s3_running.requests)
        with s3_running.watched():
            erase(lifted.project(), Request(annotator="anna-7781"), do=True)
            (tombstone,) = (
                asked.number
                for asked in s3_running.requests
                if asked.method == "PUT" and asked.path.endswith("/erasures/0000000001.json")
            )
    return Undisturbed(verification, tombstone)


@pytest.fixture
def lifted(made: Votes, s3: Server, tmp_path: Path) -> Lifted:
    return Lifted(made, s3, tmp_path)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_flipped_byte_of_any_kind_of_object_in_the_bucket_is_found_and_named_though_a_copy_is_whole(lifted: Lifted):
    project = lifted.project()
    commit = project.commits.latest("filtered")
    assert commit is not None
    *_, part = (file.key for file in commit.snapshot.tables["fates"].parts[0].files)
    scan(project.store, commit.snapshot.tables["fates"]).collect()  # now a copy of it is here
    release = sorted(project.store.names("releases"))[0]
    found = verify(lifted.project().store, logical=True)
    assert found.damages == [] and found.objects > 40
    keys = [part, "commits/filtered/0000000001.json", f"releases/{release}/manifest.json"]
    keys += [f"releases/{release}/annotations/part-00000.parquet", "releases/log/0000000002.json"]
    for key in keys:
        whole = project.store.bucket.get(key)
        lifted.put(key, flipped(whole))
        damaged = {damage.path for damage in verify(lifted.project().store).damages}
        lifted.put(key, whole)
        assert damaged == {key}
    lifted.remove(part)
    (damage,) = verify(lifted.project().store, "latest").damages
    assert (damage.path, damage.found) == (part, MISSING)
    assert damage.what == "part" and damage.where.endswith("fates, part 0")


def test_a_verification_goes_on_where_single_requests_fail(lifted: Lifted):
    with lifted.server.failing(lambda asked: "refused" if asked.number % 9 == 0 else None):
        assert verify(lifted.project().store).damages == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_verification_never_takes_a_bucket_that_does_not_answer_for_one_that_lost_something(
    lifted: Lifted, undisturbed: Undisturbed, fault: str
):
    for last in range(5, undisturbed.verification, undisturbed.verification // 4):
        with (
            lifted.server.failing(lambda asked, last=last: fault if asked.number > last else None),
            pytest.raises(FeedbackError, match="does not answer as it should") as caught,
        ):
            verify(lifted.impatient().store)
        assert "\n" not in str(caught.value)


def test_no_byte_of_bucket_copies_or_dagster_home_holds_an_annotator_who_was_erased(lifted: Lifted):
    other = lifted.machine("other")
    for name in ("here", "other"):  # each has copies of what it read
        project = lifted.project(name)
        for table in project.commits.latest("ingested").snapshot.tables.values():
            scan(project.store, table).collect()
        annotations_of(project.store, find(project.store, "latest")).collect()
    assert set(lifted.holding(*ANNA)) == set(ANNA)
    assert set(holding(other / ".feedback_assets", *ANNA)) == set(ANNA)
    before = lifted.objects()

    planned = erase(lifted.project(), Request(annotator="anna-7781"), do=False)
    assert lifted.objects() == before
    assert planned.changes["texts"].rows == 3
    done = erase(lifted.project(), Request(annotator="anna-7781", reason="asked by mail"), do=True)
    assert (done.row_ids, done.releases) == (planned.row_ids, planned.releases)
    assert {kind: change.rows for kind, change in done.changes.items() if kind != "scratch files"} == {
        kind: change.rows for kind, change in planned.changes.items() if kind != "scratch files"
    }
    assert lifted.holding(*ANNA) == {}
    assert holding(lifted.folder / "here" / ".feedback_assets", *ANNA) == {}
    found = verify(lifted.project().store)
    assert found.damages == [] and found.erased

    after = lifted.run()
    assert lifted.holding(*ANNA) == {}
    assert verify(lifted.project().store, after.id).damages == []
    assert after.content["annotations"]["records"] == 5

    # A machine that was not at work meanwhile reads on, and its copies go.
    project = lifted.project("other")
    rows = scan(project.store, project.commits.latest("filtered").snapshot.tables["rows"]).collect()
    assert rows.filter(annotator_id="anna-7781").is_empty()
    assert holding(other / ".feedback_assets", *ANNA) == {}


def test_a_record_is_erased_by_its_id_and_the_rest_of_the_annotator_stays(lifted: Lifted):
    erase(lifted.project(), Request(record="1"), do=True)
    assert lifted.holding("the-violet-door", "the-copper-lake") == {}
    assert set(lifted.holding("anna-7781", "the-shared-well")) == {"anna-7781", "the-shared-well"}
    assert verify(lifted.project().store).damages == []
    assert erase(lifted.project(), Request(record="1"), do=True).changes == {}


@pytest.mark.parametrize(("fault", "after"), [*zip(FAULTS, (3, -1, -1, 3), strict=True)])
def test_an_erasure_that_loses_the_bucket_leaves_all_readable_and_ends_when_it_is_asked_again(
    lifted: Lifted, undisturbed: Undisturbed, fault: str, after: int
):
    """The network goes just before the tombstone is put, as it is, or a little after it."""
    request = Request(annotator="anna-7781")
    last = undisturbed.tombstone + after
    with (
        lifted.server.failing(lambda asked: fault if asked.number > last else None),
        pytest.raises(FeedbackError, match="does not answer as it should") as caught,
    ):
        erase(lifted.impatient(), request, do=True)
    assert "\n" not in str(caught.value)
    reader = lifted.project()
    for stage in ("ingested", "filtered", "training_set"):
        for table in reader.commits.latest(stage).snapshot.tables.values():
            scan(reader.store, table).collect()
    assert {damage.what for damage in verify(reader.store).damages} <= {"erasure", "annotations", "export"}
    erase(lifted.project(), request, do=True)
    assert lifted.holding(*ANNA) == {}
    assert verify(lifted.project().store).damages == []


def test_an_erasure_goes_on_where_single_requests_fail(lifted: Lifted):
    with lifted.server.failing(lambda asked: None if asked.number % 7 else FAULTS[asked.number // 7 % 2 * 3]):
        erase(lifted.project(), Request(annotator="anna-7781"), do=True)
    assert lifted.holding(*ANNA) == {}
    assert verify(lifted.project().store).damages == []


@pytest.mark.parametrize("suspended", [False, True])
def test_a_bucket_that_keeps_old_versions_is_refused_before_anything_is_taken_away(lifted: Lifted, *, suspended: bool):
    lifted.server.keep_versions(lifted.bucket, "Enabled")
    if suspended:  # what was put until then stays in a version of its own
        for key, data in lifted.objects().items():
            lifted.server.put(f"{lifted.bucket}/{key}", data)
        lifted.server.keep_versions(lifted.bucket, "Suspended")
    before = lifted.objects()
    with pytest.raises(
        FeedbackError, match=r"keeps old versions of what is deleted, such as .*, so the text"
    ) as caught:
        erase(lifted.project(), Request(annotator="anna-7781"), do=True)
    assert "\n" not in str(caught.value)
    left = {key: data for key, data in lifted.objects().items() if "/leases/" not in key}
    assert left.items() >= before.items()
    assert not [key for key in left if "/erasures/" in key]
    assert verify(lifted.project().store).damages == []


def test_garbage_goes_a_tagged_release_stays_and_what_is_left_is_whole(lifted: Lifted):
    line = json.dumps(vote("c1", "cleo", "the-last-gate"))
    (lifted.folder / "here" / "batches" / "w3").write_text(f"{line}\n")
    lifted.run()
    store = lifted.project().store
    first, second, third = (entry["id"] for entry in listed(store))
    tag(store, first, "stage-1")
    lifted.put("parts/00/0000.parquet", b"what a killed run left")
    assert gc(lifted.project().store, Keep(tags=("stage-1",)), do=True).keys == []  # all of it is young
    before = lifted.objects()
    keep = replace(LAST, tags=("stage-1",))
    sweep = gc(lifted.project().store, keep, do=False)
    assert lifted.objects() == before
    assert (sweep.kept, sweep.given_up) == ([first, third], [second])
    assert gc(lifted.project().store, keep, do=True).keys == sweep.keys
    gone = {f"team one/store/{key}" for key in sweep.keys if not key.startswith(OF_A_MACHINE)}
    assert "team one/store/parts/00/0000.parquet" in gone
    assert before.keys() - lifted.objects().keys() == gone
    for name in (first, third):
        assert verify(lifted.project().store, name).damages == []
    found = verify(lifted.project().store)
    assert found.damages == [] and found.collected
    assert gc(lifted.project().store, keep, do=True).keys == []
    assert not list((lifted.folder / "here" / ".feedback_assets").rglob("0000.parquet"))
    assert lifted.run().id == third


@pytest.mark.parametrize("fault", FAULTS)
def test_a_collection_that_loses_the_bucket_leaves_the_store_right_and_ends_when_it_is_asked_again(
    made: Votes, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    monkeypatch.setattr("feedback_assets.provenance.gc.AT_A_TIME", 5)
    lifted = Lifted(made, s3, tmp_path / f"lost-{fault}")
    deleted = 0

    def fails(asked: Asked) -> str | None:
        nonlocal deleted
        deleted += asked.method == "POST"
        return fault if deleted > 2 else None

    with s3.failing(fails), pytest.raises(FeedbackError, match="does not answer as it should") as caught:
        gc(lifted.impatient().store, LAST, do=True)
    assert "\n" not in str(caught.value)
    assert verify(lifted.project().store).damages == []
    left = gc(lifted.project().store, LAST, do=False).keys
    assert left
    gc(lifted.project().store, LAST, do=True)
    assert verify(lifted.project().store).damages == []
    assert gc(lifted.project().store, LAST, do=False).keys == []


def test_nothing_is_collected_or_erased_while_a_run_on_another_machine_writes(lifted: Lifted):
    project, other = lifted.project(), lifted.machine("other")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom feedback_assets.snapshots.store import store_at\n"
        "from feedback_assets.snapshots.leases import writing\n"
        "with writing(store_at(sys.argv[1], Path(sys.argv[2])), 'a run'):\n    print('in', flush=True)\n    input()\n"
    )
    command = [sys.executable, "-c", program, lifted.place, str(other)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "in\n"
        line = f"a run is at work there .process {writer.pid}"
        with pytest.raises(FeedbackError, match=line):
            gc(project.store, LAST, do=True)
        with pytest.raises(FeedbackError, match=line):
            erase(project, Request(annotator="anna-7781"), do=True)
        writer.communicate("\n")
    assert live(project.store) == []
    assert gc(project.store, LAST, do=True).done
    assert [key for key in lifted.objects() if "/leases/" in key] == []


def test_what_a_process_saw_before_a_collection_elsewhere_counts_no_more_when_it_writes(lifted: Lifted):
    writer = lifted.project("here")
    snapshot = writer.commits.latest("filtered").snapshot
    assert writer.store.holds(file.key for file in snapshot.files)
    lifted.machine("other")
    for file in snapshot.files:
        lifted.project("other").store.delete(file.key)
    with writing(writer.store, "a run"):
        assert not any(writer.store.exists(file.key) for file in snapshot.files)


def test_batches_of_the_team_that_lie_in_a_bucket_are_named_and_stay(made: Votes, s3: Server, tmp_path: Path):
    votes, bucket = made.copy(tmp_path / "project"), s3.bucket("batches-of-votes")
    for path in (votes.folder / "batches").iterdir():
        s3.put(f"{bucket}/in/{path.name}", path.read_bytes())
    policy = votes.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("batches/*", f"s3://{bucket}/in/*"))
    plan = erase(votes.project, Request(annotator="anna-7781"), do=True)
    assert plan.sources == [f"s3://{bucket}/in/w1", f"s3://{bucket}/in/w2"]
    assert holding(votes.folder / "store", *ANNA) == {}
    assert sorted(s3.objects(bucket)) == ["in/w1", "in/w2"]


def test_the_dagster_home_of_a_run_holds_nothing_of_them_either(lifted: Lifted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    assert run(lifted.project()).release is not None
    here = lifted.project().store.here.root
    assert (here / "dagster").is_dir()
    erase(lifted.project(), Request(annotator="anna-7781"), do=True)
    assert run(lifted.project()).release is not None
    assert holding(here, *ANNA) == {} == lifted.holding(*ANNA)
