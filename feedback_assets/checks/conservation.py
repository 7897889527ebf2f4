"""Nothing disappears: each row that came in has one fate or named children, and the output is what the fates say."""

from typing import TypeAlias

import polars as pl

from feedback_assets.checks.result import CheckResult
from feedback_assets.digests import distinct

Frame: TypeAlias = pl.DataFrame | pl.LazyFrame

STANDING = ("kept", "copied")
"""Fates of rows that stand in the output."""
POINTING = ("merged", "redelivered", "superseded")
"""Fates that name another row in `into`."""
GONE = ("dropped", "quarantined", "retracted", "converted", *POINTING)

DEFINITION = {
    "type": "conservation",
    "rules": [
        "each row that came in has one fate, or is named as a parent by a new row",
        "no fate without a row",
        "a kept row stands once, a copied one as often as its fate says, any other not at all",
        "a row of the output came in, or names parents that came in",
        "a converted row is named as a parent by a new row",
        "a merged, redelivered or superseded row names a row that is known, and no chain is merged",
    ],
}


def conservation(input_ids: Frame, output: Frame, fates: Frame, *, name: str = "conservation") -> CheckResult:
    """Check that a stage lost nothing and made nothing up. Blocking.

    Args:
        input_ids: rows that came in: row_id (String). Equal ids (a redelivery) need a fate each; beside a
            `copy_index` they are copies of one row, which has one fate.
        output: rows that came out: row_id, optionally copy_index and parents (List(String)).
        fates: row_id, fate, into, copies (stages' FATE_SCHEMA).
        name: name of the check.

    Returns:
        Passed, or failed with a sentence that counts each kind of violation and names an example or two.
    """
    told = fates.lazy().collect()
    counts = dict(counted(told, "fate").drop_nulls().iter_rows())
    if _plainly_conserved(input_ids, told, output):
        return _result(name, {}, told.height, int(told.get_column("copies").sum()), counts, 0)
    came, stands = _came(input_ids), _stands(output)
    problems: dict[str, pl.Series] = {}
    fate, copies = pl.col("fate"), pl.col("copies").fill_null(0)

    problems["have a fate that is not known"] = _ids(told, (~fate.is_in([*STANDING, *GONE])).fill_null(True))
    problems["have a fate that contradicts its number of copies"] = _ids(
        told,
        ((fate == "kept") & (copies != 1)) | ((fate == "copied") & (copies < 1)) | (fate.is_in(GONE) & (copies != 0)),
    )

    by_id = told.group_by("row_id").agg(
        told=pl.len().cast(pl.Int64), due=pl.when(fate.is_in(STANDING)).then(copies).otherwise(0).sum().cast(pl.Int64)
    )
    both = came.join(by_id, on="row_id", how="full", coalesce=True).with_columns(
        pl.col("came", "told", "due").fill_null(0)
    )
    known = both.filter(pl.col("came") > 0).select("row_id")

    new = stands.join(known, on="row_id", how="anti")
    children = _children(output, new)
    parents = children.select(row_id="parent").unique()

    missing = both.filter(pl.col("told") < pl.col("came"))
    problems["came in and have no fate"] = missing.join(parents, on="row_id", how="anti")["row_id"]
    problems["have more than one fate"] = _ids(both, (pl.col("came") > 0) & (pl.col("told") > pl.col("came")))
    problems["have a fate but did not come in"] = _ids(both, pl.col("came") == 0)

    due = both.filter(pl.col("came") > 0).join(stands, on="row_id", how="left")
    stood = pl.col("stands").fill_null(0)
    problems["should stand in the output and do not"] = _ids(due, (pl.col("due") > 0) & (stood == 0))
    problems["stand in the output against their fate"] = _ids(due, (pl.col("due") == 0) & (stood > 0))
    problems["stand in the output another number of times than their fate says"] = _ids(
        due, (pl.col("due") > 0) & (stood > 0) & (stood != pl.col("due"))
    )
    problems["repeat a copy_index"] = _repeated(output)
    problems["are new and name no parents"] = new.join(children, on="row_id", how="anti")["row_id"]
    unknown = children.join(known, left_on="parent", right_on="row_id", how="anti")
    problems["are new and name a parent that did not come in"] = unknown["row_id"].unique()
    changed = told.filter(fate == "converted")
    problems["are converted into nothing"] = changed.join(parents, on="row_id", how="anti")["row_id"]

    pointing = told.filter(fate.is_in(POINTING))
    problems["name no row that they went into"] = _ids(pointing, pl.col("into").is_null())
    anywhere = pl.concat([known, stands.select("row_id")]).unique()
    lost = pointing.drop_nulls("into").join(anywhere, left_on="into", right_on="row_id", how="anti")
    problems["went into a row that is not known"] = lost["row_id"]
    merged = told.filter(fate == "merged")
    chained = merged.join(merged.select(into="row_id").unique(), on="into", how="semi")
    problems["are merged into a row that is itself merged"] = chained["row_id"]

    found = {what: ids for what, ids in problems.items() if ids.len()}
    return _result(name, found, int(came["came"].sum()), int(stands["stands"].sum()), counts, new.height)


def conserved(rows: int) -> CheckResult:
    """The result of `conservation` where so many rows came in, were told kept and stand, each once."""
    return _result("conservation", {}, rows, rows, {"kept": rows}, 0)


def counted(fates: Frame, *by: str) -> pl.DataFrame:
    """How many rows (`rows`) have which values in the columns `by`, in their order, null last.

    Runs are counted first: most rows fare as the one before.
    """
    found = runs(fates.lazy().select(by).collect())
    return found.group_by(by).agg(pl.col("len").sum().alias("rows")).sort(by, nulls_last=True)


def runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Each run of equal rows: its values, and how many rows it has (`len`)."""
    whole = rows.rechunk()  # Polars finds the runs of one chunk only
    return whole.to_struct("value").rle().struct.unnest().unnest("value")


def _plainly_conserved(input_ids: Frame, told: pl.DataFrame, output: Frame) -> bool:
    """Whether all is well, with no new rows, as in most stages: at a fraction of the time.

    Ids are compared as 64-bit hashes; where this says no, the full comparison decides and names what is wrong.
    """
    fate, copies, row = pl.col("fate"), pl.col("copies"), pl.col("row_id").hash()
    others = told.filter(((fate != "kept") | (copies != 1)).fill_null(value=True))
    if others.is_empty() and _as_it_came(input_ids, told, output):
        return True
    sound = ((fate == "copied") & (copies >= 1)) | (fate.is_in(GONE) & (fate != "converted") & (copies == 0))
    if not others.select(sound.fill_null(value=False).all()).item():
        return False
    came, further = _firsts(input_ids)
    if distinct(came) < came.len() or not _among(further.get_column("row_id"), came):
        return False
    rows = told.select(row).to_series()
    if not _same(came, rows):
        return False
    stands, further = _firsts(output)
    standing = rows.filter(told.get_column("copies") > 0)
    again = others.filter(copies > 1).select(row.repeat_by(copies - 1).explode(empty_as_null=False))
    if not _same(stands, standing) or not _same(further.get_column("row_id"), again.to_series()):
        return False
    # What another row went into stands in the output, and so is not itself merged.
    into = others.filter(fate.is_in(POINTING)).get_column("into")
    return further.n_unique() == further.height and not into.null_count() and _among(into.hash(), standing)


def _as_it_came(input_ids: Frame, told: pl.DataFrame, output: Frame) -> bool:
    """Whether the same rows, in the same order, came in, were told of and went on, no copies among them."""
    ids = told.get_column("row_id")
    frames = [frame.lazy() for frame in (input_ids, output)]
    return all("copy_index" not in frame.collect_schema() for frame in frames) and all(
        frame.select("row_id").collect().to_series().equals(ids) for frame in frames
    )


def _firsts(rows: Frame) -> tuple[pl.Series, pl.DataFrame]:
    """Hashes of the ids of the rows, and those of further copies apart, with their `copy_index`."""
    row = pl.col("row_id").hash()
    if "copy_index" not in rows.lazy().collect_schema():
        ids = rows.lazy().select(row).collect()
        return ids.to_series(), ids.clear()
    ids = rows.lazy().select(row, "copy_index").collect()
    return ids.filter(pl.col("copy_index") == 0).to_series(), ids.filter(pl.col("copy_index") != 0)


def _among(some: pl.Series, known: pl.Series) -> bool:
    """Whether `known` has each of `some`, which are fewer: only these are made a set of."""
    wanted = some.unique()
    return wanted.is_empty() or known.filter(known.is_in(wanted.implode())).n_unique() == wanted.len()


def _same(one: pl.Series, other: pl.Series) -> bool:
    """Whether both hold the same ids equally often: in the same order, as is usual, or in another."""
    other = other.alias(one.name)
    return one.equals(other) or (one.len() == other.len() and one.sort().equals(other.sort()))


def _result(
    name: str, found: dict[str, pl.Series], rows_in: int, rows_out: int, counts: dict[str, int], new: int
) -> CheckResult:
    examples = {what: ids.sort().head(2).to_list() for what, ids in found.items()}
    if found:
        said = "; ".join(
            f"{ids.len():,} {what} (e.g. {', '.join(map(str, examples[what]))})" for what, ids in found.items()
        )
        sentence = f"{rows_in:,} rows came in, {rows_out:,} came out; {said}."
    else:
        fates = ", ".join(f"{count:,} {fate}" for fate, count in counts.items()) or "none"
        children = f", {new:,} of them new with named parents" if new else ""
        sentence = f"Each of {rows_in:,} rows has one fate ({fates}); {rows_out:,} rows came out{children}."
    return CheckResult(
        name=name,
        passed=not found,
        blocking=True,
        status="failed" if found else "passed",
        kind="conservation",
        meaning=sentence,
        definition=DEFINITION,
        observed={
            "rows_in": rows_in,
            "rows_out": rows_out,
            "new_rows": new,
            "fates": counts,
            "violations": {what: ids.len() for what, ids in found.items()},
            "examples": examples,
        },
    )


def _ids(frame: pl.DataFrame, condition: pl.Expr) -> pl.Series:
    return frame.filter(condition)["row_id"]


def _came(input_ids: Frame) -> pl.DataFrame:
    lazy = input_ids.lazy()
    copies = "copy_index" in lazy.collect_schema()
    count = pl.lit(1) if copies else pl.len()
    return lazy.group_by("row_id").agg(came=count.cast(pl.Int64)).collect()


def _stands(output: Frame) -> pl.DataFrame:
    return output.lazy().group_by("row_id").agg(stands=pl.len().cast(pl.Int64)).collect()


def _children(output: Frame, new: pl.DataFrame) -> pl.DataFrame:
    if not new.height or "parents" not in output.lazy().collect_schema():
        return new.clear().select("row_id", parent="row_id")
    named = output.lazy().select("row_id", parent="parents").join(new.lazy(), on="row_id", how="semi")
    return named.explode("parent", empty_as_null=False).drop_nulls("parent").unique(maintain_order=True).collect()


def _repeated(output: Frame) -> pl.Series:
    lazy = output.lazy()
    if "copy_index" not in lazy.collect_schema():
        return pl.Series("row_id", [], pl.String)
    return lazy.group_by("row_id", "copy_index").len().filter(pl.col("len") > 1).collect().get_column("row_id").unique()
