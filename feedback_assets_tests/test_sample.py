import csv
import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from feedback_assets.pipeline import Policy, load_policy
from feedback_assets.record import TIME
from feedback_assets.sample import generate as sample
from feedback_assets.sample.generate import PLANTED, RECORDS, generate, planted, write_sample
from feedback_assets.sources.files import list_files, read
from feedback_assets.sources.guidelines import overlaps, read_guidelines
from feedback_assets.sources.mapping import map_records
from feedback_assets.stages.filtered import filtered
from feedback_assets.stages.guideline_joined import guideline_joined
from feedback_assets.stages.ingested import Resolved, resolve, to_records
from feedback_assets.stages.stage import Inputs, Output

SMALL = 1_000
SMALL_DIGEST = "88eefb3aa0cc8c2b8c1458b4d7fd7bd048838576e80f89e4ddbc46a9edb68e4f"
STARTER = Path(sample.__file__).parent.parent / "starter"


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def ingest(policy: Policy, folder: Path) -> Resolved:
    taken = [
        to_records(map_records(read(file, source), source, file).records, source.name)
        for source in policy.ingested.sources
        for file in list_files(source, folder)
    ]
    unread = [
        map_records(read(file, source), source, file).quarantined
        for source in policy.ingested.sources
        for file in list_files(source, folder)
    ]
    numbered = list(enumerate(zip(taken, unread, strict=True)))
    as_of = policy.ingested.as_of or datetime(2027, 1, 1, tzinfo=UTC)
    return resolve(
        pl.concat([intake.rows.with_columns(arrival=pl.lit(n, pl.Int64)) for n, (intake, _) in numbered]),
        pl.concat([pl.concat([b, i.quarantined]).with_columns(arrival=pl.lit(n, pl.Int64)) for n, (i, b) in numbered]),
        pl.DataFrame(
            [(n, as_of, n) for n, _ in numbered],
            schema={"arrival": pl.Int64, "not_after": TIME, "first": pl.Int64},
            orient="row",
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample")).parent


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(folder / "policy.yaml").policy


@pytest.fixture(scope="module")
def ingested(folder: Path, policy: Policy) -> Resolved:
    return ingest(policy, folder)


@pytest.fixture(scope="module")
def joined(folder: Path, policy: Policy, ingested: Resolved) -> Output:
    registry = read_guidelines(policy.guidelines, folder).lazy()
    inputs = Inputs(ingested.rows.lazy(), {"guidelines": registry})
    return guideline_joined(inputs, policy.guideline_joined, None)  # type: ignore[arg-type]


def test_the_sample_is_the_same_on_every_machine_byte_for_byte(tmp_path: Path):
    paths = generate(tmp_path, records=SMALL)
    content = b"".join(path.name.encode() + path.read_bytes() for path in paths)
    assert hashlib.sha256(content).hexdigest() == SMALL_DIGEST


def test_two_folders_get_identical_files(tmp_path: Path):
    first, second = (generate(tmp_path / name, records=SMALL) for name in "ab")
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_another_seed_gives_another_sample(tmp_path: Path):
    first, second = generate(tmp_path / "a", records=SMALL), generate(tmp_path / "b", records=SMALL, seed=8)
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("records", [SMALL, 3_333])
def test_the_number_of_lines_is_the_number_that_was_asked_for(tmp_path: Path, records: int):
    paths = generate(tmp_path, records=records)
    lines = sum(text_of(path).count("\n") - path.name.endswith(".csv") for path in paths)
    assert lines == records


def test_too_few_records_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least 1,000"):
        generate(tmp_path, records=100)


def test_every_line_says_that_it_is_synthetic(folder: Path):
    for path in sorted((folder / "batches").iterdir()):
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                assert {row["synthetic"] for row in csv.DictReader(file)} == {"true"}
        else:
            lines = text_of(path).splitlines()
            assert sum('"synthetic": true' in line for line in lines) == len(lines)


def test_writing_again_touches_nothing_and_keeps_what_a_person_edited(tmp_path: Path):
    policy = write_sample(tmp_path, records=SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    policy.write_text("project: mine\n", encoding="utf-8")
    guideline = tmp_path / "guidelines" / "helpfulness-1.0.0.md"
    guideline.write_text("mine", encoding="utf-8")
    edited = {policy, guideline}
    write_sample(tmp_path, records=SMALL)
    assert policy.read_text(encoding="utf-8") == "project: mine\n"
    assert guideline.read_text(encoding="utf-8") == "mine"
    now = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {p: t for p, t in now.items() if p not in edited} == {p: t for p, t in before.items() if p not in edited}


def test_planted_counts_are_those_of_all_sources_together():
    by_source = planted()
    assert {name: sum(numbers.get(name, 0) for numbers in by_source.values()) for name in PLANTED} == PLANTED


def test_what_arrived_twice_is_redelivered_and_what_was_corrected_is_superseded(ingested: Resolved):
    assert dict(ingested.fates.group_by("fate").len().iter_rows()) == {
        "redelivered": PLANTED["redelivered"],
        "superseded": PLANTED["revised"],
        "quarantined": ingested.quarantined.height,
        "kept": RECORDS - PLANTED["redelivered"] - PLANTED["revised"] - ingested.quarantined.height,
    }


def test_each_bad_record_is_quarantined_for_its_reason(ingested: Resolved):
    assert dict(ingested.quarantined.group_by("reason").len().iter_rows()) == {
        "malformed-json": PLANTED["malformed"],
        "outside-vocabulary": PLANTED["label_outside_vocabulary"],
        "outside-scale": PLANTED["score_outside_scale"],
        "not-convertible": PLANTED["bad_date"],
        "missing-value": PLANTED["missing_text"],
        "in-the-future": PLANTED["in_the_future"],
        "conflicting-duplicate": 2 * PLANTED["conflicting_pair"],
    }


def test_the_guidelines_follow_one_another_without_gap_or_overlap(folder: Path, policy: Policy):
    registry = read_guidelines(policy.guidelines, folder)
    assert registry.get_column("version").to_list() == ["1.0.0", "1.1.0"]
    assert registry.get_column("effective_to").to_list() == [sample.CLARIFIED, None]
    assert registry.get_column("effective_from").to_list()[1] == sample.CLARIFIED
    assert overlaps(registry).is_empty()


def test_the_join_finds_the_planted_conflicts_and_what_came_before_any_guideline(joined: Output):
    statuses = dict(joined.rows["guideline_status"].value_counts().iter_rows())
    assert statuses["conflict"] == PLANTED["declared_conflict"]
    assert statuses["unmatched"] == PLANTED["before_guideline"]
    assert set(statuses) == {"conflict", "unmatched", "declared", "inferred"}


def test_each_rule_drops_what_was_planted_for_it(joined: Output, policy: Policy):
    rules = filtered(Inputs(joined.rows.lazy()), policy.filtered, None).facts["rules"]  # type: ignore[arg-type]
    assert {name: facts["dropped"] for name, facts in rules.items()} == {
        "says-nothing": PLANTED["too_short"],
        "same-responses": PLANTED["same_responses"],
        "model-judge": PLANTED["model_judge"],
        "too-fast": PLANTED["too_fast"],
        "guideline-in-doubt": PLANTED["declared_conflict"] + PLANTED["before_guideline"],
    }


def test_who_judges_again_is_a_resubmission_unless_the_item_is_an_anchor(ingested: Resolved):
    again = (
        ingested.rows.group_by("annotator_id", "item_id")
        .agg(pl.len() - 1, pl.col("anchor").all())
        .group_by("anchor")
        .agg(pl.col("len").sum())
    )
    assert dict(again.iter_rows()) == {False: PLANTED["resubmission"], True: PLANTED["anchor_repeat"]}


def test_the_statistics_are_those_of_a_plausible_crowd(joined: Output):
    rows = joined.rows.filter(pl.col("annotator_kind") == "human")
    pairs = rows.filter(pl.col("kind") == "preference")
    decided = pairs.filter(pl.col("label") != "tie")
    first = decided.select(pl.col("shown_order").str.starts_with(pl.col("label")).mean()).item()
    longer = decided.select(
        ((pl.col("label") == "a") == (pl.col("response_a_chars") > pl.col("response_b_chars"))).mean()
    ).item()
    assert 0.50 < first < 0.58
    assert 0.55 < longer < 0.65
    assert 0.10 < (pairs.get_column("label") == "tie").mean() < 0.18  # type: ignore[operator]
    assert rows.get_column("annotator_id").n_unique() == 47
    assert dict(rows.get_column("language").value_counts().iter_rows()).keys() == {"en", "de", "es"}
    agreement = rows.group_by("annotator_id").agg(pl.col("annotator_agreement").last()).sort("annotator_agreement")
    careless, next_one = agreement.head(2).rows()
    assert careless[0] == "ann-17"
    assert careless[1] < next_one[1] - 0.1


def test_texts_are_of_different_lengths_and_distinct_items_do_not_look_alike(folder: Path):
    lines = text_of(folder / "batches" / "preferences-2026-W31.jsonl").splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    texts = {row["prompt"]: row["left"] for row in rows if len(row["left"]) >= 20}
    lengths = sorted(len(text) for text in texts.values())
    assert lengths[0] >= 80
    assert lengths[-1] <= 900
    assert lengths[len(lengths) // 10] < 400 < 600 < lengths[len(lengths) * 9 // 10]
    some = [texts[prompt] for prompt in sorted(texts)[::8]]
    shingles = [{text[at : at + 5] for at in range(len(text) - 4)} for text in some]
    alike = sorted(len(a & b) / len(a | b) for n, a in enumerate(shingles) for b in shingles[:n])
    assert alike[len(alike) * 999 // 1000] < 0.6


def test_the_starter_runs_as_it_is():
    policy = load_policy(STARTER / "policy.yaml").policy
    resolved = ingest(policy, STARTER)
    assert resolved.rows.height == 6
    assert resolved.quarantined.is_empty()
    inputs = Inputs(resolved.rows.lazy(), {"guidelines": read_guidelines(policy.guidelines, STARTER).lazy()})
    joined = guideline_joined(inputs, policy.guideline_joined, None)  # type: ignore[arg-type]
    assert dict(joined.rows["guideline_status"].value_counts().iter_rows()) == {"inferred": 6}


@pytest.mark.parametrize("example", ["collected_at", "started_at", "confidence", "label", "origin_a"])
def test_the_starter_has_an_example_for_the_columns_that_are_commented_out(example: str):
    policy = (STARTER / "policy.yaml").read_text(encoding="utf-8")
    assert f"        # {example}: " in policy
