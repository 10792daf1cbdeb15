"""What `rbl run` says where it ends before any cell has."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustbench_lab import pipeline
from robustbench_lab.cli.run import run_and_report
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import WorkUnit
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling import cutting

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))
ADVICE = "the same command goes on from there (Ctrl-C pressed only once lets what runs finish)"


class Interrupts(RunObserver):
    """As the second Ctrl-C does, when a unit begins."""

    def __init__(self, units: int) -> None:
        self._units = units

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        self._units -= 1
        if self._units < 0:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A run that is interrupted after so many units of 40 samples."""
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 40)
    monkeypatch.chdir(tmp_path)
    run_experiment = pipeline.run_experiment

    def run(after: int, *, as_json: bool = False, quiet: bool = False, **fields: Any) -> ExitCode:
        def watched(*given: Any, observers: Any, **named: Any) -> Any:
            return run_experiment(*given, observers=[*observers, Interrupts(after)], **named)

        monkeypatch.setattr(pipeline, "run_experiment", watched)
        usual = {"models": ["half-space"], "datasets": ["near-half"], "attacks": [lab.PGD]}
        spec = ExperimentSpec.from_flags(**{**usual, "executor": "inline", **fields})
        return run_and_report(spec, lab.CATALOG, json=as_json, quiet=quiet, log=False)

    return run


@pytest.mark.parametrize("quiet", [False, True])
def test_there_is_no_empty_table_and_no_advice_to_run_what_was_just_run(
    interrupted: Any, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    assert interrupted(0, quiet=quiet, attacks=[lab.PGD, "noise"]) == ExitCode.INTERRUPTED
    out, err = capsys.readouterr()
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last == f"interrupted before any of 2 cells was finished: nothing of them is in rbl.db; {ADVICE}"


def test_finished_parts_of_the_cell_are_counted_and_the_next_run_goes_on_from_them(
    interrupted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interrupted(2) == ExitCode.INTERRUPTED
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"interrupted before the cell was finished: 2 finished parts of it are in rbl.db; {ADVICE}"
    assert interrupted(1) == ExitCode.OK  # it is not interrupted: one unit was left
    assert "half-space" in capsys.readouterr().out


def test_json_stays_json(interrupted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert interrupted(0, as_json=True) == ExitCode.INTERRUPTED
    assert json.loads(capsys.readouterr().out)["cells"] == []


def test_a_limit_that_was_reached_before_the_first_cell_is_named(
    interrupted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interrupted(0, max_hours=1e-12) == ExitCode.OK
    out, err = capsys.readouterr()
    assert out == ""
    assert "--max-hours 1e-12 have passed before the cell was finished: nothing of it is in rbl.db" in err
