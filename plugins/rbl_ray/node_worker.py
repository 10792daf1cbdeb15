"""What runs on the nodes: evaluates work units one after another, and keeps model and data loaded between them.

Nothing here imports torch before `prepare`, which first sets what torch reads once.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lab import __version__
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.identity import component_identity
from robustbench_lab.catalog.plugin_loading import DISABLE_VARIABLE, LoadedPlugins, load_plugins
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.records import Cell, ResolvedComponent, UnitRecord, WorkUnit, without_result

if TYPE_CHECKING:
    from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions


@dataclass(frozen=True)
class Setup:
    """What a worker needs beside the units."""

    rbl: str
    """Version of robustbench-lab that the run uses."""
    folder: str
    """Of the run: relative paths are looked up there, where the node has it."""
    plugins: tuple[tuple[str, bytes], ...]
    """Single-file plugins: name and contents."""
    disabled: str
    """Plugins that are switched off."""
    kind: str
    """Of the slot's device: `cpu` or `cuda`."""
    device: str
    """As the run calls it."""
    threads: int


class NodeWorker:
    """One slot's actor. `progress` is answered while `evaluate` runs."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._node = socket.gethostname()
        self._progress = (0, 0, 0)
        self._same: set[str] = set()
        """Identities of components that are here what they are in the plan."""

    def prepare(self) -> str:
        """Load what every unit needs. Returns the name of this node; raises RblError where nothing can run here."""
        if self._setup.rbl != __version__:
            raise UsageError(self._here(f"is robustbench-lab {__version__}, not the run's {self._setup.rbl}"))
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ[DISABLE_VARIABLE] = self._setup.disabled
        if Path(self._setup.folder).is_dir():
            os.chdir(self._setup.folder)
        import torch

        from robustbench_lab.evaluation.workbench import Workbench
        from robustbench_lab.hardware.host_memory import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(self._setup.threads)
        if self._setup.kind == "cuda" and not torch.cuda.is_available():
            raise UsageError(self._here("PyTorch sees no GPU"))
        try:
            self._catalog = Catalog.from_plugins(self._plugins())
        except RblError as error:
            raise UsageError(self._here(str(error))) from error
        # Ray shows an actor its own GPU only.
        self._bench = Workbench(self._catalog, torch.device("cuda:0" if self._setup.kind == "cuda" else "cpu"))
        return self._node

    def evaluate(self, unit: WorkUnit, options: EvaluationOptions) -> UnitRecord:
        """Evaluate a unit, whose components must be here what they are in the plan."""
        from robustbench_lab.evaluation.evaluate_cell import evaluate_unit

        self._progress = (0, 0, 0)
        if reason := self._difference(unit.cell):
            return without_result(unit, reason, self._setup.device)
        if options.checkpoints and not options.checkpoints.parent.is_dir():
            options = replace(options, checkpoints=None)  # the run's folder is not shared: nobody would look there
        record = evaluate_unit(unit, self._bench, options, self._note)
        return replace(record, device=self._setup.device)

    def progress(self) -> tuple[int, int, int]:
        """Of the unit that runs: samples unbroken, forward and backward passes."""
        return self._progress

    def _note(self, unbroken: int, forward_passes: int, backward_passes: int) -> None:
        self._progress = (unbroken, forward_passes, backward_passes)

    def _plugins(self) -> LoadedPlugins:
        """From files of this node's own, with the contents they have where the run began."""
        with tempfile.TemporaryDirectory(prefix="rbl-plugins-") as folder:
            files = [Path(folder, name) for name, _ in self._setup.plugins]
            for file, (_, content) in zip(files, self._setup.plugins, strict=True):
                file.write_bytes(content)
            return load_plugins([str(file) for file in files])

    def _difference(self, cell: Cell) -> str | None:
        """Why this cell would not be the plan's cell here; None where it would."""
        for kind, component in _components(cell):
            if component.identity in self._same:
                continue
            try:
                entry = self._catalog.find(kind, component.name)
                identity = component_identity(entry, component.name, component.params)
            except RblError as error:
                return self._here(str(error))
            if identity != component.identity:
                return self._here(
                    f"'{component.label}' is not what the run was planned with: put its files there, under the same "
                    f"path (a relative one: below {self._setup.folder}), and the same versions of its packages"
                )
            self._same.add(component.identity)
        return None

    def _here(self, text: str) -> str:
        return f"on node {self._node}: {text}"


def _components(cell: Cell) -> Iterator[tuple[str, ResolvedComponent]]:
    """With the kind of each."""
    yield "models", cell.model
    yield "defenses", cell.defense
    yield "datasets", cell.dataset
    yield "attacks", cell.attack
    yield "objectives", cell.objective
    yield "threat_models", cell.threat_model
