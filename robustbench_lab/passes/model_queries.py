"""What passes through a model tell of a batch of inputs: losses, gradients, and whether the goal is reached.

Nothing here knows about regions, about samples that are done, or about memory: that is the attack problem's work. On a
randomized model everything is the mean over `eot` passes (expectation over transformation, Athalye et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Objective, judges_at_once
from robustbench_lab.errors import SkipCell
from robustbench_lab.passes.expectation import Mean, detached, mean_prediction
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.sample_trees import take

Loss = str | Callable[..., Tensor] | None
"""One of the objective's losses by its name (`damage` is one of every objective), None for the usual one, or a function
`loss(prediction, goal, *given)` to a tensor `[B]`, which the attack maximises."""


@dataclass(frozen=True)
class Assessment:
    """All that an objective tells of predictions."""

    loss: Tensor
    """`[B]`."""
    slope: Tensor
    """Its gradient to the prediction, of the same shape."""
    success: Tensor
    """Bool `[B]`."""
    damage: Tensor
    """`[B]`."""


class AssessesAtOnce(Protocol):
    """An objective that tells all of it in less time together than one after the other."""

    def assess(self, name: str | None, prediction: Any, goal: Any) -> Assessment | None:
        """What `loss`, its derivative, `succeeded` and `damage` say; None where they are to be asked one by one.

        prediction: detached.
        """
        ...


@dataclass(frozen=True)
class Judgement:
    """How near inputs come to the goal."""

    success: Tensor
    """Share of the passes that reach it, `[B]`; of a single pass bool."""
    damage: Tensor
    """What decides between inputs where success does not, `[B]`; otherwise success."""


DAMAGE = "damage"
"""The loss that every objective has: what it keeps the best input by. It may have no gradient."""


@dataclass(frozen=True)
class Slope:
    """A loss, and where it rises."""

    loss: Tensor
    """`[B]`."""
    gradient: Tensor
    """`[B, ...]`."""
    prediction: Any


@dataclass(frozen=True)
class Probe:
    """What one query tells an attack of the A open samples."""

    loss: Tensor
    """`[A]`."""
    gradient: Tensor
    """`[A, ...]`."""
    succeeded: Tensor
    """Bool `[A]`: whether the input reaches the goal (most often, on a randomized model)."""
    prediction: Any
    """The model's logits `[A, K]`, the mean where `eot` is above 1; None where predictions are no tensors."""


