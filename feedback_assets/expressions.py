"""Polars SQL expressions that people write in the policy: checked, then compiled.

An expression computes one value from one row. Polars' own parser would run a subquery, open a file or a URL,
or read the clock while it parses, so nothing reaches it that has not passed two guards: the words, functions
and signs of the text (read with one regular expression, in which quoting has a single meaning), and the syntax
tree that sqlglot makes of it. Both are allowlists.
"""

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any

import polars as pl
from pydantic import AfterValidator

from feedback_assets.errors import FeedbackError

LONGEST = 10_000
"""Characters that an expression may have: parsers recurse."""

FUNCTIONS = frozenset(
    """
    abs array_contains array_get array_length array_lower array_mean array_reverse array_sum array_to_string
    array_unique array_upper bit_and bit_count bit_or bit_xor cast cbrt ceil ceiling char_length character_length
    coalesce concat concat_ws date date_part div ends_with exp floor greatest if ifnull initcap least left length
    ln log log10 log1p log2 lower lpad ltrim mod normalize nullif octet_length position pow power regexp_like
    regexp_replace replace reverse right round rpad rtrim sign split_part sqrt starts_with strftime
    string_to_array strpos strptime substr substring timestamp trim try_cast upper
    """.split()  # noqa: SIM905
)
"""Functions of one row that an expression may call."""

