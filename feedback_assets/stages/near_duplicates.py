"""Near-duplicate items: shingles, banded signatures, and exact Jaccard of the candidates.

Two items are near-duplicates when their prompts and each response with its counterpart have a Jaccard
similarity of at least θ, over sets of character n-grams (shingles). Counterparts may be crossed: the
canonical order of two responses is by digest, so a near-duplicate may hold them the other way round.

Signatures only propose; every pair that comes back was compared shingle by shingle.
A band key takes `rows − 1` values from the shingles of all responses together (their order makes no difference)
and one from the prompt: two items with p = J(prompt) and r = J(responses) share at least one key with probability
1 − (1 − p·r^(rows−1))^bands, .9999 at p = r = .8 with 25 × 5 (.98 in the worst case, when the two responses of an
item are nearly the same text and differ in other places: then r may be 2/3 only).
Values are fast similarity sketching (Dahlgaard, Knudsen, Thorup, FOCS 2017): one permutation fills the bins of a
long text, further rounds those that stay empty in a short one, so recall does not depend on length.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from feedback_assets.digests import digest, text_hash
from feedback_assets.engine.engine import ContentPart, Engine

PAIRS = pl.Schema({"one": pl.UInt64, "two": pl.UInt64})
VERIFIED = pl.Schema({"one": pl.UInt64, "two": pl.UInt64, "crossed": pl.Boolean})

_TEXTS = ["prompt", "response_a", "response_b"]
_HASH = "hash of "
_BATCH = 1_024  # content rows signed at once: small, so that all threads have some of a new batch
_CHUNK = 128  # pairs compared at once: their hashes should stay in the processor's cache
_PAIRS_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class NearDuplicates:
    """What was found in all parts of content.

    `texts`: content_part, content_row, text (UInt64: equal for equal prompt and responses);
    `pairs`: one < two (texts), crossed (the first response of one is the counterpart of the second of two);
    `candidates`: pairs compared; `cut_short`: texts that share a key with more than `bucket` earlier ones
    and were compared with the first of these only.
    """

    texts: pl.DataFrame
    pairs: pl.DataFrame
    candidates: int
    cut_short: int


def near_duplicates(
    content: Sequence[ContentPart],
    engine: Engine,
    *,
    threshold: float,
    shingle: int = 5,
    bands: int = 25,
    rows: int = 5,
    bucket: int = 32,
) -> NearDuplicates:
    """Find all near-duplicates among the texts of `content`.

    Signatures are remembered per part; candidates and their verification per part and the parts before it.
    """
    parameters = {"shingle": shingle, "bands": bands, "rows": rows}
    signed = engine.map(signatures, content, parameters=parameters)
    found = engine.scan(
        candidates,
        [(part.digest, frame) for part, frame in zip(content, signed, strict=True)],
        parameters={**parameters, "bucket": bucket},
    )
    texts = pl.concat(
        [
            frame.select(
                pl.lit(part.digest).alias("content_part"),
                pl.int_range(pl.len(), dtype=pl.UInt32).alias("content_row"),
                "text",
            )
            for part, frame in zip(content, signed, strict=True)
        ]
    ).collect()
    compared = [frame.filter(pl.col("two").is_not_null()) for frame in found]
    steps = [_Step(content[: end + 1], texts, frame) for end, frame in enumerate(compared) if not frame.is_empty()]
    verdicts = engine.map(
        verified,
        [step.view for step in steps],
        beside=[step.positions for step in steps],
        parameters={**parameters, "bucket": bucket, "threshold": threshold},
    )
    return NearDuplicates(
        texts,
        pl.concat([VERIFIED.to_frame().lazy(), *verdicts]).sort("one", "two").collect(),
        sum(frame.height for frame in compared),
        sum(frame.height for frame in found) - sum(frame.height for frame in compared),
    )


@dataclass(frozen=True)
class _Step:
    """The candidates of one part of content with itself and those before it, the last of `content`."""

    content: Sequence[ContentPart]
    texts: pl.DataFrame
    pairs: pl.DataFrame

    @property
    def view(self) -> ContentPart:
        """The rows of text that they need: the parts, and how candidates are found, determine which."""
        name = digest(["candidates", [part.digest for part in self.content]])
        return ContentPart(name, self.pairs.height, self._read)

    def positions(self) -> pl.DataFrame:
        """The pairs and the rows of their texts in the view, at_one and at_two."""
        at = self._needed.select("text", "at")
        return (
            self.pairs.join(at, left_on="one", right_on="text", maintain_order="left")
            .join(at, left_on="two", right_on="text", suffix="_two", maintain_order="left")
            .rename({"at": "at_one", "at_two": "at_two"})
        )

    def _read(self) -> pl.LazyFrame:
        rows = dict(self._needed.group_by("content_part").agg("content_row").iter_rows())
        return _texts_at([(part, rows[part.digest]) for part in self.content if part.digest in rows])

    @cached_property
    def _needed(self) -> pl.DataFrame:
        wanted = pl.concat([self.pairs.get_column("one"), self.pairs.get_column("two").alias("one")]).unique()
        found = self.texts.filter(pl.col("text").is_in(wanted.implode()))
        return found.unique("text", keep="first", maintain_order=True).with_row_index("at")


def _texts_at(wanted: Sequence[tuple[ContentPart, Sequence[int]]]) -> pl.LazyFrame:
    return pl.concat([part.at(sorted(rows), *_texts()).drop("row") for part, rows in wanted])


def signatures(content: pl.LazyFrame, parameters: dict[str, int]) -> pl.DataFrame:
    """Return for each row of content `text` and its keys `band_0`, `band_1` … (UInt64; null where it stood before).

    `parameters`: shingle (characters), bands, rows.
    """
    threads = pl.thread_pool_size()
    pending = []
    with ThreadPoolExecutor(threads) as pool:
        hashed = [_hashed(pl.col(name)).alias(_HASH + name) for name in _TEXTS]
        texts = content.select(*_texts()).with_columns(hashed)
        for batch in texts.collect_batches(chunk_size=_BATCH, maintain_order=True):
            pending.append(pool.submit(_signed, batch, parameters))
            if len(pending) > 2 * threads:
                pending[-2 * threads].result()  # do not read ahead of the work: memory stays small
        signed = [future.result() for future in pending]
    bands = _bands(parameters)
    empty = pl.DataFrame(schema=dict.fromkeys(["text", *bands], pl.UInt64))
    return pl.concat([empty, *signed]).with_columns(pl.when(pl.col("text").is_first_distinct()).then(pl.col(bands)))


def candidates(
    earlier: Sequence[pl.LazyFrame], new: Sequence[pl.DataFrame], parameters: dict[str, int]
) -> list[pl.DataFrame]:
    """Return, for each part of `new`, pairs (PAIRS) of its texts with themselves and those before that share a key.

    Within a key's bucket each text is compared with the first `parameters["bucket"]` in order of arrival, so that a
    bucket costs no more than its size times that; a text that has more than these before it is reported
    once, with `two` null.
    """
    bands = _bands(parameters)
    signed = pl.concat(
        frame.filter(pl.col(bands[0]).is_not_null()).with_columns(step=pl.lit(step, pl.Int64))
        for step, frame in enumerate(new)
    ).unique("text", keep="first", maintain_order=True)
    old = []
    if earlier:
        history = pl.concat(earlier).collect()
        texts = history.get_column("text")
        known = texts.filter(texts.is_in(signed.get_column("text").implode()))
        signed = signed.filter(~pl.col("text").is_in(known.implode()))
        # Of all bands in one query: most meet few texts.
        met = history.select(
            pl.struct("text", keys=band)
            .filter(pl.col(band).is_in(signed.get_column(band).implode()))
            .implode()
            .alias(band)
            for band in bands
        )
        met = met.unpivot(on=bands, value_name="met").select(pl.col("met").explode(empty_as_null=False)).unnest("met")
        old = [met.unique(maintain_order=True).select("text", pl.lit(-1, pl.Int64).alias("step"), "keys")]
    own = signed.unpivot(on=bands, index=["text", "step"], value_name="keys").drop("variable")
    members = pl.concat([*old, own])
    ordered = members.get_column("keys").sort()
    repeated = ordered.filter(ordered == ordered.shift()).unique().to_frame()
    members = members.join(repeated, on="keys", how="semi", maintain_order="left").sort("keys", maintain_order=True)
    key, text, step = (members.get_column(name).to_numpy() for name in ("keys", "text", "step"))
    index = np.arange(len(key))
    opens = np.ones(len(key), dtype=bool)
    opens[1:] = key[1:] != key[:-1]
    start = np.maximum.accumulate(np.where(opens, index, 0))
    before = np.where(step >= 0, index - start, 0)
    partners = np.minimum(before, parameters["bucket"])
    found = PAIRS.to_frame().with_columns(step=pl.lit(0, pl.Int64)).clear()
    for lo, hi in _spans(partners, _PAIRS_AT_ONCE):
        count = partners[lo:hi]
        one = np.repeat(index[lo:hi], count)
        two = start[one] + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        left, right = text[one], text[two]
        pairs = {"one": np.minimum(left, right), "two": np.maximum(left, right), "step": step[one]}
        found = pl.concat([found, pl.DataFrame(pairs, schema=found.schema)]).unique()
    beyond = before > partners
    cut = pl.DataFrame({"one": text[beyond], "two": None, "step": step[beyond]}, schema=found.schema).unique()
    told = pl.concat([found.sort("one", "two"), cut.sort("one")])
    return [told.filter(pl.col("step") == place).drop("step") for place in range(len(new))]


def _bands(parameters: dict[str, int]) -> list[str]:
    return [f"band_{band}" for band in range(parameters["bands"])]


def _spans(sizes: np.ndarray, limit: int) -> Iterable[tuple[int, int]]:
    """Cut consecutive `sizes` so that each span holds about `limit` in all."""
    steps = np.cumsum(sizes) // limit
    ends = np.append(np.flatnonzero(np.diff(steps)) + 1, len(sizes)) if len(sizes) else np.array([], dtype=np.int64)
    return zip([0, *ends[:-1]], ends, strict=False)


def verified(content: pl.LazyFrame, parameters: dict[str, Any], pairs: pl.DataFrame) -> pl.DataFrame:
    """Return those of `pairs` that are near-duplicates (VERIFIED), by exact Jaccard over shingles.

    `content`: prompt (joined), response_a, response_b; `pairs`: one, two, and their rows there, at_one, at_two.
    `parameters`: shingle (characters), threshold.
    """
    texts = _Texts(_flat(content.collect()), parameters["shingle"], parameters["threshold"])
    one = pairs.get_column("at_one").to_numpy().astype(np.int64) * 3
    two = pairs.get_column("at_two").to_numpy().astype(np.int64) * 3
    single = ~texts.valid[one + 2]
    alike = texts.similarity(one, two, single == ~texts.valid[two + 2]) > 0
    straight = texts.similarity(one + 1, two + 1, alike)
    straight = np.minimum(
        straight, np.where(single, straight, texts.similarity(one + 2, two + 2, ~single & (straight > 0)))
    )
    crossed = texts.similarity(one + 1, two + 2, ~single & alike)
    crossed = np.minimum(crossed, texts.similarity(one + 2, two + 1, crossed > 0))
    return (
        pairs.select("one", "two")
        .with_columns(crossed=pl.Series(crossed > straight))
        .filter(pl.Series(np.maximum(straight, crossed) > 0))
    )


class _Texts:
    """Texts of candidates, compared by number."""

    def __init__(self, texts: pl.Series, shingle: int, threshold: float) -> None:
        self.data, self.begins, self.ends = _buffers(texts)
        self.valid = texts.is_not_null().to_numpy()
        self.ids = texts.to_frame().select(_hashed(pl.first())).to_series().to_numpy()
        self.shingle = shingle
        self.threshold = threshold

    def similarity(self, left: np.ndarray, right: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Jaccard of the texts `left` and `right`; 0 where it is below the threshold or not asked for."""
        result = np.zeros(len(left))
        same = where & (self.ids[left] == self.ids[right])
        result[same] = 1.0
        at = np.flatnonzero(where & ~same)
        if not len(at):
            return result
        lower, upper = np.minimum(left[at], right[at]), np.maximum(left[at], right[at])
        asked = pl.DataFrame({"l": lower, "r": upper, "i": self.ids[lower], "j": self.ids[upper]})
        firsts = asked.unique(["i", "j"], keep="first", maintain_order=True).sort("l", "r")
        values = np.concatenate(
            _each(self._compared, [firsts.slice(start, _CHUNK) for start in range(0, firsts.height, _CHUNK)])
        )
        known = firsts.select("i", "j", value=pl.Series(values))
        result[at] = asked.join(known, on=["i", "j"], how="left", maintain_order="left").get_column("value").to_numpy()
        return result

    def _compared(self, pairs: pl.DataFrame) -> np.ndarray:
        from feedback_assets.stages.shingles import jaccard

        numbers, inverse = np.unique(pairs.select("l", "r").to_numpy(), return_inverse=True)
        sides = inverse.reshape(-1, 2)
        hashes, starts = _windows(self.data, self.begins[numbers], self.ends[numbers], self.shingle)
        values = np.zeros(pairs.height)
        left, right = (np.ascontiguousarray(sides[:, side]) for side in (0, 1))
        jaccard(hashes, starts, left, right, self.threshold, values)
        return values


