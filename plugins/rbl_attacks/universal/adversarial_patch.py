"""One patch for all images (Brown et al. 2017, https://arxiv.org/abs/1712.09665).

With expectation over transformations (Athalye et al. 2018, https://arxiv.org/abs/1707.07397).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor

from rbl_attacks.universal.bounded_loss import success_gradient
from rbl_attacks.universal.minibatches import minibatches
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.patch_threat_model import Patch

Count = Annotated[int, Field(ge=1)]


def adversarial_patch(
    problem: AttackProblem,
    *,
    steps: Count = 500,
    batch: Count = 128,
    step_size: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    rotation: Annotated[float, Field(ge=0, le=180)] = 20.0,
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.8,
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    softness: Annotated[float, Field(gt=0)] = 0.1,
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> None:
    """The same square on every image, upright and at full size, at a random place of each.

    Trained at places, angles, sizes and brightnesses drawn anew for each image and step, so that it works wherever it
    is put; on the samples that it is tested on, unless `train_share` says otherwise.

    steps: gradient steps, each on the mean over a minibatch.
    batch: samples of a minibatch.
    step_size: of the first step, as a share of the data's range; it falls to 0 linearly.
    momentum: share of the accumulated gradient that is kept at each step.
    rotation: largest angle in training, in degrees. Corners that leave the window are cut off.
    smallest: smallest size in training, as a share of the side.
    brightness: largest change of brightness in training, as a share of it.
    softness: how far from being decided samples count, as a share of the usual margin; see bounded_loss.py.
    train_share: share of the samples, the first ones, that it is trained on.
    """
    problem.new_search(ascends=False)
    patch = _grey_patch(problem)
    velocity = torch.zeros_like(patch)
    for step, part in enumerate(minibatches(problem, steps, batch, train_share)):
        places = Places.drawn(part, f"step/{step}", rotation, smallest, brightness)
        with torch.enable_grad():
            leaf = patch.clone().requires_grad_()
            pasted = places.paste(leaf, part)
        gradient = success_gradient(part, pasted.detach(), softness)
        (pulled_back,) = torch.autograd.grad(pasted, leaf, gradient)
        velocity = momentum * velocity + pulled_back.sign()
        size = step_size * problem.bounds.width * (1 - step / steps)
        patch = (patch + size * velocity.sign()).clamp_(problem.bounds.low, problem.bounds.high)
    upright = Places.drawn(problem, "final", rotation=0, smallest=1, brightness=0)
    problem.submit(upright.paste(patch, problem))


def _grey_patch(problem: AttackProblem) -> Tensor:
    """A patch of the middle of the data's range, `[C, S, S]`."""
    if not isinstance(problem.threat_model, Patch):
        raise SkipCell("the size of the patch is that of the threat model 'patch'")
    channels, height, width = problem.clean.shape[1:]
    side = problem.threat_model.side(height, width)
    return problem.clean.new_full((channels, side, side), (problem.bounds.low + problem.bounds.high) / 2)


@dataclass(frozen=True)
class Places:
    """Where and how a patch is shown on each of A images."""

    corner: Tensor
    """Uniform in [0, 1): where the window's upper left pixel is, of all its places, `[A, 2]` (down, across)."""
    degrees: Tensor
    size: Tensor
    """Share of the window's side, `[A]`."""
    light: Tensor
    """Factor on the patch's values above the lowest, `[A]`."""

    @classmethod
    def drawn(cls, problem: AttackProblem, draw: str, rotation: float, smallest: float, brightness: float) -> "Places":
        """A random place for each open sample."""
        down, across, angle, size, light = problem.uniform(draw, (5,)).unbind(1)
        return cls(
            corner=torch.stack([down, across], dim=1),
            degrees=(2 * angle - 1) * rotation,
            size=1 - size * (1 - smallest),
            light=1 + (2 * light - 1) * brightness,
        )

    def paste(self, patch: Tensor, problem: AttackProblem) -> Tensor:
        """The open samples with the patch `[C, S, S]` on them, `[A, C, H, W]`; differentiable in the patch."""
        clean, bounds = problem.clean, problem.bounds
        place, visible = self._sources(patch.shape[1], clean.shape[2:])
        shown = F.grid_sample(
            patch.expand(len(clean), *patch.shape), place, mode="bilinear", padding_mode="border", align_corners=False
        )
        lit = (shown - bounds.low) * self.light[:, None, None, None] + bounds.low
        return torch.where(visible[:, None], lit.clamp(bounds.low, bounds.high), clean)

    def _sources(self, side: int, size: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Where in the patch each pixel looks, `[A, H, W, 2]` from -1 to 1, and whether it shows it, `[A, H, W]`."""
        offset = []
        for axis, length in enumerate(size):
            first = (self.corner[:, axis] * (length - side + 1)).floor()
            middle = first + (side - 1) / 2
            offset.append((torch.arange(length, device=first.device) - middle[:, None]) * (2 / side))
        down, across = offset[0][:, :, None], offset[1][:, None, :]
        radians = self.degrees * (math.pi / 180)
        cos, sin = ((part / self.size)[:, None, None] for part in (radians.cos(), radians.sin()))
        place = torch.stack([across * cos - down * sin, across * sin + down * cos], dim=-1)
        inside = torch.maximum(down.abs(), across.abs()) < 1
        return place, inside & (place.abs().amax(-1) < 1)
