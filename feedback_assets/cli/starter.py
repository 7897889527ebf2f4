"""The starter folder of a team."""

from importlib.resources import as_file, files
from pathlib import Path
from shutil import copyfile

from feedback_assets.errors import FeedbackError


def write_starter(folder: Path) -> list[Path]:
    """Copy the starter into `folder`, which is made if need be; return the files written.

    Raises:
        FeedbackError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FeedbackError(f"{folder}: exists and is not empty; name a new folder")
    written = []
    with as_file(files("feedback_assets").joinpath("starter")) as starter:
        for source in sorted(
            path for path in starter.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
        ):
            target = folder / source.relative_to(starter)
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(source, target)
            written.append(target)
    return written
