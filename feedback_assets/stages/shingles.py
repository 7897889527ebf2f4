"""Compiled kernels of the near-duplicate search: shingles of UTF-8 text, minima by bin, Jaccard.

All integers are uint64 where they meet a hash: numba makes a float of uint64 with int64. The module takes a second to
import and is imported where it is used.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit  # noqa: TID253  nothing imports this module before it needs the kernels

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""A bin into which no hash fell."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_LOW = np.uint64(0xFFFFFFFF)
_MARKS = np.uint64(0x3FF)  # room for the marks of MOST_PAIRS pairs
_32 = np.uint64(32)
_33 = np.uint64(33)
_8 = np.uint64(8)
_1 = np.uint64(1)
_0 = np.uint64(0)

MOST_PAIRS = 128
"""Pairs that `jaccard` takes at once."""


def compiled(kernel: Callable[..., Any]) -> Any:
    """Compile `kernel`, which lets other threads run; kept on disk where there is a folder for it."""
    try:
        return njit(nogil=True, cache=True)(kernel)
    except RuntimeError:
        return njit(nogil=True)(kernel)


@compiled
def mixed(word: np.uint64) -> np.uint64:
    """MurmurHash3's finalizer: every bit of `word` moves every bit of the result."""
    word = (word ^ (word >> _33)) * _MIX_1
    word = (word ^ (word >> _33)) * _MIX_2
    return word ^ (word >> _33)


@compiled
def folded(hashed: np.uint64, value: np.uint64) -> np.uint64:
    """Hash of `hashed` and `value`, in this order."""
    word = (hashed ^ value) * _MULTIPLIER
    word = (word ^ (word >> _32)) * _MIX_1
    return word ^ (word >> _33)


@compiled
def _of_bytes(text: np.ndarray, start: int, stop: int) -> np.uint64:
    """Hash of the bytes start..stop: eight at a time, the first in the lowest bits."""
    hashed = _0
    word = _0
    for place in range(start, stop):
        at = (place - start) % 8
        if at == 0 and place > start:
            hashed = mixed(hashed ^ word)
            word = _0
        word |= np.uint64(text[place]) << np.uint64(8 * at)
    return mixed(hashed ^ word)


@compiled
def _next_character(text: np.ndarray, place: int) -> int:
    while place < len(text) and (text[place] & 0xC0) == 0x80:
        place += 1
    return place


@compiled
def shingles(data: np.ndarray, begin: int, end: int, width: int, out: np.ndarray) -> int:
    """Hash each run of `width` characters of data[begin:end] into `out`, and say how many there are.

    A shorter text is one shingle, so is the empty one; a null (begin < 0) has none. The hash is of the shingle's bytes,
    so that ASCII text can take a path without branches.
    """
    if begin < 0:
        return 0
    text = data[begin:end]
    high = np.uint8(0)
    for byte in text:
        high |= byte
    count = len(text) - width + 1
    if high < 128 and width <= 8 and count > 1:
        # Loops without a dependence between their turns, which become vector instructions.
        words = out[:count]
        for place in range(count):
            words[place] = text[place]
        for further in range(1, width):
            bits = np.uint64(8 * further)
            bytes_ = text[further : further + count]
            for place in range(count):
                words[place] |= np.uint64(bytes_[place]) << bits
        for place in range(count):
            words[place] = mixed(words[place])
        return count
    start = stop = count = 0
    while count < width and stop < len(text):
        stop = _next_character(text, stop + 1)
        count += 1
    count = 0
    while True:
        out[count] = _of_bytes(text, start, stop)
        count += 1
        if stop >= len(text):
            return count
        start = _next_character(text, start + 1)
        stop = _next_character(text, stop + 1)


@compiled
def windows(
    data: np.ndarray, begins: np.ndarray, ends: np.ndarray, width: int, hashes: np.ndarray, starts: np.ndarray
) -> None:
    """Hash the shingles of all texts into `hashes`, one text after the other, each from its place in `starts`."""
    at = 0
    for text in range(len(begins)):
        starts[text] = at
        at += shingles(data, begins[text], ends[text], width, hashes[at:])
    starts[len(begins)] = at


