"""The report of a release: what a reviewer reads, from the manifest and nothing else."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import html5lib
import pytest

from feedback_assets.digests import digest
from feedback_assets.materialize.commit import HOLDS_BACK
from feedback_assets.provenance.questions import questions
from feedback_assets.provenance.release import Release, find, folder
from feedback_assets.provenance.report import report
from feedback_assets.snapshots.store import LocalStore

HTML = "{http://www.w3.org/1999/xhtml}"
MAIN = "from feedback_assets.cli.main import main; main()"
HOSTILE = "<script>alert('x')</script>&\"{{ 7*7 }}"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def made(sample_run: Path) -> Release:
    return find(LocalStore(sample_run / "store"), "latest")


def changed(release: Release, change: Callable[[Content], None]) -> Release:
    """The release as it would be with other content."""
    content = copy.deepcopy(dict(release.content))
    change(content)
    return Release(digest(content), content, release.circumstances)


def parsed(page: str) -> ElementTree.Element:
    """The page, read by a parser that refuses what a browser would only mend."""
    return html5lib.HTMLParser(strict=True).parse(page)


def said(page: str) -> str:
    """What a person reads: the text, with its spaces made one."""
    body = parsed(page).find(f"{HTML}body")
    assert body is not None
    return re.sub(r"\s+", " ", "".join(body.itertext()))


def fail(content: Content, asset: str, name: str, meaning: str) -> None:
    check = next(check for check in content["commits"][asset]["checks"] if check["name"] == name)
    check |= {"status": "failed", "passed": False, "meaning": meaning}


def test_it_answers_the_three_questions_with_the_numbers_of_the_manifest(made: Release) -> None:
    text = said(report(made))
    answers = questions(made)
    assert f"{answers['annotations']['records']:,} records · {answers['annotations']['examples']:,} examples" in text
    for entry in answers["annotations"]["by_guideline"]:
        assert f"{entry['records']:,}{entry['task']} {entry['guideline'] or 'unknown'}" in text.replace("\n", "")
        assert f"{entry['status']}: {entry['meaning']}" in text
    for stage in answers["transformations"]["stages"]:
        assert f"{stage['rows_in']:,} → {stage['rows_out']:,}" in text
        for rule in stage["pinned"]:
            assert f"{rule['id']} v{rule['version']} {rule['content_digest'][:8]}" in text
    held = [entry for entry in made.content["commits"]["training_set"]["baseline"] if entry["verdict"] == "stable"]
    assert f"matches in {len(held)} columns" in text
    for question in ("annotations", "transformations", "distribution"):
        for sentence in answers[question]["incomplete"]:
            assert f"Not answered: {sentence}" in text


def test_each_failed_check_is_said_on_top_and_at_its_stage(made: Release) -> None:
    failed = [check for commit in made.content["commits"].values() for check in commit["checks"]]
    failed = [check for check in failed if check["status"] in HOLDS_BACK]
    assert failed
    meanings = [check["meaning"].replace("`", "") for check in failed]
    text = said(report(made))
    assert text.index("to read before training") < text.index(meanings[0]) < text.index("1. Which annotations")
    assert all(text.count(meaning) == 3 for meaning in meanings)


def test_what_a_sentence_quotes_is_code_and_nothing_else(made: Release) -> None:
    meaning = "`<b>category</b>=coding` went; `one tick"
    page = report(changed(made, lambda content: fail(content, "filtered", "drift", meaning)))
    assert "<code>&lt;b&gt;category&lt;/b&gt;=coding</code> went; `one tick" in page


def waiver(stage: str, meaning: str) -> dict[str, str]:
    return {
        "id": "app-closed",
        "stage": stage,
        "check": "loss_by_group",
        "data_version": "0" * 64,
        "status": "failed",
        "who": "dana",
        "why": "the app was closed",
        "until": "2026-12-31",
        "meaning": meaning,
    }


def test_a_blocking_check_that_failed_stops_and_a_waiver_lets_it_pass_visibly(made: Release) -> None:
    meaning = "source=app lost 150 of 150 rows"
    stopped = changed(made, lambda content: fail(content, "filtered", "loss_by_group", meaning))
    assert "Do not train on this release as it stands" in said(report(stopped))
    assert f"stop filtered, loss_by_group: {meaning}" in said(report(stopped))

    def waive(content: Content) -> None:
        fail(content, "filtered", "loss_by_group", meaning)
        content["waivers"] = [waiver("filtered", meaning)]

    text = said(report(changed(made, waive)))
    assert "Do not train" not in text
    assert f"waived filtered, loss_by_group: {meaning} (by dana until 2026-12-31: the app was closed)" in text
    assert "opened with 1 waiver" in text
    assert "whodana" in text
    assert "the app was closed" in text


def test_a_column_that_is_not_as_expected_is_said_once(made: Release) -> None:
    def move(content: Content) -> None:
        fail(content, "training_set", "baseline__language", "The PSI of language against the baseline is 0.41.")
        entries = content["commits"]["training_set"]["baseline"]
        next(entry for entry in entries if entry["column"] == "language").update(verdict="moved", psi=0.41)

    text = said(report(changed(made, move)))
    assert "stop training_set, baseline__language: The PSI of language against the baseline is 0.41." in text
    assert "does not match" in text
    assert "though no check holds it" not in text


def test_a_waiver_for_another_stage_lets_nothing_pass(made: Release) -> None:
    def waive(content: Content) -> None:
        fail(content, "filtered", "loss_by_group", "source=app lost all")
        content["waivers"] = [waiver("deduplicated", "source=app lost all")]

    assert "Do not train on this release as it stands" in said(report(changed(made, waive)))


def test_it_loads_nothing_and_runs_nothing(made: Release) -> None:
    page = report(made)
    for element in parsed(page).iter():
        assert element.tag not in (f"{HTML}script", f"{HTML}link", f"{HTML}iframe", f"{HTML}img")
        for name, value in element.attrib.items():
            assert not str(name).startswith("on")
            if str(name).endswith(("href", "src")):
                assert value.startswith("#")
                assert f'id="{value[1:]}"' in page, value
    assert "@import" not in page
    assert "url(" not in page


def test_whatever_people_called_their_groups_and_rules_is_text(made: Release) -> None:
    def rename(content: Content) -> None:
        content["project"] = HOSTILE
        content["guidelines"][0]["text"] = HOSTILE
        for entry in content["transformations"]:
            for rule in entry["pinned"]:
                rule["reason"] = HOSTILE
        for commit in content["commits"].values():
            for loss in commit["losses"]:
                loss["value"] = HOSTILE
            for drift in commit["drift"]:
                for cell in drift.get("cells", []):
                    cell["cell"] = HOSTILE
            for check in commit["checks"]:
                check["meaning"] = HOSTILE
        distribution = content["distribution"]["category"]
        distribution["shares"] = {HOSTILE: 0.5, "\x00 and \x1b": 0.5}

    page = report(changed(made, rename))
    assert "<script" not in page
    assert "{{ 7*7 }}" in page
    assert HOSTILE in said(page)


def test_every_picture_in_it_is_well_formed(made: Release) -> None:
    pictures = re.findall(r"<svg.*?</svg>", report(made), flags=re.DOTALL)
    assert len(pictures) > 10
    for picture in pictures:
        for element in ElementTree.fromstring(picture).iter():
            assert not any("nan" in value for value in element.attrib.values())


def test_the_headings_are_in_order_and_tables_can_be_reached_by_keyboard(made: Release) -> None:
    levels = [1]
    for element in parsed(report(made)).iter():
        found = re.fullmatch(rf"{re.escape(HTML)}h([1-6])", str(element.tag))
        if found:
            assert int(found[1]) <= levels[-1] + 1
            levels.append(int(found[1]))
        if element.attrib.get("class") == "scroll":
            assert element.attrib["tabindex"] == "0"
            assert element.attrib["aria-label"]
    assert levels.count(1) == 2


def test_the_manifest_alone_is_enough_and_gives_the_same_bytes_anywhere(
    made: Release, sample_run: Path, tmp_path: Path
) -> None:
    manifest = sample_run / "store" / folder(made.id) / "manifest.json"
    (tmp_path / "manifest.json").write_bytes(manifest.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "report", "manifest.json", "-o", "page.html"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "DAGSTER_HOME": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("page.html: Released; ")
    beside = manifest.with_name("report.html")
    assert (tmp_path / "page.html").read_bytes() == beside.read_bytes() == report(made).encode()


def test_what_other_comparisons_found_is_shown_when_it_is_there(made: Release) -> None:
    def leave(content: Content) -> None:
        content["commits"]["ingested"]["input"] = []

    assert "Drift over batches" not in said(report(changed(made, leave)))

    def compare(content: Content) -> None:
        moved = next(drift for drift in content["commits"]["reweighted"]["drift"] if drift.get("cells"))
        because = "outcome: tie went from 11.2 % to 5.8 %"
        content["commits"]["ingested"]["input"] = [{**moved, "source": "arena", "batch": "w34", "because": because}]

    text = said(report(changed(made, compare)))
    assert "Drift over batches" in text
    assert "arena/w34" in text
    assert "outcome: tie went from 11.2 % to 5.8 %" in text


def test_a_release_of_which_nothing_was_expected_says_so(made: Release) -> None:
    def forget(content: Content) -> None:
        content["policy"]["monitoring"]["expect"] = {}
        content["expected"] = {}
        content["commits"]["training_set"]["baseline"] = []

    text = said(report(changed(made, forget)))
    assert "nothing was expected" in text
    assert "The policy expects no distribution" in text


def test_who_approved_it_is_on_top(made: Release) -> None:
    text = said(report(made, [{"by": "dana", "at": "2026-11-25", "note": "read in full"}]))
    assert "approved by dana, 2026-11-25: read in full" in text
