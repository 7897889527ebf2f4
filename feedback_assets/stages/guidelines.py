"""guidelines: the registry of what annotators were told, version by version."""

from feedback_assets.sources.guidelines import GuidelinesSection
from feedback_assets.stages.stage import Expectation, Stage


def promises(section: GuidelinesSection) -> list[Expectation]:
    """What the registry keeps."""
    del section
    return [
        Expectation("expect_column_values_to_not_be_null", "every guideline names its task", {"column": "task"}),
        Expectation(
            "expect_column_values_to_match_regex",
            "every version is semver",
            {"column": "version", "regex": r"^\d+\.\d+\.\d+$"},
        ),
    ]


STAGE = Stage(
    name="guidelines",
    description=(
        "The guidelines that annotators worked under: one row a version, with the interval in which it was in force "
        "and the digest of its text. Read from Markdown files with front matter."
    ),
    inputs=(),
    section=GuidelinesSection,
    function=None,
    promises=promises,
    kinds=("markdown", "parquet"),
)