_BEFORE_PAREN = frozenset(["and", "between", "case", "else", "ilike", "in", "is", "like", "not", "or", "then", "when"])
_TYPES_WITH_SIZE = frozenset(["char", "decimal", "numeric", "varchar"])
_QUERY = ("select", "from", "with", "values", "table", "unnest", "exists", "any", "all", "some", "union", "intersect")
_WINDOW = ("over", "qualify", "partition", "filter", "within")
_CLOCK = ("now", "today", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
_AGGREGATE = ("avg", "count", "first", "last", "max", "median", "min", "quantile", "stddev", "sum", "var")
AGGREGATES = frozenset(["avg", "count", "max", "median", "min", "stddev", "sum", "var"])
"""Aggregates that `aggregate` takes: of all values, in whatever order."""
_REFUSED = {
    **dict.fromkeys(_QUERY, "query"),
    **dict.fromkeys(_WINDOW, "window"),
    **dict.fromkeys(_CLOCK, "clock"),
    **dict.fromkeys(_AGGREGATE, "aggregate"),
}
_WHY = {
    "query": "an expression has no subquery and no table",
    "window": "an expression sees one row, no window",
    "clock": "an expression reads no clock, or the same data would give another result tomorrow",
    "aggregate": "an expression sees one row, no aggregate",
}

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")*")
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w))
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>->>|->|\|\||::|<>|!=|<=|>=|==|!~|[-+*/%=<>~(),.\[\]])""",
    re.VERBOSE,
)


@lru_cache(maxsize=4096)
def expression(text: str) -> pl.Expr:
    """The Polars expression that `text` says.

    Raises:
        ValueError: `text` is refused or unknown to Polars; one line, with what may be used.
    """
    _check_text(text)
    _check_tree(text)
    return _compile(text)


@lru_cache(maxsize=64)
def aggregate(text: str) -> pl.Expr:
    """The expression of `text` over all rows: as `expression`, with aggregates (`AGGREGATES`) of what it computes.

    Raises:
        ValueError: as `expression`.
    """
    _check_text(text, AGGREGATES)
    _check_tree(text, aggregates=True)
    return _compile(text)


def _checked(text: str) -> str:
    expression(text)
    return text


Sql = Annotated[str, AfterValidator(_checked)]
"""A Polars SQL expression in the policy; what is refused is a ValueError of one line."""


def columns_of(text: str) -> tuple[str, ...]:
    """Names of the columns that `text` reads, sorted; of a struct's field, the struct's column.

    Raises:
        ValueError: as `expression`.
    """
    return tuple(sorted(set(expression(text).meta.root_names())))


def condition(text: str, rows: pl.DataFrame, where: str) -> pl.Expr:
    """The expression that `text` says, true or false for each of `rows`; `where` names its place in the policy.

    Raises:
        FeedbackError: it reads a column that is not there, cannot be computed, or gives something else.
    """
    for column in columns_of(text):
        if column not in rows.columns:
            close = get_close_matches(column, rows.columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(rows.columns)}"
            raise FeedbackError(f"{where} reads the column {column!r}, which is not there; {hint}")
    try:
        dtype = rows.clear().select(expression(text)).dtypes[0]
    except pl.exceptions.PolarsError as error:
        raise FeedbackError(f"{where} cannot be computed: {str(error).splitlines()[0]}") from None
    if dtype not in (pl.Boolean, pl.Null):
        raise FeedbackError(f"{where} gives {dtype}, not true or false; compare it with something")
    return expression(text).cast(pl.Boolean)


def paths_of(text: str) -> list[tuple[str, ...]]:
    """What `text` reads: of each place the column, then the fields of it that are named with dots, `a.b.c`.

    Raises:
        ValueError: as `expression`.
    """
    from sqlglot import exp, parse_one

    expression(text)
    found = parse_one(text, dialect="postgres").find_all(exp.Column)
    return sorted({tuple(part.name for part in column.parts) for column in found})


def _check_text(text: str, aggregates: frozenset[str] = frozenset()) -> None:
    if not text.strip():
        raise ValueError("the expression is empty")
    if len(text) > LONGEST:
        raise ValueError(f"the expression has {len(text)} characters; {LONGEST} are allowed")
    if "\0" in text:
        raise ValueError("the expression holds a NUL character")
    tokens = _tokens(text)
    for position, (kind, token) in enumerate(tokens):
        before = tokens[position - 1] if position else ("", "")
        after = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        if kind == "word":
            _check_word(token.lower(), before[1].lower(), after, aggregates)
        elif kind == "name" and (after == "(" or _means_several(token)):
            raise ValueError(f"{token!r} is refused: a quoted name is one column, neither a function nor a pattern")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, previous = 0, ""
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or text.startswith(("--", "/*"), at):
            raise ValueError(
                f"{text[at : at + 10]!r} is refused: outside quotes only names, numbers and operators such as "
                "+ - * / % = <> < > || ~ -> ->> :: [1] are read; text stands in 'single quotes'"
            )
        kind = str(found.lastgroup)
        touches = previous in ("word", "number") or (kind == "name" and previous == "text")
        if kind in ("text", "name") and (touches or (tokens and tokens[-1][0] == kind)):
            raise ValueError(f"{found.group()[:20]!r} is refused: an operator must stand between it and what is before")
        if kind != "space":
            tokens.append((kind, found.group()))
        at, previous = found.end(), kind
    return tokens


def _means_several(name: str) -> bool:
    return name == '"*"' or (name.startswith('"^') and name.endswith('$"'))


def _check_word(word: str, before: str, after: str, aggregates: frozenset[str]) -> None:
    if before == ".":
        if after == "(":
            raise ValueError(f"{word}(…) is refused: call functions by their plain name")
        return
    if (word == "from" and before == "distinct") or (word in aggregates and after == "("):
        return
    refused = _REFUSED.get(word)
    if refused and (refused != "aggregate" or after == "("):
        raise ValueError(
            f'the word {word.upper()} is refused: {_WHY[refused]} (a column of that name is written "{word}")'
        )
    known = FUNCTIONS | _BEFORE_PAREN | _TYPES_WITH_SIZE
    if after == "(" and word not in known:
        close = get_close_matches(word, FUNCTIONS, n=1)
        hint = f"did you mean {close[0].upper()}?" if close else "known: " + ", ".join(sorted(FUNCTIONS))
        raise ValueError(f"there is no function {word.upper()} that an expression may call; {hint}")


def _check_tree(text: str, *, aggregates: bool = False) -> None:
    from sqlglot import errors, parse

    try:
        trees = parse(text, dialect="postgres")
    except (errors.SqlglotError, RecursionError) as error:
        raise ValueError(f"not an SQL expression: {_one_line(error)}") from None
    if len(trees) != 1 or trees[0] is None:
        raise ValueError("one expression is expected")
    for node in trees[0].walk():
        if not (_sees_one_row(node) or (aggregates and _sees_all_rows(node))):
            raise ValueError(
                f"{type(node).__name__.lower()} is refused: an expression has columns, literals, operators, "
                f"CASE, CAST, IN (…), LIKE, BETWEEN and functions of one row{' and of all' if aggregates else ''}"
            )


def _sees_one_row(node: Any) -> bool:
    from sqlglot import exp

    if isinstance(node, (exp.AggFunc, exp.Array, exp.Query, exp.Star, exp.UDTF, exp.Window)) or node.args.get("query"):
        return False
    return isinstance(
        node,
        (
            exp.Between, exp.Binary, exp.Boolean, exp.Bracket, exp.Case, exp.Cast, exp.Column, exp.DataType,
            exp.DataTypeParam, exp.Func, exp.Identifier, exp.In, exp.Interval, exp.JSONPath, exp.JSONPathPart,
            exp.Literal, exp.Null, exp.Paren, exp.Unary, exp.Var,
        ),
    )  # fmt: skip


def _sees_all_rows(node: Any) -> bool:
    from sqlglot import exp

    if isinstance(node, exp.Distinct):  # Polars takes SUM(DISTINCT x) for another thing than SQL does
        return isinstance(node.parent, exp.Count) and len(node.expressions) == 1
    return isinstance(node, (exp.AggFunc, exp.Star))


def _compile(text: str) -> pl.Expr:
    try:
        compiled = pl.sql_expr(text)
    except (pl.exceptions.PolarsError, RecursionError) as error:
        raise ValueError(f"Polars does not know this expression: {_one_line(error)}") from None
    if compiled.meta.has_multiple_outputs():
        raise ValueError("the expression gives several columns; one is expected")
    return compiled


def _one_line(error: BaseException) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300]
