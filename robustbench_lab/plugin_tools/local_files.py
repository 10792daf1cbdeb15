"""Files a user names: found, or refused in one line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from robustbench_lab.errors import UsageError, did_you_mean


def existing_file(path: str, what: str) -> Path:
    """The file at `path` (`~` expanded), or UsageError naming a file of nearly that name. what: as in "weights"."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UsageError(f"{what}: '{path}' is a folder, not a file")
    if not file.is_file():
        raise UsageError(f"{what}: there is no file '{path}'.{_near(file, Path.is_file)}")
    return file


def existing_folder(path: str, what: str) -> Path:
    """The folder at `path` (`~` expanded), or UsageError naming a folder of nearly that name."""
    folder = Path(path).expanduser()
    if folder.is_file():
        raise UsageError(f"{what}: '{path}' is a file, not a folder")
    if not folder.is_dir():
        raise UsageError(f"{what}: there is no folder '{path}'.{_near(folder, Path.is_dir)}")
    return folder


def listed(names: Iterable[str], limit: int = 3) -> str:
    """`a, b, c and 4 more`."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def _near(missing: Path, is_wanted: Callable[[Path], bool]) -> str:
    if not missing.parent.is_dir():
        return ""
    return did_you_mean(missing.name, (one.name for one in missing.parent.iterdir() if is_wanted(one)))


def _checked_file(path: str) -> str:
    existing_file(path, "file")
    return path


ExistingFile = Annotated[str, AfterValidator(_checked_file)]
"""A factory's parameter that names a file: one that is not there is refused when the run is planned."""
