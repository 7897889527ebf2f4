"""A waiver speaks of one check, one outcome and one version, and of nothing after its last day."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from feedback_assets.checks.waivers import Waiver, waiver_of, way_out
from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.project import Project
from feedback_assets.pipeline import Policy

VERSION = "0123456789abcdef" * 4
TODAY = date(2026, 9, 1)
GIVEN = {
    "id": "app-closed",
    "stage": "filtered",
    "check": "loss_by_group",
    "data_version": VERSION[:12],
    "who": "dana",
    "why": "the app was closed",
    "until": date(2026, 9, 30),
}
SOURCE = {"name": "s", "path": "*.jsonl", "columns": {"kind": "'preference'", "task": "'t'", "prompt": "p"}}


def waiver(**other: object) -> Waiver:
    return Waiver.model_validate({**GIVEN, **other})


def result(name: str = "loss_by_group", status: str = "failed") -> dict[str, str]:
    return {"name": name, "status": status}


def lets_through(one: Waiver, stage="filtered", version=VERSION, check=None, today=TODAY) -> bool:
    return waiver_of([one], stage, version, check or result(), today) is one


def test_it_lets_through_that_outcome_of_that_check_on_that_version_and_nothing_else():
    assert lets_through(waiver())
    assert lets_through(waiver(data_version=VERSION))
    assert not lets_through(waiver(), stage="deduplicated")
    assert not lets_through(waiver(), version="f" * 64)
    assert not lets_through(waiver(data_version=VERSION[:12] + "f"))
    assert not lets_through(waiver(), check=result("conservation"))
    assert not lets_through(waiver(), check=result(status="error"))
    assert lets_through(waiver(status="error"), check=result(status="error"))
    assert not lets_through(waiver(status="error"))


@given(st.integers(-400, 400))
def test_it_is_in_force_up_to_and_on_its_last_day(days):
    assert lets_through(waiver(until=TODAY + timedelta(days)), today=TODAY) == (days >= 0)


def test_of_two_the_one_in_force_counts():
    old, new = waiver(id="old", until=date(2026, 8, 1)), waiver(id="new")
    assert waiver_of([old, new], "filtered", VERSION, result(), TODAY) is new


def test_the_way_out_is_a_waiver_that_would_let_it_through():
    said = way_out([], "filtered", VERSION, result(status="error"), TODAY)
    entry = said[said.index("{") :].replace("id: …", "id: x").replace("until: …", "until: 2026-09-30")
    assert lets_through(Waiver.model_validate(yaml.safe_load(entry)), check=result(status="error"))


def test_an_expired_one_is_named_with_its_owner_and_its_last_day():
    over = waiver(until=date(2026, 8, 31))
    said = way_out([over], "filtered", VERSION, result(), TODAY)
    assert said.startswith("the waiver app-closed by dana expired after 2026-08-31; mend it, or add ")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"stage": "filtred"}, "waivers.0: there is no stage 'filtred' to waive a check of; the stages: ingested, "),
        ({"check": "loss"}, "waivers.0: filtered has no check 'loss' under this policy; its checks: conservation, "),
        ({"data_version": VERSION[:11]}, "waivers.0.data_version: string should match pattern"),
        ({"data_version": "latest-of-all"}, "waivers.0.data_version: string should match pattern"),
        ({"status": "inconclusive"}, "waivers.0.status: input should be 'failed' or 'error'"),
        ({"who": " "}, "waivers.0.who: string should match pattern"),
        ({"until": None}, "waivers.0.until: expected a day, such as 2026-12-31"),
        ({"until": 20261231}, "waivers.0.until: expected a day, such as 2026-12-31"),
        ({"until": "some day"}, "waivers.0.until: expected a day, such as 2026-12-31"),
        ({"for": "ever"}, "waivers.0.for: unknown key"),
    ],
)
def test_what_is_wrong_with_one_is_said_with_file_line_and_key(tmp_path: Path, other, said):
    path = tmp_path / "policy.yaml"
    sections = yaml.safe_dump({"ingested": {"sources": [SOURCE]}})
    path.write_text(sections + "waivers:\n- " + yaml.safe_dump({**GIVEN, **other}).replace("\n", "\n  ").strip() + "\n")
    with pytest.raises(FeedbackError) as caught:
        Project.open(path, tmp_path / "store")
    message = str(caught.value)
    assert said in message
    assert len(message.splitlines()) == 1
    assert int(message.removeprefix(f"{path}:").split(":")[0]) > sections.count("\n") + 1


@pytest.mark.parametrize("missing", ["id", "stage", "check", "data_version", "who", "why", "until"])
def test_everything_but_the_outcome_must_be_said(missing):
    with pytest.raises(ValueError, match=missing):
        Waiver.model_validate({key: value for key, value in GIVEN.items() if key != missing})


def test_an_id_stands_once():
    with pytest.raises(ValueError, match="the id 'app-closed' stands twice"):
        Policy.model_validate({"ingested": {"sources": [SOURCE]}, "waivers": [GIVEN, GIVEN]})


def test_a_waiver_changes_no_code_version_and_nothing_of_the_policy_that_a_release_is_made_under():
    plain = Policy.model_validate({"ingested": {"sources": [SOURCE]}})
    waived = Policy.model_validate({"ingested": {"sources": [SOURCE]}, "waivers": [GIVEN]})
    assert len(waived.waivers) == 1
    assert waived.pinned() == plain.pinned()
