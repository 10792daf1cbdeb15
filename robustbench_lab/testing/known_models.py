"""Models on which the best attack is known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import ProblemSetting
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Untargeted
from robustbench_lab.sample_rng import SampleRng

SHAPE = (1, 5, 5)


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
        """Exact distance of each input to the other class in `linf`, `l2` or `l1`, `[N]` (bounds left aside)."""
        dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
        score: Tensor = ((x - 0.5) * self.weight).flatten(1).sum(1).abs()
        size: Tensor = torch.linalg.vector_norm(self.weight, ord=dual)
        return score / size


def half_space_setting(
    threat_model: ThreatModel,
    *,
    samples: int = 24,
    batch_size: int = 10,
    seed: int = 0,
    objective: Objective | None = None,
    stream: str = "check",
) -> ProblemSetting:
    """A problem on a `HalfSpace`, with inputs well inside the bounds 0..1 and the first sample wrong from the start."""
    model = HalfSpace(seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    clean = 0.5 + 0.05 * torch.randn(samples, *SHAPE, generator=generator).clamp(-2, 2)
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
    )
