"""The manifest of a release, key by key, and the JSON Schema made of it.

`content` says what was done to what; its digest is the release's id. `circumstances` says when, where and in which
files. A newer version may add keys; the ones here stay.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feedback_assets.errors import FeedbackError

SCHEMA_ID = "urn:feedback-assets:release:1:schema"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Object = Mapping[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Entry(BaseModel):
    """Base of everything in a manifest."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Fate(Entry):
    """How many rows had one fate under one rule."""

    fate: str
    rule: str | None
    rule_version: int | None
    rows: Count


class Pinned(Entry):
    """A rule, factor or target: which version, why, and the digest of what it does."""

    list: str = Field(description="where it stands in its section, such as `rules`")
    id: str
    version: int
    reason: str
    content_digest: Sha256


class Transformation(Entry):
    """One stage, in the order of the pipeline."""

    asset: str
    code_version: str
    data_version: Sha256
    rows_in: Count
    rows_out: Count
    fates: list[Fate]
    pinned: list[Pinned]


class Check(Entry):
    """A check with what was asked, against which limits, and what was seen."""

    name: str
    status: Literal["passed", "failed", "error", "inconclusive"]
    passed: bool
    blocking: bool
    kind: str
    meaning: str
    definition: Object
    definition_digest: Sha256
    observed: Object


class Read(Entry):
    """An input as it was read."""

    commit: Sha256
    data_version: Sha256


class Table(Entry):
    """What a table holds, without its files."""

    schema_: list[list[str]] = Field(alias="schema", description="column, dtype")
    rows: Count
    fingerprints: list[Sha256] = Field(description="of the parts, in order")


class CommitContent(Entry):
    """The commit record of one stage: what was done to what."""

    asset: str
    data_version: Sha256
    code_version: str
    stage_version: int
    inputs: dict[str, Read]
    policy: Object = Field(description="the section, in full, defaults included")
    rows_in: Count
    rows_out: Count
    fates: list[Fate]
    facts: Object
    tables: dict[str, Table]
    checks: list[Check]
    drift: list[Object] = Field(description="each monitored column against the stage's input")
    input: list[Object] = Field(description="the newest batches against earlier ones; of `ingested`")
    baseline: list[Object] = Field(description="each column with an expected distribution against it")
    losses: list[Object] = Field(description="rows lost by group")
    identities: list[Object] = Field(description="names that are new, and names that vanished")
    effective_sample_size: Object
    distribution: Object


class Group(Entry):
    """Annotations of one batch under one guideline."""

    source: str
    batch: str
    task: str | None
    guideline: str | None
    guideline_status: str
    guideline_digest: Sha256 | None
    records: Count
    examples: Count
    row_ids: str = Field(description="base64 of the ids, 16 bytes each, sorted")


class UnderGuideline(Entry):
    """How many records stand under one version of the guidelines, by how that is known."""

    task: str | None
    guideline: str | None
    guideline_digest: Sha256 | None
    records: dict[str, Count] = Field(
        description="by status: declared, inferred, conflict, ambiguous, unknown-version, unmatched"
    )


class Index(Entry):
    """The file that lists every annotation with its weight, by what it holds."""

    rows: Count
    schema_: list[list[str]] = Field(alias="schema")
    fingerprint: Sha256


class Annotations(Entry):
    """Which annotations are in the release."""

    records: Count
    examples: Count
    groups: list[Group]
    by_guideline: list[UnderGuideline]
    index: Index


class Guideline(Entry):
    """A version of the guidelines, text included."""

    task: str
    aspect: str | None
    version: str
    effective_from: str
    effective_to: str | None
    change: str | None
    note: str | None
    digest: Sha256
    text: str


class Gate(Entry):
    """How many blocking checks the gate asked for."""

    asked: Count
    opens: bool


class Waiver(Entry):
    """A failed check of one version that the policy let through."""

    id: str
    stage: str
    check: str
    data_version: str
    status: Literal["failed", "error"]
    who: str
    why: str
    until: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="the last day, in UTC, on which it is in force")


class UsedWaiver(Waiver):
    """A waiver that this release needed."""

    data_version: Sha256
    meaning: str = Field(description="what the check said")


class IdleWaiver(Waiver):
    """A waiver of the policy that let nothing through."""

    idle: str = Field(description="why")


class Content(Entry):
    """What was done to what: its digest is the id."""

    format: Literal["feedback_assets/release/1"]
    project: str
    policy: Object = Field(description="every section in full")
    gate: Gate
    waivers: list[UsedWaiver] = Field(description="failed checks that were let through; without them no release")
    annotations: Annotations
    guidelines: list[Guideline]
    transformations: list[Transformation]
    expected: Object = Field(description="the distribution that each column was expected to have")
    distribution: Object = Field(description="the distribution that each column has, as the signal is realised")
    decisions: Object = Field(description="all decisions on drift, their chances adjusted together")
    exports: list[Object]
    commits: dict[str, CommitContent] = Field(description="the chain behind the release, by asset")


class File(Entry):
    """A file of the release, beside its manifest."""

    path: str
    digest: Sha256
    bytes: Count
    rows: Count


class CommitCircumstances(Entry):
    """When, where and in which files one stage was materialized."""

    number: Annotated[int, Field(ge=1)]
    run_id: str
    made_at: str
    environment: dict[str, str]
    inputs: dict[str, dict[str, int]] = Field(description="by asset, the number of the commit that was read")
    snapshot: Object = Field(description="the files of each part, with their digests")


class Circumstances(Entry):
    """When, where and in which files."""

    run_id: str
    made_at: str
    environment: dict[str, str] = Field(description="Python, the platform and every installed distribution")
    policy_file: str
    files: list[File]
    idle_waivers: list[IdleWaiver] = Field(default=[], description="waivers of the policy that let nothing through")
    commits: dict[str, CommitCircumstances]


class Manifest(Entry):
    """A release: what it is made of, how, and where that was."""

    id: Sha256 = Field(description="SHA-256 of the canonical JSON of `content`")
    content: Content
    circumstances: Circumstances


def validate(value: Any, where: str) -> None:
    """Hold a manifest against its schema.

    Raises:
        FeedbackError: it does not fit; one line, with the key.
    """
    try:
        Manifest.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        key = ".".join(str(step) for step in problems[0]["loc"]) or "the manifest"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        said = problems[0]["msg"]
        raise FeedbackError(
            f"{where}: {key}: {said[0].lower()}{said[1:]}{more}; not a release manifest of this format"
        ) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    return {"$schema": DIALECT, "$id": SCHEMA_ID, **Manifest.model_json_schema(by_alias=True)}
