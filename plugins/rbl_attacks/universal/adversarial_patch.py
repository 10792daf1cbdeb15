"""One patch for all images (Brown et al. 2017, https://arxiv.org/abs/1712.09665).

With expectation over transformations (Athalye et al. 2018, https://arxiv.org/abs/1707.07397). On detectors in a fixed
place it is DPatch (Liu et al. 2018, https://arxiv.org/abs/1806.02299), with transformations that of Lee & Kolter 2019
(https://arxiv.org/abs/1906.11897), and on objects that of Thys et al. 2019 (https://arxiv.org/abs/1904.08653).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.universal.bounded_loss import shared_gradient
from rbl_attacks.universal.given_patch import given_patch
from rbl_attacks.universal.minibatches import folds_of, minibatches
from rbl_attacks.universal.patch_places import Changes, Placing, windows_of
from rbl_attacks.universal.printable import non_printability, total_variation
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.records import Finding, Severity

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]

LARGEST = 300
"""Pixels of the side of a patch that is scaled to its windows (Thys et al. 2019)."""


def adversarial_patch(
    problem: AttackProblem,
    *,
    steps: Count = 500,
    batch: Count = 128,
    step_size: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Share = 0.9,
    rotation: Annotated[float, Field(ge=0, le=180)] = 20.0,
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.8,
    brightness: Share = 0.1,
    contrast: Share = 0.0,
    noise: Share = 0.0,
    smoothness: Weight = 0.0,
    printability: Weight = 0.0,
    shown: Literal["upright", "changed"] = "upright",
    softness: Annotated[float, Field(gt=0)] = 0.1,
    folds: Count = 1,
    patch: str | None = None,
    loss: str | None = None,
) -> None:
    """The same square on every image: at a random place, at the given one, or on each object, scaled to its window.

    Trained at places (where there is a choice), angles, sizes and colours drawn anew for each image and step, so that
    it works however it is shown.

    steps: gradient steps, each on the mean over a minibatch.
    batch: samples of a minibatch.
    step_size: of the first step, as a share of the data's range; it falls to 0 linearly.
    momentum: share of the accumulated gradient that is kept at each step.
    rotation: largest angle in training, in degrees. Corners that leave the window are cut off.
    smallest: smallest size in training, as a share of the side.
    brightness: largest change of brightness in training, as a share of it.
    contrast: largest change of the differences from the middle of the range, as a share of them.
    noise: largest change of a single value, as a share of the range.
    smoothness: weight of the patch's total variation against the loss (Thys et al. 2019: 2.5).
    printability: weight of the distance to printable colours against the loss (0.01 there).
    shown: how it is tested: `upright` and at full size, or `changed` at random as in training.
    softness: how far from being decided samples count, as a share of the usual margin; see bounded_loss.py.
    folds: 1: trained on the samples that it is tested on. More: one patch for each part of the samples, trained on the
        other parts.
    patch: an image file with the patch, such as `rbl show --pictures` writes: nothing is trained, and only `shown` and
        the changes that it names have an effect. Any square image will do.
    loss: one of the objective's losses; None: see bounded_loss.py.
    """
    problem.new_search(ascends=False)
    low, high = problem.bounds.low, problem.bounds.high
    changes = Changes(rotation, 1 - smallest, brightness, contrast, noise)
    tested_under = changes if shown == "changed" else Changes()
    if patch is not None:
        problem.note(Finding("given-patch", Severity.INFO, "the patch is from a file; nothing was trained here"))
        painted = given_patch(patch, problem.clean.shape[1], problem.bounds, _largest_side(problem))
        _show(painted.to(problem.clean), problem, tested_under)
        return
    for training, tested in folds_of(problem, folds):
        painted = _grey_patch(problem)
        velocity = torch.zeros_like(painted)
        for step, part in enumerate(minibatches(training, steps, batch)):
            placing = Placing.drawn(part, f"step/{step}", changes)
            with torch.enable_grad():
                leaf = painted.clone().requires_grad_()
                pasted = placing.paste(leaf, part)
                ugliness = smoothness * total_variation(leaf) + printability * non_printability(leaf, low, high)
            gradient = shared_gradient(part, pasted.detach(), loss, softness) / part.open_samples
            pulled_back = _pulled_back(leaf, (pasted, ugliness), gradient)
            velocity = momentum * velocity + pulled_back.sign()
            size = step_size * problem.bounds.width * (1 - step / steps)
            painted = (painted + size * velocity.sign()).clamp_(low, high)
        problem.keep("patch", painted)
        _show(painted, tested, tested_under)


def _show(patch: Tensor, problem: AttackProblem, changes: Changes) -> None:
    """Hand in the open samples with the patch on them."""
    placing = Placing.drawn(problem, "final", changes)
    problem.submit(problem.project(placing.paste(patch, problem)))


def _pulled_back(leaf: Tensor, made: tuple[Tensor, Tensor], gradient: Tensor) -> Tensor:
    """The gradient by the patch of the loss, whose gradient at the pasted images is given, minus the ugliness."""
    pasted, ugliness = made
    (climb,) = torch.autograd.grad((pasted, ugliness), leaf, (gradient, -torch.ones_like(ugliness)))
    return climb


def _grey_patch(problem: AttackProblem) -> Tensor:
    """A patch of the middle of the data's range, `[C, S, S]`, as large as the largest window."""
    side = _largest_side(problem)
    return problem.clean.new_full((problem.clean.shape[1], side, side), (problem.bounds.low + problem.bounds.high) / 2)


def _largest_side(problem: AttackProblem) -> int:
    return min(LARGEST, max(1, int(windows_of(problem, "size")[..., 2].amax())))
