"""`verify`, `erase` and `gc` on a store in S3: what they promise of a folder, over a wire that fails."""

from datetime import timedelta
from pathlib import Path

import pytest

from feedback_assets.cli.project import open_project
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.verify import MISSING, verify
from feedback_assets.snapshots.bucket import Bucket
from feedback_assets.snapshots.s3_store import S3Store
from feedback_assets.snapshots.snapshot import scan
from feedback_assets_tests.provenance.votes import Votes, vote
from feedback_assets_tests.s3_server import FAULTS, Server

PATIENCE = {"timeout": timedelta(seconds=0.18), "pause": timedelta(milliseconds=5)}


class Lifted:
    """A project whose store was put into a bucket as it is; each machine has a folder of its own."""

    def __init__(self, votes: Votes, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.place = f"s3://{server.bucket(folder.name.replace('_', '-')[:60])}/team one/store"
        self.machine("here", votes)
        for path in sorted((votes.folder / "store").rglob("*")):
            key = path.relative_to(votes.folder / "store").as_posix()
            if path.is_file() and not key.startswith(("tmp/", "dagster/")):
                self.put(key, path.read_bytes())

    def put(self, key: str, data: bytes) -> None:
        """Put an object as another program would."""
        self.server.put(f"{self.place.removeprefix('s3://')}/{key}", data)

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

    def impatient(self) -> S3Store:
        """The store as a new process opens it that soon gives up."""
        return S3Store(Bucket(self.place, **PATIENCE), self.folder / "impatient")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Votes:
    """Two releases, of one batch and of two. Not to be changed."""
    votes = Votes(tmp_path_factory.mktemp("votes") / "project")
    votes.put(
        "w1",
        vote("1", "anna-7781", "the-violet-door", note="the-copper-lake"),
        vote("2", "ben", "the-green-roof", "two"),
        vote("3", "anna-7781", "the-shared-well"),
        vote("4", "cleo", "the-shared-well", "two"),
    )
    votes.run()
    votes.put("w2", vote("1", "anna-7781", "the-violet-door, edited"), *(vote(f"b{n}", "ben", f"b{n}") for n in "123"))
    votes.run()
    return votes


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
    (part,) = (file.key for file in commit.snapshot.tables["fates"].parts[0].files)
    scan(project.store, commit.snapshot.tables["fates"]).collect()  # now a copy of it is here
    release = sorted(project.store.names("releases"))[0]
    found = verify(lifted.project().store, logical=True)
    assert found.damages == [] and found.objects > 40
    keys = [part, "commits/filtered/0000000001.json", f"releases/{release}/manifest.json"]
    keys += [f"releases/{release}/annotations.parquet", "releases/log/0000000002.json"]
    for key in keys:
        whole = project.store.bucket.get(key)
        lifted.put(key, flipped(whole))
        damaged = {damage.path for damage in verify(lifted.project().store).damages}
        lifted.put(key, whole)
        assert damaged == {key}
    lifted.server.remove(f"{lifted.place.removeprefix('s3://')}/{part}")
    (damage,) = verify(lifted.project().store, "latest").damages
    assert (damage.path, damage.found) == (part, MISSING)
    assert damage.what == "part" and damage.where.endswith("fates, part 0")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_verification_never_takes_a_bucket_that_does_not_answer_for_one_that_lost_something(
    lifted: Lifted, fault: str
):
    with lifted.server.watched():
        verify(lifted.project().store)
        requests = len(lifted.server.requests)
    # Single faults are overcome; the rest of them end it in one line.
    with lifted.server.failing(lambda asked: "refused" if asked.number % 9 == 0 else None):
        assert verify(lifted.project().store).damages == []
    for last in range(5, requests, requests // 4):
        with (
            lifted.server.failing(lambda asked, last=last: fault if asked.number > last else None),
            pytest.raises(FeedbackError, match="does not answer as it should") as caught,
        ):
            verify(lifted.impatient())
        assert "\n" not in str(caught.value)
