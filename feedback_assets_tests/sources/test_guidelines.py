import hashlib
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from feedback_assets.errors import FeedbackError
from feedback_assets.sources.guidelines import REGISTRY, GuidelinesSection, overlaps, read_guidelines

FIRST = {"task": "helpfulness", "version": "1.0.0", "effective_from": "2026-07-28", "effective_to": "2026-08-12"}
SECOND = {
    "task": "helpfulness",
    "version": "1.1.0",
    "effective_from": "2026-08-12",
    "supersedes": "1.0.0",
    "change": "clarifying",
}


def write(folder: Path, name: str, matter: dict[str, str], body: str = "# What to judge\n") -> Path:
    path = folder / name
    path.write_text("---\n" + "".join(f"{k}: {v}\n" for k, v in matter.items()) + "---\n\n" + body, encoding="utf-8")
    return path


def registry(folder: Path) -> pl.DataFrame:
    return read_guidelines(GuidelinesSection(path="*.md"), folder)


def error(folder: Path) -> str:
    with pytest.raises(FeedbackError) as raised:
        registry(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_version_is_one_row_with_its_interval_and_the_digest_of_its_file(tmp_path: Path):
    path = write(tmp_path, "b.md", SECOND | {"note": "ties explained"}, "# Judge\n\nText.\n")
    write(tmp_path, "a.md", FIRST)
    frame = registry(tmp_path)
    assert frame.schema == REGISTRY
    assert frame.row(1, named=True) == {
        "task": "helpfulness",
        "aspect": None,
        "version": "1.1.0",
        "major": 1,
        "minor": 1,
        "patch": 0,
        "effective_from": datetime(2026, 8, 12, tzinfo=UTC),
        "effective_to": None,
        "supersedes": "1.0.0",
        "change": "clarifying",
        "note": "ties explained",
        "file": "b.md",
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "text": "# Judge\n\nText.\n",
    }


def test_rows_are_sorted_by_task_aspect_date_and_number_whatever_the_file_names(tmp_path: Path):
    same_day = {"task": "t", "effective_from": "2026-01-01"}
    write(tmp_path, "1.md", same_day | {"version": "1.10.0"})
    write(tmp_path, "2.md", same_day | {"version": "1.9.0"})
    write(tmp_path, "3.md", same_day | {"version": "1.0.0", "aspect": "tone"})
    write(tmp_path, "4.md", {"task": "s", "version": "9.0.0", "effective_from": "2026-05-01"})
    rows = registry(tmp_path).select("task", "aspect", "version").rows()
    assert rows == [("s", None, "9.0.0"), ("t", None, "1.9.0"), ("t", None, "1.10.0"), ("t", "tone", "1.0.0")]


def test_without_a_path_the_registry_is_empty_and_has_its_columns(tmp_path: Path):
    frame = read_guidelines(GuidelinesSection(), tmp_path)
    assert frame.is_empty()
    assert frame.schema == REGISTRY


@pytest.mark.parametrize(
    "written",
    ["2026-08-12T09:00:00Z", "2026-08-12 09:00:00", "'2026-08-12T11:00:00+02:00'", "2026-08-12T11:00:00+02:00"],
)
def test_a_time_is_utc_unless_it_names_an_offset(tmp_path: Path, written: str):
    write(tmp_path, "a.md", {"task": "t", "version": "1.0.0", "effective_from": written})
    assert registry(tmp_path).get_column("effective_from").item() == datetime(2026, 8, 12, 9, tzinfo=UTC)


def test_line_endings_and_a_byte_order_mark_are_read(tmp_path: Path):
    content = "---\ntask: t\nversion: 1.0.0\neffective_from: 2026-01-01\n---\nBody\n"
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert registry(tmp_path).get_column("text").item() == "Body\n"


def test_a_rule_in_the_markdown_does_not_end_the_front_matter_early(tmp_path: Path):
    write(tmp_path, "a.md", FIRST, "One\n\n---\n\nTwo\n")
    assert registry(tmp_path).get_column("text").item() == "One\n\n---\n\nTwo\n"


def test_no_matching_file_is_an_error_that_names_the_pattern(tmp_path: Path):
    assert "'*.md'" in error(tmp_path)


def test_a_file_without_front_matter_is_refused(tmp_path: Path):
    (tmp_path / "a.md").write_text("# Judge\n", encoding="utf-8")
    assert "a.md:1: no front matter" in error(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"efective_to": "2026-09-01"}, "a.md:6: efective_to: unknown key; did you mean 'effective_to'?"),
        ({"colour": "red"}, "a.md:6: colour: unknown key; known: task, aspect, version"),
        ({"version": "1.0"}, "a.md:3: version: expected three numbers such as 1.2.0 (semver) (got '1.0')"),
        ({"version": "v1.0.0"}, "(got 'v1.0.0')"),
        ({"version": "1.02.0"}, "a.md:3: version: expected three numbers"),
        ({"effective_from": "12 August"}, "a.md:4: effective_from: expected a date such as 2026-08-12"),
        ({"effective_from": "20260812"}, "a.md:4: effective_from: expected a date"),
        ({"effective_from": "2026-02-31"}, "a.md"),
        ({"effective_to": "2026-07-28"}, "a.md:5: effective_to: must be after effective_from"),
        ({"effective_to": "2026-07-01"}, "a.md:5: effective_to: must be after effective_from"),
        ({"supersedes": "0.9.0"}, "a.md:6: supersedes: there is no version 0.9.0"),
        ({"change": "breaking"}, "a.md:6: change: says how this version differs"),
        ({"change": "tiny"}, "a.md:6: change: input should be 'clarifying' or 'breaking' (got 'tiny')"),
        ({"task": "''"}, "a.md:2: task: "),
        ({"note": "[unclosed"}, "not valid YAML"),
        ({"note": "x\ntask: again"}, "a.md:7: task: stands twice"),
    ],
)
def test_a_mistake_in_the_front_matter_names_file_line_and_key(tmp_path: Path, change: dict[str, str], expected: str):
    write(tmp_path, "a.md", FIRST | change)
    assert expected in error(tmp_path)


