"""A search in 16 bits counts only what float32 confirms."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.passes.mixed_precision import MixedPrecision
from robustbench_lab.testing.known_models import half_space_setting
from robustbench_lab.threat_models.norm_balls import Linf

SETTING = half_space_setting(Linf(eps=0.02))


class Everything(nn.Module):
    """Says of every input what the attack wants to hear: each label has lost."""

    def __init__(self, goal: Tensor) -> None:
        super().__init__()
        self.goal = goal

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(1 - self.goal[:1], 2).float().expand(len(x), 2)


def test_a_success_that_float32_does_not_confirm_does_not_count() -> None:
    wrong = Everything(SETTING.goal)
    hopeful = AttackProblem(replace(SETTING, model=wrong, exact=None))
    hopeful.submit(hopeful.clean)
    assert hopeful.claimed.any()
    careful = AttackProblem(replace(SETTING, model=wrong, exact=SETTING.model))
    careful.submit(careful.clean)
    assert not careful.claimed.any()


def test_a_confirmed_success_counts_and_costs_one_pass_more() -> None:
    away = 0.2 * torch.where(SETTING.goal == 0, -1.0, 1.0).reshape(-1, 1, 1, 1) * SETTING.model.weight.sign()
    problem = AttackProblem(replace(SETTING, exact=SETTING.model))
    problem.submit((SETTING.clean + away)[problem.open_positions])
    assert problem.claimed[1:].all()
    assert problem.counted_model.forward_passes == 2 * 23


def test_a_model_in_mixed_precision_computes_in_16_bits_and_answers_in_32() -> None:
    seen = []

    class Linear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            made = super().forward(x)
            seen.append(made.dtype)
            return made

    model = MixedPrecision(Linear(8, 3))
    assert model(torch.rand(2, 8)).dtype == torch.float32
    assert seen == [torch.bfloat16]
