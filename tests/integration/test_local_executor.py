"""Work units in processes of their own: the same numbers as inline, and faults that cost one cell each.

worker_plugin.py holds the components.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_lab import evaluate
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.executors.local import core_sets
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan
from robustbench_lab.records import CellRecord, Status, UnitRecord, WorkUnit
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.scheduling import cutting
from robustbench_lab.scheduling.executor_choice import choose_executor
from robustbench_lab.testing.known_models import HalfSpace

PLUGIN = str(Path(__file__).with_name("worker_plugin.py"))
CATALOG = open_catalog([PLUGIN])
SAMPLES = 120


def run(folder: Path, name: str = "rbl", observers: Sequence[RunObserver] = (), **fields: Any) -> RunResult:
    usual = {"models": ["half-space"], "datasets": ["near-half"], "database": str(folder / f"{name}.db")}
    spec = ExperimentSpec.from_flags(**{**usual, "plugins": [PLUGIN], "devices": ["cpu"], **fields})
    return run_experiment(spec, CATALOG, observers=observers)


def by_attack(result: RunResult) -> dict[str, CellRecord]:
    return {record.cell.attack.name: record for record in result.records}


def assert_same(first: RunResult, second: RunResult) -> None:
    """Cell by cell and sample by sample."""
    assert len(first.records) == len(second.records)
    for one, other in zip(first.records, second.records, strict=True):
        assert (one.cell.cell_id, one.status, one.metrics) == (other.cell.cell_id, other.status, other.metrics)
        assert (one.verdict, one.findings) == (other.verdict, other.findings)
        assert (one.outcomes is None) == (other.outcomes is None)
        if one.outcomes and other.outcomes:
            assert np.array_equal(one.outcomes.clean_correct, other.outcomes.clean_correct)
            assert np.array_equal(one.outcomes.robust, other.outcomes.robust)
            assert np.allclose(one.outcomes.distance, other.outcomes.distance, rtol=1e-5, equal_nan=True)


class Watch(RunObserver):
    """Writes down what happens to units."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.slots: set[Slot] = set()
        self.retried: list[str] = []
        self.finished: list[UnitRecord] = []
        self.progress: list[UnitProgress] = []

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        self.started.append((unit.start, unit.stop))
        self.slots.add(slot)

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        self.retried.append(reason)

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        self.finished.append(record)

    def unit_progressed(self, progress: UnitProgress) -> None:
        self.progress.append(progress)


# ---------------------------------------------------------------- the same numbers


def test_every_executor_and_any_number_of_workers_give_the_same_outcomes_also_where_units_are_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "LEAST_SECONDS", 1e-3)  # so that cells are cut finer for more workers
    monkeypatch.setenv("FAULTS", str(tmp_path))
    what = {
        "models": ["half-space", "other-half-space"],
        "attacks": ["pgd(steps=20)", "noise", "is-killed-once"],
        "defenses": ["none", "noisy"],
    }
    (tmp_path / "killed").touch()  # inline, that would end the tests
    reference = run(tmp_path, "inline", executor="inline", **what)
    assert [record.status for record in reference.records] == [Status.OK] * 12
    for workers in (1, 2, 3):
        (tmp_path / "killed").unlink()
        watch = Watch()
        local = run(tmp_path, f"local-{workers}", [watch], executor="local", workers=workers, **what)
        assert_same(reference, local)
        assert len(watch.slots) == workers
        assert watch.retried == ["worker was killed by signal 9 (out of memory?)"]
        assert {record.batch_size for record in local.records} == {512, 256}  # half of it after the kill
        assert {record.executor for record in local.records} == {"local"}


# ---------------------------------------------------------------- faults


