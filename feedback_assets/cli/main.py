"""The command line: `feedback-assets`. Exit 0: fine; 1: a check or the gate refuses; 2: usage or input error."""

import json
import re
import sys
from collections.abc import Callable
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
    str | None,
    typer.Option(
        "--store",
        help="The store: a folder or s3://bucket/prefix. Default: `store` beside the policy.",
        show_default=False,
    ),
]
Release = Annotated[
    str, typer.Argument(help="A release's id or its beginning, its number, its tag, `latest`, or a manifest file.")
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
        part = re.search(r"\S*parts/\w\w/\w{64}\.parquet", str(error))
        if part is not None:
            code = _say(
                f"{part[0]}: this part is gone; of a release `--release` tells what lies beside its manifest", 2
            )
        else:
            code = _say(f"{error.filename or 'disk'}: {error.strerror or error}", 2)
    except Exception as error:
        from feedback_assets.sources.files import first_line

        code = _say(f"internal error, please report it: {type(error).__name__}: {first_line(error)}", 2)
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


def _tell(found: Any, show: Callable[[Any], None], *, as_json: bool) -> None:
    (_print_json if as_json else show)(found)


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
    os.environ |= {POLICY: str(project.path), STORE: project.store.place, "DAGSTER_HOME": str(home)}
    print(
        f"policy  {project.path}\nstore   {project.store.place}\nUI      http://{host}:{port}   (Ctrl-C stops it)",
        flush=True,
    )
    command = [sys.executable, "-m", "dagster", "dev", "-m", "feedback_assets.definitions", "-p", str(port), "-h", host]
    os.chdir(project.folder)
    os.execv(sys.executable, command)  # noqa: S606


@app.command()
def releases(policy: Policy = None, store: Store = None, as_json: Json = False) -> None:
    """List the releases of a store, oldest first, with their tags and who approved them."""
    from feedback_assets.cli import tables
    from feedback_assets.cli.project import open_store
    from feedback_assets.provenance.collected import collected, given_up
    from feedback_assets.provenance.erase import erased_releases
    from feedback_assets.provenance.names import approvals, tags
    from feedback_assets.provenance.release import folder, listed, read

    opened = open_store(policy, store)
    names, known = tags(opened), listed(opened)
    entries = []
    erased, gone = erased_releases(opened), given_up(collected(opened), known)
    for entry in known:
        told = read(opened, entry["id"]).content["annotations"]
        said = {
            "tags": sorted(name for name, release_id in names.items() if release_id == entry["id"]),
            "approvals": approvals(opened, folder(entry["id"])),
            "erased": erased.get(entry["id"]),
            "collected": gone.get(entry["id"]),
        }
        entries.append({**entry, "records": told["records"], "examples": told["examples"], **said})
    if as_json:
        _print_json(entries)
    else:
        tables.show_releases(opened, entries)


@app.command()
def questions(release: Release, policy: Policy = None, store: Store = None, as_json: Json = False) -> None:
    """Answer the three questions before training, from the manifest alone; exit 1 where an answer is incomplete."""
    from feedback_assets.cli import tables
    from feedback_assets.provenance.names import approvals
    from feedback_assets.provenance.questions import questions as answer
    from feedback_assets.provenance.release import folder

    opened, found = _release(release, policy, store)
    said = approvals(opened, folder(found.id)) if opened else []
    answered = {**answer(found), "approvals": said}
    _tell(answered, tables.show_questions, as_json=as_json)
    if not answered["complete"]:
        raise typer.Exit(1)


@app.command()
def report(
    release: Release,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write one page that a reviewer reads before training, from the manifest and the approvals beside it."""
    from feedback_assets.cli.report import write_report
    from feedback_assets.provenance.names import approvals
    from feedback_assets.provenance.release import folder

    opened, found = _release(release, policy, store)
    written = write_report(found, output, approvals(opened, folder(found.id)) if opened is not None else ())
    if as_json:
        _print_json(written)
    else:
        print(f"{written['report']}: {written['headline']}")


def _release(name: str, policy: Path | None, store: str | None) -> tuple[Any, Any]:
    """The store (None for a manifest file) and the release."""
    from feedback_assets.provenance.release import find
    from feedback_assets.snapshots.store import LocalStore

    if Path(name).suffix == ".json" or Path(name).is_file():
        return None, find(LocalStore(Path()), name)
    from feedback_assets.cli.project import open_store

    opened = open_store(policy, store)
    return opened, find(opened, name)


def _stored(name: str, policy: Path | None, store: str | None) -> tuple[Any, Any]:
    """The store and a release that lies in it."""
    from feedback_assets.cli.project import open_store
    from feedback_assets.provenance.release import find, folder

    opened = open_store(policy, store)
    found = find(opened, name)
    if not opened.exists(f"{folder(found.id)}/manifest.json"):
        raise FeedbackError(f"{name}: release {found.id[:16]} is not in {opened.place}; name its store with --store")
    return opened, found


@app.command()
def trace(
    feedback_id: Annotated[
        str | None, typer.Argument(help="An id of the source, a row_id, or BATCH_FILE:LINE.", show_default=False)
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="Look in this release: id, number, tag or `latest`.", show_default=False)
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Look in every release.")] = False,
    example: Annotated[
        int | None,
        typer.Option(help="With --release: from this training example, counted from 0.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="With --example: the split.")] = "train",
    export: Annotated[
        str | None, typer.Option(help="With --example: the export. Default: the first.", show_default=False)
    ] = None,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Follow one annotation, also one in quarantine, through every stage; or a training example back to it.

    Without --release it is followed through the latest materializations.
    """
    from feedback_assets.cli import tables
    from feedback_assets.cli.project import open_made, open_store

    if (feedback_id is None) == (example is None) or (example is not None and release is None):
        raise FeedbackError("trace takes an id, or --release and --example; see `feedback-assets trace --help`")
    if everywhere and release is not None:
        raise FeedbackError("trace takes --release or --all, not both")
    if example is not None:
        from feedback_assets.provenance.trace_release import trace_example

        traced = trace_example(*_stored(str(release), policy, store), example, export=export, split=split)
        _tell(traced, tables.show_example, as_json=as_json)
    elif release is not None:
        from feedback_assets.provenance.trace_release import trace_release

        _tell(trace_release(*_stored(release, policy, store), str(feedback_id)), tables.show_trace, as_json=as_json)
    elif everywhere:
        from feedback_assets.provenance.trace_release import trace_everywhere

        _tell(trace_everywhere(open_store(policy, store), str(feedback_id)), tables.show_traces, as_json=as_json)
    else:
        from feedback_assets.provenance.trace import trace as follow

        _tell(follow(open_made(policy, store), str(feedback_id)), tables.show_trace, as_json=as_json)


@app.command()
def tag(
    release: Release,
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    move: Annotated[bool, typer.Option("--move", help="Let a tag of another release name this one.")] = False,
    policy: Policy = None,
    store: Store = None,
) -> None:
    """Give a release a name, which every command takes."""
    from feedback_assets.provenance.names import tag as give

    opened, found = _stored(release, policy, store)
    give(opened, found.id, name, move=move)
    print(f"{name} names release {found.id[:16]}")


@app.command()
def approve(
    release: Release,
    by: Annotated[str, typer.Option(help="Who approves.")],
    note: Annotated[str, typer.Option(help="What was looked at, and why it is good.")],
    policy: Policy = None,
    store: Store = None,
) -> None:
    """Record beside a release that someone approved it; shown by `releases`, `questions` and the UI."""
    from feedback_assets.provenance.names import approve as record
    from feedback_assets.provenance.release import folder

    opened, found = _stored(release, policy, store)
    said = record(opened, folder(found.id), found.id, by=by, note=note)
    print(f"release {found.id[:16]} approved by {said['by']} at {said['at']}")
    from feedback_assets.orchestration.after_release import observe_approval

    _tell_dagster(lambda project: observe_approval(project, said), policy, store)


def _tell_dagster(tell: Callable[[Any], None], policy: Path | None, store: str | None) -> None:
    """What is recorded in the store stands, also where there is no policy any more to open Dagster with."""
    from feedback_assets.cli.project import open_made

    try:
        tell(open_made(policy, store))
    except FeedbackError as error:
        print(f"feedback-assets: recorded, but Dagster was not told: {error}", file=sys.stderr)


@app.command()
def attest(release: Release, policy: Policy = None, store: Store = None) -> None:
    """Print a release's manifest as an in-toto Statement in a DSSE envelope.

    It is signed if FEEDBACK_ASSETS_SIGNING_KEY holds an Ed25519 private key (PEM, or the path of one), and then also
    lies beside the manifest.
    """
    from feedback_assets.provenance.release import folder
    from feedback_assets.provenance.signature import attest as envelope

    opened, found = _stored(release, policy, store)
    made, signed = envelope(opened, folder(found.id))
    _print_json(made)
    if not signed:
        print("feedback-assets: not signed; FEEDBACK_ASSETS_SIGNING_KEY names no key", file=sys.stderr)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a release's manifest; it ships as feedback_assets/provenance/manifest.schema.json."""
    from importlib.resources import files

    print(files("feedback_assets.provenance").joinpath("manifest.schema.json").read_text(encoding="utf-8"), end="")


@app.command()
def record_training_run(
    release: Annotated[str, typer.Option(help="What the model was trained on: id, number, tag or `latest`.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    parent: Annotated[str | None, typer.Option(help="The model that training began with.", show_default=False)] = None,
    export: Annotated[
        str | None, typer.Option(help="The export that was read. Default: all of them.", show_default=False)
    ] = None,
    dropped_ids: Annotated[
        Path | None, typer.Option(help="A file of row_ids, one a line, that the trainer dropped.", show_default=False)
    ] = None,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Report that a model was trained on a release, so that its node in Dagster's lineage leads back to annotations."""
    from feedback_assets.orchestration.after_release import report_training_run
    from feedback_assets.provenance.training_run import record_training_run as record

    opened, found = _stored(release, policy, store)
    commit = record(opened, found, model, parent=parent, export=export, dropped=dropped_ids)
    _tell_dagster(lambda project: report_training_run(project, commit), policy, store)
    keys = ("model", "parent", "release", "exports", "rows_in", "rows_out", "fates")
    if as_json:
        _print_json({"commit": commit.id, **{key: commit.content[key] for key in keys}})
    else:
        print(
            f"{commit.content['model']} was trained on {commit.content['rows_out']:,} of {commit.content['rows_in']:,} "
            f"records of release {found.id[:16]}; commit {commit.id[:16]}"
        )


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The earlier release, as in `questions`.")],
    after: Annotated[str, typer.Argument(help="The later release.")],
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare two releases: first what they were made from, then what that did, stage by stage and row by row."""
    from feedback_assets.cli.diff import show_diff
    from feedback_assets.cli.project import open_store
    from feedback_assets.provenance.differences import diff as compare

    (_, first), (_, second) = (_release(name, policy, store) for name in (before, after))
    found = compare(open_store(policy, store), first, second)
    _tell(found, show_diff, as_json=as_json)


@app.command()
def replay(
    release: Annotated[str, typer.Argument(help="The release, as in `questions`.")],
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Build a release again under its own recorded policy, beside the history, and compare. Exit 1: it differs."""
    from feedback_assets.cli.project import open_store, policy_folder
    from feedback_assets.cli.replay import show_replay
    from feedback_assets.provenance.replay import replay as build_again

    found = build_again(open_store(policy, store), _release(release, policy, store)[1], policy_folder(policy))
    if as_json:
        _print_json(found.as_json())
    else:
        show_replay(found)
    if found.verdict == "different":
        raise typer.Exit(1)


@app.command()
def bisect(
    good: Annotated[str, typer.Option(help="The release in which the metric was right.")],
    bad: Annotated[str, typer.Option(help="The release in which it is not.")],
    metric: Annotated[
        str,
        typer.Option(
            help="chosen-longer, tie-share, mean-score, psi[:COLUMN], effective-sample-size[:UNIT], "
            "model-origin-share, agreement; an SQL expression over the training rows, such as "
            "AVG(response_a_chars); or module:function(frame) -> float."
        ),
    ],
    threshold: Annotated[
        float | None, typer.Option(help="From where on it is bad. Default: midway.", show_default=False)
    ] = None,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find the change that moved a metric: batch, guideline, rule, factor, target. Exit 1: nothing moved it."""
    from feedback_assets.cli.bisect import bisect_as_json, searching, show_bisect
    from feedback_assets.cli.project import open_store, policy_folder
    from feedback_assets.provenance.bisect import bisect as search

    releases = _release(good, policy, store)[1], _release(bad, policy, store)[1]
    with searching(quiet=as_json) as listen:
        found = search(
            open_store(policy, store),
            releases,
            metric,
            threshold=threshold,
            folder=policy_folder(policy),
            listen=listen,
        )
    if as_json:
        _print_json(bisect_as_json(found))
    else:
        show_bisect(found)
    if not found.found:
        raise typer.Exit(1)


@app.command()
def quarantine(
    batch: Annotated[str | None, typer.Option(help="Only of this batch.", show_default=False)] = None,
    policy: Policy = None,
    store: Store = None,
    everything: Annotated[bool, typer.Option("--all", help="Every record, not a few of each reason.")] = False,
    as_json: Json = False,
) -> None:
    """List what could not be used, by reason: file, line and the offending value."""
    from feedback_assets.cli.project import open_made
    from feedback_assets.cli.quarantine import quarantine as listed
    from feedback_assets.cli.quarantine import show_quarantine

    found = listed(open_made(policy, store), batch)
    if as_json:
        _print_json(found)
    else:
        show_quarantine(found, everything=everything)


@app.command()
def verify(
    release: Annotated[
        str | None, typer.Argument(help="A release. Default: the whole store.", show_default=False)
    ] = None,
    logical: Annotated[bool, typer.Option("--logical", help="Fingerprint the values of every part anew, too.")] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A public key (PEM file) of which one must have signed each release.", show_default=False),
    ] = None,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Recompute every digest and follow the chain: signature, manifest, commits, snapshots, parts, exports, texts."""
    from feedback_assets.cli.integrity import verify_store

    verify_store(policy, store, release, logical=logical, keys=key or [], as_json=as_json)


@app.command()
def erase(
    record: Annotated[str | None, typer.Option(help="A record: its feedback_id or row_id.", show_default=False)] = None,
    annotator: Annotated[
        str | None, typer.Option(help="All records of an annotator, and the annotator's name.", show_default=False)
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only in this source.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the tombstone.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it: only say what would be done.")] = False,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Erase a record or an annotator from every byte of the store, its training files and what was landed."""
    if (record is None) == (annotator is None):
        raise FeedbackError("say either --record ID or --annotator ID")
    if not (record or annotator or "").strip():
        raise FeedbackError("a blank names nobody; say --record ID or --annotator ID")
    from feedback_assets.cli.integrity import erase_records
    from feedback_assets.provenance.sought import Request

    erase_records(policy, store, Request(record, annotator, source, reason), do=yes, as_json=as_json)


@app.command()
def gc(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Keep the last N releases; together with --keep-age: those, too.")
    ] = None,
    keep_age: Annotated[
        str | None, typer.Option(help="Keep releases younger than this, such as 30d or 12h.", show_default=False)
    ] = None,
    keep_tag: Annotated[
        list[str] | None, typer.Option(help="Keep the release with this tag, too.", show_default=False)
    ] = None,
    unused: Annotated[str, typer.Option(help="Forget what was computed before and not used for so long.")] = "30d",
    grace: Annotated[str, typer.Option(help="Keep all that is younger than this.")] = "1h",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it: only say what would go.")] = False,
    policy: Policy = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Collect what no kept release, no latest materialization and no run needs. By default all releases are kept."""
    from feedback_assets.cli.integrity import collect
    from feedback_assets.policy import duration
    from feedback_assets.provenance.gc import Keep

    kept = Keep(
        keep, duration(keep_age) if keep_age else None, duration(grace), duration(unused), tuple(keep_tag or ())
    )
    collect(policy, store, kept, do=yes, as_json=as_json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A file of feedback in any known format, or a folder of such.")],
    source_name: Annotated[
        str | None, typer.Option(help="Name of the source. Default: from the file's name.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose the policy section for an unknown file, and preview what it would make of it."""
    from feedback_assets.cli.inspect import inspected, show_inspected

    found = inspected(file, source_name)
    _tell(found, show_inspected, as_json=as_json)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write a starter folder for a team: a commented policy, a guideline, a README."""
    from feedback_assets.cli.starter import write_starter

    for path in write_starter(folder):
        print(path)
    print(f"\nNext: edit {folder / 'policy.yaml'}, then: feedback-assets run --policy {folder / 'policy.yaml'}")
