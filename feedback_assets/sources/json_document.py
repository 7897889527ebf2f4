"""JSON documents: an array of objects, or one object; elements are told apart here and read as JSON lines."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from feedback_assets.sources.jsonl import read_jsonl, read_objects
from feedback_assets.sources.raw import Raw, Unreadable, content

_BLANK = re.compile(r"[ \t\r\n]*")
_VALUE = json.JSONDecoder()


def read_json(path: Path, source: str, batch: str, *, read: Collection[str], most: int) -> Raw:
    """Read a JSON document, plain or gzip; `__line` is the number of the element, from 1.

    The elements are those of the array that the document is. Of an object with one array of objects in it, and beside
    that only plain values and what is empty, they are those of that array; any other object is the one element. A file
    that holds JSON lines in spite of its name is read as such. Quarantined, with its number: an element that is no
    object ("malformed-json"), or not UTF-8 ("invalid-utf8").

    Raises:
        Unreadable: the document is not valid JSON, breaks off, or unpacks to more than `most` bytes; names line and
            column.
    """
    data, truncated = content(path, most)
    text = data.decode(errors="surrogateescape")
    if truncated:
        value = "the gzip breaks off, and with it the JSON document; deliver it again"
        raise Unreadable(f"{path}: {value}", value=value)
    try:
        elements = [text[start:end] for start, end in _elements(text)]
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip(" \t\r\n").startswith("{"):
            return read_jsonl(path, source, batch, read=read, most=most)
        value = f"{error.lineno}:{error.colno}: not valid JSON: {error.msg}; deliver the whole document again"
        raise Unreadable(f"{path}:{value}", value=value) from None
    except RecursionError:
        value = "not valid JSON: nested too deeply"
        raise Unreadable(f"{path}: {value}", value=value) from None
    # A newline inside JSON text is escaped: what stands there as such is layout.
    lines = [element.replace("\n", " ").replace("\r", " ") for element in elements]
    return read_objects("\n".join(lines).encode(errors="surrogateescape"), path, source, batch, read)


def _elements(text: str) -> list[tuple[int, int]]:
    """Where the elements of the document stand."""
    start = _skip(text, 0)
    value, end = _VALUE.raw_decode(text, start)
    if _skip(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, _skip(text, end))
    if isinstance(value, list):
        return list(_of_array(text, start))
    if not isinstance(value, dict):
        raise json.JSONDecodeError("an array of objects is expected", text, start)
    records = [key for key, given in value.items() if isinstance(given, list) and given and isinstance(given[0], dict)]
    others = [given for key, given in value.items() if key not in records[:1]]
    if len(records) != 1 or any(isinstance(given, dict | list) and given for given in others):
        return [(start, end)]
    return list(_of_array(text, _value_of(text, start, records[0])))


def _of_array(text: str, start: int) -> Iterator[tuple[int, int]]:
    at = _skip(text, start + 1)
    while text[at] != "]":
        _, end = _VALUE.raw_decode(text, at)
        yield at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _value_of(text: str, start: int, wanted: str) -> int:
    """Where the value of a key of the object at `start` stands; of a key that is there twice the last."""
    found, at = start, _skip(text, start + 1)
    while text[at] != "}":
        key, end = _VALUE.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        found = at if key == wanted else found
        _, end = _VALUE.raw_decode(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]  it matches nothing as well
