"""What a materialization ran on: Python, every installed distribution, and the git commit of a checkout."""

import json
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

OWN = "feedback-assets"
UNKNOWN = "unknown"
PACKAGE = Path(__file__).parents[1]


@cache
def environment() -> dict[str, str]:
    """Names with versions: `python`, `platform`, `git` (of a checkout), and all installed distributions.

    A distribution that came from elsewhere than an index is told as `version @ URL`, as `pip freeze` does.
    """
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.machine()}",
        **({"git": commit} if (commit := _git()) else {}),
    }
    for distribution in distributions():
        # Of hundreds of files only the first lines: what parses them reads each package's README as well.
        told = dict(re.findall(r"^(Name|Version):[ \t]*(\S+)", _metadata(distribution), re.MULTILINE))
        name = re.sub(r"[-_.]+", "-", told.get("Name", UNKNOWN)).lower()
        found.setdefault(name, _version(distribution, name, told.get("Version", UNKNOWN)))
    return dict(sorted(found.items()))


def recorded(environment: dict[str, str]) -> bool:
    """Whether an environment was recorded at all."""
    return "python" in environment and OWN in environment


def unpinned(environment: dict[str, str]) -> list[str]:
    """What of a recorded environment no one could install again, as sentences; nothing means that all is pinned."""
    if not recorded(environment):
        return ["the environment was not recorded"]
    sentences = {
        name: f"the version of {name} is not known" if version.startswith(UNKNOWN) else f"{name} came from {version}"
        for name, version in environment.items()
        if version.startswith(UNKNOWN) or " @ file:" in version
    }
    return [sentence for _, sentence in sorted(sentences.items())]


def _metadata(distribution: Distribution) -> str:
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return text.partition("\n\n")[0]


def _version(distribution: Distribution, name: str, version: str) -> str:
    if name == OWN:  # wherever it lies: its code is pinned by the code versions
        return version
    try:  # PEP 610
        origin = json.loads(distribution.read_text("direct_url.json") or "null")
    except ValueError:
        return UNKNOWN
    if not isinstance(origin, dict):
        return version
    url = str(origin.get("url", UNKNOWN))
    vcs = origin.get("vcs_info")
    if vcs:
        return f"{version} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    hashed = origin.get("archive_info", {}).get("hash")
    return f"{version} @ {url}#{hashed}" if hashed else f"{version} @ {url}"


def _git() -> str | None:
    """The commit of the checkout that this package lies in; `+changes` where its files are not those of the commit."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                ["git", "-C", str(PACKAGE), *words],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A package that was installed into someone's checkout does not belong to it.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    return commit and f"{commit}{'+changes' if changes else ''}"
