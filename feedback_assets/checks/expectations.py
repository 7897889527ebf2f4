"""A stage's expectations, run by Great Expectations: one suite a stage, one result per expectation."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any, Protocol

import polars as pl

from feedback_assets.checks.result import CheckResult, Status, plain
from feedback_assets.digests import digest, fingerprint
from feedback_assets.errors import FeedbackError

_ONE_AT_A_TIME = RLock()
KEPT = (
    *("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent"),
    "observed_value",
)
"""Of Great Expectations' result only numbers are kept: its lists of values could hold text of a row."""


class Units(Protocol):
    """What is counted, if not rows: each value of `column` once, but for those of which a row has a value in `unless`.

    With fewer than `least` of them the expectation is inconclusive.
    """

    @property
    def column(self) -> str:
        """Column of the units."""
        ...

    @property
    def least(self) -> int:
        """How many it takes to tell."""
        ...

    @property
    def unless(self) -> str:
        """Column that is null in every row of a unit that counts."""
        ...


class Expectation(Protocol):
    """What is run: Great Expectations' snake_case type, its arguments, and what it means for a person."""

    @property
    def type(self) -> str:
        """E.g. `expect_column_values_to_be_in_set`."""
        ...

    @property
    def meaning(self) -> str:
        """One sentence."""
        ...

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Arguments, as JSON values."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether a failure holds the materialization back."""
        ...

    @property
    def units(self) -> Units | None:
        """What is counted, if not rows."""
        ...

    @property
    def definition(self) -> dict[str, Any]:
        """What is asked, limits included."""
        ...

    @property
    def name(self) -> str:
        """Name of the check."""
        ...


class Memory(Protocol):
    """Where it is kept which values passed which expectations."""

    def recall(self, key: str) -> Any:
        """The JSON value kept under `key`, or None."""
        ...

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value under `key`."""
        ...


def run_suite(
    rows: pl.DataFrame, expectations: Sequence[Expectation], asset: str, memory: Memory | None = None
) -> list[CheckResult]:
    """Run the expectations on `rows` as one suite.

    Only the columns they name are converted to pandas. Whatever raises, is unknown to Great Expectations or gives no
    result is an "error", never a pass.

    Args:
        rows: a stage's output.
        expectations: what it shall keep; their names must differ.
        asset: name of the stage, for Great Expectations' own names.
        memory: what passed for the same values before passes again, without asking.

    Returns:
        One result per expectation, in their order.

    Raises:
        FeedbackError: two expectations have the same name.
    """
    names = [expectation.name for expectation in expectations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FeedbackError(f"{asset}: two expectations are called {twice[0]}; give each an `id`")
    if not expectations:
        return []
    known = {*rows.columns, *names, *(word for e in expectations for word in _words(e.kwargs))}
    errors: dict[str, str] = {}
    built = {}
    for expectation in expectations:
        try:
            built[expectation.name] = _build(expectation)
        except Exception as error:  # whatever Great Expectations finds wrong with it
            errors[expectation.name] = _without_text(f"{type(error).__name__}: {error}", known)
    seen: dict[str, Any] = {}
    try:
        seen = _seen(rows, [e for e in expectations if e.name in built], built, asset, memory)
    except Exception as error:
        problem = _without_text(f"{type(error).__name__}: {error}", known)
        errors |= dict.fromkeys(built, problem)
    results = [_result(e, seen.get(e.name), errors.get(e.name), known) for e in expectations]
    if seen.keys() - built.keys():
        raise FeedbackError(f"{asset}: Great Expectations returned results that were not asked for")
    return results


@contextmanager
def _alone() -> Iterator[None]:
    """Great Expectations' context and the filters of warnings are the process's: of two threads one would mislead."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _great_expectations() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _alone():
        import great_expectations
    return great_expectations


@cache
def _batch_definition() -> Any:
    """The one ephemeral context of this process, with its dataframe asset."""
    context = _great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("feedback_assets")
    return source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")


