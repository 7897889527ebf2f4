"""The manifest of a release, key by key, and the JSON Schema made of it.

`content` says what was done to what; its digest is the release's id. `circumstances` says when, where and in which
files. A key that stands nowhere here is refused, wherever the keys are ours. Open is what people name (policy, columns,
values), what a stage counted (`facts`), and what a check was given and saw (`kwargs`, `observed`).
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

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


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


class Units(Entry):
    """What an expectation counts, if not rows."""

    column: str
    unless: str
    least: Count


class Definition(Entry):
    """What a check of one `type` asks, and its limits."""

    type: str
    kwargs: Object = Field(default={}, description="of an expectation")
    units: Units | None = None
    rules: list[str] = []
    column: str | None = None
    columns: list[str] = []
    expected: Object = Field(default={}, description="a distribution, or the release that has it")
    psi: float | None = None
    share_kept: float | None = None
    limit: float | None = None
    lost: dict[str, str] = Field(default={}, description="reasons, by batch")
    lost_share: float | None = None
    allowed: dict[str, str] = Field(default={}, description="reasons, by column=value")


class Check(Entry):
    """A check with what was asked, against which limits, and what was seen."""

    name: str
    status: Literal["passed", "failed", "error", "inconclusive"]
    passed: bool
    blocking: bool
    kind: str
    meaning: str
    definition: Definition
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


class Limits(Entry):
    """What a drift is held against."""

    psi: float
    psi_warn: float
    share_kept: float


class Cell(Entry):
    """The share of a value or an interval on both sides, and what it adds to the PSI."""

    cell: str
    reference: float | None
    current: float | None
    psi: float | None


class Drift(Entry):
    """How one column differs from what it is compared with, and what was decided on that."""

    column: str
    kind: Literal["categorical", "numeric"]
    verdict: Literal["stable", "moved", "inconclusive", "error"]
    warning: bool
    held: bool = Field(description="whether a check decides on it")
    because: str | None
    fallen: str | None = Field(description="the largest category that kept too little of its share")
    problem: str | None
    adjusted: float | None = Field(description="its chance among all that is decided beside it")
    clusters: list[str]
    limits: Limits
    source: str | None = None
    batch: str | None = None
    psi: float | None = None
    psi_mean: float | None = None
    psi_critical: float | None = None
    psi_chance: float | None = None
    kl: float | None = None
    kl_reversed: float | None = None
    js: float | None = None
    js_distance: float | None = None
    ks: float | None = None
    ks_location: float | None = None
    ks_exact: bool | None = None
    effective_reference: float | None = None
    effective_current: float | None = None
    epsilon: float | None = None
    base: str | None = None
    direction: str | None = None
    n_reference: int | None = None
    n_current: int | None = None
    cell_count: int | None = None
    cells: list[Cell] = []
    edges: list[float | None] | None = None


class Loss(Entry):
    """How many of a group's rows a stage lost."""

    column: str
    value: str | None
    rows: Count
    lost: Count
    share: float | None
    emptied: bool
    chance: float | None


class Identity(Entry):
    """Which names of a column are new, and which vanished."""

    column: str
    before: Count
    after: Count
    new: Count
    vanished: Count
    new_examples: list[str]
    vanished_examples: list[str]
    largest: str | None
    largest_share: float | None
    largest_share_before: float | None


class SampleSize(Entry):
    """How many independent records, items or annotators the rows are worth."""

    unit: str
    count: Count
    effective: float | None


class Distribution(Entry):
    """The distribution of one column: shares by value, or of the intervals between edges."""

    kind: Literal["categorical", "numeric"]
    rows: Count
    effective_rows: float | None
    shares: dict[str, float] | list[float]
    values: Count | None = None
    edges: list[float] | None = None
    nulls: float | None = None
    quantiles: dict[str, float | None] | None = None


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
    drift: list[Drift] = Field(description="each monitored column against the stage's input")
    input: list[Drift] = Field(description="the newest batches against earlier ones; of `ingested`")
    baseline: list[Drift] = Field(description="each column with an expected distribution against it")
    losses: list[Loss] = Field(description="rows lost by group")
    identities: list[Identity] = Field(description="names that are new, and names that vanished")
    effective_sample_size: dict[str, SampleSize] = Field(description="by record, item and annotator")
    distribution: dict[str, Distribution] = Field(description="by column; of `training_set`")


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
    row_ids: str = Field(description="base64 of the ids, 16 bytes each, in the order of arrival")


class UnderGuideline(Entry):
    """How many records stand under one version of the guidelines, by how that is known."""

    task: str | None
    guideline: str | None
    guideline_digest: Sha256 | None
    records: dict[str, Count] = Field(
        description="by status: declared, inferred, conflict, ambiguous, unknown-version, unmatched"
    )


