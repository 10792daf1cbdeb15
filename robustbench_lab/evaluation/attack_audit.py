"""The core re-checks what an attack claims: a fresh pass in float32 and the threat model decide, not the attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Measured
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Finding, Outcomes, Severity, Share
from robustbench_lab.sample_trees import cut

ROUNDING = 1e-5
"""Of values at the ends of the data's range; of the budget itself threat models know how exact they are."""
RANDOMIZED_PASSES = 5
"""Forward passes by which success is judged where the model is randomized: the majority counts."""


@dataclass(frozen=True)
class Audit:
    """The verdict of the core on an attack's candidates."""

    outcomes: Outcomes
    findings: tuple[Finding, ...]
    """Evidence, to be added up over the units of a cell."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What the evidence of these samples alone amounts to."""
        return merge_findings(self.findings)


def audit_attack(problem: AttackProblem, setting: ProblemSetting, judge: nn.Module, *, passes: int) -> Audit:
    """Judge what an attack has made of its problem: see `audit_candidates`."""
    return audit_candidates(problem.candidates, problem.claimed, setting, judge, passes=passes)


def audit_candidates(
    candidates: Tensor, claimed: Tensor, setting: ProblemSetting, judge: nn.Module, *, passes: int
) -> Audit:
    """Judge adversarial inputs `[N, ...]` for the N samples of a unit.

    claimed: the samples said to be broken, bool `[N]`.
    setting: the unit's own; its `open` samples are the ones right without attack.
    judge: the model that is evaluated (the defended one, also where the adversary attacked another).
    passes: forward passes each success is judged by; more than one for randomized models.

    A candidate outside the region, the bounds or the finite numbers counts as a failed attack on its sample. For a
    minimum-norm attack the region has no limit: a sample is robust where the nearest success lies beyond the budget,
    and has its distance all the same.
    """
    region = setting.around(setting.searched)
    allowed = region.contains(candidates) & _within_bounds(candidates, setting.bounds)
    judged = _judged(setting, judge, candidates, passes)
    succeeded = judged["votes"] * 2 > passes
    broken = succeeded & allowed & setting.intact
    within = setting.around(setting.threat_model).contains(candidates)
    distance = torch.where(broken, region.distance(candidates), torch.nan)
    distance = torch.where(setting.intact, distance, 0.0)
    outcomes = Outcomes(
        clean_correct=_array(setting.intact, np.bool_),
        robust=_array(setting.intact & ~(broken & within), np.bool_),
        distance=_array(distance, np.float32),
        columns=_columns(setting, judged, within),
    )
    violations = int((~allowed & setting.open).sum())
    unconfirmed = int((claimed & allowed & ~succeeded).sum())
    return Audit(outcomes, _findings(violations, unconfirmed, len(candidates)))


def _within_bounds(candidates: Tensor, bounds: Bounds) -> Tensor:
    """Whether inputs hold finite numbers of the data's range, bool `[N]`, whatever a threat model says of them."""
    values = candidates.flatten(1)
    low = bounds.low - ROUNDING * max(1.0, abs(bounds.low))
    high = bounds.high + ROUNDING * max(1.0, abs(bounds.high))
    return (values.amin(1) >= low) & (values.amax(1) <= high) & values.isfinite().all(1)


def _judged(setting: ProblemSetting, judge: nn.Module, candidates: Tensor, passes: int) -> dict[str, Any]:
    """Some fresh forward passes: how many find each goal reached, `votes` `[N]`; `measure` of the last."""

    def read(prediction: Any, rows: slice) -> dict[str, Any]:
        goal = cut(setting.goal, rows.start, rows.stop)
        judged: dict[str, Any] = {"votes": setting.objective.succeeded(prediction, goal).long()}
        if setting.clean_measure:
            measure = setting.task.measure(prediction, cut(setting.targets, rows.start, rows.stop))
            judged["measure"] = {**measure, "damage": setting.objective.damage(prediction, goal)}
        return judged

    finite = torch.where(candidates.isfinite(), candidates, setting.clean)
    judged = [predict_in_batches(judge, finite, setting.batch_size, read) for _ in range(passes)]
    return {**judged[-1], "votes": torch.stack([one["votes"] for one in judged]).sum(0)}


def _columns(setting: ProblemSetting, judged: Mapping[str, Any], within: Tensor) -> Measured:
    """The task's columns. Where a candidate is not allowed, or harms less than the clean input, that one counts.

    An adversary whose change is shared cannot take it back for some samples.
    """
    if not setting.clean_measure:
        return {}
    harmful = (
        within & (judged["measure"]["damage"] >= setting.clean_measure["damage"]) if not setting.shared else within
    )
    clean = {name: value.cpu().numpy() for name, value in setting.clean_measure.items()}
    rows = harmful.cpu().numpy()
    attacked = {}
    for name, value in judged["measure"].items():
        chosen = clean[name].copy()
        chosen[rows] = value.cpu().numpy()[rows]
        attacked[name] = chosen
    return setting.task.columns(clean, attacked)


def _findings(violations: int, unconfirmed: int, samples: int) -> tuple[Finding, ...]:
    text = "the attack handed in inputs outside the threat model; they count as failed attacks"
    share = Share(violations, samples, 0.5, above=Severity.FATAL, below=Severity.SUSPECT)
    outside = Finding("outside-threat-model", Severity.INFO, text, float(violations), share)
    text = "a fresh forward pass did not confirm the attack's success"
    share = Share(unconfirmed, samples, 1 / 500, above=Severity.SUSPECT, below=Severity.INFO, more_than=1)
    return outside, Finding("unconfirmed-success", Severity.INFO, text, float(unconfirmed), share)


def _array(tensor: Tensor, dtype: type[np.generic]) -> np.ndarray:
    return tensor.cpu().numpy().astype(dtype)
