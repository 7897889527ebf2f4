"""The command line: `feedback-assets`. Exit 0: fine; 1: a check or the gate refuses; 2: usage or input error."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback_assets.errors import FeedbackError, Refused

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Human feedback becomes a training set with its provenance.",
)
Policy = Annotated[
    Path | None, typer.Option("--policy", help="The policy file. Default: the synthetic sample.", show_default=False)
]
Store = Annotated[
    Path | None, typer.Option("--store", help="The store. Default: `store` beside the policy.", show_default=False)
]
# From click, or from the copy of it that newer typers bring.
UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]


def main() -> None:
    """Entry point: a person sees one line, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except Refused as error:
        code = _say(str(error), 1)
    except FeedbackError as error:
        code = _say(str(error), 2)
    except typer.Exit as error:
        code = error.exit_code
    except UsageProblem as error:
        code = _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        code = _say("stopped; what was committed stays, and nothing half-written can be read", 130)
    except BrokenPipeError:
        code = 0
    except OSError as error:
        # What a store or a batch folder can do wrong: not writable, not a folder, full.
        code = _say(f"{error.filename or 'disk'}: {error.strerror or error}", 2)
    except Exception as error:
        said = str(error).splitlines() or [""]
        code = _say(f"internal error, please report it: {type(error).__name__}: {said[0]}", 2)
    sys.exit(code or 0)


def _usage(error: Any) -> int:
    message = error.format_message()
    if "\n" in message or not message:  # no command at all: the help, which typer may have printed already
        print(message, end="")
        return 2
    return _say(f"{message.rstrip('.')}; see `feedback-assets --help`", 2)


def _say(line: str, code: int) -> int:
    print(f"feedback-assets: {line}", file=sys.stderr)
    return code


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@app.command()
def run(policy: Policy = None, store: Store = None, as_json: Json = False) -> None:
    """Run the whole graph in this process, from the batches to a release."""
    from feedback_assets.cli import tables
    from feedback_assets.cli.project import is_sample, open_project

    with tables.progress(quiet=as_json) as listener:
        project = open_project(policy, store)
        from feedback_assets.orchestration.run import run as run_job

        ran = run_job(project, listener)
    if as_json:
        _print_json(tables.run_as_json(ran))
    else:
        tables.show_run(project, ran, sample=is_sample(project))
    if ran.release is None:
        more = f" (and {len(ran.problems) - 1} more)" if len(ran.problems) > 1 else ""
        line = f"no release: {ran.problems[0]}{more}" if ran.problems else "no release was made"
        raise Refused(line) if ran.refused else FeedbackError(line)


@app.command()
def ui(
    policy: Policy = None,
    store: Store = None,
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI on this project."""
    import os

    from feedback_assets.cli.project import POLICY, STORE, open_project
    from feedback_assets.orchestration.build import dagster_home

    project = open_project(policy, store)
    home = dagster_home(project)
    os.environ |= {POLICY: str(project.path), STORE: str(project.store.root), "DAGSTER_HOME": str(home)}
    print(
        f"policy  {project.path}\nstore   {project.store.root}\nUI      http://{host}:{port}   (Ctrl-C stops it)",
        flush=True,
    )
    command = [sys.executable, "-m", "dagster", "dev", "-m", "feedback_assets.definitions", "-p", str(port), "-h", host]
    os.chdir(project.folder)
    os.execv(sys.executable, command)  # noqa: S606


@app.command()
def releases(policy: Policy = None, store: Store = None, as_json: Json = False) -> None:
    """List the releases of a store, oldest first."""
    from feedback_assets.cli import tables
    from feedback_assets.cli.project import open_store
    from feedback_assets.provenance.release import listed, read

    opened = open_store(policy, store)
    entries = []
    for entry in listed(opened):
        content = read(opened, entry["id"]).content
        entries.append(
            {**entry, "records": content["annotations"]["records"], "examples": content["annotations"]["examples"]}
        )
    if as_json:
        _print_json(entries)
    else:
        tables.show_releases(opened, entries)


@app.command()
def questions(
    release: Annotated[
        str, typer.Argument(help="A release's id or its beginning, its number, `latest`, or a manifest file.")
    ],
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Answer the three questions before training, from the manifest alone."""
    from feedback_assets.cli import tables
    from feedback_assets.provenance.questions import questions as answer

    answered = answer(_release(release, policy, store))
    if as_json:
        _print_json(answered)
    else:
        tables.show_questions(answered)


@app.command()
def report(
    release: Annotated[
        str, typer.Argument(help="A release's id or its beginning, its number, `latest`, or a manifest file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write one page that a reviewer reads before training, from the manifest alone."""
    from feedback_assets.cli.report import write_report

    written = write_report(_release(release, policy, store), output)
    if as_json:
        _print_json(written)
    else:
        print(f"{written['report']}: {written['headline']}")


def _release(name: str, policy: Path | None, store: Path | None) -> Any:
    from feedback_assets.provenance.release import find
    from feedback_assets.snapshots.store import LocalStore

    if Path(name).suffix == ".json" or Path(name).is_file():
        return find(LocalStore(Path()), name)
    from feedback_assets.cli.project import open_store

    return find(open_store(policy, store), name)


@app.command()
def trace(
    feedback_id: Annotated[str, typer.Argument(help="An id of the source, a row_id, or BATCH_FILE:LINE.")],
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Follow one annotation, also one in quarantine, through every stage: fate, rule, version, weights, copies."""
    from feedback_assets.cli import tables
    from feedback_assets.cli.project import open_made
    from feedback_assets.provenance.trace import trace as follow

    traced = follow(open_made(policy, store), feedback_id)
    if as_json:
        _print_json(traced)
    else:
        tables.show_trace(traced)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A file of feedback in any known format.")],
    source_name: Annotated[
        str | None, typer.Option(help="Name of the source. Default: from the file's name.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose the policy section for an unknown file, and preview what it would make of it."""
    from feedback_assets.cli.inspect import inspected, show_inspected

    found = inspected(file, source_name)
    if as_json:
        _print_json(found)
    else:
        show_inspected(found)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write a starter folder for a team: a commented policy, a guideline, a README."""
    from feedback_assets.cli.starter import write_starter

    for path in write_starter(folder):
        print(path)
    print(f"\nNext: edit {folder / 'policy.yaml'}, then: feedback-assets run --policy {folder / 'policy.yaml'}")