def _seen(
    rows: pl.DataFrame, expectations: list[Expectation], built: dict[str, Any], asset: str, memory: Memory | None
) -> dict[str, Any]:
    """Results by name. What holds for the telling rows of a frame holds for all of it: only doubt asks every row."""
    seen: dict[str, Any] = {}
    for entry in expectations:
        if entry.units is not None:
            counted = _counted_once(rows, entry.units)
            if counted.sum() < entry.units.least:
                seen[entry.name] = _TooFew(int(counted.sum()))
                continue
            counted_rows = rows.select(_named(rows, [entry])).filter(counted)
            frames = _around(counted_rows, entry)
            if frames and all(_passing(frame, [entry], asset, memory) for frame in frames):
                seen[entry.name] = _Passed(counted_rows, entry)
            else:
                seen |= _validate(_narrow(counted_rows, [entry]), [built[entry.name]], asset)
    expectations = [entry for entry in expectations if entry.units is None]
    for frame, asked in _telling(rows, expectations):
        for entry in _passing(frame, asked, asset, memory):
            seen[entry.name] = _Passed(rows, entry)
    doubtful = [entry for entry in expectations if entry.name not in seen]
    if doubtful:
        seen |= _validate(_narrow(rows, doubtful), [built[entry.name] for entry in doubtful], asset)
    return seen


def _counted_once(rows: pl.DataFrame, units: Units) -> pl.Series:
    """Which rows stand for their units."""
    ids = rows.get_column(units.column)
    left_out = ids.filter(rows.get_column(units.unless).is_not_null()).unique()
    first = ids.is_not_null() & ids.hash().is_first_distinct()
    return first & ~ids.is_in(left_out.implode()) if left_out.len() else first


class _TooFew:
    """What is said of an expectation where there are too few units to tell."""

    success = None
    exception_info: Mapping[str, Any] = {}

    def __init__(self, units: int) -> None:
        self.result = {"element_count": units}


class _Passed:
    """What Great Expectations says of an expectation that all rows keep."""

    success = True
    exception_info: Mapping[str, Any] = {}

    def __init__(self, rows: pl.DataFrame, expectation: Expectation) -> None:
        column = expectation.kwargs.get("column")
        if column is None:
            counted = "observed_value" if expectation.type == ROW_COUNT else "element_count"
            self.result: dict[str, Any] = {counted: rows.height}
        elif expectation.type == DIVERGENCE:
            self.result = {"observed_value": _divergence(rows.get_column(column), expectation)}
        else:
            missing = rows.get_column(column).null_count()
            self.result = {"element_count": rows.height, "missing_count": missing, "unexpected_count": 0}
            if "mostly" in expectation.kwargs and rows.height:
                self.result["missing_percent"] = missing / rows.height * 100
                self.result["unexpected_percent"] = 0.0 if missing < rows.height else None


def _passing(
    frame: pl.DataFrame, expectations: list[Expectation], asset: str, memory: Memory | None
) -> list[Expectation]:
    """Those of `expectations` that `frame` keeps in each row, also where most rows would do."""
    asked = {entry.name: plain(entry.definition) for entry in expectations}
    key = digest(["expectations", _great_expectations().__version__, asked, fingerprint(frame)])
    passed = memory.recall(key) if memory is not None else None
    if passed is None:
        told = _validate(frame.to_pandas(), [_build(entry, most=False) for entry in expectations], asset)
        passed = sorted(name for name, result in told.items() if result.success is True)
        could_tell = all(_exception(result.exception_info, set()) is None for result in told.values())
        if memory is not None and could_tell:
            memory.remember(key, passed)
    return [entry for entry in expectations if entry.name in passed]


