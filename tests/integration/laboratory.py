"""The components of the tests of whole runs: models on which the exact distance of each sample is known, attacks good
and bad, and a run of them.

The model is a half-space: an attack is right if it breaks exactly the samples within eps. Not a test module: the tests
load it with `runpy`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lab import hookimpl
from robustbench_lab.api import InMemoryDataset
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec, DatasetSpec, DefenseSpec, ModelSpec
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import Cell, CellRecord, Outcomes, WorkUnit
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

SAMPLES = 120
EPS = 0.02
"""About half of the samples lie nearer to the other class."""
PGD = "pgd(step_size=0.02, steps=14)"
"""On a linear model its second step reaches the optimum, so the loss has settled long before the last."""
FIRST, SECOND = HalfSpace(0).eval(), HalfSpace(1).eval()
NEIGHBOUR = HalfSpace(0).eval()
"""What misleads it often misleads the first one as well."""
NEIGHBOUR.weight.data.add_(SECOND.weight)


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.5 + 0.05 * torch.randn(SAMPLES, *SHAPE, generator=generator).clamp(-2, 2)


LABELS = FIRST(inputs()).argmax(1)
LABELS[::10] = 1 - LABELS[::10]
RIGHT = (FIRST(inputs()).argmax(1) == LABELS).numpy()
WITHIN_EPS = (FIRST.distance(inputs(), "linf") <= EPS).numpy()


class Counting(nn.Module):
    """A model that notes how many samples went through it."""

    seen = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        Counting.seen += len(x)
        logits: Tensor = self.model(x)
        return logits


class Read(nn.Module):
    """`function(model(x))`."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = HalfSpace(0)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model(x))


class BothHalfSpaces(nn.Module):
    """A defense that asks a second model as well: for the two together the exact distance is known again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.first, self.second = model, HalfSpace(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class Noisy(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.02 * torch.randn_like(x))
        return logits


def shifted_in_place(model: nn.Module) -> nn.Module:
    """A defense that changes the model it is given, as one that fine-tunes it would."""
    model.model.weight.data.add_(SECOND.weight)
    return model


# ---------------------------------------------------------------- attacks, good and bad


class Interrupted:
    """Makes the attack `interruptible` raise Ctrl-C at its next calls."""

    at_call: int | None = None
    calls = 0


def step(problem: AttackProblem) -> Tensor:
    """The best input of a linear model."""
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    return problem.project(problem.clean + problem.eps * problem.steepest(gradient, problem.clean))


def raises(problem: AttackProblem) -> None:
    step(problem)
    raise RuntimeError("it broke\nin two lines")


def exits(problem: AttackProblem) -> None:
    sys.exit(3)


def hands_in_nan(problem: AttackProblem) -> None:
    problem.submit(torch.full_like(problem.clean, torch.nan))


def leaves_the_ball(problem: AttackProblem) -> None:
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    problem.submit((problem.clean + 3 * problem.eps * gradient.sign()).clamp(0, 1))


def wrong_shape(problem: AttackProblem) -> None:
    problem.submit(problem.clean[:-1])


def prints(problem: AttackProblem) -> None:
    print("a library says hello")  # noqa: T201 (what is tested)
    problem.submit(step(problem))


def overwrites_the_clean_inputs(problem: AttackProblem) -> None:
    """The usual slip: `x` is the clean input itself, so nothing that is measured against it shows the change."""
    x = problem.clean
    x += 10 * problem.eps * torch.sign(SECOND.weight)
    x.clamp_(0, 1)
    problem.submit(x)


def changes_the_weights(problem: AttackProblem) -> None:
    for parameter in problem.counted_model.parameters():
        parameter.data.zero_()
    problem.submit(problem.random_start())


def leaves_training_mode(problem: AttackProblem) -> None:
    problem.counted_model.train()
    problem.submit(problem.random_start())


def interruptible(problem: AttackProblem) -> None:
    Interrupted.calls += 1
    if Interrupted.calls == Interrupted.at_call:
        raise KeyboardInterrupt
    problem.submit(step(problem))


def bright_half(problem: AttackProblem, *, bright: bool) -> None:
    """Breaks what can be broken of the samples whose first value is above (or not above) the middle."""
    first = problem.clean.flatten(1)[:, :1, None, None]
    problem.submit(torch.where((first > 0.5) == bright, step(problem), problem.clean))


def notes_passes(problem: AttackProblem) -> None:
    problem.submit(problem.clean)
    notes_passes.seen = Counting.seen  # type: ignore[attr-defined]


ATTACKS = (
    raises,
    exits,
    hands_in_nan,
    leaves_the_ball,
    wrong_shape,
    prints,
    overwrites_the_clean_inputs,
    changes_the_weights,
    leaves_training_mode,
    interruptible,
    bright_half,
    notes_passes,
)


class Lab:
    """The components of these tests."""

    __version__ = "1"

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        padded = nn.ConstantPad1d((0, 3), -20.0)
        return [
            ModelSpec(name="half-space", factory=lambda: Counting(HalfSpace(0))),
            ModelSpec(name="neighbour", factory=lambda: NEIGHBOUR),
            ModelSpec(name="probabilities", factory=lambda: Read(lambda logits: logits.softmax(1))),
            ModelSpec(name="one-class", factory=lambda: Read(lambda logits: logits[:, :1])),
            ModelSpec(name="five-classes", factory=lambda: Read(padded)),
            ModelSpec(name="no-model", factory=lambda: {"weights": 1}),
        ]

    @hookimpl
    def rbl_datasets(self) -> list[DatasetSpec]:
        def near_half() -> Any:
            return replace(InMemoryDataset.of(inputs(), LABELS), classes=2)

        return [DatasetSpec(name="near-half", factory=near_half, default_eps=EPS)]

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [AttackSpec(name=one.__name__.replace("_", "-"), factory=one) for one in ATTACKS]

    @hookimpl
    def rbl_defenses(self) -> list[DefenseSpec]:
        return [
            DefenseSpec(name="second-opinion", factory=BothHalfSpaces),
            DefenseSpec(name="noisy", factory=Noisy, randomized=True),
            DefenseSpec(name="secretly-noisy", factory=Noisy),
            DefenseSpec(name="shifted-in-place", factory=shifted_in_place),
            DefenseSpec(name="also-shifted-in-place", factory=shifted_in_place),
        ]


CATALOG = open_catalog(extra=[("lab", Lab())])


def run(folder: Path, observers: Sequence[RunObserver] = (), **fields: Any) -> RunResult:
    """The usual run with what the test changes, in a database of that folder."""
    usual: dict[str, Any] = {
        "models": ["half-space"],
        "datasets": ["near-half"],
        "attacks": [PGD],
        "database": str(folder / "rbl.db"),
    }
    return run_experiment(ExperimentSpec.from_flags(**{**usual, **fields}), CATALOG, observers=observers)


def only(result: RunResult) -> CellRecord:
    (record,) = result.records
    return record


def outcomes(record: CellRecord) -> Outcomes:
    assert record.outcomes is not None, record.reason
    return record.outcomes


def same_outcomes(first: CellRecord, second: CellRecord) -> bool:
    pairs = (
        (getattr(outcomes(one), name) for one in (first, second)) for name in ("clean_correct", "robust", "distance")
    )
    return all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


class Events(RunObserver):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        self.seen.append(("run_started", len(to_do), stored))

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        self.seen.append(("unit_started", unit.start, unit.stop))

    def cell_finished(self, record: CellRecord) -> None:
        self.seen.append(("cell_finished", record.cell.attack.label))

    def run_finished(self, interrupted: bool) -> None:
        self.seen.append(("run_finished", interrupted))
