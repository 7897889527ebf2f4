"""How long a release takes, as a multiple of the least that such a pipeline must do; what 1 % more data costs.

    python -m feedback_assets_tests.benchmarks.release [--records 200000] [--runs 3]

The limit, measured in the same run: read the input Parquet, write its text once with zstd level 1, and pass once over
all text with SHA-256. The graph runs through `materialize`, checks and gate included, in a process of its own, from the
same Parquet files to a published release with one export; imports and compiling are not counted. Peak memory is that
process's. Each is measured several times from the same files, and the median counts.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median_low

import numpy as np
import polars as pl

BATCHES = 20
DAY = 86_400_000_000  # microseconds
FIRST_DAY = 1_767_225_600_000_000  # 2026-01-01
TEXT = ("prompt", "response_a", "response_b")
POLICY = """
ingested:
  sources:
    - name: generated
      path: batches/*.parquet
      columns:
        feedback_id: id
        kind: "'preference'"
        task: "'chat'"
        category: category
        prompt: prompt
        response_a: response_a
        response_b: response_b
        label: label
        shown_order: "'ab'"
        annotator_id: annotator
        annotator_kind: "'human'"
        collected_at: {expr: at, timezone: UTC}
filtered:
  rules:
    - {id: short, version: 1, reason: "says nothing", drop_when: "response_a_chars < 20 OR response_b_chars < 20"}
deduplicated: {threshold: 0.8, eval_share: 0.02, split_key: benchmark}
reweighted:
  factors:
    - {id: replicates, version: 1, reason: "one vote an item", kind: replicate_share}
    - {id: length, version: 1, reason: "no prize for length", kind: length_balance}
upsampled:
  targets:
    - {id: coding, version: 1, reason: "coding is rare", column: category, shares: {coding: 0.2}}
"""


def generate(folder: Path, records: int, batches: int, first: int = 0, seed: int = 0) -> None:
    """Write `batches` Parquet files of pairs: prompt about 500 characters, responses about 1,000 each."""
    rng = np.random.default_rng([seed, first])
    letters = list("abcdefghijklmnoprstuvw")
    words = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 20_000)])
    folder.mkdir(parents=True, exist_ok=True)
    each = records // batches
    for number in range(first, first + batches):
        texts = {
            name: pl.Series([" ".join(row) for row in words[rng.integers(0, len(words), (each, size))]])
            for name, size in (("prompt", 75), ("response_a", 150), ("response_b", 150))
        }
        frame = pl.DataFrame(
            {
                "id": [f"{number:03d}-{index:06d}" for index in range(each)],
                **texts,
                "label": rng.choice(["a", "b", "tie"], each, p=[0.45, 0.4, 0.15]),
                "annotator": [f"w{who:04d}" for who in rng.integers(0, 500, each)],
                "category": rng.choice(["chat", "writing", "coding", "reasoning"], each, p=[0.5, 0.3, 0.08, 0.12]),
                "at": pl.Series(FIRST_DAY + number * DAY + rng.integers(0, DAY, each)).cast(pl.Datetime("us")),
            }
        )
        # One record in fifty judges an earlier item again, with two words changed.
        again = pl.int_range(pl.len()) % 50 == 49
        frame = frame.with_columns(
            pl.when(again)
            .then(pl.col(name).shift(7) + " indeed so")
            .otherwise(name)
            .fill_null(pl.col(name))
            .alias(name)
            for name in TEXT
        )
        frame.write_parquet(folder / f"batch-{number:03d}.parquet", compression="zstd", compression_level=1)


def limit(folder: Path) -> float:
    """Seconds to read the input, write its text once, and hash it once."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        began = time.perf_counter()
        for path in sorted(folder.glob("*.parquet")):
            frame = pl.read_parquet(path)
            text = frame.select("prompt", "response_a", "response_b")
            text.write_parquet(Path(scratch) / path.name, compression="zstd", compression_level=1)
            for name in text.columns:
                hashlib.sha256(
                    memoryview(text.get_column(name).to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()[2])
                )
        return time.perf_counter() - began


def build(project_folder: Path) -> None:
    """Build one release in this process and print seconds, by stage, and the peak memory, as JSON."""
    from feedback_assets.checks.expectations import _batch_definition
    from feedback_assets.expressions import expression
    from feedback_assets.materialize.materialize import materialize
    from feedback_assets.materialize.project import Project
    from feedback_assets.pipeline import STAGES
    from feedback_assets.provenance.release import release
    from feedback_assets.record import CONTENT_SCHEMA
    from feedback_assets.stages.near_duplicates import PAIRS, signatures, verified

    _batch_definition()
    expression("1")  # loads the dialect

    one = pl.DataFrame(
        {"prompt": [[]], "response_a": ["a"], "response_b": ["b"], "extra": [None]}, schema=CONTENT_SCHEMA
    )
    signatures(one.lazy(), {"shingle": 5, "bands": 25, "rows": 5})
    places = {"at_one": pl.Series([0], dtype=pl.UInt32), "at_two": pl.Series([1], dtype=pl.UInt32)}
    pair = pl.DataFrame({"one": [1], "two": [2]}, schema=PAIRS).with_columns(**places)
    texts = pl.LazyFrame({name: ["abc", "abcd"] for name in TEXT})
    verified(texts, {"shingle": 1, "threshold": 0.9}, pair)
    began = time.perf_counter()
    project = Project.open(project_folder / "policy.yaml", project_folder / "store")
    commits = {}
    stages = {}
    for stage in STAGES[:-1]:
        start = time.perf_counter()
        inputs = {name: commits[name] for name in stage.inputs}
        commits[stage.name] = materialize(project, stage.name, run_id="benchmark", inputs=inputs)
        stages[stage.name] = [round(time.perf_counter() - start, 2), commits[stage.name].circumstances["seconds"]]
    start = time.perf_counter()
    commit, made = release(project, run_id="benchmark", inputs={"upsampled": commits["upsampled"]})
    stages["release"] = [round(time.perf_counter() - start, 2), commit.circumstances["seconds"]]
    assert made is not None, commit.failed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "stages": stages}))


def _median(folder: Path, runs: int) -> tuple[dict, list[float]]:
    """Build a release `runs` times, each in a process of its own and from the same store; the last stays.

    Returns:
        What the run of median time said, and the seconds of all.
    """
    command = [sys.executable, "-m", "feedback_assets_tests.benchmarks.release", "--build", str(folder)]
    store, before = folder / "store", folder / "before"
    store.mkdir(exist_ok=True)
    store.rename(before)
    found = []
    for _ in range(runs):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(before, store, copy_function=os.link)  # no file of a store is written to
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(told.splitlines()[-1]))
    shutil.rmtree(before)
    found.sort(key=lambda one: one["seconds"])
    return found[(runs - 1) // 2], [round(one["seconds"], 1) for one in found]


def _say(what: str, one: dict, seconds: list[float], share: str) -> None:
    print(f"{what}   {one['seconds']:.1f} s = {share}, peak {one['peak_gib']:.2f} GiB; {seconds}")
    print(f"           {one['stages']}", flush=True)


def main() -> None:
    """Generate, measure, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--build", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder_name:
        folder = Path(folder_name)
        (folder / "policy.yaml").write_text(POLICY)
        generate(folder / "batches", options.records, BATCHES)
        least = median_low(limit(folder / "batches") for _ in range(options.runs))
        print(f"{options.records:,} pairs in {BATCHES} batches; limit {least:.1f} s", flush=True)
        full, seconds = _median(folder, options.runs)
        _say("full run", full, seconds, f"{full['seconds'] / least:.1f} × the limit")
        generate(folder / "batches", options.records // 100, 1, first=BATCHES)
        more, seconds = _median(folder, options.runs)
        _say("1 % more", more, seconds, f"{more['seconds'] / full['seconds']:.0%} of the full run")


if __name__ == "__main__":
    main()
