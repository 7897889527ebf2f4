"""What malformed lines cost: a JSONL file with 20 of them against Polars' plain read of the same file without them.

    .venv/bin/python -m feedback_assets_tests.benchmarks.malformed_lines

They are cut in half, evenly spread, or the last ones of all, where it is seen last that there are any; or they have a
comma too many, which their ends do not tell. Each measurement is a process of its own, in seconds of user CPU and of
wall clock; the ratio is of medians, the limit on user CPU, as the machine may be shared. Beside it stands the file
without bad lines: finding them must be paid by files that have any.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

LINES, CHARS, BAD, TIMES = 200_000, 2_500, 20, 5
LIMIT = 5
NONE, SPREAD, LAST, COMMA = "none", "spread", "last", "comma"


def write(folder: Path) -> dict[str, Path]:
    """The same lines four times: all of them good, and with `BAD` bad ones of each kind."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5_000)]
    texts = [" ".join(chance.choices(words, k=CHARS // 18)) for _ in range(2_000)]
    every = LINES // BAD
    paths = {kind: folder / f"{kind}.jsonl" for kind in (NONE, SPREAD, LAST, COMMA)}
    with ExitStack() as stack:
        none, spread, last, comma = (stack.enter_context(path.open("w")) for path in paths.values())
        for number in range(LINES):
            prompt, left, right = chance.choices(texts, k=3)
            record = {
                "id": f"r{number}",
                "prompt": prompt,
                "left": left[: CHARS // 3],
                "right": right[: CHARS // 3],
                "choice": "left",
                "rater": f"a{number % 50}",
                "seconds": number % 90 / 7,
            }
            line = json.dumps(record)
            half, here, late = line[: len(line) // 2], number % every == every // 2, number >= LINES - BAD
            none.write(line + "\n")
            spread.write((half if here else line) + "\n")
            last.write((half if late else line) + "\n")
            comma.write((line[:-1] + ",}" if late else line) + "\n")
    return paths


def measure(how: str, path: str) -> None:
    """Read a file in this process and print the seconds that it took: user CPU, wall clock."""
    import polars as pl

    from feedback_assets.sources.jsonl import read_jsonl

    pl.DataFrame({"a": [1]}).lazy().collect()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
    if how == "polars":
        height = pl.scan_ndjson(path).collect().height
    else:
        raw = read_jsonl(Path(path), "s", "b", read=["prompt"], most=2**31)
        height = raw.frame.height + raw.malformed.height
    used, taken = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before, time.perf_counter() - began
    assert height == LINES, height
    print(used, taken)


def seconds(how: str, path: Path) -> tuple[float, ...]:
    """What `measure` says, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, how, str(path)]  # type: ignore[union-attr]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(float(one) for one in said.split())


def main() -> None:
    """Measure, and exit with 1 where the limit is broken."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder))
        size = paths[NONE].stat().st_size / 2**20
        print(f"{LINES:,} lines, {size:.0f} MiB, {BAD} malformed; {TIMES} times in turn", flush=True)
        rounds = [
            [seconds("polars", paths[NONE]), *(seconds("ours", path) for path in paths.values())] for _ in range(TIMES)
        ]
    plain, *ours = [
        [statistics.median(clock) for clock in zip(*case, strict=True)] for case in zip(*rounds, strict=True)
    ]
    print(f"plain read            {plain[0]:.2f} s user CPU, {plain[1]:.2f} s wall clock")
    for kind, given in zip(paths, ours, strict=True):
        user, wall = (one / least for one, least in zip(given, plain, strict=True))
        print(f"malformed: {kind:<10} {user:.2f} times the user CPU, {wall:.2f} times the wall clock")
    sys.exit(int(max(given[0] for given in ours) > LIMIT * plain[0]))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
    else:
        main()
