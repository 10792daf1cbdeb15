"""Files that belong to cells: adversarial examples as safetensors, in a folder beside the database."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ADVERSARIAL_INPUTS = "adversarial-inputs"


@dataclass(frozen=True)
class Artifact:
    """A file of a cell, as the database knows it."""

    kind: str
    path: str
    """Relative to the artifacts folder, with forward slashes."""
    sha256: str
    size: int
    """In bytes."""


def write_artifacts(folder: Path, cell_id: str, contents: Sequence[bytes]) -> list[Artifact]:
    """Write a cell's adversarial inputs, in order. Raises OSError.

    A file's name holds the hash of its contents: evaluating a cell again never touches the files of its stored result.
    """
    return [_write(folder, cell_id, position, content) for position, content in enumerate(contents)]


def remove_artifacts(folder: Path, paths: Iterable[str]) -> None:
    """Remove files that no stored cell refers to any more. Raises OSError."""
    for path in paths:
        (folder / path).unlink(missing_ok=True)


def artifact_problem(folder: Path, artifact: Artifact) -> str | None:
    """What is wrong with a file; None where it is what the database says."""
    path = folder / artifact.path
    if not _inside(folder, path):
        return f"file {artifact.path} is not inside of {folder}"
    if not path.is_file():
        return f"file {path} is missing"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == artifact.sha256 else f"file {path} has changed: its SHA-256 is not the stored one"


def copy_artifact(source: Path, target: Path, artifact: Artifact) -> str | None:
    """Copy a file between artifacts folders; returns what is wrong with it where it is not copied. Raises OSError."""
    problem = artifact_problem(source, artifact)
    if problem is None and artifact_problem(target, artifact) is not None:
        _put(target / artifact.path, (source / artifact.path).read_bytes())
    return problem


def _inside(folder: Path, path: Path) -> bool:
    """A database from elsewhere may name any path."""
    return path.resolve().is_relative_to(folder.resolve())


def _write(folder: Path, cell_id: str, position: int, content: bytes) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    path = f"{cell_id}/{position:04d}-{digest[:16]}.safetensors"
    _put(folder / path, content)
    return Artifact(ADVERSARIAL_INPUTS, path, digest, len(content))


def _put(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)  # whole or absent, also after a kill
    except OSError as error:
        partial.unlink(missing_ok=True)  # on a full disk it takes what little is left
        raise OSError(error.errno, error.strerror, str(target)) from error
