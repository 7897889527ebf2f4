"""The README's commands run, and print what it says."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BIN = Path(sys.executable).parent
FENCE = re.compile(r"```sh\n(?P<commands>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)
VENV = ".venv/bin/"
WRITE = "FEEDBACK_ASSETS_WRITE_README"


def blocks() -> list[tuple[list[str], str | None]]:
    """Each block of commands with the output that the README shows for it."""
    found = FENCE.finditer(README.read_text(encoding="utf-8"))
    return [(match["commands"].strip().splitlines(), match["output"]) for match in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def run(command: str, folder: Path) -> str:
    """Run what a reader would, from the environment that the tests run in; installing is what `.ci/run` does."""
    last = command.rsplit(" && ", maxsplit=1)[-1]
    words = [str(BIN / word[len(VENV) :]) if word.startswith(VENV) else word for word in shlex.split(last)]
    done = subprocess.run(words, check=False, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(text: str) -> str:
    """Without digests and times, which change with the code, and without trailing space."""
    text = re.sub(r"\b[0-9a-f]{12,64}\b", lambda match: "#" * len(match[0]), text)
    text = re.sub(r"\b\d+\.\d s\b", "# s", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_every_command_of_the_readme_runs_and_prints_what_the_readme_says(folder: Path) -> None:
    written = README.read_text(encoding="utf-8")
    for commands, shown in blocks():
        for command in commands:
            if command.endswith(("/pytest", "/feedback-assets ui")):
                continue  # this very run; and the next test
            printed = run(command, folder)
        if shown is None:
            continue
        if os.environ.get(WRITE):
            block = "\n".join(commands) + "\n```\n\n```text\n"
            lines = [line.rstrip() for line in printed.strip().splitlines()]
            written = written.replace(block + shown, block + "\n".join(lines) + "\n")
        else:
            assert plain(printed) == plain(shown), f"set {WRITE}=1 and run this test to write the README's output anew"
    if os.environ.get(WRITE):
        README.write_text(written, encoding="utf-8")


def test_the_ui_of_the_readme_answers(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(BIN / "feedback-assets"), "ui", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for _ in range(120):
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
                    assert b"dagster_webserver_version" in answer.read()
                    return
            except OSError:
                assert server.poll() is None, server.stdout.read().decode() if server.stdout else ""
        pytest.fail("the UI did not answer within a minute")
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
        if server.stdout:
            server.stdout.close()
