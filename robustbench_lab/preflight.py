"""Checks of a model on a dataset before any attack runs. Most wrong numbers come from what these find."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Access, Bounds, Dataset, Objective, Samples, Task
from robustbench_lab.errors import describe_error
from robustbench_lab.expectation import detached
from robustbench_lab.gradient_check import finite_differences_agree
from robustbench_lab.prediction import predict_in_batches
from robustbench_lab.records import Finding, Severity
from robustbench_lab.sample_trees import cut

SAMPLES = 256
FEWEST = 8
VALUES = 1 << 24
"""Of all inputs that are looked at: 13 colour images of 640 x 640, but never fewer than `FEWEST` samples."""
REPEATS = 5
RANDOM_TOLERANCE = 1e-4
"""Difference of repeated predictions, relative to their size, above which a model is randomized (AutoAttack: 1e-4)."""
FEWEST_TOLD = 4
"""Samples of which it can be told whether their gradient is right, for a finding."""
BATCH_TOLERANCE = 1e-3
"""The same for one sample alone against the same sample in a batch."""


def check_samples(samples: Samples, bounds: Bounds) -> list[Finding]:
    """Range, shape and dtype of the inputs."""
    inputs = samples.inputs
    if inputs.dtype != torch.float32:
        return [_fatal("input-dtype", f"the dataset's inputs are {inputs.dtype}, not float32")]
    if inputs.ndim < 2 or len(inputs) == 0:
        return [_fatal("input-shape", f"the dataset's inputs have shape {list(inputs.shape)}, not [N, ...] with N > 0")]
    if not bool(inputs.isfinite().all()):
        return [_fatal("input-values", "the dataset holds NaN or infinite inputs")]
    low, high = float(inputs.min()), float(inputs.max())
    if low < bounds.low or high > bounds.high:
        grey_levels = bounds == Bounds() and low >= 0 and 10 < high <= 255  # normalised images have values below 0
        way = "divide them by 255" if grey_levels else "normalise inside the model"
        text = f"inputs lie in {low:.4g}..{high:.4g}, outside {bounds.low:g}..{bounds.high:g}: {way}"
        return [_fatal("input-range", text)]
    return []


def check_model(
    model: nn.Module, samples: Samples, dataset: Dataset, task: Task, batch_size: int, *, randomized: bool
) -> list[Finding]:
    """Eval mode, form of the prediction, determinism, independence of the batch.

    samples: some samples on the model's device. randomized: what its defense declares.
    """
    if training := _in_training_mode(model):
        return [_fatal("training-mode", f"{training} stays in training mode after model.eval()")]
    before = samples.inputs.clone()
    try:
        kept = predict_in_batches(model, samples.inputs, batch_size, lambda made, _rows: task.kept(made))
    except Exception as error:
        shape = list(samples.inputs.shape[1:])
        return [_fatal("forward-fails", f"the model cannot take inputs of shape {shape}: {describe_error(error)}")]
    if not torch.equal(samples.inputs, before):
        samples.inputs.copy_(before)
        return [_fatal("changes-its-input", "the model changes its input in place: let it work on a copy")]
    if training := _in_training_mode(model):
        return [_fatal("training-mode", f"{training} goes to training mode when the model is called")]
    found = task.examine(kept, samples.targets, dataset.classes)
    if any(finding.severity is Severity.FATAL for finding in found):
        return found
    return found + _check_determinism(model, samples.inputs[:batch_size], task, randomized)


def check_gradient(
    model: nn.Module,
    samples: Samples,
    objective: Objective,
    access: Access,
    batch_size: int,
    *,
    exact_within: Bounds | None = None,
) -> list[Finding]:
    """Whether a usable gradient reaches the input; asked for attacks that need one.

    exact_within: the data's bounds, where the gradient claims to be exact; None: an approximation, or random.
    """
    if access is not Access.GRADIENTS:
        return []
    few = samples.inputs[: min(8, batch_size)]
    leaf = few.clone().requires_grad_()
    targets = cut(samples.targets, 0, len(few))
    try:
        with torch.enable_grad():
            prediction = model(leaf)
            with torch.no_grad():
                goal = objective.prepare(detached(prediction), targets)
            losses = objective.loss(None, prediction, goal)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    except RuntimeError as error:
        text = (
            f"no gradient reaches the input ({describe_error(error)}): use a score- or decision-based attack, or BPDA"
        )
        return [_fatal("no-gradient", text)]
    if not bool(gradient.isfinite().all()):
        return [Finding("bad-gradient", Severity.SUSPECT, "the gradient at clean inputs is NaN or infinite")]
    if not bool(gradient.any()):
        text = "the gradient at clean inputs is exactly zero: the model may mask it"
        return [Finding("zero-gradient-at-clean", Severity.SUSPECT, text)]
    if exact_within is None:
        return []

    @torch.no_grad()
    def loss(x: Tensor) -> Tensor:
        return objective.loss(None, model(x), goal)

    return _check_differences(*finite_differences_agree(loss, few, losses.detach(), gradient, exact_within))


def _check_differences(agrees: Tensor, told: Tensor) -> list[Finding]:
    count, wrong = int(told.sum()), int((told & ~agrees).sum())
    if count < FEWEST_TOLD or 2 * wrong <= count:
        return []
    text = (
        f"on {wrong} of {count} samples a small step along the gradient does not change the loss as the gradient says: "
        "an attack that follows it may find little"
    )
    return [Finding("wrong-gradient", Severity.SUSPECT, text)]


def fatal_reason(findings: Iterable[Finding]) -> str | None:
    """The message of the first finding that rules an evaluation out."""
    return next((finding.message for finding in findings if finding.severity is Severity.FATAL), None)


def _in_training_mode(model: nn.Module) -> str | None:
    """The first part of a model that is."""
    return next((name or "the model" for name, module in model.named_modules() if module.training), None)


def _check_determinism(model: nn.Module, inputs: Tensor, task: Task, randomized: bool) -> list[Finding]:
    def numbers(some: Tensor) -> Tensor:
        kept = predict_in_batches(model, some, len(some), lambda made, _rows: task.kept(made))
        return task.numbers(kept).flatten().float()

    first, *others = [numbers(inputs) for _ in range(REPEATS)]
    scale = first.abs().max().clamp_min(1e-12)
    if any(
        other.shape != first.shape or bool((other - first).abs().max() > RANDOM_TOLERANCE * scale) for other in others
    ):
        if randomized:
            return [Finding("randomized", Severity.INFO, "repeated predictions differ, as the defense declares")]
        text = "repeated predictions of the same input differ: switch the randomness off, or declare it by a defense"
        return [Finding("undeclared-randomness", Severity.SUSPECT, text)]
    alone = numbers(inputs[:1])
    together = first[: len(alone)]
    if len(inputs) > 1 and bool((alone - together).abs().max() > BATCH_TOLERANCE * scale):
        text = "a sample's prediction depends on the others in its batch (batch statistics in use?)"
        return [_fatal("batch-dependent", text)]
    return []


def _fatal(code: str, message: str) -> Finding:
    return Finding(code, Severity.FATAL, message)