def _telling(
    rows: pl.DataFrame, expectations: Sequence[Expectation]
) -> Iterable[tuple[pl.DataFrame, list[Expectation]]]:
    """Frames on which expectations turn, each with those that it decides."""
    # A choice of rows cannot be told from the values alone.
    plain_ones = [e for e in expectations if "row_condition" not in e.kwargs]
    by_values = [e for e in plain_ones if e.type in TELLING and e.kwargs.get("column") in rows.columns]
    if by_values:
        values: dict[str, list[pl.Series]] = {}
        for entry in by_values:
            column = rows.get_column(entry.kwargs["column"])
            values.setdefault(column.name, []).append(TELLING[entry.type](column))
        series = {name: pl.concat(found) for name, found in values.items()}
        height = max(found.len() for found in series.values())
        # Repeating a value changes no verdict.
        yield pl.DataFrame([s.extend_constant(s.first(), height - s.len()) for s in series.values()]), by_values
    for entry in plain_ones:
        pair = [entry.kwargs.get("column_A"), entry.kwargs.get("column_B")]
        if entry.type == PAIR_IN_SET and set(pair) <= set(rows.columns):
            yield rows.select(pair).unique().sort(pair), [entry]
        elif entry.type == ROW_COUNT:
            bounds = [entry.kwargs.get(name) or 0 for name in ("min_value", "max_value")]
            # All numbers of rows beyond both bounds are alike.
            most = max(bounds) + 1 if all(isinstance(bound, int) for bound in bounds) else rows.height
            yield pl.DataFrame({"row": pl.zeros(min(rows.height, most), pl.UInt8, eager=True)}), [entry]


def _around(rows: pl.DataFrame, expectation: Expectation) -> list[pl.DataFrame]:
    """Frames of GRID rows between whose shares of two values those of `rows` lie; none if shares are not asked about.

    The divergence is convex in the shares (Cover and Thomas, Elements of Information Theory, 2nd ed., theorem 2.7.2):
    where both frames keep the limit, what lies between them does.
    """
    told = expectation.kwargs
    if expectation.type != DIVERGENCE or told.keys() != {"column", "partition_object", "threshold"}:
        return []
    name = told["column"]
    column = rows.get_column(name)
    counts = column.value_counts().sort(name)
    if "values" not in told["partition_object"] or counts.height != 2 or column.null_count():
        return []
    (one, other), many = counts.get_column(name), counts.item(0, "count")
    below, above = many * GRID // column.len(), -(-many * GRID // column.len())
    return [pl.DataFrame({name: [one] * n + [other] * (GRID - n)}) for n in sorted({below, above})]


def _divergence(column: pl.Series, expectation: Expectation) -> float:
    """In nats, as Great Expectations computes it: scipy's entropy of the shares relative to those expected."""
    from scipy.stats import entropy

    expected = expectation.kwargs["partition_object"]
    return float(entropy([int((column == value).sum()) for value in expected["values"]], expected["weights"]))


def _extremes(column: pl.Series) -> pl.Series:
    ends = [column.min(), column.max(), *([None] if column.null_count() else [])]
    if column.dtype.is_float() and column.is_nan().any():
        ends.append(float("nan"))
    return pl.Series(column.name, ends, column.dtype)


def _with_and_without(column: pl.Series) -> pl.Series:
    if not column.null_count():
        return column.head(1)
    return pl.Series(column.name, [*column.drop_nulls().head(1), None], column.dtype)


def _distinct(column: pl.Series) -> pl.Series:
    return column.unique().sort()


TELLING: dict[str, Callable[[pl.Series], pl.Series]] = {
    "expect_column_values_to_be_between": _extremes,
    "expect_column_values_to_not_be_null": _with_and_without,
    "expect_column_values_to_be_in_set": _distinct,
    "expect_column_values_to_match_regex": _distinct,
}
"""By expectation: the values of a column that decide whether all of it keeps the expectation."""
PAIR_IN_SET = "expect_column_pair_values_to_be_in_set"
ROW_COUNT = "expect_table_row_count_to_be_between"
DIVERGENCE = "expect_column_kl_divergence_to_be_less_than"
GRID = 1_000
"""Rows to which the shares of two values are rounded, down and up: a new batch seldom moves them further."""