@dataclass(frozen=True)
class ModelQueries:
    """One model under one objective."""

    model: PassCounter
    objective: Objective
    eot: int
    """Passes of each query."""
    needs_success: bool
    """Whether only inputs that succeed are kept: then their damage is not computed."""

    def read(self, x: Tensor, goal: Any, reading: Callable[[Any, Any], Tensor]) -> tuple[Tensor, Judgement]:
        """What `reading(prediction, goal)` makes of each input, `[B, ...]`: one forward pass a sample."""
        mean = Mean()
        for _ in range(self.eot):
            prediction = self.model(x)
            mean.add(reading(prediction, goal), *self._judged(prediction, goal))
        result, *judged = mean.values()
        return result, Judgement(*judged)

    def slope(
        self, x: Tensor, goal: Any, loss: Loss, given: Sequence[Tensor], *, judged: bool
    ) -> tuple[Slope, Judgement]:
        """Per-sample loss and its gradient to the input: one forward and one backward pass a sample.

        judged: False leaves success and damage at 0, which no one looks at then and detectors take time for.
        """
        leaf = x.detach().requires_grad_()
        mean = Mean()
        predictions = []
        for _ in range(self.eot):
            with torch.enable_grad():
                tracked = self.model.through(leaf)
            prediction = detached(tracked)
            predictions.append(prediction)
            known = self._assessed(loss, prediction, goal) if judged else None
            if known is None:
                with torch.enable_grad():
                    losses = self.loss_of(loss, tracked, goal, given)
                    if not losses.requires_grad:
                        raise SkipCell("this loss has no gradient: choose another one, or an attack that needs none")
                    (gradient,) = torch.autograd.grad(losses, leaf, torch.ones_like(losses))
                with torch.no_grad():
                    success_damage = self._judged(prediction, goal) if judged else (torch.zeros_like(losses),) * 2
                    told = losses.detach(), *success_damage
            else:
                (gradient,) = torch.autograd.grad(tracked, leaf, known.slope)
                told = known.loss, *self._told(known.success, known.damage)
            self.model.backward_passes += len(leaf)
            if 0 in gradient.stride():
                gradient = gradient.contiguous()  # of a mean or a sum: one number for many elements, not to be written
            mean.add(gradient, *told)
        gradient, losses, success, damage = mean.values()
        return Slope(losses, gradient, mean_prediction(predictions)), Judgement(success, damage)

    def jacobian(
        self, x: Tensor, goal: Any, classes: Tensor, against: Tensor | None
    ) -> tuple[Tensor, Tensor, Judgement]:
        """Logits `[B, K]`, and the gradients of those of `classes` `[B, M]`, `[B, M, ...]`: M backward passes each.

        against: int64 `[B]`, a class whose logit is first taken off theirs.
        """
        leaf = x.detach().requires_grad_()
        mean = Mean()
        for _ in range(self.eot):
            with torch.enable_grad():
                logits = self.model(leaf)
                chosen = logits.gather(1, classes)
                if against is not None:
                    chosen = chosen - logits.gather(1, against[:, None])
                chosen = chosen.sum(0)
                last = len(chosen) - 1
                rows = [
                    torch.autograd.grad(one, leaf, retain_graph=number < last)[0] for number, one in enumerate(chosen)
                ]
            logits = logits.detach()
            mean.add(logits, torch.stack(rows, dim=1), *self._judged(logits, goal))
        logits, jacobian, success, damage = mean.values()
        return logits, jacobian, Judgement(success, damage)

    def confirmed(self, exact: nn.Module, x: Tensor, goal: Any, success: Tensor) -> Tensor:
        """The successes `[B]` that another model confirms, the same in float32, by one more forward pass for each."""
        claimed = (success > 0.5).nonzero().squeeze(1)
        confirmed = torch.zeros_like(success)
        if len(claimed):
            self.model.forward_passes += len(claimed)
            with torch.inference_mode():
                prediction = exact(x[claimed])
                confirmed[claimed] = self.objective.succeeded(prediction, take(goal, claimed)).to(confirmed.dtype)
        return confirmed

    def loss_of(self, loss: Loss, prediction: Any, goal: Any, given: Sequence[Tensor]) -> Tensor:
        """`[B]`. given: what a loss of the attack's own needs besides, each `[B, ...]`."""
        if callable(loss):
            return loss(prediction, goal, *given)
        if loss == DAMAGE:
            return self.objective.damage(prediction, goal).float()
        return self.objective.loss(loss, prediction, goal)

    def _judged(self, prediction: Any, goal: Any) -> tuple[Tensor, Tensor]:
        """Success of one pass, and the damage; `[B]` each."""
        objective = self.objective
        if self.needs_success:
            success = objective.succeeded(prediction, goal)
            return self._told(success, success)
        if judges_at_once(objective):
            return self._told(*objective.judged(prediction, goal))
        return self._told(objective.succeeded(prediction, goal), objective.damage(prediction, goal))

    def _assessed(self, loss: Loss, prediction: Any, goal: Any) -> Assessment | None:
        if callable(loss) or not _assesses_at_once(self.objective):
            return None
        with torch.no_grad():
            return self.objective.assess(loss, prediction, goal)

    def _told(self, success: Tensor, damage: Tensor) -> tuple[Tensor, Tensor]:
        """Of one pass whether it succeeds says as much as its share; several are added up."""
        return (success if self.eot == 1 else success.float()), damage.float()


def _assesses_at_once(objective: Objective) -> TypeGuard[AssessesAtOnce]:
    return hasattr(objective, "assess")  # asked at every query: isinstance takes a protocol 60 times as long
