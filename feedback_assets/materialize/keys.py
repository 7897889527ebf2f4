"""The keys of which pseudonyms are made: none is stored, but a check value tells when one has changed."""

from collections.abc import Mapping

from feedback_assets.errors import FeedbackError
from feedback_assets.materialize.commit import Commit
from feedback_assets.sources.privacy import ANNOTATOR, pseudonyms
from feedback_assets.stages.ingested import IngestedSection

CheckValues = Mapping[str, Mapping[str, str]]
"""By source with pseudonyms: `variable`, which holds the key, and `check`, its check value."""


def check_values(section: IngestedSection, previous: Commit | None = None) -> dict[str, dict[str, str]]:
    """The keys that the policy asks for, held against those of the previous commit of `ingested`.

    Raises:
        FeedbackError: a key is missing or too short, or a variable holds another key than it did.
    """
    before: CheckValues = previous.content["facts"].get("pseudonyms", {}) if previous is not None else {}
    found: dict[str, dict[str, str]] = {}
    for source in section.sources:
        made = pseudonyms(source.name, source)
        if made is None:
            continue
        variable = source.pseudonymise[ANNOTATOR]
        known = before.get(source.name, {})
        if known.get("variable") == variable and known["check"] != made.check:
            raise FeedbackError(
                f"source {source.name!r}: {variable} holds another key than before (check value {made.check}, it was "
                f"{known['check']}), so each annotator would become another; set the old key again, or put the new one "
                "into a variable of another name and name that in the policy"
            )
        found[source.name] = {"variable": variable, "check": made.check}
    return found
