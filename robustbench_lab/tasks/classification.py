"""Classification: images (or any tensors) `[N, ...]` to logits `[N, K]`, targets int64 `[N]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_lab.contracts import Estimate, Measured
from robustbench_lab.evaluation.dataset_form import wrong_labels
from robustbench_lab.records import Finding, Outcomes, Severity
from robustbench_lab.statistics import clopper_pearson
from robustbench_lab.tasks.worst_case import broken_by_any

if TYPE_CHECKING:
    from torch import Tensor

PROBABILITY_TOLERANCE = 1e-5
"""As in AutoAttack's check for models that return probabilities."""


@dataclass(frozen=True)
class Classification:
    """All the core knows of classifiers."""

    name: str = "classification"
    default_objective: str = "untargeted"
    attacks_all: bool = False

    def kept(self, prediction: Any) -> Any:
        """The logits."""
        return prediction

    def numbers(self, kept: Any) -> Tensor:
        """The logits."""
        numbers: Tensor = kept
        return numbers

    def intact(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """Whether the predicted class is the true one."""
        from robustbench_lab.objectives import Untargeted

        return ~Untargeted().succeeded(prediction, targets)

    def measure(self, prediction: Any, targets: Any) -> Mapping[str, Tensor]:  # noqa: ARG002 (the protocol's)
        """Nothing: right or wrong is all."""
        return {}

    def columns(self, clean: Measured, attacked: Measured) -> Measured:  # noqa: ARG002 (the protocol's)
        """None."""
        return {}

    def replicates(self, outcomes: Outcomes) -> None:
        """None: rows are compared by the samples that stay robust."""

    def examine(self, kept: Any, targets: Tensor, classes: int | None) -> list[Finding]:
        """Form, number of classes, probabilities in place of logits, accuracy at chance."""
        from robustbench_lab.objectives import is_logits

        if not is_logits(kept):
            other = "a dict" if isinstance(kept, dict) else "no tensor, such as a tuple or a NumPy array"
            got = f"a tensor of shape {list(kept.shape)}" if hasattr(kept, "shape") else other
            return [_fatal("not-logits", f"a classifier must return float logits [N, K]; this model returns {got}")]
        count = kept.shape[1]
        if count < 2:
            return [
                _fatal("one-class", "the model has a single output: return one logit for each of 2 or more classes")
            ]
        for wrong in wrong_labels(targets):
            return [_fatal("labels", wrong)]
        largest = int(targets.max())
        if largest >= count:
            return [_fatal("class-count", f"a label is {largest}, but the model has {count} classes only")]
        if not bool(kept.isfinite().all()):
            return [_fatal("nan-logits", "the model returns NaN or infinite logits on clean data")]
        findings = []
        if classes is not None and count != classes:
            text = f"the model has {count} classes, the dataset {classes}: check that labels mean the same"
            findings.append(Finding("class-count", Severity.SUSPECT, text))
        return findings + _probabilities(kept) + self._at_chance(kept, targets)

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """A sample is robust if no attack broke it; its distance is the smallest that did."""
        return broken_by_any(outcomes, {})

    def _at_chance(self, prediction: Tensor, targets: Tensor) -> list[Finding]:
        correct = int(self.intact(prediction, targets).sum())
        chance = 1 / prediction.shape[1]
        accuracy = clopper_pearson(correct, len(targets))
        if len(targets) < 20 or accuracy.low > chance:
            return []
        text = (
            f"clean accuracy is at chance ({correct} of {len(targets)} right): check that normalisation is inside the "
            "model and that label numbers match"
        )
        return [Finding("clean-accuracy-at-chance", Severity.SUSPECT, text)]


def clean_accuracy(outcomes: Outcomes) -> Estimate:
    """Share of samples right without attack, with its exact 95% interval."""
    return clopper_pearson(int(outcomes.clean_correct.sum()), len(outcomes))


def robust_accuracy(outcomes: Outcomes) -> Estimate:
    """Share of all samples right and unbroken, with its exact 95% interval."""
    return clopper_pearson(int(outcomes.robust.sum()), len(outcomes))


def _fatal(code: str, message: str) -> Finding:
    return Finding(code, Severity.FATAL, message)


def _probabilities(prediction: Tensor) -> list[Finding]:
    sums_to_one = bool(((prediction.sum(1) - 1).abs() < PROBABILITY_TOLERANCE).all())
    if not sums_to_one or bool((prediction < 0).any()):
        return []
    text = "the model returns probabilities: return logits, since a softmax flattens the gradient an attack needs"
    return [Finding("probabilities", Severity.SUSPECT, text)]
