"""EAD against the exact l1 distance on linear models, and Foolbox's on a published one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.minimum_norm.ead import ead
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1


class Linear(nn.Module):
    """Two classes with logits (scale * w.(x - 1/2), 0)."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(30, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.weight).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


class Misleading(Linear):
    """The same, but that the first coordinate promises most and ends at once: the first constants move nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.stack([20 * (x[:, 0] - 0.49).relu(), torch.zeros_like(x[:, 0])], dim=1)


def problem_on(
    model: nn.Module, clean: Tensor, labels: Tensor | None = None, objective: Objective | None = None
) -> AttackProblem:
    objective = objective or Untargeted()
    with torch.no_grad():
        prediction = model(clean)
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=objective,
            threat_model=L1(1),
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1) if labels is None else labels),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=Bounds(),
            rng=SampleRng.for_samples(0, "ead", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=64,
            minimum_norm=True,
        )
    )


def inputs(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return 0.5 + 0.05 * torch.randn(24, 30, generator=generator).clamp(-2, 2)


@pytest.mark.parametrize(("objective", "scale"), [(Untargeted(), 0.01), (Targeted(), 1.0), (Untargeted(), 1000.0)])
def test_the_l1_distance_to_a_plane_is_found_within_5_percent(objective: Objective, scale: float) -> None:
    model, clean = Linear(7, scale), inputs(7)
    exact = model(clean)[:, 0].abs() / model.weight.abs().max()
    clean, exact = clean[exact > 0.05 * exact.median()], exact[exact > 0.05 * exact.median()]
    problem = problem_on(model, clean, objective=objective)
    ead(problem)
    ratio = problem.nearest() / exact
    assert (ratio > 0.9999).all()
    assert float(ratio.median()) < 1.03
    assert float(ratio.quantile(0.9)) < 1.05


def test_the_change_is_sparse() -> None:
    model = Linear(2)
    problem = problem_on(model, inputs(2))
    ead(problem)
    changed = (problem.candidates != problem.clean).sum(1).float()
    assert float(changed.median()) <= 5


def test_ending_hopeless_searches_saves_passes_and_little_else() -> None:
    model, clean = Misleading(3), inputs(3)
    clean[:, 0] = 0.5
    clean = clean[model(clean)[:, 0] > 0.25]
    assert len(clean) > 5
    all_steps, early = problem_on(model, clean), problem_on(model, clean)
    ead(all_steps, steps=100, abort_early=False)
    ead(early, steps=100)
    assert early.found().all()
    assert early.counted_model.forward_passes < 0.9 * all_steps.counted_model.forward_passes
    assert early.nearest().median() <= 1.02 * all_steps.nearest().median()


def test_further_constants_come_nearer() -> None:
    net = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for values in net.parameters():
        values.copy_(torch.randn(values.shape, generator=generator) / values.shape[-1] ** 0.5)
    clean = torch.rand(24, 30, generator=generator)
    distances = []
    for around in (0, 2, 6):
        problem = problem_on(net, clean)
        ead(problem, steps=100, around=around, final_search=0)
        assert problem.found().all()
        distances.append(problem.nearest())
    first, three, seven = distances
    assert (three <= first).all()
    assert (seven <= three).all()
    assert float((seven < first).float().mean()) > 0.5


@pytest.mark.slow
def test_the_median_distance_on_a_published_model_is_at_most_foolboxes(shared_folder: Path) -> None:
    foolbox = pytest.importorskip("foolbox")
    from rbl_onnx.onnx_model import onnx_model

    model = onnx_model(str(shared_folder / "models/cifar10_resnet_2b.onnx"))
    data = np.load(shared_folder / "data/cifar10_test_5k.npz")
    images = torch.from_numpy(data["images"][:200]).permute(0, 3, 1, 2).float().div(255)
    labels = torch.from_numpy(data["labels"][:200])
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:50]
    images, labels = images[right], labels[right]
    problem = problem_on(model, images, labels)
    ead(problem, steps=100)
    peer = foolbox.attacks.EADAttack(steps=100, decision_rule="L1")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = peer.run(wrapped, images, foolbox.criteria.Misclassification(labels))
    broken = model(theirs).argmax(1) != labels
    distance = torch.where(broken, problem.distance(theirs), math.inf)
    assert problem.nearest().median() <= 1.02 * distance.median()