def _build(expectation: Expectation, *, most: bool = True) -> Any:
    """As Great Expectations has it; not `most`: all rows are to keep it."""
    _great_expectations()
    from great_expectations.expectations.registry import get_expectation_impl

    with _alone():
        kwargs = {key: value for key, value in expectation.kwargs.items() if most or key != "mostly"}
        return get_expectation_impl(expectation.type)(meta={"name": expectation.name}, **kwargs)


def _validate(frame: Any, expectations: list[Any], asset: str) -> dict[str, Any]:
    with _alone():
        suite = _great_expectations().ExpectationSuite(name=asset, expectations=expectations)
        batch = _batch_definition().get_batch(batch_parameters={"dataframe": frame})
        outcome = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
    return {result.expectation_config.meta["name"]: result for result in outcome.results}


def _narrow(rows: pl.DataFrame, expectations: Sequence[Expectation]) -> Any:
    import pandas as pd

    wanted = _named(rows, expectations)
    return rows.select(wanted).to_pandas() if wanted else pd.DataFrame(index=range(rows.height))


def _named(rows: pl.DataFrame, expectations: Sequence[Expectation]) -> list[str]:
    """The columns that expectations are about."""
    if any(expectation.type.startswith("expect_table_column") for expectation in expectations):
        return rows.columns
    named = {word for expectation in expectations for word in _words(expectation.kwargs)}
    return [column for column in rows.columns if column in named]


def _words(kwargs: Mapping[str, Any]) -> set[str]:
    """Every word by which arguments could name a column: `column`, `column_A`, `column_list`, `row_condition`."""
    found: set[str] = set()
    for key, value in kwargs.items():
        if key.startswith("column"):
            found.update([value] if isinstance(value, str) else map(str, value))
        elif key == "row_condition":
            found.update(re.findall(r"\w+", str(value)))
    return found


def _result(expectation: Expectation, seen: Any, problem: str | None, known: set[str]) -> CheckResult:
    status: Status = "error"
    if seen is None:
        problem = problem or "Great Expectations returned no result"
    else:
        problem = _exception(seen.exception_info, known)
        if problem is None and isinstance(seen, _TooFew):
            status = "inconclusive"
        elif problem is None and seen.success not in (True, False):
            problem = "Great Expectations returned neither success nor failure"
    if problem is None and seen is not None and status != "inconclusive":
        status = "passed" if seen.success else "failed"
    observed = {"problem": problem} if problem is not None or seen is None else _numbers(seen.result)
    return CheckResult(
        name=expectation.name,
        passed=status == "passed",
        blocking=expectation.blocking,
        status=status,
        kind="expectation",
        meaning=expectation.meaning,
        definition=expectation.definition,
        observed=observed,
    )


def _exception(info: Any, known: set[str]) -> str | None:
    """The message of an exception, which lies in `info` itself or one level down, under the metric that raised it."""
    if not isinstance(info, Mapping):
        return None
    for entry in (info, *(value for value in info.values() if isinstance(value, Mapping))):
        if entry.get("raised_exception"):
            return _without_text(str(entry.get("exception_message") or "an exception"), known)
    return None


def _without_text(message: str, known: set[str]) -> str:
    """One short line, cut at the first quotation that is no name of a column or check: it may be a value of a row."""
    line = " ".join(message.split())[:300]
    for quotation in re.finditer(r"(['\"])(.*?)(\1|$)", line):
        if quotation[2] not in known:
            return f"{line[: quotation.start()]}…"
    return line


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key in KEPT:
        value: Any = result.get(key)
        item = getattr(value, "item", None)
        value = item() if callable(item) else value
        if isinstance(value, (bool, int, float)):
            kept[key] = value
    return kept
