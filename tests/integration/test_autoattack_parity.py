"""AutoAttack on a published model, ours and the official code's: outcomes, robust accuracy and passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.ensembles.autoattack import autoattack
from rbl_attacks.fixed_budget.apgd import apgd
from rbl_files.npz_dataset import npz_dataset
from rbl_onnx.onnx_model import onnx_model
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.objectives import Untargeted
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import Linf

EPS = 2 / 255
Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    robust: Tensor
    forward_passes: int
    backward_passes: int

    def agrees_with(self, other: Result) -> float:
        return float((self.robust == other.robust).float().mean())

    @property
    def accuracy(self) -> float:
        return float(self.robust.float().mean())


@pytest.fixture(scope="module")
def model(shared_folder: Path) -> nn.Module:
    path = str(shared_folder / "models/cifar10_resnet_2b.onnx")
    network = onnx_model(path=path, mean=[0.4914, 0.4822, 0.4465], std=[0.2471, 0.2435, 0.2616])
    return network.eval().requires_grad_(False)


def samples_of(shared_folder: Path, count: int) -> Samples:
    return npz_dataset(str(shared_folder / "data/cifar10_test_5k.npz")).load(range(count))


def problem_on(model: nn.Module, samples: Samples) -> AttackProblem:
    ids = [str(index) for index in range(len(samples.inputs))]
    with torch.no_grad():
        correct = model(samples.inputs).argmax(1) == samples.targets
    return AttackProblem(
        ProblemSetting(
            model=model,
            objective=Untargeted(),
            threat_model=Linf(eps=EPS),
            clean=samples.inputs,
            goal=samples.targets,
            open=correct,
            bounds=Bounds(),
            rng=SampleRng.for_samples(0, "autoattack", ids, torch.device("cpu")),
            batch_size=128,
        )
    )


def result_of(problem: AttackProblem) -> Result:
    counter = problem.counted_model
    robust = torch.zeros_like(problem.claimed)
    robust[problem.open_positions] = True
    return Result(robust, counter.forward_passes, counter.backward_passes)


def official_apgd(model: nn.Module) -> Attack:
    module = pytest.importorskip("pyautoattack.autopgd_base")
    attack = module.APGDAttack(model, norm="Linf", eps=EPS, n_iter=100, seed=0, device="cpu")
    return lambda images, labels: attack.perturb(images, labels)


def official_autoattack(model: nn.Module) -> Attack:
    module = pytest.importorskip("pyautoattack")
    attack = module.AutoAttack(model, norm="Linf", eps=EPS, seed=0, device="cpu")
    return lambda images, labels: attack.run_standard_evaluation(images, labels, batch_size=128)[0]


def official_result(attack: Callable[[nn.Module], Attack], model: nn.Module, samples: Samples) -> Result:
    """What an official attack leaves of the samples that are right without one."""
    counter = PassCounter(model)
    with torch.no_grad():
        correct = model(samples.inputs).argmax(1) == samples.targets
    adversarial = attack(counter)(samples.inputs[correct], samples.targets[correct])
    with torch.no_grad():
        held = model(adversarial).argmax(1) == samples.targets[correct]
    return Result(correct.masked_scatter(correct, held), counter.forward_passes, counter.backward_passes)


def assert_equal_results(ours: Result, theirs: Result) -> None:
    assert ours.agrees_with(theirs) >= 0.99
    assert abs(ours.accuracy - theirs.accuracy) <= 0.003 + 1 / len(ours.robust)
    assert ours.forward_passes <= theirs.forward_passes
    assert ours.backward_passes <= theirs.backward_passes


def test_apgd_breaks_what_the_official_code_breaks(model: nn.Module, shared_folder: Path) -> None:
    samples = samples_of(shared_folder, 100)
    problem = problem_on(model, samples)
    apgd(problem, loss="ce")
    assert_equal_results(result_of(problem), official_result(official_apgd, model, samples))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", [100, 1000])
def test_autoattack_breaks_what_the_official_code_breaks(model: nn.Module, shared_folder: Path, count: int) -> None:
    samples = samples_of(shared_folder, count)
    problem = problem_on(model, samples)
    autoattack(problem)
    assert_equal_results(result_of(problem), official_result(official_autoattack, model, samples))
