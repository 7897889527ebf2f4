"""The policy's loader: what is wrong is said in one line, with file, line, key and what was expected."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from feedback_assets.errors import FeedbackError
from feedback_assets.pipeline import load_policy
from feedback_assets.policy import Pinned, Section, load, unique_ids


class Rule(Pinned):
    drop_when: str


class Half(Pinned):
    kind: Literal["half"]
    floor: float = Field(default=0.5, ge=0, le=1)


class Double(Pinned):
    kind: Literal["double"]
    most: int = 2


class Rules(Section):
    rules: Annotated[tuple[Rule, ...], AfterValidator(unique_ids)] = ()
    factors: tuple[Annotated[Half | Double, Field(discriminator="kind")], ...] = ()
    share: float = 0.5


class Policy(Section):
    project: str
    filtered: Rules = Rules()


def problem(tmp_path: Path, text: str | bytes) -> str:
    """What is said of a policy, without the folder."""
    path = tmp_path / "policy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(FeedbackError) as caught:
        load(path, Policy)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}")


ONE = "project: p\nfiltered:\n  rules:\n    - {id: r, version: 1, reason: why, drop_when: x}\n"


def test_a_policy_is_read_with_its_defaults_path_and_text(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(ONE, encoding="utf-8")
    loaded = load(path, Policy)
    assert (loaded.path, loaded.text) == (path, ONE)
    assert loaded.policy.filtered.pinned()["share"] == 0.5
    assert loaded.policy.filtered.rules[0].id == "r"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("project: p\nfiltred: {}\n", ":2: filtred: unknown key; did you mean 'filtered'?"),
        ("project: p\nzzz: {}\n", ":2: zzz: unknown key; known here: filtered, project"),
        ("filtered: {}\n", ":1: project: this key is required and is missing"),
        ("project: 3\n", ":1: project: input should be a valid string (got 3)"),
        ("project: p\nfiltered:\n  share: much\n", ":3: filtered.share: input should be a valid number"),
        ("project: p\nfiltered:\n  share: .inf\n", ":3: filtered.share: input should be a finite number (got inf)"),
        ("project: p\nfiltered:\n  share: .nan\n", ":3: filtered.share: input should be a finite number"),
        (
            ONE.replace("version: 1", "version: 0"),
            ":4: filtered.rules.0.version: input should be greater than or equal",
        ),
        (ONE.replace("reason: why", "reason: ''"), ":4: filtered.rules.0.reason: "),
        (ONE.replace("drop_when", "drop_wen"), ":4: filtered.rules.0.drop_wen: unknown key; did you mean 'drop_when'?"),
        (ONE.replace("x}", "x, drop: y}"), ":4: filtered.rules.0.drop: unknown key; did you mean 'drop_when'?"),
        (ONE + ONE[ONE.index("    -") :], ":3: filtered.rules: the id 'r' stands twice; give each entry its own"),
        (
            "project: p\nfiltered:\n  factors:\n  - {id: f, version: 1, reason: why, kind: half, flor: 1}\n",
            ":4: filtered.factors.0.half.flor: unknown key; did you mean 'floor'?",
        ),
        ("project: p\nproject: q\n", ":2: not valid YAML: the key 'project' stands twice"),
        ("project: p\nfiltered:\n  share: 1\n  share: 1\n", ":4: not valid YAML: the key 'share' stands twice"),
        (
            "project: p\nfiltered:\n\tshare: 1\n",
            ":3: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("project: 'p\n", ":2: not valid YAML: found unexpected end of stream"),
        ("project: p\n---\nproject: q\n", ":2: not valid YAML: but found another document"),
        ("project: *p\n", ":1: not valid YAML: found undefined alias 'p'"),
        ("project: !!python/object:os.system x\n", ":1: not valid YAML: could not determine a constructor"),
        ("? [a, b]\n: c\n", ":1: not valid YAML: a key must be a word"),
        ("project: 2026-02-31\n", ": not valid YAML: day is out of range for month; correct the value"),
        ("project: p\0\n", ": not valid YAML: unacceptable character #x0000"),
        ("- project\n", ":1: expected a mapping of sections, such as `ingested:`"),
        ("just text\n", ":1: expected a mapping of sections"),
        ("", ":1: expected a mapping of sections"),
        ("[" * 3000, ": not valid YAML: nested too deeply"),
        (b"PAR1\x80\x00\xff", ": cannot be read as UTF-8 text: "),
    ],
)
def test_what_is_wrong_names_file_line_key_and_what_was_expected(tmp_path, text, said):
    assert said in problem(tmp_path, text)


def test_several_problems_are_counted(tmp_path):
    assert problem(tmp_path, "projet: p\nfiltred: {}\n").endswith("(and 1 more)")


def test_a_policy_that_is_missing_or_a_folder_is_said_to_be(tmp_path):
    with pytest.raises(FeedbackError, match=r"no such policy; `feedback-assets init DIR` writes a starter"):
        load(tmp_path / "none.yaml", Policy)
    with pytest.raises(FeedbackError, match="cannot be read as UTF-8 text"):
        load(tmp_path, Policy)


def test_a_merge_key_is_read_and_may_be_overridden(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("project: p\nfiltered:\n  <<: {share: 0.1}\n  share: 0.2\n", encoding="utf-8")
    assert load(path, Policy).policy.filtered.share == 0.2


def test_what_a_rule_does_has_a_digest_that_version_and_reason_do_not_enter():
    one = Rule(id="r", version=1, reason="why", drop_when="x")
    assert one.content_digest() == Rule(id="r", version=2, reason="other", drop_when="x").content_digest()
    assert one.content_digest() != Rule(id="r", version=1, reason="why", drop_when="y").content_digest()
    assert one.content_digest() == hashlib.sha256(b'{"drop_when":"x","id":"r"}').hexdigest()


@given(st.text("abp:-[]{}'\"\n\t #&*!|>%@`?,.0123~<é\\", max_size=40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_file_the_answer_is_a_policy_or_one_line(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text("project: " + text, encoding="utf-8")
    try:
        load(path, Policy)
    except FeedbackError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("folder", ["sample", "starter"])
def test_the_policies_that_we_ship_can_be_read(folder):
    path = Path(__file__).parents[1] / "feedback_assets" / folder / "policy.yaml"
    assert load_policy(path).policy.ingested.sources


@pytest.mark.parametrize(
    ("freshness", "said"),
    [
        ("{ warn_after: 3d, fail_after: 72h }", "warn_after must be shorter than fail_after"),
        ("{ fail_after: soon }", "'soon' is no duration; give weeks, days, hours or minutes"),
        ("{ warn_after: 0m, fail_after: 1d }", "give a minute or more"),
    ],
)
def test_how_old_the_batches_may_be_is_a_duration_and_warns_before_it_fails(tmp_path, freshness, said):
    path = tmp_path / "policy.yaml"
    source = "{ name: s, path: batches, columns: { kind: \"'thumbs'\", prompt: p, response_a: a, label: l } }"
    said_so = f"ingested: {{ sources: [{source}] }}\nmonitoring:\n  freshness: {freshness}\n"
    path.write_text(said_so, encoding="utf-8")
    with pytest.raises(FeedbackError, match=re.escape(said)) as caught:
        load_policy(path)
    assert "monitoring.freshness" in str(caught.value)
