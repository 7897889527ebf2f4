"""The git commit that the running code stands at."""

import json
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


@cache
def git_commit() -> str | None:
    """The commit, with "+changes" where files of the package differ from it; None where it cannot be known.

    Of a checkout, what git says; of a package that was installed from a repository, what pip noted (PEP 610).
    """
    # A virtual environment can lie inside another project's repository, which does not track this file.
    if _git("ls-files", "--error-unmatch", str(Path(__file__))) is None:
        return _noted()
    head = _git("rev-parse", "HEAD")
    return f"{head}+changes" if head and _git("status", "--porcelain", "--", str(PACKAGE)) else head


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(PACKAGE), *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _noted() -> str | None:
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        return json.loads(distribution("feedback-assets").read_text("direct_url.json") or "")["vcs_info"]["commit_id"]
    return None