def _texts() -> list[pl.Expr]:
    turn = pl.element().struct
    joined = pl.concat_str(turn.field("role"), pl.lit(": "), turn.field("text"), ignore_nulls=True)
    prompt = pl.col("prompt").list.eval(joined).list.join("\n").fill_null("")
    return [prompt, pl.col("response_a"), pl.col("response_b")]


def _flat(batch: pl.DataFrame) -> pl.Series:
    """Prompt, response a and response b of each row, one after the other."""
    return batch.select(pl.concat_list("prompt", "response_a", "response_b")).to_series().explode()


def _hashed(text: pl.Expr) -> pl.Expr:
    return text_hash(text).fill_null(0)


def _signed(batch: pl.DataFrame, parameters: dict[str, int]) -> pl.DataFrame:
    from feedback_assets.stages.shingles import folded

    text = np.zeros(batch.height, dtype=np.uint64)
    for name in _TEXTS:
        text = folded(text, batch.get_column(_HASH + name).to_numpy())
    numbered = pl.DataFrame({"text": text})
    first = numbered.get_column("text").is_first_distinct()
    distinct = batch if first.all() else batch.filter(first)
    keys = pl.DataFrame(_band_keys(distinct.select(_TEXTS), parameters), schema=_bands(parameters))
    if distinct is batch:
        return numbered.hstack(keys)
    known = numbered.filter(first).hstack(keys)
    return numbered.join(known, on="text", how="left", maintain_order="left")


