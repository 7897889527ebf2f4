"""What malformed lines cost: a JSONL file with 20 of them against Polars' plain read of the same file without them.

    .venv/bin/python -m feedback_assets_tests.benchmarks.malformed_lines

Each measurement is a process of its own, in user CPU seconds, as the machine may be shared; the ratio is of medians.
Beside it stands the file without bad lines: what finding them costs must be paid by files that have any, alone.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LINES, CHARS, BAD, TIMES = 200_000, 2_500, 20, 3
LIMIT = 5


def write(folder: Path) -> tuple[Path, Path]:
    """The same lines twice: all of them good, and with `BAD` that are cut in half, evenly spread."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5_000)]
    texts = [" ".join(chance.choices(words, k=CHARS // 18)) for _ in range(2_000)]
    clean, bad = folder / "clean.jsonl", folder / "bad.jsonl"
    every = LINES // BAD
    with clean.open("w") as good_file, bad.open("w") as bad_file:
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
            good_file.write(line + "\n")
            bad_file.write((line[: len(line) // 2] if number % every == every // 2 else line) + "\n")
    return clean, bad


def measure(how: str, path: str) -> None:
    """Read a file in this process and print the user seconds that it took."""
    import polars as pl

    from feedback_assets.sources.jsonl import read_jsonl

    pl.DataFrame({"a": [1]}).lazy().collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    if how == "polars":
        height = pl.scan_ndjson(path).collect().height
    else:
        raw = read_jsonl(Path(path), "s", "b", read=["prompt"], most=2**31)
        height = raw.frame.height + raw.malformed.height
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    assert height == LINES, height
    print(used)


def seconds(how: str, path: Path) -> float:
    """The median over `TIMES` processes."""
    command = [sys.executable, "-m", __spec__.name, how, str(path)]  # type: ignore[union-attr]
    taken = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(TIMES)]
    print(f"  {how:<7} {path.name:<12} {', '.join(f'{one:.2f}' for one in taken)} s")
    return statistics.median(taken)


def main() -> None:
    """Measure, and exit with 1 where the limit is broken."""
    with tempfile.TemporaryDirectory() as folder:
        clean, bad = write(Path(folder))
        print(f"{LINES:,} lines, {clean.stat().st_size / 2**20:.0f} MiB, {BAD} malformed; user CPU, {TIMES} times")
        plain = seconds("polars", clean)
        ratios = {name: seconds("ours", path) / plain for name, path in (("none", clean), (f"{BAD}", bad))}
    for name, ratio in ratios.items():
        print(f"with {name} malformed: {ratio:.2f} times the plain read")
    sys.exit(int(max(ratios.values()) > LIMIT))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
    else:
        main()
