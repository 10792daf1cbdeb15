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


def _write(folder: Path, cell_id: str, position: int, content: bytes) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    path = f"{cell_id}/{position:04d}-{digest[:16]}.safetensors"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".partial-{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)  # whole or absent, also after a kill
    return Artifact(ADVERSARIAL_INPUTS, path, digest, len(content))
