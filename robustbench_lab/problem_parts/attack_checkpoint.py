"""A file that keeps what a long attack has found, so that after a kill it goes on where its last stage ended."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from robustbench_lab.errors import describe_error


class AttackCheckpoint:
    """The file of one work unit. It holds tensors and, as JSON, a few facts."""

    def __init__(self, path: Path, precision: str) -> None:
        """precision: of the search. What another one has found is not gone on with."""
        self.path = path
        self.earlier_seconds = 0.0
        """What the earlier processes took to find what `read` returned."""
        self._precision = precision
        self._began = time.perf_counter()

    def read(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `write` kept, the tensors on `device`; None where there is nothing, or nothing to go on with."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt", device=str(device)) as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            warnings.warn(f"{self.path} cannot be read, the unit begins anew: {describe_error(error)}", stacklevel=2)
            return None
        if facts.pop("precision") != self._precision:
            return None
        self.earlier_seconds = facts.pop("seconds")
        return tensors, facts

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the file, at once: after a kill there is the old one or the new one.

        A file that cannot be written costs a warning, not the attack.
        """
        seconds = self.earlier_seconds + time.perf_counter() - self._began
        facts = {**facts, "precision": self._precision, "seconds": seconds}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"facts": json.dumps(facts)})
        partial = self.path.with_suffix(f".partial-{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):  # on a full disk it takes what little is left
                partial.unlink(missing_ok=True)
            warnings.warn(f"cannot write {self.path}, so a killed unit begins anew: {error}", stacklevel=2)


def checkpoint_path(folder: Path, cell_id: str, start: int, stop: int) -> Path:
    """Where a work unit's checkpoint is."""
    return folder / f"{cell_id}-{start}-{stop}.safetensors"


def kept_slices(folder: Path | None) -> dict[str, list[tuple[int, int]]]:
    """Cell ids to the start and stop of the units that have a checkpoint in this folder."""
    found: dict[str, list[tuple[int, int]]] = {}
    for path in folder.glob("*.safetensors") if folder else []:
        cell_id, start, stop = path.stem.rsplit("-", 2)
        found.setdefault(cell_id, []).append((int(start), int(stop)))
    return found


def remove_checkpoints(folder: Path, cell_id: str) -> None:
    """Forget those of all units of a cell, and what processes that were killed while they wrote have left."""
    for path in folder.glob(f"{cell_id}-*"):
        remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Forget it, and the folder with the last one. A file that cannot be removed costs a warning."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"cannot remove {path}: {error}", stacklevel=2)
    with contextlib.suppress(OSError):  # there is none, or other units' files are in it
        path.parent.rmdir()
