"""Code versions: what a change of the code means, and what it does not."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from feedback_assets import code_version
from feedback_assets.pipeline import STAGES

OTHERS = sorted(Path("/root/.pyenv/versions").glob("3.1[2-9]*/bin/python"))
STAGE = '''
"""What it does."""
from coded.lower import LIMIT

def stage(rows):
    """Rows."""
    return [row for row in rows if row < LIMIT]  # a comment
'''
FILES = {
    "__init__": "",
    "stage": STAGE,
    "lower": "from coded import lowest\nLIMIT = lowest.NUMBER + 1\n",
    "lowest": "NUMBER = 1\n",
    "unused": "NUMBER = 2\n",
}


@pytest.fixture
def coded(tmp_path, monkeypatch):
    """A package of its own: `coded(**changes)` is the digest of its stage with these modules changed."""
    monkeypatch.setattr(code_version, "PACKAGE", "coded")
    monkeypatch.syspath_prepend(tmp_path)

    def forget() -> None:
        for name in ("_code_digest", "_source", "_read"):
            getattr(code_version, name).cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "coded"]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def digest_with(**changes: str) -> str:
        (tmp_path / "coded").mkdir(exist_ok=True)
        for name, text in {**FILES, **changes}.items():
            (tmp_path / "coded" / f"{name}.py").write_text(text, encoding="utf-8")
        forget()
        return code_version.code_digest("coded.stage")

    yield digest_with
    forget()


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": STAGE.replace("# a comment", "# another")},
        {"stage": STAGE.replace('"""What it does."""', '"""Something else."""')},
        {"stage": STAGE.replace('    """Rows."""\n', "")},
        {"stage": STAGE.replace("(rows):", "(\n    rows,\n):")},
        {"stage": STAGE.replace("\n", "\r\n")},
        {"lowest": '"""A docstring."""\nNUMBER = (1)\n'},
        {"lowest": "NUMBER = 0x1\n"},
        {"unused": "NUMBER = 3\n"},
    ],
)
def test_comments_docstrings_layout_and_other_modules_do_not_count(coded, changes):
    assert coded(**changes) == coded()


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": STAGE.replace("row < LIMIT", "row <= LIMIT")},
        {"stage": STAGE.replace("def stage(rows)", "def stage(rows, more=1)")},
        {"stage": STAGE + "\nOTHER = 'text'\n"},
        {"stage": STAGE.replace("return", "'text'; return rows or")},
        {"lower": FILES["lower"].replace("+ 1", "+ 2")},
        {"lowest": "NUMBER = 2\n"},
        {"lower": "def limit():\n    from coded import unused\n    return unused\n" + FILES["lower"]},
    ],
)
def test_a_changed_constant_expression_or_imported_module_counts(coded, changes):
    assert coded(**changes) != coded()


def test_a_change_behind_an_import_inside_a_function_counts(coded):
    stage = "def stage():\n    from coded.lower import LIMIT\n    return LIMIT\n"
    assert coded(stage=stage, lowest="NUMBER = 2\n") != coded(stage=stage)


def test_modules_that_import_each_other_have_a_digest(coded):
    assert coded(lowest="import coded.stage\nNUMBER = 1\n") != coded()


def test_what_was_kept_of_a_module_counts_only_for_the_source_it_was_read_from(coded, tmp_path):
    before = coded()
    kept = tmp_path / "coded" / "__pycache__" / "lowest.code-digest.json"
    assert kept.is_file()
    kept.write_bytes(kept.read_bytes().replace(b'"syntax":"', b'"syntax":"0'))
    assert coded() == before
    kept.write_text("{}")
    assert coded() == before
    assert coded(lowest="NUMBER = 2\n") != before


def test_each_stage_has_a_code_version_of_its_own():
    digests = {code_version.code_digest(f"feedback_assets.stages.{stage.name}") for stage in STAGES}
    assert len(digests) == len(STAGES)


def test_what_a_stage_imports_is_part_of_it():
    closure = code_version._closure("feedback_assets.stages.filtered")
    assert {"feedback_assets.record", "feedback_assets.digests", "feedback_assets.expressions"} <= closure
    assert not any("dagster" in name or "orchestration" in name for name in closure)


@pytest.mark.parametrize("python", OTHERS or [None], ids=str)
def test_code_versions_are_the_same_on_another_python(python):
    """Polars is not needed: no module of the package is imported, only read."""
    if python is None:
        pytest.skip("there is no other Python here")
    script = (
        "import json, sys\n"
        "from unittest.mock import MagicMock\n"
        "sys.modules['polars'] = MagicMock()\n"
        "from feedback_assets.code_version import code_digest\n"
        "print(json.dumps({name: code_digest(name) for name in sys.argv[1:]}))\n"
    )
    modules = [f"feedback_assets.stages.{stage.name}" for stage in STAGES]
    modules += ["feedback_assets.materialize.intake", "feedback_assets.materialize.examine"]
    ran = subprocess.run(
        [python, "-c", script, *modules], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    assert json.loads(ran.stdout) == {name: code_version.code_digest(name) for name in modules}
