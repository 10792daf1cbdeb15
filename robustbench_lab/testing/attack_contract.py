"""What every attack must keep to, checked on a model whose best attack is known. Shipped for authors of plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from robustbench_lab.attack_audit import audit_attack
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import ThreatModel
from robustbench_lab.errors import describe_error
from robustbench_lab.global_randomness import seeded
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.tasks.forecasting_objectives import Error
from robustbench_lab.testing.known_forecasters import forecast_setting
from robustbench_lab.testing.known_models import KNOWN, HalfSpace, half_space_setting

Run = Callable[[AttackProblem], None]

ONE_BY_ONE = 6
"""Samples attacked once more with a batch for each."""


def check_attack(
    run: Run,
    threat_model_of: Callable[[float], ThreatModel],
    norm: str,
    *,
    sample_deterministic: bool,
    minimum_norm: bool = False,
    joint: bool = False,
    forecasting: bool = False,
) -> list[str]:
    """What is wrong with an attack, a line each; nothing where it keeps to the contract.

    run: the attack with its parameters bound. threat_model_of: eps to the threat model it is checked in, named `norm`.
    Where no closed form is known for that one, eps is 1, and what it could break is not checked. forecasting: whether
    it is for forecasters only.
    """
    if forecasting:
        setting = forecast_setting(threat_model_of(1.0), Error())
        reach = torch.ones(len(setting.clean))
    else:
        clean = half_space_setting(threat_model_of(1.0)).clean
        reach = HalfSpace().distance(clean, norm) if norm in KNOWN else torch.ones(len(clean))
        setting = half_space_setting(threat_model_of(float(reach.median())), minimum_norm=minimum_norm)
    try:
        problem = _attacked(run, setting)
    except Exception as error:
        return [f"it stops with {describe_error(error)}"]
    audit = audit_attack(problem, setting, setting.model, passes=1)
    wrong = [f"{finding.message}: {finding.value:.0f}" for finding in audit.problems]
    if not torch.equal(problem.clean, setting.clean[problem.open_positions]):
        wrong.append("it overwrites the clean inputs: work on a copy")
    out_of_reach = torch.from_numpy(~audit.outcomes.robust) & setting.open & (reach > 1.001 * setting.threat_model.eps)
    if bool(out_of_reach.any()):
        wrong.append("it breaks samples that no input of the threat model can break")
    if bool((problem.unmoved & setting.open).any()):
        wrong.append("it tries nothing but the clean input on some samples: hand candidates to problem.submit")
    if sample_deterministic:
        wrong += _check_repeatable(run, setting, problem, joint=joint)
    return wrong


def _check_repeatable(run: Run, setting: ProblemSetting, first: AttackProblem, *, joint: bool) -> list[str]:
    again = _attacked(run, setting, "another global seed")
    if not torch.equal(first.candidates, again.candidates):
        return ["two runs differ: draw random numbers from the problem (problem.uniform, problem.normal)"]
    # Few of the samples: one at a time they take as long as all the others together. Not where each one matters to all.
    few = setting.open if joint else setting.open & (setting.open.cumsum(0) <= ONE_BY_ONE)
    one_by_one = _attacked(run, replace(setting, batch_size=1, open=few))
    if not torch.equal(first.claimed[few], one_by_one.claimed[few]):
        return ["its outcomes depend on the batch size: treat every sample on its own"]
    return []


def _attacked(run: Run, setting: ProblemSetting, global_seed: str = "check") -> AttackProblem:
    problem = AttackProblem(setting)
    with seeded(global_seed):
        run(problem)
    return problem
