"""Every component that ships keeps to the contract that `rbl plugins check` asks of strangers."""

from __future__ import annotations

import pytest
import torch

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.entry import Entry
from robustbench_lab.cli.plugin_check import CHECKED, check_component
from robustbench_lab.contracts import GradientKind
from robustbench_lab.plugin_loading import load_plugins
from robustbench_lab.testing.attack_contract import check_attack
from robustbench_lab.testing.component_contracts import check_defense
from robustbench_lab.testing.known_models import HalfSpace
from robustbench_lab.threat_models.norm_balls import Linf

CATALOG = Catalog.from_plugins(load_plugins())


FIRST_PARTY = [
    entry for kind in CHECKED for entry in CATALOG.entries(kind) if entry.plugin.distribution == "robustbench-lab"
]
TAKES_LONG = {"autoattack"}
"""Its parts are checked by themselves, and its own tests compare it with the official code."""


def test_every_first_party_plugin_loads() -> None:
    plugins = [record for record in CATALOG.plugins if record.distribution == "robustbench-lab"]
    assert len(plugins) > 10
    assert [record for record in plugins if record.error] == []


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(one, id=one.title, marks=[pytest.mark.slow] if one.spec.name in TAKES_LONG else [])
        for one in FIRST_PARTY
    ],
)
def test_a_first_party_component_has_nothing_wrong(entry: Entry) -> None:
    checked = check_component(CATALOG, entry)
    assert checked.state != "wrong", checked.remarks


def remarks(attack: object) -> list[str]:
    return check_attack(attack, lambda eps: Linf(eps=eps), "linf", sample_deterministic=True)


def _leaves_the_ball(problem: AttackProblem) -> None:
    problem.submit(problem.clean + 2 * problem.eps)


def _overwrites(problem: AttackProblem) -> None:
    problem.submit(problem.clean.add_(problem.eps / 2))


def _draws_its_own_numbers(problem: AttackProblem) -> None:
    problem.submit(problem.project(problem.clean + 3 * problem.eps * torch.randn_like(problem.clean)))


def _depends_on_the_batch(problem: AttackProblem) -> None:
    _, gradient = problem.loss_and_gradient(problem.clean)
    away = problem.steepest(gradient, problem.clean)
    problem.submit(problem.project(problem.clean + (2 if problem.batch_size > 1 else 0.01) * problem.eps * away))


def _crashes(problem: AttackProblem) -> None:
    raise ValueError("no such thing")


def _does_nothing(problem: AttackProblem) -> None:
    pass


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_leaves_the_ball, "outside the threat model"),
        (_overwrites, "overwrites the clean inputs"),
        (_draws_its_own_numbers, "two runs differ"),
        (_depends_on_the_batch, "depend on the batch size"),
        (_crashes, "ValueError: no such thing"),
        (_does_nothing, "tries nothing but the clean input"),
    ],
)
def test_the_contract_catches_an_attack_that(attack: object, said: str) -> None:
    assert said in " | ".join(remarks(attack))


def test_the_contract_catches_a_defense_without_the_gradient_it_declares() -> None:
    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return HalfSpace()((x * 4).round() / 4)

    assert "none reaches the input" in " ".join(check_defense(Rounded(), GradientKind.EXACT, randomized=False))
    assert check_defense(Rounded(), GradientKind.NONE, randomized=False) == []
