"""A single-file plugin for the tests of executors: data and a model whose exact distances are known, attacks that find
them, and attacks that do to their process whatever can be done to one.

`is-killed-once` leaves a file in the folder that the environment variable FAULTS names.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robustbench_lab import hookimpl
from robustbench_lab.api import InMemoryDataset
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec, DatasetSpec, DefenseSpec, ModelSpec
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

SAMPLES = 120
EPS = 0.02


def near_half() -> InMemoryDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = 0.5 + 0.05 * torch.randn(SAMPLES, *SHAPE, generator=generator).clamp(-2, 2)
    labels = HalfSpace(0)(inputs).argmax(1)
    labels[::10] = 1 - labels[::10]
    return replace(InMemoryDataset.of(inputs, labels), classes=2)


class Noisy(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.02 * torch.randn_like(x))
        return logits


def step(problem: AttackProblem) -> None:
    """The best input of a linear model."""
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    problem.submit(problem.project(problem.clean + problem.eps * problem.steepest(gradient, problem.clean)))


def slow(problem: AttackProblem, *, seconds: float = 0.2) -> None:
    time.sleep(seconds)
    step(problem)


def raises(problem: AttackProblem) -> None:
    raise RuntimeError("it broke\nin two lines")


def exits(problem: AttackProblem) -> None:
    sys.exit(3)


def exits_at_once(problem: AttackProblem) -> None:
    os._exit(5)


def segfaults(problem: AttackProblem) -> None:
    ctypes.string_at(0)


def is_killed(problem: AttackProblem) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(problem: AttackProblem) -> None:
    while True:
        time.sleep(1)


def freezes(problem: AttackProblem) -> None:
    """So that not even its threads go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def hands_in_nan(problem: AttackProblem) -> None:
    problem.submit(torch.full_like(problem.clean, torch.nan))


def prints(problem: AttackProblem) -> None:
    print("a library says hello")  # noqa: T201 (what is tested)
    os.write(1, b"a library in C says hello\n")
    step(problem)


def reads_stdin(problem: AttackProblem) -> None:
    assert sys.stdin.read() == ""
    step(problem)


def forks(problem: AttackProblem) -> None:
    """Two processes come back."""
    os.fork()
    step(problem)


def is_killed_once(problem: AttackProblem) -> None:
    with contextlib.suppress(FileExistsError):
        (Path(os.environ["FAULTS"]) / "killed").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    step(problem)


def runs_out_of_memory(problem: AttackProblem, *, most: int = 16, repeat: int = 0) -> None:
    """As a model would whose batches above `most` do not fit."""

    def loss(prediction: Tensor, goal: Tensor) -> Tensor:
        if len(prediction) > most:
            torch.empty(1 << 50)
        return -prediction.gather(1, goal[:, None]).squeeze(1)

    problem.loss_and_gradient(problem.clean, loss)
    step(problem)


ATTACKS = (
    step,
    slow,
    raises,
    exits,
    exits_at_once,
    segfaults,
    is_killed,
    hangs,
    freezes,
    hands_in_nan,
    prints,
    reads_stdin,
    forks,
    is_killed_once,
    runs_out_of_memory,
)


@hookimpl
def rbl_models() -> list[ModelSpec]:
    return [
        ModelSpec(name="half-space", factory=lambda: HalfSpace(0)),
        ModelSpec(name="other-half-space", factory=lambda: HalfSpace(1)),
    ]


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    return [DatasetSpec(name="near-half", factory=near_half, default_eps=EPS)]


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    return [AttackSpec(name=one.__name__.replace("_", "-"), factory=one) for one in ATTACKS]


@hookimpl
def rbl_defenses() -> list[DefenseSpec]:
    return [DefenseSpec(name="noisy", factory=Noisy, randomized=True)]
