"""A segmentation network on which the best attack is known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.segmentation import Segmentation
from robustbench_lab.tasks.segmentation_objectives import Untargeted

SHAPE = (3, 6, 6)
PIXEL_NORMS = ("linf", "l2", "l1")
"""The threat models in which a `PixelHalfSpace` knows its distances."""


class PixelHalfSpace(nn.Module):
    """Two classes, logits (w.(x - 1/2) + 1, 1) for the channels x of each pixel: pixels do not see each other.

    The 1 gives losses that look at the angle of the logits a slope; without it theirs would be rounding alone.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(SHAPE[0], generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs `[N, 3, H, W]` to logits `[N, 2, H, W]`."""
        score = torch.einsum("nchw,c->nhw", x - 0.5, self.weight)
        return torch.stack([score + 1, torch.ones_like(score)], dim=1)

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """The budget that turns n pixels of each image, the nearest first, `[N, H * W]` for n from 1; bounds aside.

        In `linf` all pixels have the whole budget; in `l2` and `l1` they share it.
        """
        score = torch.einsum("nchw,c->nhw", x - 0.5, self.weight).flatten(1).abs()
        dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
        nearest: Tensor
        nearest, _ = (score / torch.linalg.vector_norm(self.weight, ord=dual)).sort(dim=1)
        if norm == "linf":
            return nearest
        return nearest.cumsum(1) if norm == "l1" else nearest.square().cumsum(1).sqrt()


def pixel_setting(
    threat_model: ThreatModel,
    *,
    model: nn.Module | None = None,
    objective: Objective | None = None,
    samples: int = 12,
    batch_size: int = 5,
    seed: int = 0,
) -> ProblemSetting:
    """A problem on a `PixelHalfSpace` in the bounds 0..1, all of whose pixels are right, well inside them."""
    model = (model or PixelHalfSpace(seed)).eval()
    objective = objective or Untargeted()
    generator = torch.Generator().manual_seed(seed + 1)
    clean = 0.5 + 0.05 * torch.randn(samples, *SHAPE, generator=generator).clamp(-2, 2)
    task, prediction = Segmentation(), model(clean)
    targets = prediction.argmax(1).byte()
    goal = objective.prepare(prediction, targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=goal,
        open=torch.ones(samples, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "check", [str(index) for index in range(samples)], clean.device),
        batch_size=batch_size,
        task=task,
        targets=targets,
        right=task.intact(prediction, targets),
        clean_measure={**task.measure(prediction, targets), "damage": objective.damage(prediction, goal)},
    )
