"""What the policy says of the files for trainers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from feedback_assets.policy import Section

OURS = ("row_id", "split", "prompt", "chosen", "rejected", "completion", "label", "score", "margin", "tools")
"""Columns of a file that the export or the trainer gives its own meaning."""


class Trainer(Section):
    """What the trainer does with long examples, so that what it will drop can be predicted (TRL 1.16).

    RewardTrainer drops an example of which a side, prompt included, is longer than `max_length`. DPOTrainer and
    KTOTrainer cut responses, and drop an example only where the prompt alone fills `max_length`.
    """

    drops: Literal["long-examples", "long-prompts"] | None = Field(
        default=None,
        description="as RewardTrainer, or as DPOTrainer and KTOTrainer; default: long-prompts for kto, "
        "long-examples for the others",
    )
    max_length: int = Field(default=1024, ge=1, description="tokens; 1024 is TRL's default")
    chars_per_token: float = Field(
        default=4.0, gt=0, description="what your tokenizer makes of your text: about 4 for English, 1 to 2 for Chinese"
    )
    tokens_per_turn: int = Field(default=5, ge=0, description="what a chat template adds to each message")
    max_dropped_share: float = Field(default=0.01, ge=0, le=1, description="of the records of the export")
    blocking: bool = Field(default=False, description="refuse the release, instead of a warning")


class Export(Section):
    """A folder of files for a trainer, one folder a split."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the folder")
    format: Literal["preference", "reward", "kto", "rating"] = Field(
        default="preference",
        description="prompt with chosen, rejected (preference), and with margin (reward), with completion, label (kto) "
        "or completion, score (rating)",
    )
    file: Literal["parquet", "jsonl"] = "parquet"
    conversational: bool = Field(
        default=True, description="prompt and responses as lists of messages; otherwise plain text"
    )
    separator: str = Field(
        default="\n\n",
        description="of plain text: between turns and after the prompt, to which trainers join a response",
    )
    ties: Literal["drop", "error", "both-ways"] = Field(
        default="drop",
        description="a tie has no chosen side: leave it out, refuse, or give it once in each order at half its weight",
    )
    margin: str = Field(default="margin", description="of `reward`: the column that tells how far the sides lie apart")
    missing_margin: Literal["error", "drop", "zero"] = Field(
        default="error", description="of `reward`, where that column is null; with 0 the loss is that without a margin"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="columns of the training set to repeat in the files, such as annotator_id, guideline"
    )
    provenance: Literal["sidecar", "none"] = Field(
        default="sidecar", description="a file that says, line by line, which annotation each example is"
    )
    trainer: Trainer | None = Trainer()

    def tokens(self) -> str:
        """Name of the column of predicted tokens."""
        return "tokens_" + "".join(letter if letter.isalnum() else "_" for letter in self.name)


def _told_apart(exports: tuple[Export, ...]) -> tuple[Export, ...]:
    names = [export.name for export in exports]
    if len(set(names)) < len(names):
        raise ValueError("two exports have the same name; they would write the same files")
    if "annotations" in names:
        raise ValueError("an export cannot be called 'annotations': that is the folder of the list of all annotations")
    columns = [export.tokens() for export in exports]
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"two exports would share the column {column}; rename one")
    for export in exports:
        taken = [name for name in export.columns if name in OURS]
        if taken:
            raise ValueError(f"{export.name}.columns: {taken[0]!r} means something else in this file; leave it out")
    return exports


Exports = Annotated[tuple[Export, ...], AfterValidator(_told_apart)]
