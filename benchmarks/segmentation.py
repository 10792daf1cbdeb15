"""Attacks on segmentation networks: what a step costs, and what each attack leaves of the bundled networks.

    python benchmarks/segmentation.py step strength

step: one step of PGD, every iterate judged, beside the bare forward and backward pass of the mean cross-entropy.
strength: mIoU and pixel accuracy of the bundled networks under each attack, linf 8/255.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from timing import paired
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference.scene_masks import SceneMasks
from rbl_reference.scene_unet import scene_unet
from rbl_torchvision.torchvision_segmenter import torchvision_segmenter
from robustbench_lab import evaluate
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.segmentation import Segmentation
from robustbench_lab.tasks.segmentation_objectives import Untargeted
from robustbench_lab.threat_models.norm_balls import Linf

EPS = 8 / 255
STEPS = 20
ATTACKS = (
    "noise",
    "fgsm",
    "pgd(steps=50)",
    "pgd(steps=50, loss='masked-ce')",
    "pgd(steps=50, loss='cospgd')",
    "pgd(steps=50, loss='dag')",
    "segpgd(steps=50)",
    "apgd(steps=50, loss='js')",
    "apgd(steps=50, loss='masked-ce')",
    "apgd(steps=50, loss='masked-spherical')",
    "sea(steps=50, larger_balls=False)",
    "sea(steps=50)",
)
METRICS = ("clean_miou", "robust_miou", "clean_pixel_accuracy", "robust_pixel_accuracy")


def step_cost(model: nn.Module, images: Tensor, masks: Tensor, batch_size: int, rounds: int) -> dict[str, float]:
    """PGD's steps against as many bare passes; the random start is left out."""

    def bare() -> None:
        for _ in range(STEPS):
            for part in range(0, len(images), batch_size):
                rows = slice(part, part + batch_size)
                leaf = images[rows].clone().requires_grad_()
                loss = functional.cross_entropy(model(leaf), masks[rows].long(), reduction="none").mean((1, 2))
                torch.autograd.grad(loss.sum(), leaf)

    setting = _setting(model, images, masks, batch_size)

    def walking() -> Callable[[], None]:
        problem = AttackProblem(setting)
        start = problem.random_start()
        return lambda: _walk(problem, start)

    return paired(bare, walking, rounds)


def _walk(problem: AttackProblem, x: Tensor) -> None:
    gradient = None
    for _ in range(STEPS):
        _, gradient = problem.loss_and_gradient(x, out=gradient)
        x = problem.project(x.add_(problem.steepest(gradient, x), alpha=EPS / 4))


def _setting(model: nn.Module, images: Tensor, masks: Tensor, batch_size: int) -> ProblemSetting:
    """A linf problem on all images, with the model made ready as `rbl run` does."""
    task, objective, count = Segmentation(), Untargeted(), len(images)
    model = ready(model, images.device)
    with torch.no_grad():
        clean = model(images)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=Linf(EPS),
        clean=images,
        goal=masks,
        open=torch.ones(count, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "pgd", [str(index) for index in range(count)], images.device),
        batch_size=batch_size,
        task=task,
        targets=masks,
        right=task.intact(clean, masks),
        clean_measure={**task.measure(clean, masks), "damage": objective.damage(clean, masks)},
    )


def step_costs(rounds: int) -> dict[str, dict[str, float]]:
    """Of the bundled network, and of one of torchvision's with random weights."""
    scenes = SceneMasks(scenes=64).load(range(64))
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(4, 3, 224, 224, generator=generator), torch.randint(0, 21, (4, 224, 224)).byte()
    lraspp = torchvision_segmenter("lraspp_mobilenet_v3_large", random_weights=True).requires_grad_(False)
    return {
        "scene-unet": step_cost(scene_unet().requires_grad_(False), scenes.inputs, scenes.targets, 64, rounds),
        "lraspp_mobilenet_v3_large": step_cost(lraspp, images, masks, 4, rounds),
    }


def strength(samples: int) -> list[dict[str, Any]]:
    """A row for each attack on each bundled network."""
    rows = []
    for model in ("scene-unet", "scene-unet-at"):
        data = f"scene-masks(scenes={samples})"
        for record in evaluate(model, data, attacks=list(ATTACKS), norm="linf", eps=EPS).records:
            metrics = {name: round(record.metrics[name].value, 4) for name in METRICS}
            rows.append({"model": model, "attack": record.cell.attack.label, **metrics})
    return rows


def main() -> None:
    """Run what was asked for, and write it to results/segmentation.json beside what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["step", "strength"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=50)
    asked = parser.parse_args()
    keep_freed_memory()  # as `rbl run` does; the bare passes gain as much
    torch.set_num_threads(1)
    file = Path(__file__).parent / "results" / "segmentation.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in asked.parts:
        results[part] = step_costs(asked.rounds) if part == "step" else strength(asked.samples)
        print(part, json.dumps(results[part], indent=1))
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
