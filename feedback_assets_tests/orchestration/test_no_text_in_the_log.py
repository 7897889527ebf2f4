"""What people wrote is in the store's text and in the release, and nowhere a log, an error or a terminal shows it.

Marker texts stand wherever a source can hold text; then the real job runs, and each of its ways to fail, and every byte
of the Dagster home and of what was printed is searched.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from feedback_assets.cli.main import main
from feedback_assets.orchestration import assets
from feedback_assets.sources.quarantine import EXCERPT
from feedback_assets_tests.every_byte import texts

KEY = "FEEDBACK_TEST_KEY"
RUN = re.compile(rb"(?:Zq[a-z]+\d{4})+")
COLUMNS: dict[str, Any] = {
    "feedback_id": "id",
    "kind": "'preference'",
    "prompt": "p",
    "response_a": "a",
    "response_b": "b",
    "label": "w",
    "category": "topic",
    "annotator_id": "rater",
    "collected_at": "at",
    "confidence": "sure",
}
LOST = ("headerless.csv", "torn.json", "torn.parquet", "torn.xlsx", "types.parquet", "old.jsonl")


def mark(place: str) -> str:
    """200 characters and more that stand nowhere else."""
    return "".join(f"Zq{place}{number:04d}" for number in range(200 // (len(place) + 6) + 1))


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "p": f"{mark('prompt')} {number}",
        "a": f"{mark('chosen')} {number}",
        "b": f"{mark('rejected')} {number}",
        "w": "ab"[number % 2],
        "topic": mark("topic") if number % 5 == 0 else "chat",
        "rater": f"{mark('rater')}{number % 7}",
        "at": "2024-01-02T00:00:00Z",
        "sure": 0.5,
        "email": mark("email"),
        "nested": {mark("key"): mark("nested")},
        **more,
    }


def lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in records).encode()


def write_batches(folder: Path) -> None:
    folder.mkdir()
    good = [record(number) for number in range(40)]
    bad = [
        record(50, w=mark("label")),
        record(51, at=mark("time")),
        record(52, at="2099-01-01T00:00:00Z", id=mark("future")),
        record(53, sure=mark("sure")),
        record(54, id=mark("same")),
        record(55, id=mark("same")),
    ]
    malformed = [
        f'{{"p": "{mark("torn")}'.encode(),
        f'{{"p": "{mark("broken")}\xff"}}'.encode("latin-1"),
        f'{{"p": "{mark("twice")}", "p": "{mark("again")}"}}'.encode(),
    ]
    (folder / "good.jsonl").write_bytes(lines(*good))
    (folder / "mixed.jsonl").write_bytes(lines(record(60), *bad) + b"\n".join(malformed) + b"\n" + lines(record(61)))
    (folder / "headerless.csv").write_text(f"{mark('header')},{mark('second')}\n1,2\n")
    (folder / "torn.json").write_text(f'[{{"p": "{mark("document")}"}}, {mark("bare")}]')
    (folder / "torn.parquet").write_bytes(b"PAR1" + mark("parquet").encode())
    (folder / "torn.xlsx").write_bytes(mark("sheet").encode())
    (folder / "old.jsonl").write_bytes(lines({"id": "o", mark("column"): 1}))
    pl.DataFrame([record(70, w={mark("field"): 1})]).write_parquet(folder / "types.parquet")


class Team:
    """A project with markers, run by the real command line."""

    def __init__(self, folder: Path, excerpts: bool, call: Callable[..., str]) -> None:
        self.folder, self.call, self.printed = folder, call, b""
        write_batches(folder / "batches")
        source = {"name": "s", "path": "batches", "columns": COLUMNS}
        rule = {"id": "one-topic", "version": 1, "reason": "a test", "drop_when": "LENGTH(category) > 1000"}
        self.policy: dict[str, Any] = {
            "ingested": {
                "max_quarantined_share": 1,
                "excerpts": excerpts,
                "sources": [source],
                "lost_batches": [{"source": "s", "batch": name, "reason": "a test"} for name in LOST],
            },
            "filtered": {"rules": [rule]},
        }

    @property
    def source(self) -> dict[str, Any]:
        return self.policy["ingested"]["sources"][0]

    def say(self, *words: str) -> None:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(self.policy, sort_keys=False))
        self.printed += self.call(*words, "--policy", path).encode()

    def shown(self) -> dict[str, int]:
        """By marker the longest that the Dagster home or a terminal shows."""
        found: dict[str, int] = {}
        everything = [(Path("terminal"), self.printed), *texts(self.folder / "store" / "dagster")]
        assert sum(data[:16] == b"SQLite format 3\0" for _, data in everything) > 2
        for path, data in everything:
            for match in RUN.findall(data):
                name = f"{match[2:12].decode()} in {path.name}"
                found[name] = max(found.get(name, 0), len(match))
        return found


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def said(*words: object) -> str:
        monkeypatch.setenv("DAGSTER_HOME", "")
        monkeypatch.setattr(sys, "argv", ["feedback-assets", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit):
            main()
        out, err = capfd.readouterr()
        return out + err

    return said


@pytest.fixture(params=[True, False], ids=["excerpts", "no-excerpts"])
def team(request: pytest.FixtureRequest, tmp_path: Path, call: Callable[..., str]) -> Team:
    return Team(tmp_path, request.param, call)


def test_the_job_and_each_way_to_fail_show_no_text_but_short_excerpts(team: Team, monkeypatch: pytest.MonkeyPatch):
    team.say("run")
    assert b"release " in team.printed, team.printed.decode()
    team.say("quarantine", "--all")
    team.policy["filtered"]["rules"][0]["drop_when"] = "LENGTH(category) > 100"
    team.say("run")
    assert b"loss_by_group" in team.printed
    team.policy["ingested"]["max_quarantined_share"] = 0.01
    before = team.source["columns"]
    for key, expression in [
        ("label", "CAST(p AS INT)"),
        ("category", "nested.nothing"),
        ("score", "CAST(topic AS INT)"),
    ]:
        team.source["columns"] = {**before, key: expression}
        team.say("run")
    team.source["columns"] = before

    def breaks(*_: Any, **__: Any) -> Any:
        raise pl.exceptions.ComputeError(f"{mark('internal')} cannot be cast")

    monkeypatch.setattr(assets, "materialize", breaks)
    team.say("run")
    assert b"internal error" in team.printed
    shown = team.shown()
    if team.policy["ingested"]["excerpts"]:
        assert b"Zqlabel0000" in team.printed, "an excerpt is shown, or this test would search for nothing"
        assert max(shown.values()) <= EXCERPT, shown
    else:
        assert shown == {}


def test_what_moved_is_told_without_the_words_of_a_source_that_is_not_to_be_quoted(team: Team):
    """Category, task, language and origin: in sentences, tables and pictures, of all four comparisons."""
    said = {column: f"Zqtold{column[:4]}0000" for column in ("category", "task", "language", "origin_a")}
    for path in (team.folder / "batches").iterdir():
        path.unlink()
    del team.policy["ingested"]["lost_batches"]
    team.source["columns"] = {**COLUMNS, "task": "t", "language": "lang", "origin_a": "model", "origin_b": "model"}

    def week(number: int, often: int) -> None:
        told = [
            record(
                1000 * number + n,
                at=f"2024-01-0{number}T00:00:00Z",
                p=f"question {number} {n}",
                rater=f"rater {n % 50}",
                topic=said["category"] if n % 10 < often else "chat",
                t=said["task"] if n % 10 < often else "usual",
                lang=said["language"] if n % 10 < often else "en",
                model=said["origin_a"] if n % 10 < often else "human",
            )
            for n in range(600)
        ]
        (team.folder / "batches" / f"week{number}.jsonl").write_bytes(lines(*told))

    week(1, often=5)
    rule = {"id": "less-of-one", "version": 1, "reason": "a test"}
    team.policy["filtered"]["rules"] = [{**rule, "drop_when": "LENGTH(category) = 14 AND line % 10 <> 1"}]
    team.policy["monitoring"] = {"expect": {"language": {"en": 0.1, "(other)": 0.9}}, "gating": []}
    team.say("run")
    week(2, often=1)
    team.policy["filtered"]["rules"] = [{**rule, "drop_when": "prompt_chars > 100"}]
    team.say("run")
    store = team.folder / "store"
    moved = [
        entry["column"]
        for path in sorted((store / "commits").rglob("*.json"))
        for entry in _entries(json.loads(path.read_bytes()))
        if entry.get("because") and "=" in entry["because"]
    ]
    assert {"category", "task", "language", "origin"} <= set(moved), moved
    found = team.shown()
    assert (found == {}) is not team.policy["ingested"]["excerpts"], found


def _entries(commit: dict[str, Any]) -> list[dict[str, Any]]:
    told = commit["content"]
    previous = commit["circumstances"]["against_previous"] or {"columns": []}
    return [*told["drift"], *told["input"], *told["baseline"], *previous["columns"]]