@compiled
def _minima(hashes: np.ndarray, values: np.ndarray) -> None:
    """Fill `values` (all EMPTY) with the least hash of each bin.

    Round 0 sends each hash to one bin; as long as bins are empty, a further round sends it elsewhere. From round
    `bins` on, all go to one bin a round, so that it ends.
    """
    bins = len(values)
    wide = np.uint64(bins)
    for hashed in hashes:
        slot = ((hashed >> _32) * wide) >> _32
        values[slot] = min(values[slot], hashed & _LOW)
    for turn in range(1, 2 * bins):
        if len(hashes) == 0 or values.max() != EMPTY:
            break
        seed = np.uint64(turn) * _MULTIPLIER
        above = np.uint64(turn) << _32
        for hashed in hashes:
            again = mixed(hashed + seed)
            slot = ((again >> _32) * wide) >> _32 if turn < bins else np.uint64(turn - bins)
            values[slot] = min(values[slot], above | (again & _LOW))


@compiled
def band_keys(
    prompt: np.ndarray,
    prompt_begins: np.ndarray,
    prompt_ends: np.ndarray,
    first: np.ndarray,
    first_begins: np.ndarray,
    first_ends: np.ndarray,
    second: np.ndarray,
    second_begins: np.ndarray,
    second_ends: np.ndarray,
    width: int,
    rows: int,
    keys: np.ndarray,
) -> None:
    """Fill each row of `keys`, one a band, with hashes of `rows` minima, the last of them the prompt's."""
    longest = 2
    for row in range(len(prompt_begins)):
        longest = max(longest, prompt_ends[row] - prompt_begins[row] + 2)
        both = first_ends[row] - first_begins[row] + second_ends[row] - second_begins[row]
        longest = max(longest, both + 4)
    hashes = np.empty(longest, np.uint64)
    bands = keys.shape[1]
    prompts = np.empty(bands, np.uint64)
    responses = np.empty(bands * (rows - 1), np.uint64)
    for row in range(len(prompt_begins)):
        prompts[:] = EMPTY
        responses[:] = EMPTY
        count = shingles(prompt, prompt_begins[row], prompt_ends[row], width, hashes)
        _minima(hashes[:count], prompts)
        count = shingles(first, first_begins[row], first_ends[row], width, hashes)
        count += shingles(second, second_begins[row], second_ends[row], width, hashes[count:])
        _minima(hashes[:count], responses)
        for band in range(bands):
            key = np.uint64(band)
            for minimum in responses[band * (rows - 1) : (band + 1) * (rows - 1)]:
                key = folded(key, minimum)
            keys[row, band] = folded(key, prompts[band])


@compiled
def jaccard(
    hashes: np.ndarray, starts: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float, values: np.ndarray
) -> None:
    """Jaccard of the sets of hashes of texts left[i] and right[i], at most MOST_PAIRS; 0 where below `threshold`."""
    longest = 1
    for text in range(len(starts) - 1):
        longest = max(longest, starts[text + 1] - starts[text])
    size = 1
    while size <= 2 * longest:
        size *= 2
    mask = np.uint64(size - 1)
    # An entry is a hash whose low bits (the slot says most of them) hold a mark: 2·pair + 1 for a shingle of the left
    # text, 2·pair + 2 for one that was met in the right text. One word a slot keeps the table in the cache.
    table = np.zeros(size, np.uint64)
    for pair in range(len(left)):
        mark = np.uint64(2 * pair + 1)
        union = 0
        shared = 0
        for at in range(starts[left[pair]], starts[left[pair] + 1]):
            wanted = hashes[at] & ~_MARKS
            slot = hashes[at] & mask
            while (table[slot] & _MARKS) >= mark and (table[slot] & ~_MARKS) != wanted:
                slot = (slot + _1) & mask
            union += (table[slot] & _MARKS) < mark
            table[slot] = wanted | mark
        needed = threshold * union
        end = starts[right[pair] + 1]
        for at in range(starts[right[pair]], end):
            if shared + (end - at) < needed:
                break
            wanted = hashes[at] & ~_MARKS
            slot = hashes[at] & mask
            while (table[slot] & _MARKS) >= mark and (table[slot] & ~_MARKS) != wanted:
                slot = (slot + _1) & mask
            shared += (table[slot] & _MARKS) == mark
            union += (table[slot] & _MARKS) < mark
            table[slot] = wanted | (mark + _1)
        values[pair] = shared / union if union and shared / union >= threshold else 0.0
