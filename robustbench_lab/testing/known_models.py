"""Models on which the best attack is known in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng

SHAPE = (1, 5, 5)
KNOWN = ("linf", "l2", "l1", "l0", "patch")
"""The threat models in which a `HalfSpace` knows its distances."""


class HalfSpace(nn.Module):
    """Two classes, logits (w.(x - 1/2), 0): the distance of x to the other class is |w.(x - 1/2)| / dual norm."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs `[N, 1, 5, 5]` to logits `[N, 2]`."""
        score = ((x - 0.5) * self.weight).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        """Exact distance of each input to the other class in one of `KNOWN`, `[N]`.

        In `l0` and `patch` within the bounds 0..1; in the others the bounds are left aside.
        """
        if norm == "l0":
            return self._fewest_changes(x)
        if norm == "patch":
            return self._smallest_patch(x)
        dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
        score: Tensor = ((x - 0.5) * self.weight).flatten(1).sum(1).abs()
        size: Tensor = torch.linalg.vector_norm(self.weight, ord=dual)
        return score / size

    def _fewest_changes(self, x: Tensor) -> Tensor:
        """How many coordinates must change, `[N]`: the largest gains first; infinite where all are too few."""
        x, weight = x.flatten(1), self.weight.flatten()
        score = ((x - 0.5) * weight).sum(1, keepdim=True)
        falls = score * weight > 0  # the coordinate must fall for the score to come nearer to 0
        gain, _ = (weight.abs() * torch.where(falls, x, 1 - x)).sort(dim=1, descending=True)
        needed = 1 + (gain.cumsum(1) <= score.abs()).sum(1)
        return torch.where(needed > x.shape[1], torch.inf, needed.float())

    def _smallest_patch(self, x: Tensor) -> Tensor:
        """The share of the area that a square must have, `[N]`; infinite where even the whole image is too small."""
        score = ((x - 0.5) * self.weight).flatten(1).sum(1)
        falls = score[:, None, None, None] * self.weight > 0
        gain = self.weight.abs() * torch.where(falls, x, 1 - x)
        share = torch.full_like(score, torch.inf)
        for side in range(x.shape[2], 0, -1):
            best = side**2 * F.avg_pool2d(gain, side, stride=1).flatten(1).amax(1)
            share = torch.where(best > score.abs(), side**2 / x[0, 0].numel(), share)
        return share


class CurvedHalfSpace(HalfSpace):
    """The same boundary, and so the same distances, but logits that are larger by another factor for each input.

    So gradients differ in size from sample to sample, which they do not where logits are linear.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Inputs `[N, 1, 5, 5]` to logits `[N, 2]`."""
        return super().forward(x) * (1 + 20 * (x - 0.5).square().flatten(1).sum(1, keepdim=True))


def half_space_setting(
    threat_model: ThreatModel,
    *,
    samples: int = 24,
    batch_size: int = 16,
    seed: int = 0,
    objective: Objective | None = None,
    stream: str = "check",
    minimum_norm: bool = False,
) -> ProblemSetting:
    """A problem on a `HalfSpace` in the bounds 0..1, the first of its samples wrong from the start.

    Inputs are well inside the bounds; in `l0`, whose distances account for the bounds, all over them, so that some
    samples need more than one change. For threat models bound to objects each image is one object; for those in units
    of a series the unit is 1, and no two of them overlap.
    """
    model = HalfSpace(seed).eval()
    whole_image = torch.tensor([0.0, 0.0, *SHAPE[:0:-1]])
    generator = torch.Generator().manual_seed(seed + 1)
    spread = 0.25 if threat_model.norm == "l0" else 0.05
    clean = 0.5 + spread * torch.randn(samples, *SHAPE, generator=generator).clamp(-2, 2)
    prediction = model(clean)
    objective = objective or Untargeted()
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=objective.prepare(prediction, prediction.argmax(1)),
        open=torch.arange(samples) > 0,
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, stream, [str(index) for index in range(samples)], clean.device),
        batch_size=batch_size,
        minimum_norm=minimum_norm,
        targets={
            "boxes": whole_image.repeat(samples, 1, 1),
            "labels": torch.zeros(samples, 1, dtype=torch.int64),
            "unit": torch.ones(samples),
            "start": 100 * torch.arange(samples),
        },
    )
