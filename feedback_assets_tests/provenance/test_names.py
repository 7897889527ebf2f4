"""Tags and approvals: what people say of a release afterwards."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from feedback_assets import open_store
from feedback_assets.errors import FeedbackError
from feedback_assets.provenance.log import append, logged
from feedback_assets.provenance.names import TAGS, approvals, approve, tag, tags
from feedback_assets.provenance.release import LOG, approved_release, folder
from feedback_assets.snapshots.store import LocalStore

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_a_tag_names_a_release_and_moves_only_when_told_to_with_its_history_kept(store: LocalStore) -> None:
    tag(store, ONE, "v1")
    tag(store, ONE, "v1")
    with pytest.raises(FeedbackError, match=r"the tag 'v1' names release 1{16}; `--move`"):
        tag(store, TWO, "v1")
    tag(store, TWO, "v1", move=True)
    tag(store, ONE, "good")
    assert tags(store) == {"v1": TWO, "good": ONE}
    assert [(entry["name"], entry["id"]) for entry in logged(store, TAGS)] == [("v1", ONE), ("v1", TWO), ("good", ONE)]


@pytest.mark.parametrize("name", ["latest", "approved", "7", "0123abcd", "a/b", "..", "", "x.json", "-m", "ü", "v1\n"])
def test_a_name_that_could_be_mistaken_is_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(FeedbackError, match="cannot be a tag"):
        tag(store, ONE, name)


def test_every_approval_stays_and_the_last_one_says_which_release_is_approved(store: LocalStore) -> None:
    for release_id in (ONE, TWO):
        append(store, LOG, {"id": release_id, "made_at": "", "run_id": ""})
    assert approved_release(store) is None
    for release_id, day in ((TWO, 1), (ONE, 3), (TWO, 2)):
        when = datetime(2026, 9, day, tzinfo=UTC)
        approve(store, folder(release_id), release_id, by="ines", note=f"day {day}", now=when)
    assert approved_release(store) == ONE
    assert [said["note"] for said in approvals(store, folder(TWO))] == ["day 1", "day 2"]
    with pytest.raises(FeedbackError, match="says who"):
        approve(store, folder(ONE), ONE, by=" ", note="fine")


def test_a_release_is_found_by_tag_number_id_and_its_beginning(sample: Path) -> None:
    opened = open_store(sample)
    found = opened.release("latest").id
    tag(opened.store, found, "v1")
    approve(opened.store, folder(found), found, by="ines", note="read the report")
    with pytest.raises(FeedbackError, match="no release ''"):  # an unset variable of a shell
        opened.release("")
    assert {opened.release(name).id for name in ("v1", "1", found, found[:5])} == {found}
    assert opened.releases().select("id", "tags", "approved").rows() == [(found, ["v1"], True)]
    approved = opened.approved()
    assert approved is not None
    assert approved.approvals[0]["by"] == "ines"
    with pytest.raises(FeedbackError, match="no release 'v2'"):
        opened.release("v2")
