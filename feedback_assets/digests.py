"""Digests: canonical JSON, logical fingerprints of frames, and ids of text as Polars expressions.

Every digest is SHA-256, so that it can be recomputed with ordinary tools.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

ID_CHARS = 32
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no spaces and no NaN: equal values give equal bytes.

    Raises:
        ValueError: a float is NaN or infinite.
    """
    return _CANONICAL.encode(value).encode()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hex characters."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_id(*columns: pl.Expr) -> pl.Expr:
    """An id over string columns: SHA-256 of their length-prefixed values, cut to 32 hex characters (128 bits).

    Null and the empty string differ. Lengths are in bytes.
    """
    framed = [pl.format("{}:{};", column.str.len_bytes(), column).fill_null(pl.lit("-;")) for column in columns]
    return text_digest(pl.concat_str(framed))


def text_digest(text: pl.Expr) -> pl.Expr:
    """SHA-256 of each text's UTF-8, cut to 32 hex characters (128 bits); null of null."""
    import polars_hash  # noqa: F401  registers the `chash` namespace

    return text.chash.sha2_256().str.slice(0, ID_CHARS)  # type: ignore[attr-defined]


def text_hash(text: pl.Expr) -> pl.Expr:
    """XXH3 of each text's UTF-8 (UInt64), the same on every machine; null of null. It is fast, and not secure."""
    import polars_hash  # noqa: F401  registers the `nchash` namespace

    return text.nchash.xxh3_64()  # type: ignore[attr-defined]


def keyed_draw(key: str, name: pl.Expr) -> pl.Expr:
    """A draw from [0, 1) for each name (Float64), by a key: the same on every machine and beside whatever names."""
    return text_hash(pl.concat_str(pl.lit(f"{key}:"), name)) % 2**32 / 2**32


def repeated(hashes: pl.Series) -> pl.Series:
    """Whether each of `hashes` (UInt64, no nulls) stands more than once; few do.

    NumPy sorts numbers with the widest instructions of the processor: counting them takes more than twice as long.
    """
    import numpy as np

    ordered = np.sort(hashes.to_numpy())
    return hashes.is_in(pl.Series(np.unique(ordered[1:][ordered[1:] == ordered[:-1]])).implode())


def distinct(hashes: pl.Series) -> int:
    """How many different `hashes` (UInt64, no nulls) there are."""
    import numpy as np

    ordered = np.sort(hashes.to_numpy())
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + bool(len(ordered))


def schema_of(frame: pl.DataFrame | pl.LazyFrame) -> dict[str, str]:
    """Column names and dtypes, as text that does not depend on the Polars version."""
    return {name: _dtype(dtype) for name, dtype in frame.collect_schema().items()}


def _dtype(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return f"list<{_dtype(dtype.inner)}>"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return "struct<" + ",".join(f"{f.name}:{_dtype(f.dtype)}" for f in dtype.fields) + ">"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Datetime):
        return f"datetime<{dtype.time_unit},{dtype.time_zone or ''}>"
    return str(dtype).lower()


def fingerprint(frame: pl.DataFrame) -> str:
    """Logical fingerprint of a frame: SHA-256 over the schema and the canonical values of each column.

    Nulls have no value behind them, chunks are joined, offsets start at 0: writer version, chunking,
    dictionary encoding and thread count make no difference. NaN is one value and -0.0 equals 0.0.

    Raises:
        TypeError: a dtype that has no canonical bytes, such as Object.
    """
    sha = hashlib.sha256(canonical_json([list(schema_of(frame).items()), frame.height]))
    for series in frame.get_columns():
        _update(sha, series)
    return sha.hexdigest()


def _update(sha: "hashlib._Hash", series: pl.Series) -> None:
    import numpy as np

    dtype, nulls = series.dtype, series.null_count()
    if nulls:
        # Polars runs many a method of a series as an expression, 70 µs however short it is: here as few as can be.
        there = series.is_not_null() if nulls < len(series) else pl.Series([False]).new_from_index(0, nulls)
        sha.update(there.to_numpy().data)
        series = series.filter(there)
        if series.is_empty() and not dtype.is_nested():
            return
    else:
        sha.update(b"+")
    if isinstance(dtype, pl.List):
        sha.update(series.list.len().to_numpy().data)
        _update(sha, series.explode(empty_as_null=False))
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            _update(sha, series.struct.field(field.name))
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        lengths, data = _text(series if dtype == pl.String else series.cast(pl.String))
        sha.update(lengths)
        sha.update(data)
    elif dtype.is_float():
        # NumPy's + 0.0 makes -0.0 positive; Polars leaves the addition out.
        values = series.to_numpy() + 0.0
        values[np.isnan(values)] = np.nan
        sha.update(values.data)
    elif dtype == pl.Null:
        pass
    elif dtype == pl.Binary:
        sha.update(series.bin.size().to_numpy().data)
        sha.update(b"".join(series.to_list()))
    elif dtype == pl.Boolean or dtype.is_integer() or dtype.is_temporal():
        sha.update((series.to_physical() if dtype.is_temporal() else series).to_numpy().data)
    else:
        raise TypeError(f"a column of {dtype} has no fingerprint")


def _text(text: pl.Series) -> tuple[bytes, Any]:
    """Lengths in bytes (uint32 each) and the bytes of all texts, from Arrow's own buffers. There are no nulls."""
    import numpy as np

    array = text.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, places, data = array.buffers()
    if not len(array) or data is None:
        return np.zeros(len(array), np.uint32).tobytes(), b""
    offsets = np.frombuffer(places, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return np.diff(offsets).astype(np.uint32).tobytes(), memoryview(data)[int(offsets[0]) : int(offsets[-1])]
