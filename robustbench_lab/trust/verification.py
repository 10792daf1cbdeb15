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
from safetensors import SafetensorError, safe_open

from robustbench_lab.contracts import Estimate
from robustbench_lab.diagnostics.verdict import verdict_of
from robustbench_lab.errors import describe_error
from robustbench_lab.evaluation.evaluate_cell import ADVERSARIAL, baseline_finding, judge, unit_setting
from robustbench_lab.evaluation.metric_values import Metric
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.planning.cell_here import OtherHereError, cell_here
from robustbench_lab.records import Cell, CellRecord, Outcomes, Severity, Status, WorkUnit
from robustbench_lab.result_store.artifact_files import Artifact, artifact_problem

TOLERATED = 1 / 500
"""Share of samples that may come out differently: on another device, where a margin lies within float error."""
ROUNDING, DISTANCE_ROUNDING = 1e-3, 1e-6
"""Absolute differences of another device's rounding, beside a relative one of 0.001: of a task's numbers, such as boxes
in pixels, and of distances, which are as small as budgets are."""


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
    record: CellRecord,
    artifacts: list[Artifact],
    folder: Path,
    bench: Workbench,
    metrics: dict[str, Metric],
    *,
    run_scripts: bool = False,
) -> Verification:
    """Check one stored result.

    folder: where the artifacts lie. metrics: the task's. run_scripts: see `cell_here`. Nothing that is stored is
    believed: hashes are computed again, components and data looked up by their labels and compared by their contents,
    and success judged by the audit of a fresh forward pass.
    """
    cell_id = record.cell.cell_id
    if record.status is not Status.OK or record.outcomes is None:
        return Verification(cell_id, Outcome.UNVERIFIABLE, (f"the cell is {record.status}: {record.reason}",))
    if not artifacts:
        text = "no adversarial inputs were saved: run it with --save-adversarials"
        return Verification(cell_id, Outcome.UNVERIFIABLE, (text,))
    try:
        here = cell_here(record.cell, bench.catalog, run_scripts=run_scripts)
        remarks = (*here.forged, *_untrue(record, record.outcomes, metrics))
        if len(record.outcomes) == len(record.cell.samples.sample_ids):
            remarks += tuple(_differences(here.cell, record, record.outcomes, artifacts, folder, bench))
    except OtherHereError as other:
        return Verification(cell_id, Outcome.UNVERIFIABLE, (str(other),))
    except Exception as error:  # a model that needs what is not here costs its own cells only
        return Verification(cell_id, Outcome.UNVERIFIABLE, (f"it cannot be judged here: {describe_error(error)}",))
    if unknown := sorted(record.metrics.keys() - metrics.keys()):
        text = f"nothing here computes its metric {', '.join(unknown)}: name the plugin with --plugin"
        return Verification(cell_id, Outcome.DIFFERS if remarks else Outcome.UNVERIFIABLE, (*remarks, text))
    return Verification(cell_id, Outcome.DIFFERS if remarks else Outcome.VERIFIED, remarks)


def _untrue(record: CellRecord, stored: Outcomes, metrics: dict[str, Metric]) -> Iterator[str]:
    """What is stored and does not follow from the outcomes, or from the findings."""
    if len(stored) != len(record.cell.samples.sample_ids):
        yield f"it has outcomes of {len(stored)} samples, and {len(record.cell.samples.sample_ids)} samples"
        return
    for name, estimate in record.metrics.items():
        if name in metrics and not _same(metrics[name](stored), estimate):
            yield f"{name} does not follow from the stored per-sample outcomes"
    if record.verdict is not verdict_of(record.findings):
        yield f"its verdict '{record.verdict}' does not follow from its findings"


def _differences(
    cell: Cell, record: CellRecord, stored: Outcomes, artifacts: list[Artifact], folder: Path, bench: Workbench
) -> Iterator[str]:
    """What a fresh pass over the saved inputs says otherwise."""
    loaded = bench.load(cell)
    batch_size = min(max(1, record.batch_size), len(stored))
    known = {finding.code for finding in record.findings}
    for finding in (*bench.preflight(cell, loaded, batch_size), *baseline_finding(loaded)):
        if finding.severity is not Severity.INFO and finding.code not in known:
            yield f"its findings lack {finding.code}: {finding.message}"
    covered = np.zeros(len(stored), dtype=np.int64)
    for artifact in artifacts:
        if problem := artifact_problem(folder, artifact):
            yield problem
            continue
        try:
            start, inputs = _read(folder / artifact.path)
        except (SafetensorError, KeyError, ValueError) as error:
            yield f"file {artifact.path} holds no adversarial inputs: {describe_error(error)}"
            continue
        unit = WorkUnit(cell, start, start + len(inputs))
        if not 0 <= unit.start < unit.stop <= len(stored):
            yield f"file {artifact.path} is of samples {unit.start} to {unit.stop} of {len(stored)}"
            continue
        covered[unit.start : unit.stop] += 1
        setting = unit_setting(unit, bench, loaded, batch_size)
        if inputs.shape != setting.clean.shape:
            shapes = f"{list(inputs.shape)}, and its samples are {list(setting.clean.shape)}"
            yield f"file {artifact.path} holds inputs {shapes}"
            continue
        audit = judge(unit, loaded, setting, inputs.to(setting.clean), torch.zeros_like(setting.open))
        yield from _compare(stored, unit, audit.outcomes)
    if missing := int((covered == 0).sum()):
        yield f"adversarial inputs of {missing} samples are missing"
    if twice := int((covered > 1).sum()):
        yield f"adversarial inputs of {twice} samples are there more than once"


def _read(path: Path) -> tuple[int, torch.Tensor]:
    """Position of the first sample, and adversarial inputs `[N, ...]`."""
    with safe_open(path, framework="pt") as file:
        return int((file.metadata() or {})["start"]), file.get_tensor(ADVERSARIAL)


def _compare(stored: Outcomes, unit: WorkUnit, here: Outcomes) -> Iterator[str]:
    rows = slice(unit.start, unit.stop)
    pairs = {name: (getattr(here, name), getattr(stored, name)) for name in ("clean_correct", "robust", "distance")}
    pairs |= {name: (here.columns.get(name), column) for name, column in stored.columns.items()}
    for name, (fresh, column) in pairs.items():
        count = unit.stop - unit.start
        nearly = DISTANCE_ROUNDING if name == "distance" else ROUNDING
        differ = count if fresh is None else int(_differ(fresh, column[rows], nearly).sum())
        if differ > TOLERATED * count:
            yield f"{name} comes out differently on {differ} of {count} samples"
    if left_out := sorted(here.columns.keys() - stored.columns.keys()):
        yield f"outcomes lack {', '.join(left_out)}"


def _same(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates are equal; those that nobody knows (NaN) are."""
    pairs = zip(astuple(first), astuple(second), strict=True)
    return all(one == other or (one != one and other != other) for one, other in pairs)


def _differ(first: NDArray[Any], second: NDArray[Any], nearly: float) -> NDArray[np.bool_]:
    """The samples in which two columns `[N, ...]` differ by more than rounding; where one is narrower it has zeros."""
    most = np.maximum(first.shape, second.shape)
    first, second = (
        np.pad(one, [(0, size - own) for size, own in zip(most, one.shape, strict=True)]) for one in (first, second)
    )
    same = np.isclose(first, second, rtol=1e-3, atol=nearly, equal_nan=True)
    differ: NDArray[np.bool_] = ~same.reshape(len(first), -1).all(axis=1)
    return differ
