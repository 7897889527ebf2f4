"""The policies of the real data sets: read, mapped, counted. Skips where the data is absent."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest
import yaml

from feedback_assets.sources.files import list_files, read
from feedback_assets.sources.mapping import map_records
from feedback_assets.sources.source import Source

POLICIES = Path(__file__).parent.parent / "policies"
DATA = POLICIES / "../../../shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")


def mapped(policy, name):
    sources = yaml.safe_load((POLICIES / policy).read_text(encoding="utf-8"))["ingested"]["sources"]
    source = next(Source(**given) for given in sources if given["name"] == name)
    results = [map_records(read(file, source), source, file) for file in list_files(source, POLICIES)]
    return pl.concat(r.records for r in results), pl.concat(r.quarantined for r in results)


def counts(records, column="label"):
    return dict(records[column].value_counts().rows())


def test_ukp():
    records, quarantined = mapped("ukp.yaml", "ukp")
    assert (records.height, quarantined.height) == (84_445, 0)
    assert counts(records) == {"a": 32_849, "b": 32_491, "tie": 19_105}
    assert records["feedback_id"].n_unique() == 84_445
    assert records["annotator_id"].n_unique() == 3_815
    assert counts(records, "batch").keys() == {f"2016-W{week:02}.parquet" for week in range(4, 11)}
    assert records["collected_at"].min() == dt.datetime(2016, 1, 31, 13, 23, 6, tzinfo=dt.UTC)
    assert records["extra"].str.json_path_match("$.reason").null_count() < records.height


@pytest.mark.parametrize(
    ("name", "rows", "kind"), [("mtbench_human", 2_249, "human"), ("mtbench_gpt4", 1_600, "model")]
)
def test_mtbench(name, rows, kind):
    records, quarantined = mapped("mtbench.yaml", name)
    assert (records.height, quarantined.height) == (rows, 0)
    assert records["feedback_id"].n_unique() == rows
    assert set(counts(records)) == {"a", "b", "tie"}
    assert counts(records, "annotator_kind") == {kind: rows}
    assert records["prompt"].list.first().struct.field("role").unique().to_list() == ["user"]
    assert records["origin_a"].str.starts_with("model:").all()


def test_tulu():
    records, quarantined = mapped("tulu.yaml", "tulu")
    assert records.height == 1_150
    assert records["feedback_id"].n_unique() == 1_150
    assert records["feedback_id"][0] == "213"
    assert counts(records) == {"a": 423, "b": 351, "tie": 376}
    assert counts(records, "confidence") == {1.0: 348, 0.5: 426, None: 376}
    # data/README.md says 15; the sheet itself has 16 (yu and yul among them)
    assert records["annotator_id"].n_unique() == 16
    assert records["collected_at"].min().date() == dt.date(2023, 5, 18)
    assert records["collected_at"].max().date() == dt.date(2023, 6, 4)
    assert quarantined["reason"].unique().to_list() == ["blank-row"]
    assert quarantined["line"].to_list() == list(range(1_152, 1_304))


def test_hh():
    records, quarantined = mapped("hh.yaml", "hh")
    assert (records.height, quarantined.height) == (2_312, 0)
    a, b = (records[name].str.len_chars() for name in ("response_a", "response_b"))
    assert round((a > b).mean(), 3) == 0.442
    assert round((a < b).mean(), 3) == 0.553
    assert records["prompt"].list.first().struct.field("role").unique().to_list() == ["user"]
    assert not records["response_a"].str.contains("\n\nAssistant:").any()
