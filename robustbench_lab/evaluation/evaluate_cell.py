"""Stage 4: a work unit to its record, and a cell's records to the cell's. The only stage that runs plugin numerics."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Dataset, Task
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.diagnostics.out_of_reach import out_of_reach_finding
from robustbench_lab.diagnostics.unmoved import unmoved_finding
from robustbench_lab.diagnostics.verdict import verdict_of
from robustbench_lab.errors import SkipCell, UsageError, describe_error
from robustbench_lab.evaluation.attack_audit import Audit, audit_candidates
from robustbench_lab.evaluation.metric_values import Metric, measure
from robustbench_lab.evaluation.model_mark import run_attack
from robustbench_lab.evaluation.preflight import fatal_reason
from robustbench_lab.evaluation.workbench import LoadedCell, Workbench
from robustbench_lab.global_randomness import seeded
from robustbench_lab.passes.batch_size import out_of_memory
from robustbench_lab.passes.expectation import passes_per_query
from robustbench_lab.passes.mixed_precision import MixedPrecision
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.planning.adversaries import ADAPTIVE, unstopped
from robustbench_lab.problem_parts.attack_checkpoint import AttackCheckpoint, checkpoint_path, remove_checkpoint
from robustbench_lab.problem_parts.problem_setting import ProblemSetting, Progress
from robustbench_lab.records import (
    Cell,
    CellRecord,
    Finding,
    Outcomes,
    Severity,
    Status,
    UnitRecord,
    WorkUnit,
)
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.sample_trees import cut
from robustbench_lab.threat_models.reach import reachable

ADVERSARIAL = "adversarial"
"""Name of the tensor in a file of adversarial inputs."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What changes how a unit is evaluated, and not what it means."""

    batch_size: int | None = None
    """The user's; None: by the device."""
    batch_limit: int | None = None
    """What worked where a like cell ran out of memory."""
    batch_divisor: int = 1
    """Above 1 where a worker was killed at the usual size."""
    device_share: float = 1.0
    """Of the device's memory that is this unit's to use."""
    save_adversarials: bool = False
    mixed_precision: bool = False
    """Search in 16 bits where PyTorch deems it safe; every success is confirmed, and judged, in float32."""
    checkpoints: Path | None = None
    """Folder for what long attacks have found between two stages; None: a unit that is killed begins anew."""
    resume: bool = True
    """Go on from what a killed process has left there."""


def evaluate_unit(unit: WorkUnit, bench: Workbench, options: EvaluationOptions, progress: Progress) -> UnitRecord:
    """Evaluate a work unit. Whatever a plugin does wrong becomes the record's status, never an exception."""
    began, process = time.perf_counter(), os.getpid()
    checkpoint = _checkpoint(unit, options)
    blank = UnitRecord(
        cell_id=unit.cell.cell_id,
        start=unit.start,
        stop=unit.stop,
        status=Status.FAILED,
        reason=None,
        outcomes=None,
        forward_passes=0,
        backward_passes=0,
        wall_seconds=0.0,
        findings=(),
        device=str(bench.device),
        batch_size=options.batch_size or 0,
    )
    try:
        # What a plugin prints must not mix with the results on stdout.
        with contextlib.redirect_stdout(sys.stderr), seeded(unit.cell.cell_id, unit.start):
            record = _evaluate(unit, bench, blank, options, progress, checkpoint)
    except SkipCell as skip:
        record = replace(blank, status=Status.SKIPPED, reason=str(skip))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # some libraries have errors that are no Exception
        # Where memory has run out with a batch of one, the unit needs more than its share of the device.
        used = bench.memory_share()  # asked in any case: the next unit's share begins anew
        record = replace(blank, reason=describe_error(error), memory_share=1.0 if out_of_memory(error) else used)
    if os.getpid() != process:  # a plugin has forked, and its copy of this process came back, too: one record is enough
        os._exit(0)
    earlier = checkpoint.earlier_seconds if checkpoint else 0.0
    return replace(record, wall_seconds=earlier + time.perf_counter() - began)


def _checkpoint(unit: WorkUnit, options: EvaluationOptions) -> AttackCheckpoint | None:
    if options.checkpoints is None:
        return None
    path = checkpoint_path(options.checkpoints, unit.cell.cell_id, unit.start, unit.stop)
    if not options.resume:
        remove_checkpoint(path)
    return AttackCheckpoint(path, "mixed" if options.mixed_precision else "float32")