def test_whatever_an_attack_does_to_its_process_costs_its_own_cell_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "LEAST_SAMPLES", SAMPLES)  # one unit a cell
    bad = ["raises", "exits", "exits-at-once", "segfaults", "hangs", "freezes", "hands-in-nan"]
    good = ["step", "prints", "reads-stdin", "forks"]
    watch = Watch()
    result = run(
        tmp_path, observers=[watch], attacks=bad + good, executor="local(silence=5)", workers=2, unit_timeout=8
    )
    records = by_attack(result)
    assert {name: records[name].reason for name in bad} == {
        "raises": "RuntimeError: it broke in two lines",
        "exits": "SystemExit: 3",
        "exits-at-once": "worker exited with code 5",
        "segfaults": "worker was killed by signal 11 (SIGSEGV)",
        "hangs": "took longer than --unit-timeout 8 s",
        "freezes": "worker gave no sign of life for 5 s",
        "hands-in-nan": None,
    }
    assert records["hands-in-nan"].verdict == "failed"
    reference = records["step"].outcomes
    assert reference is not None
    for name in good:
        found = records[name].outcomes
        assert found is not None
        assert np.array_equal(found.robust, reference.robust)
    assert len(watch.retried) == 4  # those that lost their worker
    assert result.interrupted is False
    out, err = capfd.readouterr()
    assert out == ""
    assert "a library says hello" in err
    assert "a library in C says hello" in err


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_the_batch_that_worked_after_memory_ran_out_is_where_the_next_like_cell_begins(
    tmp_path: Path, executor: str
) -> None:
    attacks = ["runs-out-of-memory(repeat=0)", "runs-out-of-memory(repeat=1)"]
    first, second = run(tmp_path, executor=executor, attacks=attacks, batch_size=100).records
    assert [first.status, second.status] == [Status.OK, Status.OK]
    assert first.batch_size == second.batch_size <= 16
    # The first queried in vain with 100, 50 and 25 before; these passes were counted.
    assert first.forward_per_sample is not None
    assert second.forward_per_sample is not None
    assert second.forward_per_sample < first.forward_per_sample


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_later_run_begins_with_the_batch_that_worked(tmp_path: Path, executor: str) -> None:
    fields: dict[str, Any] = {"executor": executor, "attacks": ["runs-out-of-memory"], "batch_size": 100}
    (first,) = run(tmp_path, seeds=[0], **fields).records
    (second,) = run(tmp_path, seeds=[1], **fields).records
    assert (tmp_path / "rbl-batches.json").exists()
    assert first.batch_size == second.batch_size <= 16
    assert first.forward_per_sample is not None
    assert second.forward_per_sample is not None
    assert second.forward_per_sample < first.forward_per_sample


def test_a_plugin_file_that_changes_while_a_run_goes_on_ends_it_with_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(Path(PLUGIN).read_text())
    catalog = open_catalog([str(plugin)])
    plugin.write_text(Path(PLUGIN).read_text() + "\n")
    fields = {"models": ["half-space"], "datasets": ["near-half"], "attacks": ["step"], "executor": "local"}
    spec = ExperimentSpec.from_flags(**fields, database=str(tmp_path / "rbl.db"))
    with pytest.raises(RblError, match=r"^mine.py has changed since the run began: start the run again$"):
        run_experiment(spec, catalog)


def test_objects_of_this_process_stay_in_it(tmp_path: Path) -> None:
    data = CATALOG.load_factory("datasets", "near-half")()
    with pytest.warns(UserWarning, match=r"^'in-memory' is an object of this process, so everything runs in it"):
        made = evaluate(HalfSpace(0).eval(), (data.inputs, data.targets), ["fgsm"], eps=0.02, executor="local")
    assert made.records[0].executor == "inline"


# ---------------------------------------------------------------- a time limit needs a process that can be ended


@pytest.mark.parametrize(("unit_timeout", "expected"), [(None, "inline"), (600, "local")])
def test_a_unit_with_a_time_limit_gets_a_worker_that_can_be_ended(unit_timeout: float | None, expected: str) -> None:
    spec = ExperimentSpec.from_flags(models=["half-space"], devices=["cpu"], workers=1, unit_timeout=unit_timeout)
    executor, _ = choose_executor(spec, RunPlan((), ()), CATALOG)
    assert executor.name == expected


