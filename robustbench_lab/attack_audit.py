"""The core re-checks what an attack claims: a fresh pass in float32 and the threat model decide, not the attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.prediction import predict_in_batches
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.records import Finding, Outcomes, Severity, Share
from robustbench_lab.sample_trees import cut

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
    region = setting.searched.around(setting.clean, setting.bounds)
    allowed = region.contains(candidates)
    succeeded = _judged(setting, judge, candidates, passes)
    broken = succeeded & allowed & setting.open
    within = setting.threat_model.around(setting.clean, setting.bounds).contains(candidates)
    distance = torch.where(broken, region.distance(candidates), torch.nan)
    distance = torch.where(setting.open, distance, 0.0)
    outcomes = Outcomes(
        clean_correct=_array(setting.open, np.bool_),
        robust=_array(setting.open & ~(broken & within), np.bool_),
        distance=_array(distance, np.float32),
    )
    violations = int((~allowed & setting.open).sum())
    unconfirmed = int((claimed & allowed & ~succeeded).sum())
    return Audit(outcomes, _findings(violations, unconfirmed, len(candidates)))


def _judged(setting: ProblemSetting, judge: nn.Module, candidates: Tensor, passes: int) -> Tensor:
    """Whether most of some fresh forward passes find each goal reached, bool `[N]`."""

    def reached(prediction: Any, rows: slice) -> Tensor:
        return setting.objective.succeeded(prediction, cut(setting.goal, rows.start, rows.stop))

    finite = candidates.nan_to_num(setting.bounds.low, setting.bounds.high, setting.bounds.low)
    votes = torch.zeros(len(candidates), dtype=torch.int64, device=candidates.device)
    for _ in range(passes):
        votes += predict_in_batches(judge, finite, setting.batch_size, reached)
    return votes * 2 > passes


def _findings(violations: int, unconfirmed: int, samples: int) -> tuple[Finding, ...]:
    text = "the attack handed in inputs outside the threat model; they count as failed attacks"
    share = Share(violations, samples, 0.5, above=Severity.FATAL, below=Severity.SUSPECT)
    outside = Finding("outside-threat-model", Severity.INFO, text, float(violations), share)
    text = "a fresh forward pass did not confirm the attack's success"
    share = Share(unconfirmed, samples, 1 / 500, above=Severity.SUSPECT, below=Severity.INFO, more_than=1)
    return outside, Finding("unconfirmed-success", Severity.INFO, text, float(unconfirmed), share)


def _array(tensor: Tensor, dtype: type[np.generic]) -> np.ndarray:
    return tensor.cpu().numpy().astype(dtype)