def close_cell(cell: Cell, units: Sequence[UnitRecord], metrics: Mapping[str, Metric], executor: str) -> CellRecord:
    """A cell's unit records, in order of their samples, to its result. The first unit that is not ok decides."""
    bad = next((unit for unit in units if unit.status is not Status.OK), None)
    outcomes = None if bad else join_outcomes([unit.outcomes for unit in units if unit.outcomes is not None])
    found = {} if outcomes is None else {name: measure(name, metric, outcomes) for name, metric in metrics.items()}
    troubles = (trouble for _, those in found.values() for trouble in those)
    findings = (*merge_findings(finding for unit in units for finding in unit.findings), *troubles)
    samples = len(cell.samples.sample_ids)
    return CellRecord(
        cell=cell,
        status=bad.status if bad else Status.OK,
        reason=bad.reason if bad else None,
        metrics={name: estimate for name, (estimate, _) in found.items()},
        outcomes=outcomes,
        forward_per_sample=None if bad else sum(unit.forward_passes for unit in units) / samples,
        backward_per_sample=None if bad else sum(unit.backward_passes for unit in units) / samples,
        wall_seconds=sum(unit.wall_seconds for unit in units),
        verdict=None if bad else verdict_of(findings),
        findings=findings,
        device=units[0].device,
        batch_size=min(unit.batch_size for unit in units),
        executor=executor,
    )


