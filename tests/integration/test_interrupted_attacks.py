"""Whole runs that are interrupted inside an attack of several stages. laboratory.py holds the other components."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustbench_lab import hookimpl
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import Status

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))
STAGES = ("dark", "bright", "rest")


class Stages:
    """The plugin of the attack `in-stages`, which can be told where to stop, and how."""

    __version__ = "1"

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stop_in: str | None = None
        self.stop_with: BaseException = KeyboardInterrupt()

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [AttackSpec(name="in-stages", factory=self.attack)]

    def attack(self, problem: AttackProblem) -> None:
        for name in STAGES:
            if problem.stage(name):
                if name == self.stop_in:
                    raise self.stop_with
                self.ran.append(name)
                if name == "rest":
                    problem.submit(lab.step(problem))
                else:
                    lab.bright_half(problem, bright=name == "bright")


@pytest.fixture
def stages() -> Stages:
    return Stages()


def run(stages: Stages, folder: Path, **fields: Any) -> RunResult:
    spec = {"models": ["half-space"], "datasets": ["near-half"], "attacks": ["in-stages"]}
    spec["database"] = str(folder / "rbl.db")
    catalog = open_catalog(extra=[("lab", lab.Lab()), ("stages", stages)])
    return run_experiment(ExperimentSpec.from_flags(**{**spec, **fields}), catalog)


@pytest.mark.parametrize("stop_in", STAGES)
def test_the_next_run_goes_on_inside_the_attack(tmp_path: Path, stages: Stages, stop_in: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = lab.only(run(stages, tmp_path / "whole"))
    stages.ran, stages.stop_in = [], stop_in
    assert run(stages, tmp_path).interrupted
    stages.stop_in = None
    record = lab.only(run(stages, tmp_path))
    assert stages.ran == list(STAGES)
    assert lab.same_outcomes(record, whole)
    assert record.findings == whole.findings
    assert (record.forward_per_sample, record.backward_per_sample) == (
        whole.forward_per_sample,
        whole.backward_per_sample,
    )


def test_nothing_is_left_once_the_result_is_stored(tmp_path: Path, stages: Stages) -> None:
    stages.stop_in = "rest"
    run(stages, tmp_path)
    assert len(list((tmp_path / "rbl-checkpoints").iterdir())) == 1
    stages.stop_in = None
    run(stages, tmp_path)
    assert not (tmp_path / "rbl-checkpoints").exists()


def test_a_failed_unit_begins_anew(tmp_path: Path, stages: Stages) -> None:
    stages.stop_in, stages.stop_with = "rest", RuntimeError("no")
    assert lab.only(run(stages, tmp_path)).status is Status.FAILED
    assert not (tmp_path / "rbl-checkpoints").exists()
    stages.ran, stages.stop_in = [], None
    assert lab.only(run(stages, tmp_path, retry_failed=True)).status is Status.OK
    assert stages.ran == list(STAGES)


def test_a_fresh_run_goes_on_with_nothing(tmp_path: Path, stages: Stages) -> None:
    stages.stop_in = "rest"
    run(stages, tmp_path)
    stages.ran, stages.stop_in = [], None
    assert lab.only(run(stages, tmp_path, fresh=True)).status is Status.OK
    assert stages.ran == list(STAGES)


def test_other_cells_have_checkpoints_of_their_own(tmp_path: Path, stages: Stages) -> None:
    stages.stop_in = "rest"
    run(stages, tmp_path)
    stages.ran, stages.stop_in = [], None
    assert lab.only(run(stages, tmp_path, seeds=[1])).status is Status.OK
    assert stages.ran == list(STAGES)
    assert len(list((tmp_path / "rbl-checkpoints").iterdir())) == 1


def test_a_database_in_memory_leaves_no_files(in_tmp_path: Path, stages: Stages) -> None:
    stages.stop_in = "rest"
    assert run(stages, in_tmp_path, database=":memory:").interrupted
    assert list(in_tmp_path.iterdir()) == []