class Index(Entry):
    """The files that list every annotation with its weight, by what they hold."""

    rows: Count
    schema_: list[list[str]] = Field(alias="schema")
    fingerprints: list[Sha256] = Field(description="of each file, in order")


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
    major: int
    minor: int
    patch: int
    effective_from: str
    effective_to: str | None
    supersedes: str | None
    change: str | None
    note: str | None
    file: str
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


class Decision(Entry):
    """A column of a comparison that moved, or of which it cannot be told."""

    asset: str
    comparison: Literal["drift", "input", "baseline"]
    column: str
    verdict: Literal["moved", "inconclusive"]
    limit: float
    fallen: str | None = None
    psi: float | None = None
    psi_critical: float | None = None
    psi_chance: float | None = None
    adjusted: float | None = None
    source: str | None = None
    batch: str | None = None
    because: str | None = None


class Decisions(Entry):
    """All decisions behind a release, with the false discovery rate held over all of them."""

    method: str
    rate: float
    decisions: Count
    stable: Count
    inconclusive: Count
    moved: Count
    shown: list[Decision]


class Split(Entry):
    """The examples of one split, by what they were made from."""

    rows: Count
    made_from: list[Sha256] = Field(description="of each file of text, in order")
    weights: list[Sha256] | None = None
    provenance: list[Sha256] | None = None


class DroppedGroup(Entry):
    """Examples with one value, and how many of them."""

    value: str | None
    examples: Count
    dropped: Count


class PredictedDrops(Entry):
    """What the trainer is predicted to drop for its length."""

    trainer: str
    max_length: Count
    examples: Count
    dropped: Count
    by: dict[str, list[DroppedGroup]]


class Export(Entry):
    """Files for a trainer: as the policy has them, and what is in them."""

    name: str
    format: str
    file: str
    conversational: bool
    separator: str
    ties: str
    margin: str
    missing_margin: str
    columns: list[str]
    provenance: str
    trainer: Object | None
    realise: Literal["weights", "copies"]
    splits: dict[str, Split]
    left_out: dict[str, Count] = Field(description="records, by reason")
    predicted_drops: PredictedDrops | None


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
    expected: dict[str, Object] = Field(description="the distribution that each column was expected to have")
    distribution: dict[str, Distribution] = Field(description="that each column has, as the signal is realised")
    decisions: Decisions
    exports: list[Export]
    commits: dict[str, CommitContent] = Field(description="the chain behind the release, by asset")


class File(Entry):
    """A file of the release, beside its manifest."""

    path: str
    digest: Sha256
    bytes: Count
    rows: Count


class PartFile(Entry):
    """Some columns of the rows of a part, in one file of the store."""

    digest: Sha256
    fingerprint: Sha256 = Field(description="of its values")
    bytes: Count
    columns: str = Field(description="digest of their names and dtypes")


class Part(Entry):
    """Some rows, in files side by side."""

    rows: Count
    files: list[PartFile]
    arrivals: list[int] | None = Field(description="first and last")
    further: bool = Field(default=False, description="copies of records that stand in other parts")


class Parts(Entry):
    """The parts of a table, in order."""

    schema_: list[list[str]] = Field(alias="schema")
    parts: list[Part]


class Snapshot(Entry):
    """The files of one materialization."""

    asset: str
    data_version: Sha256
    facts: Object
    tables: dict[str, Parts]


class Arrival(Entry):
    """A batch, as it arrived."""

    source: str
    batch: str
    at: str
    digest: str | None = None
    mapped: str | None = Field(default=None, description="under which name the store remembers what it became")
    state: str | None = None


class Seconds(Entry):
    """How long it took."""

    compute: float
    examine: float


class ReadNumber(Entry):
    """The number of the commit that was read."""

    number: Annotated[int, Field(ge=1)]


class AgainstPrevious(Entry):
    """How this materialization differs from the one before it of the same asset."""

    columns: list[Drift]
    identities: list[Identity]


class CommitCircumstances(Entry):
    """When, where and in which files one stage was materialized."""

    number: Annotated[int, Field(ge=1)]
    run_id: str
    made_at: str
    environment: dict[str, str]
    inputs: dict[str, ReadNumber]
    snapshot: Snapshot
    arrived: dict[str, Arrival] = Field(description="by place in the order of arrival; of `ingested`")
    code: Sha256 | None = Field(default=None, description="digest of the code alone")
    seconds: Seconds | None = None
    noticed: list[str] = []
    unversioned_changes: list[str] = Field(default=[], description="rules whose content changed, but not their version")
    against_previous: AgainstPrevious | None = None


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
        said = "unknown key" if problems[0]["type"] == "extra_forbidden" else problems[0]["msg"]
        raise FeedbackError(
            f"{where}: {key}: {said[0].lower()}{said[1:]}{more}; not a release manifest of this format"
        ) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    return {"$schema": DIALECT, "$id": SCHEMA_ID, **Manifest.model_json_schema(by_alias=True)}
