"""Attacks of several stages that are killed and go on: bit by bit what they would have been."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from rbl_attacks.score_based.noise import noise
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.global_randomness import seeded
from robustbench_lab.problem_parts.attack_checkpoint import (
    AttackCheckpoint,
    checkpoint_path,
    remove_checkpoint,
    remove_checkpoints,
)
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Finding, Severity
from robustbench_lab.testing.known_models import half_space_setting
from robustbench_lab.threat_models.norm_balls import Linf

STAGES = ("noise", "weak", "strong", "last")


def long_attack(problem: AttackProblem) -> None:
    """Looks at the model first; then each stage breaks a few more samples, and notes something."""
    work: dict[str, Callable[[], None]] = {
        "noise": lambda: noise(problem, repeats=2),
        "weak": lambda: pgd(problem, steps=12, step_size=problem.eps / 40),
        "strong": lambda: pgd(problem, steps=12, step_size=problem.eps / 20),
        "last": lambda: noise(problem, repeats=3),
    }
    problem.logits(problem.clean, candidate=False)
    for name in STAGES:
        if not problem.finished and problem.stage(name):
            work[name]()
            problem.note(Finding(f"after-{name}", Severity.INFO, "done", float(problem.claimed.sum())))


class Killed(BaseException):
    """Like a signal: nothing in the attack handles it."""


def setting() -> ProblemSetting:
    return half_space_setting(Linf(eps=0.05))


class Noisy(nn.Module):
    """Draws from all of the global generators."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        shift = 0.01 * (random.random() + float(np.random.rand()))  # noqa: NPY002, S311
        logits: Tensor = self.model(x + shift * torch.randn_like(x))
        return logits


def attacked(given: ProblemSetting, path: Path | None, kill_at: int | None = None) -> AttackProblem:
    """kill_at: the number of forward passes at which the process dies."""

    def progress(_unbroken: int, forward: int, _backward: int) -> None:
        if kill_at is not None and forward >= kill_at:
            raise Killed

    with seeded("the unit"):
        problem = AttackProblem(given, progress, AttackCheckpoint(path, "float32") if path else None)
        if not problem.finished:
            long_attack(problem)
    return problem


def everything(problem: AttackProblem) -> list[object]:
    counter = problem.counted_model
    return [
        problem.candidates.tolist(),
        problem.claimed.tolist(),
        problem.unmoved.tolist(),
        problem.open_positions.tolist(),
        problem.notes,
        problem.trace.findings(),
        (counter.forward_passes, counter.backward_passes),
    ]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_killed_attack_goes_on_after_its_last_stage(tmp_path: Path, share: float, noisy: bool) -> None:
    given = setting()
    if noisy:
        given = replace(given, model=Noisy(given.model).eval(), eot=2)
    whole = attacked(given, None)
    assert 0 < int(whole.claimed.sum()) < len(whole.claimed)
    path = checkpoint_path(tmp_path, "cell", 0, 24)
    with pytest.raises(Killed):
        attacked(given, path, kill_at=int(share * whole.counted_model.forward_passes))
    assert everything(attacked(given, path)) == everything(whole)


def test_an_attack_may_be_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "unit.safetensors"
    whole = attacked(setting(), None)
    for share in (0.3, 0.5, 0.7, 0.9):
        with pytest.raises(Killed):
            attacked(setting(), path, kill_at=int(share * whole.counted_model.forward_passes))
    assert everything(attacked(setting(), path)) == everything(whole)


def test_a_stage_that_was_finished_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "unit.safetensors"
    first = AttackProblem(setting(), checkpoint=AttackCheckpoint(path, "float32"))
    assert first.stage("one")
    assert first.stage("two")
    again = AttackProblem(setting(), checkpoint=AttackCheckpoint(path, "float32"))
    assert [again.stage(name) for name in ("one", "two", "three")] == [False, True, True]


def test_without_a_checkpoint_every_stage_runs() -> None:
    problem = AttackProblem(setting())
    assert all(problem.stage(name) for name in ("one", "two"))


def test_what_a_search_in_another_precision_found_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "unit.safetensors"
    problem = AttackProblem(setting(), checkpoint=AttackCheckpoint(path, "mixed"))
    assert all(problem.stage(name) for name in ("one", "two"))
    assert AttackProblem(setting(), checkpoint=AttackCheckpoint(path, "float32")).stage("one")


def test_the_seconds_of_earlier_processes_are_known(tmp_path: Path) -> None:
    path = tmp_path / "unit.safetensors"
    AttackCheckpoint(path, "float32").write({}, {})
    first = AttackCheckpoint(path, "float32")
    first.read(torch.device("cpu"))
    assert first.earlier_seconds > 0
    first.write({}, {})
    second = AttackCheckpoint(path, "float32")
    second.read(torch.device("cpu"))
    assert second.earlier_seconds > first.earlier_seconds


@pytest.mark.parametrize("content", [b"", b"not at all", b"\x10\x00\x00\x00\x00\x00\x00\x00{}              "])
def test_a_damaged_file_is_said_and_left_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "unit.safetensors"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="begins anew"):
        problem = attacked(setting(), path)
    assert everything(problem) == everything(attacked(setting(), None))


def test_a_file_that_cannot_be_written_costs_a_warning_and_not_the_attack(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.warns(UserWarning, match="cannot write"):
        problem = attacked(setting(), tmp_path / "folder" / "unit.safetensors")
    assert everything(problem) == everything(attacked(setting(), None))


def test_nothing_is_left_of_a_file_for_which_the_disk_had_no_room_or_whose_writer_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "checkpoints"
    checkpoint = AttackCheckpoint(checkpoint_path(folder, "cell", 0, 10), "float32")
    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.warns(UserWarning, match="cannot write .* No space left"):
            checkpoint.write({}, {})
    assert list(folder.iterdir()) == []
    checkpoint.write({}, {})
    checkpoint.path.with_suffix(".partial-1234").touch()
    remove_checkpoints(folder, "cell")
    assert not folder.exists()


def test_the_last_checkpoint_takes_its_folder_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    paths = [checkpoint_path(folder, "cell", start, start + 10) for start in (0, 10)]
    for path in paths:
        AttackCheckpoint(path, "float32").write({}, {})
    remove_checkpoint(paths[0])
    assert list(folder.iterdir()) == [paths[1]]
    remove_checkpoint(paths[1])
    assert not folder.exists()
    remove_checkpoint(paths[1])
