"""Checks of a model on a dataset before any attack runs. Most wrong numbers come from what these find."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Dataset, Samples, Task
from robustbench_lab.errors import describe_error
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.records import Finding, Severity

SAMPLES = 256
FEWEST = 8
VALUES = 1 << 24
"""Of all inputs that are looked at: 13 colour images of 640 x 640, but never fewer than `FEWEST` samples."""
REPEATS = 5
RANDOM_TOLERANCE = 1e-4
"""Difference of repeated predictions, relative to their size, above which a model is randomized (AutoAttack: 1e-4)."""
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