@pytest.mark.parametrize("key", ["task", "version", "effective_from"])
def test_a_required_key_that_is_missing_is_named(tmp_path: Path, key: str):
    write(tmp_path, "a.md", {k: v for k, v in FIRST.items() if k != key})
    assert f"{key}: this key is required and is missing" in error(tmp_path)


def test_the_same_version_twice_names_both_files(tmp_path: Path):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", FIRST)
    message = error(tmp_path)
    assert "b.md:3: version: 1.0.0" in message
    assert "a.md" in message


def test_the_same_version_of_another_aspect_is_another_guideline(tmp_path: Path):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", FIRST | {"aspect": "tone"})
    assert registry(tmp_path).height == 2


def test_superseding_a_version_of_another_task_is_refused(tmp_path: Path):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", SECOND | {"task": "safety"})
    assert "b.md:5: supersedes: there is no version 1.0.0 of this task and aspect; others there: none" in error(
        tmp_path
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": "2.0.0"}, "b.md:6: change: clarifying, yet 1.0.0 → 2.0.0 is a major change"),
        ({"change": "breaking"}, "b.md:6: change: breaking, yet 1.0.0 → 1.1.0 keeps the major number"),
        ({"version": "0.9.0"}, "b.md:5: supersedes: 0.9.0 is not higher than 1.0.0"),
        ({"supersedes": "1.1.0"}, "b.md:5: supersedes: 1.1.0 is not higher than 1.1.0"),
    ],
)
def test_a_change_must_fit_the_version_numbers(tmp_path: Path, change: dict[str, str], expected: str):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", SECOND | change)
    assert expected in error(tmp_path)


def test_a_breaking_change_is_a_new_major_number(tmp_path: Path):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", SECOND | {"version": "2.0.0", "change": "breaking"})
    assert registry(tmp_path).get_column("major").to_list() == [1, 2]


def test_intervals_that_touch_do_not_overlap(tmp_path: Path):
    write(tmp_path, "a.md", FIRST)
    write(tmp_path, "b.md", SECOND)
    assert overlaps(registry(tmp_path)).is_empty()


def test_two_versions_in_force_are_listed_with_the_time_they_share(tmp_path: Path):
    write(tmp_path, "a.md", FIRST | {"effective_to": "2026-08-20"})
    write(tmp_path, "b.md", SECOND)
    write(tmp_path, "c.md", FIRST | {"aspect": "tone"})
    assert overlaps(registry(tmp_path)).rows() == [
        ("helpfulness", None, "1.0.0", "1.1.0", datetime(2026, 8, 12, tzinfo=UTC), datetime(2026, 8, 20, tzinfo=UTC))
    ]