def join_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    """Outcomes of consecutive samples to one."""
    return Outcomes(
        clean_correct=np.concatenate([part.clean_correct for part in parts]),
        robust=np.concatenate([part.robust for part in parts]),
        distance=np.concatenate([part.distance for part in parts]),
        columns={name: _concatenated([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def _concatenated(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays `[N, ...]` to one, with zeros where the further sizes differ."""
    largest = np.max([part.shape[1:] for part in parts], axis=0, initial=0)
    gaps = [
        [(0, 0), *((0, int(most) - size) for most, size in zip(largest, part.shape[1:], strict=True))] for part in parts
    ]
    return np.concatenate([np.pad(part, gap) for part, gap in zip(parts, gaps, strict=True)])


def _evaluate(
    unit: WorkUnit,
    bench: Workbench,
    blank: UnitRecord,
    options: EvaluationOptions,
    progress: Progress,
    checkpoint: AttackCheckpoint | None,
) -> UnitRecord:
    cell = unit.cell
    loaded = bench.load(cell)
    _check_samples(cell, loaded.dataset)
    batch_size = _first_batch_size(cell, bench, loaded, options)
    preflight = bench.preflight(cell, loaded, batch_size)
    if reason := fatal_reason(preflight):
        return replace(blank, status=Status.SKIPPED, reason=reason, findings=tuple(preflight))
    fast = bench.tune(cell, loaded, batch_size)
    setting = unit_setting(unit, bench, loaded, batch_size)
    searched = replace(setting, model=fast) if loaded.source_model is None else _on_source(setting, fast)
    searched = _in_mixed_precision(searched) if options.mixed_precision else searched
    problem = AttackProblem(searched, progress, checkpoint)
    if not problem.finished:
        _attack(loaded, problem, searched.model, bench)
    # What broke another model, or the bare one, need not break the one that is judged: it claims nothing.
    claimed = problem.claimed if cell.adversary == ADAPTIVE else torch.zeros_like(problem.claimed)
    audit = judge(unit, loaded, setting, problem.candidates, claimed)
    return replace(
        blank,
        status=Status.OK,
        outcomes=audit.outcomes,
        forward_passes=problem.counted_model.forward_passes,
        backward_passes=problem.counted_model.backward_passes,
        findings=(
            *preflight,
            *baseline_finding(loaded),
            *_minimum_norm(loaded),
            *_precision(options),
            *_search_findings(problem, setting),
            *audit.findings,
        ),
        batch_size=problem.batch_size,
        memory_share=bench.memory_share(),
        memory_ran_out=problem.batch_size < batch_size,
        artifact=_adversarials(problem, unit) if options.save_adversarials else None,
    )


def _attack(loaded: LoadedCell, problem: AttackProblem, model: nn.Module, bench: Workbench) -> None:
    """The attack's work. Success is judged on the same model, and other cells need it, too: so it must be as before."""
    models = {id(one): one for one in (model, loaded.defended_model)}.values()
    try:
        run_attack(loaded.attack, problem, models)
    except BaseException:
        bench.forget_models()  # whatever state they are in
        raise


def _check_samples(cell: Cell, dataset: Dataset) -> None:
    """The data may be read on another machine than the plan was made on, or have changed since."""
    planned = cell.samples.sample_ids
    if tuple(dataset.sample_ids[: len(planned)]) != planned:
        text = "does not hold the samples that the run was planned with: its files have changed, or are others here"
        raise UsageError(f"'{cell.dataset.label}' {text}")


def _first_batch_size(cell: Cell, bench: Workbench, loaded: LoadedCell, options: EvaluationOptions) -> int:
    size = options.batch_size or bench.first_batch_size(cell, loaded, options.device_share)
    return max(1, min(size, options.batch_limit or size) // options.batch_divisor)


def unit_setting(unit: WorkUnit, bench: Workbench, loaded: LoadedCell, batch_size: int) -> ProblemSetting:
    """The samples of a unit with their clean predictions: what is attacked, and what results are judged against."""
    cell = unit.cell
    samples = bench.samples(loaded, list(cell.samples.indices[unit.start : unit.stop]))

    def read(prediction: object, rows: slice) -> dict[str, object]:
        targets = cut(samples.targets, rows.start, rows.stop)
        goal = loaded.objective.prepare(prediction, targets)
        facts = {"intact": loaded.task.intact(prediction, targets), "goal": goal}
        if measure := loaded.task.measure(prediction, targets):
            facts["measure"] = {**measure, "damage": loaded.objective.damage(prediction, goal)}
        return facts

    with seeded(cell.cell_id, unit.start, "clean"):
        passes = [
            predict_in_batches(loaded.defended_model, samples.inputs, batch_size, read)
            for _ in range(loaded.judging_passes)
        ]
    votes = torch.stack([one["intact"] for one in passes]).sum(0)
    intact = votes * 2 > len(passes)
    ids = cell.samples.sample_ids[unit.start : unit.stop]
    setting = ProblemSetting(
        model=loaded.attacked_model(cell),
        objective=loaded.objective,
        threat_model=loaded.threat_model,
        clean=samples.inputs,
        goal=passes[0]["goal"],
        open=_worth_attacking(loaded.task, intact),
        bounds=loaded.dataset.bounds,
        rng=SampleRng.for_samples(cell.seed, cell.attack.name, ids, bench.device),
        batch_size=batch_size,
        minimum_norm=loaded.minimum_norm,
        eot=loaded.eot(cell),
        task=loaded.task,
        targets=samples.targets,
        attackable=samples.attackable,
        shared=loaded.shared,
        right=intact,
        clean_measure=passes[0].get("measure", {}),
    )
    return replace(setting, open=setting.open & reachable(setting.around(setting.threat_model)))


def _on_source(setting: ProblemSetting, source: nn.Module) -> ProblemSetting:
    """The problem as an adversary has it who knows another model only: its goals come from that model's predictions."""
    objective = unstopped(setting.objective)

    def read(prediction: object, rows: slice) -> dict[str, object]:
        targets = cut(setting.targets, rows.start, rows.stop)
        goal = objective.prepare(prediction, targets)
        damage = {"damage": objective.damage(prediction, goal)} if setting.clean_measure else {}
        return {"goal": goal, "measure": damage}

    known = predict_in_batches(source, setting.clean, setting.batch_size, read)
    return replace(
        setting,
        model=source,
        objective=objective,
        goal=known["goal"],
        clean_measure=known["measure"],
        eot=passes_per_query(objective, randomized=False),
    )


def judge(unit: WorkUnit, loaded: LoadedCell, setting: ProblemSetting, candidates: Tensor, claimed: Tensor) -> Audit:
    """The core's own verdict on candidates `[N, ...]`; a randomized model draws the same numbers every time."""
    with seeded(unit.cell.cell_id, unit.start, "judge"):
        return audit_candidates(candidates, claimed, setting, loaded.defended_model, passes=loaded.judging_passes)


def _search_findings(problem: AttackProblem, setting: ProblemSetting) -> list[Finding]:
    worth = _worth_attacking(setting.task, setting.intact)
    out_of_reach = out_of_reach_finding(worth, setting.open)
    return [out_of_reach, *problem.trace.findings(), *unmoved_finding(problem.unmoved, setting.open), *problem.notes]


def _worth_attacking(task: Task, intact: Tensor) -> Tensor:
    """Bool `[N]`: the samples that an attack can make worse, if the threat model lets it."""
    return torch.ones_like(intact) if task.attacks_all else intact


def _in_mixed_precision(setting: ProblemSetting) -> ProblemSetting:
    return replace(setting, model=MixedPrecision(setting.model).eval(), exact=setting.model)


def _precision(options: EvaluationOptions) -> list[Finding]:
    text = "searched in mixed precision; every success was confirmed in float32"
    return [Finding("mixed-precision", Severity.INFO, text)] if options.mixed_precision else []


def baseline_finding(loaded: LoadedCell) -> list[Finding]:
    """That an attack is a sanity check, where it is one."""
    text = "a baseline: it shows what chance alone does, and says nothing of what an attack can do"
    return [Finding("baseline", Severity.SUSPECT, text)] if loaded.baseline else []


def _minimum_norm(loaded: LoadedCell) -> list[Finding]:
    text = "looked for the nearest adversarial input: distances bound the robust accuracy at every budget from above"
    return [Finding("minimum-norm", Severity.INFO, text)] if loaded.minimum_norm else []


def _adversarials(problem: AttackProblem, unit: WorkUnit) -> bytes:
    from safetensors.torch import save

    of = {"cell": unit.cell.cell_id, "start": str(unit.start), "stop": str(unit.stop)}
    kept = {f"{name}-{number}": value for number, (name, value) in enumerate(problem.kept, start=1)}
    tensors = {**kept, ADVERSARIAL: problem.candidates}
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, of)
