"""An attack that tries nothing but the clean inputs has shown nothing, and is never taken for robustness."""

from __future__ import annotations

import pytest
import torch

from rbl_attacks.fixed_budget.fgsm import fgsm
from rbl_attacks.fixed_budget.pgd import pgd
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.diagnostics.unmoved import unmoved_finding
from robustbench_lab.records import Severity
from robustbench_lab.testing.known_models import half_space_setting
from robustbench_lab.threat_models.norm_balls import Linf


def test_an_attack_that_moves_every_sample_gives_no_finding() -> None:
    setting = half_space_setting(Linf(eps=0.01))
    for attack in (pgd, fgsm):
        problem = AttackProblem(setting)
        attack(problem)
        assert merge_findings(unmoved_finding(problem.unmoved, setting.open)) == ()


@pytest.mark.parametrize(("moved", "severity"), [(0, Severity.FATAL), (20, Severity.SUSPECT)])
def test_samples_that_were_only_tried_clean_are_counted(moved: int, severity: Severity) -> None:
    setting = half_space_setting(Linf(eps=1e-6), samples=24)
    problem = AttackProblem(setting)
    x = problem.clean.clone()
    x[:moved] += 1e-6
    problem.submit(x)
    (finding,) = merge_findings(unmoved_finding(problem.unmoved, setting.open))
    assert (finding.code, finding.severity, finding.value) == ("unmoved", severity, 23 - moved)


def test_a_zero_gradient_from_the_clean_input_is_found() -> None:
    setting = half_space_setting(Linf(eps=0.01))
    setting.model.weight.zero_()
    problem = AttackProblem(setting)
    fgsm(problem)
    assert torch.equal(problem.unmoved, torch.ones_like(setting.open))
