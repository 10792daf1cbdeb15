"""Every component that ships keeps to the contract that `rbl plugins check` asks of strangers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.entry import Entry
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.cli.plugin_check import CHECKED, check_component
from robustbench_lab.contracts import Bounds, GradientKind, Samples
from robustbench_lab.testing.attack_contract import check_attack
from robustbench_lab.testing.component_contracts import check_dataset, check_defense
from robustbench_lab.testing.known_models import HalfSpace
from robustbench_lab.threat_models.norm_balls import Linf

CATALOG = Catalog.from_plugins(load_plugins())


FIRST_PARTY = [
    entry for kind in CHECKED for entry in CATALOG.entries(kind) if entry.plugin.distribution == "robustbench-lab"
]
TAKES_LONG = {"autoattack", "ray"}
"""The parts of the one are checked by themselves; both have tests of their own."""


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


def _steps_by_the_mean_of_the_batch(problem: AttackProblem) -> None:
    x = problem.clean.clone()
    for _ in range(10):
        _, gradient = problem.loss_and_gradient(x)
        x, gradient = problem.drop_done(x, gradient)
        if problem.finished:
            return
        x = problem.project(x + problem.eps * gradient / gradient.abs().mean())
    problem.submit(x)


def _aims_at_the_label_of_its_neighbour(problem: AttackProblem) -> None:
    up = problem.goal.roll(1)[:, None, None, None] > 0
    problem.submit(problem.project(problem.clean + torch.where(up, problem.eps, -problem.eps)))


def _seeds_a_generator_of_its_own(problem: AttackProblem) -> None:
    noise = torch.randn(problem.clean.shape, generator=torch.Generator().manual_seed(0))
    problem.submit(problem.project(problem.clean + problem.eps * noise))


def _remembers() -> Callable[[AttackProblem], None]:
    seen: list[torch.Tensor] = []

    def attack(problem: AttackProblem) -> None:
        seen.append(problem.clean.mean(0))
        problem.submit(problem.project(problem.clean + len(seen) * problem.eps / 4))

    return attack


def _trains_the_model(problem: AttackProblem) -> None:
    problem.counted_model.train()
    problem.submit(problem.random_start())


def _changes_the_weights(problem: AttackProblem) -> None:
    for parameter in problem.counted_model.parameters():
        parameter.data.mul_(0.5)
    problem.submit(problem.random_start())


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
        (_steps_by_the_mean_of_the_batch, "depends on the other samples"),
        (_aims_at_the_label_of_its_neighbour, "depends on the other samples"),
        (_seeds_a_generator_of_its_own, "depends on the other samples"),
        (_remembers(), "keep nothing between calls"),
        (_trains_the_model, "put the model in training mode"),
        (_changes_the_weights, "changed the weights of the model"),
        (_crashes, "ValueError: no such thing"),
        (_does_nothing, "tries nothing but the clean input"),
    ],
)
def test_the_contract_catches_an_attack_that(attack: object, said: str) -> None:
    assert said in " | ".join(remarks(attack))


def test_what_an_attack_declares_about_its_samples_is_no_fault() -> None:
    def linf(eps: float) -> Linf:
        return Linf(eps=eps)

    for attack in (_steps_by_the_mean_of_the_batch, _aims_at_the_label_of_its_neighbour):
        assert check_attack(attack, linf, "linf", sample_deterministic=True, compares_samples=True) == []


def test_the_contract_catches_careless_defenses() -> None:
    class Careless(torch.nn.Module):
        def __init__(self, act: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.model = HalfSpace()
            self.act = act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(self.act(self, x))

    for act, said in (
        (lambda _, x: x.mul_(0.9), "changes its input in place"),
        (lambda self, x: (self.train(), x)[1], "goes to training mode"),
        (lambda _, x: x * x.amax(), "depends on the others in its batch"),
    ):
        assert said in " ".join(check_defense(Careless(act), GradientKind.EXACT, randomized=False))


def _data(**changes: object) -> SimpleNamespace:
    inputs = torch.rand(20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    sound = {
        "revision": "1",
        "sample_ids": [f"one/{index}" for index in range(20)],
        "bounds": Bounds(),
        "classes": 2,
        "load": lambda indices: Samples(inputs[list(indices)], torch.tensor(indices) % 2),
    }
    return SimpleNamespace(**{name: one for name, one in {**sound, **changes}.items() if one is not None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"revision": None}, "it lacks revision"),
        ({"sample_ids": list(range(20))}, "must be text"),
        ({"load": lambda indices: (torch.rand(len(indices), 1, 5, 5), 0)}, "load must return Samples"),
        ({"load": lambda indices: Samples(torch.zeros(len(indices), 4), torch.zeros(3).long())}, "as many targets"),
        ({"load": lambda indices: Samples(torch.zeros(len(indices), 4), torch.zeros(len(indices)))}, "not int64"),
        ({"load": lambda indices: Samples(torch.zeros(len(indices), 4), torch.tensor(indices))}, "lie in 0..1"),
    ],
)
def test_the_contract_catches_a_dataset_that(changes: dict[str, object], said: str) -> None:
    assert said in " | ".join(check_dataset(_data(**changes)))


def test_the_contract_catches_a_dataset_that_is_another_every_time() -> None:
    drawn = torch.rand(20, 1, 5, 5)
    other = _data(load=lambda indices: Samples(drawn[list(indices)], torch.tensor(indices) % 2))
    assert check_dataset(_data(), _data()) == []
    assert "made a second time" in " ".join(check_dataset(_data(), other))


def test_the_contract_catches_a_defense_without_the_gradient_it_declares() -> None:
    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return HalfSpace()((x * 4).round() / 4)

    assert "none reaches the input" in " ".join(check_defense(Rounded(), GradientKind.EXACT, randomized=False))
    assert check_defense(Rounded(), GradientKind.NONE, randomized=False) == []
