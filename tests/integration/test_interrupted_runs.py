"""Runs that are interrupted, cut into units, and watched. laboratory.py holds the components."""

from __future__ import annotations

import runpy
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robustbench_lab import hookimpl
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import CellRecord, Status, WorkUnit
from robustbench_lab.result_store import open_store
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling import cutting

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))

# ---------------------------------------------------------------- units, interruption, resumption


@pytest.fixture
def units_of_40(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 50)


@pytest.mark.parametrize("attack", [lab.PGD, "noise"])
def test_a_cell_in_several_units_gives_the_outcomes_of_one_unit(
    tmp_path: Path, attack: str, request: pytest.FixtureRequest
) -> None:
    whole = lab.only(lab.run(tmp_path, attacks=[attack]))
    request.getfixturevalue("units_of_40")
    events = lab.Events()
    cut = lab.only(lab.run(tmp_path, [events], attacks=[attack], database=str(tmp_path / "cut.db")))
    assert [event for event in events.seen if event[0] == "unit_started"] == [
        ("unit_started", 0, 40),
        ("unit_started", 40, 80),
        ("unit_started", 80, 120),
    ]
    assert lab.same_outcomes(whole, cut)
    assert (cut.metrics, cut.findings) == (whole.metrics, whole.findings)
    assert cut.forward_per_sample == whole.forward_per_sample
    assert cut.backward_per_sample == whole.backward_per_sample


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`interrupt_at(2)`: the attack `interruptible` is interrupted in its second unit."""
    monkeypatch.setattr(lab.Interrupted, "calls", 0)

    def set_call(number: int | None) -> None:
        lab.Interrupted.at_call, lab.Interrupted.calls = number, 0

    return set_call


@pytest.mark.usefixtures("units_of_40")
def test_a_run_interrupted_inside_a_cell_goes_on_after_its_last_finished_unit(
    tmp_path: Path, interrupt_at: Callable[[int | None], None]
) -> None:
    interrupt_at(None)
    whole = lab.only(lab.run(tmp_path, attacks=["interruptible"], database=str(tmp_path / "whole.db")))
    interrupt_at(2)
    events = lab.Events()
    stopped = lab.run(tmp_path, [events], attacks=["interruptible"])
    assert (stopped.interrupted, stopped.records, stopped.computed) == (True, (), 0)
    assert stopped.leaderboard.tables == ()
    assert events.seen[-1] == ("run_finished", True)
    with open_store(tmp_path / "rbl.db") as store:
        (unit,) = store.units(stopped.plan.cells[0].cell_id)
    assert (unit.start, unit.stop) == (0, 40)

    interrupt_at(None)
    events = lab.Events()
    result = lab.run(tmp_path, [events], attacks=["interruptible"])
    assert [event[1:] for event in events.seen if event[0] == "unit_started"] == [(40, 80), (80, 120)]
    assert lab.Interrupted.calls == 2
    assert (result.interrupted, result.computed) == (False, 1)
    assert lab.same_outcomes(lab.only(result), whole)
    assert lab.only(result).forward_per_sample == whole.forward_per_sample
    assert lab.run(tmp_path, attacks=["interruptible"]).computed == 0


def test_units_that_were_cut_to_another_size_are_kept_all_the_same(
    tmp_path: Path, interrupt_at: Callable[[int | None], None], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("units_of_40")
    interrupt_at(2)
    assert lab.run(tmp_path, attacks=["interruptible"]).interrupted
    request.getfixturevalue("monkeypatch").undo()
    lab.Interrupted.at_call = None
    events = lab.Events()
    record = lab.only(lab.run(tmp_path, [events], attacks=["interruptible"]))
    assert [event[1:] for event in events.seen if event[0] == "unit_started"] == [(40, 120)]
    assert np.array_equal(lab.outcomes(record).robust, lab.RIGHT & ~lab.WITHIN_EPS)


def test_an_interrupted_run_keeps_its_finished_cells(
    tmp_path: Path, interrupt_at: Callable[[int | None], None]
) -> None:
    attacks, seeds = ["interruptible"], [0, 1, 2]
    interrupt_at(3)
    stopped = lab.run(tmp_path, attacks=attacks, seeds=seeds)
    assert (stopped.interrupted, stopped.computed, len(stopped.records)) == (True, 2, 2)
    with open_store(tmp_path / "rbl.db") as store:
        assert store.run_of(stopped.records[0].cell.cell_id)["status"] == "interrupted"
    interrupt_at(None)
    result = lab.run(tmp_path, attacks=attacks, seeds=seeds)
    assert (result.interrupted, result.computed, len(result.records)) == (False, 1, 3)


def test_ctrl_c_before_the_first_unit_begins_nothing_and_later_ones_finish_what_runs(tmp_path: Path) -> None:
    class CtrlC(RunObserver):
        def __init__(self, event: str) -> None:
            setattr(self, event, lambda *_: signal.raise_signal(signal.SIGINT))

    what = {"attacks": ["fgsm"], "seeds": [0, 1, 2]}
    early = lab.run(tmp_path, [CtrlC("run_started")], **what)
    assert (early.interrupted, early.stopped, early.records) == (True, "Ctrl-C", ())
    later = lab.run(tmp_path, [CtrlC("unit_started")], **what)
    assert (later.interrupted, later.stopped, len(later.records)) == (True, "Ctrl-C", 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    last = lab.run(tmp_path, [CtrlC("cell_finished")], attacks=["fgsm"], seeds=[0, 1])
    assert (last.interrupted, last.stopped, len(last.records)) == (False, None, 2)


# ---------------------------------------------------------------- observers


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_a_terminal_or_a_job_stops_now_and_keeps_what_is_finished(
    tmp_path: Path, ending: signal.Signals
) -> None:
    class Ends(RunObserver):
        def cell_finished(self, _record: CellRecord) -> None:
            signal.raise_signal(ending)

    what = {"attacks": ["fgsm"], "seeds": [0, 1, 2]}
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what a script starts in the background
    stopped = lab.run(tmp_path, [Ends()], **what)
    assert signal.signal(signal.SIGINT, ctrl_c) is signal.SIG_IGN
    assert (stopped.interrupted, stopped.stopped, len(stopped.records)) == (True, None, 1)
    with open_store(tmp_path / "rbl.db") as store:
        assert store.run_of(stopped.records[0].cell.cell_id)["status"] == "interrupted"
    assert signal.getsignal(ending) is signal.SIG_DFL
    signal.signal(ending, signal.SIG_IGN)  # as `nohup` does
    try:
        assert lab.run(tmp_path, [Ends()], **what).computed == 2
        assert signal.getsignal(ending) is signal.SIG_IGN
    finally:
        signal.signal(ending, signal.SIG_DFL)


def test_what_another_run_has_got_meanwhile_is_not_lost_to_a_failure(tmp_path: Path) -> None:
    other = lab.run(tmp_path, attacks=["fgsm"])
    failed = lab.only(lab.run(tmp_path, attacks=["raises"]))
    got = replace(lab.only(other), cell=failed.cell)

    class Meanwhile(RunObserver):
        def unit_started(self, _unit: WorkUnit, _slot: Slot) -> None:
            with open_store(tmp_path / "rbl.db") as store:
                store.save_cell(got, other.run_id, artifacts=[b"x"])

    kept = lab.run(tmp_path, [Meanwhile()], attacks=["raises"], retry_failed=True)
    assert lab.only(kept).status is Status.OK
    assert lab.same_outcomes(lab.only(kept), got)
    fresh = lab.run(tmp_path, [Meanwhile()], attacks=["raises"], fresh=True)
    assert lab.only(fresh).status is Status.FAILED
    assert [path for path in (tmp_path / "rbl-artifacts").rglob("*") if path.is_file()] == []


def test_observers_hear_of_everything_in_order_the_longest_cell_first(tmp_path: Path) -> None:
    events = lab.Events()
    lab.run(tmp_path, [events], attacks=["fgsm", "noise"])
    assert events.seen == [
        ("run_started", 2, 0),
        ("unit_started", 0, lab.SAMPLES),
        ("cell_finished", "noise"),
        ("unit_started", 0, lab.SAMPLES),
        ("cell_finished", "fgsm"),
        ("run_finished", False),
    ]


def test_an_observer_that_raises_is_dropped_with_a_warning_and_stops_nothing(tmp_path: Path) -> None:
    class Broken(lab.Events):
        def cell_finished(self, record: CellRecord) -> None:
            super().cell_finished(record)
            raise ValueError("no such channel\nanywhere")

    class FromPlugin:
        @hookimpl
        def rbl_run_observers(self) -> list[RunObserver]:
            return [broken]

    broken, healthy = Broken(), lab.Events()
    catalog = open_catalog(extra=[("lab", lab.Lab()), ("chat", FromPlugin())])
    spec = ExperimentSpec.from_flags(
        models=["half-space"], datasets=["near-half"], attacks=["fgsm", "noise"], database=str(tmp_path / "rbl.db")
    )
    said = r"^observer Broken is dropped: cell_finished: ValueError: no such channel anywhere$"
    with pytest.warns(UserWarning, match=said) as warned:
        result = run_experiment(spec, catalog, observers=[healthy])
    assert len(warned) == 1
    assert [record.status for record in result.records] == [Status.OK, Status.OK]
    assert broken.seen == [("run_started", 2, 0), ("unit_started", 0, lab.SAMPLES), ("cell_finished", "noise")]
    assert [event[0] for event in healthy.seen].count("cell_finished") == 2
