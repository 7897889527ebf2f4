"""Code versions: derived from the code itself, never typed.

A code version digests the syntax of a module and of every module of this package that it imports, however
indirectly. Comments, layout and docstrings do not count; it is the same on every supported Python.
"""

import ast
import hashlib
import importlib.util
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

from feedback_assets.digests import canonical_json, digest

PACKAGE = "feedback_assets"
UNSEEN = ("ctx", "kind", "type_comment")  # fields that follow from the others, or say how a constant was written


_ONE_AT_A_TIME = RLock()  # Python 3.11 raises SystemError when two threads build syntax trees


def code_digest(module: str) -> str:
    """Digest of `module` and of what it imports inside the package."""
    with _ONE_AT_A_TIME:
        return _code_digest(module)


@cache
def _code_digest(module: str) -> str:
    return digest({name: _read(name)["syntax"] for name in sorted(_closure(module))})


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(_imports(name))
    return seen


@cache
def _source(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imports(module: str) -> set[str]:
    """The modules of the package that `module` imports, whether it is at the top or inside a function."""
    found: set[str] = set()
    for name, inside in _read(module)["imports"]:
        if name.split(".")[0] == PACKAGE:
            found.add(name)
            if inside is not None and _is_module(name, inside):
                found.add(f"{name}.{inside}")
    return found


@cache
def _read(module: str) -> dict[str, Any]:
    """What counts of a module: `syntax`, the digest of its tree, and `imports` (module, name inside it or None).

    Kept beside the compiled module under a digest of the source: to build a tree takes a hundred times as long.
    """
    path = _source(module)
    if path is None:
        return {"syntax": digest(None), "imports": []}
    source = path.read_bytes()
    key = hashlib.sha256(_own_source() + source).hexdigest()
    kept = path.parent / "__pycache__" / f"{path.stem}.code-digest.json"
    try:
        value = json.loads(kept.read_bytes())
        if value["digest"] == digest([key, value["read"]]):
            return value["read"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    tree = ast.parse(source)
    read = {"syntax": digest(_plain(tree)), "imports": sorted(_imported(tree), key=str)}
    with suppress(OSError):  # nowhere to keep it: it is read anew each time
        kept.parent.mkdir(exist_ok=True)
        scratch = kept.with_name(f"{kept.name}.{os.getpid()}")
        scratch.write_bytes(canonical_json({"digest": digest([key, read]), "read": read}))
        scratch.replace(kept)
    return read


@cache
def _own_source() -> bytes:
    return Path(__file__).read_bytes()


def _imported(tree: ast.Module) -> list[list[Any]]:
    found: list[list[Any]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [[alias.name, None] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [[node.module, alias.name] for alias in node.names]
    return found


def _is_module(package: str, name: str) -> bool:
    """Whether `name` is a module of `package`, by its file: nothing is imported to find out."""
    path = _source(package)
    if path is None or path.name != "__init__.py":
        return False
    return (path.parent / f"{name}.py").is_file() or (path.parent / name / "__init__.py").is_file()


def _plain(value: Any) -> Any:
    """A syntax tree as nested lists of text.

    Neither `ast.dump` nor `ast.unparse` will do: what they write differs between Python versions, of an f-string
    for example its quotes. A field that is empty is left out, because newer versions have more of them.
    """
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if not isinstance(value, ast.AST):
        return f"{type(value).__name__} {value!a}"
    fields = {name: given for name, given in ast.iter_fields(value) if given is not None and given != []}
    if isinstance(value, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        body = [statement for statement in value.body if not _is_docstring(statement)]
        fields["body"] = body or [ast.Pass()]
    return [type(value).__name__, *([name, _plain(given)] for name, given in fields.items() if name not in UNSEEN)]


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
