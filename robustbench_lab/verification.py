"""Check a stored result again, by anyone: files by their hashes, outcomes by a fresh pass over the saved inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustbench_lab.catalog import Catalog
from robustbench_lab.component_syntax import parse_component
from robustbench_lab.contracts import Estimate
from robustbench_lab.evaluate_cell import ADVERSARIAL, judge, unit_setting
from robustbench_lab.metric_values import Metric
from robustbench_lab.provenance import file_sha256
from robustbench_lab.records import Cell, CellRecord, Outcomes, Status, WorkUnit
from robustbench_lab.result_store import Artifact
from robustbench_lab.run_plan import select_samples
from robustbench_lab.workbench import LoadedCell, Workbench

TOLERATED = 1 / 500
"""Share of samples that may come out differently: on another device, where a margin lies within float error."""
PARTS = {
    "model": "models",
    "defense": "defenses",
    "attack": "attacks",
    "objective": "objectives",
    "threat_model": "threat_models",
}


class Outcome(StrEnum):
    """What checking a result again has shown."""

    VERIFIED = "verified"
    DIFFERS = "differs"
    UNVERIFIABLE = "not verifiable"


@dataclass(frozen=True)
class Verification:
    """The outcome for one cell, with the reasons."""

    cell_id: str
    outcome: Outcome
    remarks: tuple[str, ...]


def verify(
    record: CellRecord, artifacts: list[Artifact], folder: Path, bench: Workbench, metrics: dict[str, Metric]
) -> Verification:
    """Check one stored result.

    folder: where the artifacts lie. metrics: the task's. Nothing that is stored is believed: hashes are computed
    again, components and data looked up by their contents, and success judged by the audit of a fresh forward pass.
    """
    cell_id = record.cell.cell_id
    if record.status is not Status.OK or record.outcomes is None:
        return Verification(cell_id, Outcome.UNVERIFIABLE, (f"the cell is {record.status}: {record.reason}",))
    if not artifacts:
        text = "no adversarial inputs were saved: run it with --save-adversarials"
        return Verification(cell_id, Outcome.UNVERIFIABLE, (text,))
    if changed := list(_changed_parts(record.cell, bench.catalog)):
        return Verification(cell_id, Outcome.UNVERIFIABLE, tuple(changed))
    remarks = tuple(_differences(record, record.outcomes, artifacts, folder, bench, metrics))
    return Verification(cell_id, Outcome.DIFFERS if remarks else Outcome.VERIFIED, remarks)


def _changed_parts(cell: Cell, catalog: Catalog) -> Iterator[str]:
    """Parts of the cell that are something else here than where it was evaluated."""
    for name, kind in PARTS.items():
        stored = getattr(cell, name)
        here = catalog.resolve(kind, parse_component(stored.label), task=cell.task)
        if here.identity != stored.identity:
            yield f"{name} '{stored.label}' is not the same here: other contents, or another version"
    here = catalog.resolve("datasets", parse_component(cell.dataset.label), task=cell.task)
    dataset = catalog.build("datasets", here, task=cell.task)
    if select_samples(dataset, len(cell.samples.sample_ids), cell.dataset.label).identity != cell.samples.identity:
        yield f"dataset '{cell.dataset.label}' does not hold the same samples here"


def _differences(
    record: CellRecord,
    stored: Outcomes,
    artifacts: list[Artifact],
    folder: Path,
    bench: Workbench,
    metrics: dict[str, Metric],
) -> Iterator[str]:
    for name, estimate in record.metrics.items():
        if name in metrics and not _same(metrics[name](stored), estimate):
            yield f"{name} does not follow from the stored per-sample outcomes"
    loaded = bench.load(record.cell)
    covered = 0
    for artifact in artifacts:
        path = folder / artifact.path
        if not path.is_file():
            yield f"{path} is missing"
        elif file_sha256(path) != artifact.sha256:
            yield f"{path} has changed since it was stored: its SHA-256 is another"
        else:
            start, inputs = _read(path)
            covered += len(inputs)
            yield from _compare(record, stored, start, inputs, bench, loaded)
    if covered < len(stored):
        yield f"adversarial inputs of {len(stored) - covered} samples are missing"


def _read(path: Path) -> tuple[int, torch.Tensor]:
    """Position of the first sample, and adversarial inputs `[N, ...]`."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return int((file.metadata() or {})["start"]), file.get_tensor(ADVERSARIAL)


def _compare(
    record: CellRecord, stored: Outcomes, start: int, inputs: torch.Tensor, bench: Workbench, loaded: LoadedCell
) -> Iterator[str]:
    unit = WorkUnit(record.cell, start, start + len(inputs))
    setting = unit_setting(unit, bench, loaded, record.batch_size)
    audit = judge(unit, loaded, setting, inputs.to(setting.clean), torch.zeros_like(setting.open))
    rows = slice(unit.start, unit.stop)
    pairs = {name: (getattr(audit.outcomes, name), getattr(stored, name)) for name in ("clean_correct", "robust")}
    pairs |= {name: (audit.outcomes.columns.get(name), column) for name, column in stored.columns.items()}
    for name, (here, column) in pairs.items():
        differ = len(inputs) if here is None else int(_differ(here, column[rows]).sum())
        if differ > TOLERATED * len(inputs):
            yield f"{name} comes out differently on {differ} of {len(inputs)} samples"


def _same(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates are equal; those that nobody knows (NaN) are."""
    return np.array_equal(astuple(first), astuple(second), equal_nan=True)


def _differ(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """The samples in which two columns `[N, ...]` differ by more than rounding; where one is narrower it has zeros."""
    most = np.maximum(first.shape, second.shape)
    first, second = (
        np.pad(one, [(0, size - own) for size, own in zip(most, one.shape, strict=True)]) for one in (first, second)
    )
    same = np.isclose(first, second, rtol=1e-3, atol=1e-3, equal_nan=True)
    differ: NDArray[np.bool_] = ~same.reshape(len(first), -1).all(axis=1)
    return differ
