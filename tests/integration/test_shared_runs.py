"""A run beside another one that has claimed some of its cells. laboratory.py holds the components."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.records import Cell, CellRecord, UnitRecord, WorkUnit
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling import cutting

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))

OTHER_RUN = """
import sys, time
from robustbench_lab.result_store import open_store
database, run_id, *cells = sys.argv[1:]
with open_store(database) as store, store.claiming(run_id) as claim:
    print(*(claim(cell) for cell in cells), flush=True)
    time.sleep(600)
"""


@dataclass
class Waits(RunObserver):
    """Does something while the run waits, once, and writes down what it sees."""

    meanwhile: Callable[[], object]
    waited_for: list[int] = field(default_factory=list)
    begun: list[tuple[str, int]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def unit_started(self, unit: WorkUnit, slot: object) -> None:
        self.begun.append((unit.cell.cell_id, unit.start))

    def cell_found(self, record: CellRecord) -> None:
        self.found.append(record.cell.cell_id)

    def run_waiting(self, cells: int) -> None:
        self.waited_for.append(cells)
        if len(self.waited_for) == 1:
            self.meanwhile()


@dataclass
class Other:
    """Another process, which has claimed the first of two cells and begins nothing."""

    store: ResultStore
    run_id: str
    process: subprocess.Popen[str]
    claimed: Cell
    free: Cell

    def is_killed(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    database = str(tmp_path / "rbl.db")
    spec = ExperimentSpec.from_flags(models=["half-space"], datasets=["near-half"], attacks=[lab.PGD, "noise"])
    claimed, free = make_plan(spec, lab.CATALOG).cells
    with open_store(database) as store:
        run_id = store.begin_run(["rbl", "run"], {}, {"torch": "2.15"})
        command = [sys.executable, "-c", OTHER_RUN, database, run_id, claimed.cell_id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ours\n"
            try:
                yield Other(store, run_id, process, claimed, free)
            finally:
                process.kill()


def test_cells_of_a_run_that_is_killed_are_taken_over(tmp_path: Path, other: Other) -> None:
    watch = Waits(other.is_killed)
    result = lab.run(tmp_path, [watch], attacks=[lab.PGD, "noise"])
    assert watch.waited_for[0] == 1
    assert [cell for cell, _ in watch.begun] == [other.free.cell_id, other.claimed.cell_id]
    assert (result.computed, result.state.found, result.interrupted) == (2, 0, False)
    assert [record.status.value for record in result.records] == ["ok", "ok"]


def test_what_a_killed_run_has_stored_of_a_cell_is_not_evaluated_again(
    tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 50)
    units: list[UnitRecord] = []
    with open_store(tmp_path / "elsewhere.db") as elsewhere:

        def keep(record: UnitRecord, _run_id: str) -> None:
            units.append(record)

        with monkeypatch.context() as patched:
            patched.setattr(ResultStore, "save_unit", lambda _store, record, run_id: keep(record, run_id))
            whole = lab.run(tmp_path, attacks=[lab.PGD], database=str(tmp_path / "elsewhere.db"))
        assert elsewhere.cells()

    def store_one_unit_and_die() -> None:
        other.store.save_unit(units[0], other.run_id)
        other.is_killed()

    watch = Waits(store_one_unit_and_die)
    result = lab.run(tmp_path, [watch], attacks=[lab.PGD, "noise"])
    assert [start for cell, start in watch.begun if cell == other.claimed.cell_id] == [40, 80]
    assert lab.same_outcomes(result.records[0], lab.only(whole))


def test_cells_that_another_run_has_stored_are_found(tmp_path: Path, other: Other) -> None:
    record = lab.only(lab.run(tmp_path, attacks=[lab.PGD], database=str(tmp_path / "elsewhere.db")))
    watch = Waits(lambda: other.store.save_cell(record, other.run_id))
    result = lab.run(tmp_path, [watch], attacks=[lab.PGD, "noise"])
    assert watch.found == [other.claimed.cell_id]
    assert [cell for cell, _ in watch.begun] == [other.free.cell_id]
    assert (result.computed, result.state.found) == (1, 1)
    assert [one.cell.cell_id for one in result.records] == [other.claimed.cell_id, other.free.cell_id]
    assert len(result.leaderboard.tables) == 1


def test_a_run_that_waits_can_be_interrupted(tmp_path: Path, other: Other) -> None:
    result = lab.run(tmp_path, [Waits(lambda: signal.raise_signal(signal.SIGINT))], attacks=[lab.PGD, "noise"])
    assert (result.interrupted, result.computed) == (True, 1)
    assert [one.cell.cell_id for one in result.records] == [other.free.cell_id]


def test_a_run_that_evaluates_everything_afresh_asks_nobody(tmp_path: Path, other: Other) -> None:
    watch = Waits(lambda: None)
    result = lab.run(tmp_path, [watch], attacks=[lab.PGD, "noise"], fresh=True)
    assert (watch.waited_for, result.computed) == ([], 2)
    assert {cell for cell, _ in watch.begun} == {other.claimed.cell_id, other.free.cell_id}
