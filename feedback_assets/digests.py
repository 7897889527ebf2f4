"""Digests: canonical JSON, logical fingerprints of frames, and ids of text as Polars expressions.

Everything is SHA-256, so that any digest can be recomputed with ordinary tools.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

ID_CHARS = 32


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no spaces and no NaN: equal values give equal bytes.

    Raises:
        ValueError: a float is NaN or infinite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


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
    import polars_hash  # noqa: F401  registers the `chash` namespace

    framed = [pl.format("{}:{};", column.str.len_bytes(), column).fill_null(pl.lit("-;")) for column in columns]
    return pl.concat_str(framed).chash.sha2_256().str.slice(0, ID_CHARS)  # type: ignore[attr-defined]


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
    dtype = series.dtype
    valid = series.is_not_null()
    sha.update(valid.to_numpy().tobytes() if series.null_count() else b"+")
    series = series.drop_nulls()
    if isinstance(dtype, pl.List):
        sha.update(series.list.len().to_numpy().tobytes())
        _update(sha, series.explode(empty_as_null=False))
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            _update(sha, series.struct.field(field.name))
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        text = series.cast(pl.String)
        sha.update(text.str.len_bytes().to_numpy().tobytes())
        sha.update(memoryview(_text_bytes(text)))
    elif dtype.is_float():
        # NumPy's + 0.0 makes -0.0 positive; Polars leaves the addition out.
        sha.update((series.fill_nan(float("nan")).to_numpy() + 0.0).tobytes())
    elif dtype == pl.Null:
        pass
    elif dtype == pl.Binary:
        sha.update(series.bin.size().to_numpy().tobytes())
        sha.update(b"".join(series.to_list()))
    elif dtype == pl.Boolean or dtype.is_integer() or dtype.is_temporal():
        sha.update(series.to_physical().to_numpy().tobytes())
    else:
        raise TypeError(f"a column of {dtype} has no fingerprint")


def _text_bytes(text: pl.Series) -> Any:
    import pyarrow as pa

    array = text.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if array.offset == 0 and isinstance(array, pa.LargeStringArray):
        offsets_end = array.buffers()[1]
        data = array.buffers()[2]
        if data is None or len(array) == 0:
            return b""
        import numpy as np

        ends = np.frombuffer(offsets_end, dtype=np.int64)[: len(array) + 1]
        return data[int(ends[0]) : int(ends[-1])]
    return "".join(text.to_list()).encode()