def test_inline_refuses_a_time_limit_in_one_line_before_anything_is_stored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--unit-timeout is for workers .* inline has none: use --executor local"):
        run(tmp_path, attacks=["step"], executor="inline", unit_timeout=600)
    data = CATALOG.load_factory("datasets", "near-half")()
    given = HalfSpace(0).eval(), (data.inputs, data.targets), ["fgsm"]
    with (
        pytest.warns(UserWarning, match="everything runs in it"),
        pytest.raises(UsageError, match="inline has none: leave the flag out, or name components"),
    ):
        evaluate(*given, eps=0.02, unit_timeout=600, database=tmp_path / "rbl.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("executor", ["local(silence=-3)", "local(silence=1)", "ray(silence=0)"])
def test_a_silence_after_which_every_worker_would_count_as_hung_is_refused(executor: str) -> None:
    if executor.startswith("ray"):
        pytest.importorskip("ray")
    with pytest.raises(UsageError, match="silence must be a number of seconds from 2 on"):
        choose_executor(ExperimentSpec.from_flags(models=["half-space"], executor=executor), RunPlan((), ()), CATALOG)


# ---------------------------------------------------------------- ends

SCRIPT = """
import sys
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.pipeline import open_catalog, run_experiment
catalog = open_catalog([{plugin!r}])
spec = ExperimentSpec.from_flags(
    models=["half-space"], datasets=["near-half"], attacks={attacks!r}, database={database!r}, executor={executor!r},
    plugins=[{plugin!r}],
)
result = run_experiment(spec, catalog)
print(len(result.records), result.interrupted, flush=True)
"""


def started(folder: Path, executor: str, attacks: list[str]) -> subprocess.Popen[str]:
    script = SCRIPT.format(
        plugin=str(folder / "plugin.py"), attacks=attacks, executor=executor, database=str(folder / "rbl.db")
    )
    # Notes when an attack begins, and in which process.
    source = (
        Path(PLUGIN)
        .read_text()
        .replace(
            "    time.sleep(seconds)\n",
            f"    Path({str(folder)!r}, f'at-work-{{os.getpid()}}').touch()\n    time.sleep(seconds)\n",
        )
    )
    (folder / "plugin.py").write_text(source)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_work(folder: Path, main: subprocess.Popen[str]) -> int:
    """The id of the process that has begun to work."""
    deadline = time.monotonic() + 120
    while not (found := list(folder.glob("at-work-*"))):
        assert main.poll() is None, main.communicate()
        assert time.monotonic() < deadline, "nothing began"
        time.sleep(0.05)
    return int(found[0].name.removeprefix("at-work-"))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_ctrl_c_once_finishes_what_runs_and_twice_stops_now(tmp_path: Path, executor: str) -> None:
    first = tmp_path / "first"
    first.mkdir()
    gentle = started(first, executor, ["slow(seconds=2.5)", "slow(seconds=2)"])
    wait_for_work(first, gentle)
    gentle.send_signal(signal.SIGINT)
    out, err = gentle.communicate(timeout=60)
    assert out.split() == ["1", "True"], err
    assert "finishing what runs; Ctrl-C once more stops now" in err

    second = tmp_path / "second"
    second.mkdir()
    harsh = started(second, executor, ["slow(seconds=1000)", "slow(seconds=1001)"])
    worker = wait_for_work(second, harsh)
    harsh.send_signal(signal.SIGINT)
    time.sleep(0.3)
    harsh.send_signal(signal.SIGINT)
    out, err = harsh.communicate(timeout=60)
    assert out.split() == ["0", "True"], err
    assert not alive(worker)


def test_workers_end_with_the_process_of_their_run(tmp_path: Path) -> None:
    main = started(tmp_path, "local", ["slow(seconds=1000)"])
    worker = wait_for_work(tmp_path, main)
    assert worker != main.pid
    assert alive(worker)
    main.kill()
    main.communicate()
    deadline = time.monotonic() + 30
    while alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(("workers", "executor"), [(1, "inline"), (2, "local")])
def test_no_more_cells_begin_than_asked_for_and_the_same_command_goes_on(
    tmp_path: Path, workers: int, executor: str
) -> None:
    what = {"attacks": ["step"], "seeds": list(range(5))}
    first = run(tmp_path, max_cells=3, workers=workers, **what)
    assert (len(first.records), first.interrupted, first.stopped) == (3, False, "--max-cells 3 have begun")
    assert {record.executor for record in first.records} == {executor}
    second = run(tmp_path, max_cells=3, **what)
    assert (len(second.records), second.computed, second.stopped) == (5, 2, None)


def test_nothing_begins_after_the_hours_are_over(tmp_path: Path) -> None:
    result = run(tmp_path, attacks=["slow"], seeds=[0, 1, 2], max_hours=0.1 / 3600)
    assert (len(result.records), result.stopped) == (1, "--max-hours 2.77778e-05 have passed")


# ---------------------------------------------------------------- pinning


def test_slots_of_the_cpu_get_cores_of_their_own_where_there_are_enough() -> None:
    slots = [Slot("cuda:0", "cuda:0", 2), Slot("cpu/0", "cpu", 2), Slot("cpu/1", "cpu", 2)]
    assert core_sets(slots, [0, 2, 4, 6, 8]) == {slots[1]: (0, 2), slots[2]: (4, 6)}
    assert core_sets(slots, [0, 2, 4]) == {}