def _band_keys(batch: pl.DataFrame, parameters: dict[str, int]) -> np.ndarray:
    from feedback_assets.stages.shingles import band_keys

    keys = np.empty((batch.height, parameters["bands"]), dtype=np.uint64)
    texts = [array for column in batch.iter_columns() for array in _buffers(column)]
    band_keys(*texts, parameters["shingle"], parameters["rows"], keys)
    return keys


def _buffers(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UTF-8 bytes of all texts, and where each begins and ends; a null begins at -1."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, places, data = array.buffers()
    offsets = np.frombuffer(places, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    begins = np.where(texts.is_not_null().to_numpy(), offsets[:-1], -1)
    text = np.frombuffer(data if data else b"\0", dtype=np.uint8)
    return text, begins, offsets[1:].copy()


def _windows(data: np.ndarray, begins: np.ndarray, ends: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the shingles of each text, in order, and where each text's hashes start."""
    from feedback_assets.stages.shingles import windows

    hashes = np.empty(int((ends - begins)[begins >= 0].sum()) + len(begins), dtype=np.uint64)
    starts = np.zeros(len(begins) + 1, dtype=np.int64)
    windows(data, begins, ends, shingle, hashes, starts)
    return hashes, starts


def _each(function: Any, tasks: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return list(pool.map(function, tasks))
