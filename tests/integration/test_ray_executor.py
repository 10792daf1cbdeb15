"""Work units on a real Ray cluster of two nodes, both on this machine, one of which is lost.

worker_plugin.py holds the components.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbl_ray.cluster_slots import Node, cluster_slots
from robustbench_lab.catalog import Catalog
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.hardware.device_slots import Slot, SlotRequest
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import Status, UnitRecord, WorkUnit
from robustbench_lab.result_store import open_store
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.scheduling import cutting

NO_RAY = 'Ray is not installed: pip install "robustbench-lab[ray]"'
PLUGIN = Path(__file__).with_name("worker_plugin.py")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that lends one CPU. Tests add the second node, which they may lose."""
    pytest.importorskip("ray", reason=NO_RAY)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def second_node(cluster: Any) -> Iterator[SimpleNamespace]:
    """`second_node.lose()`: as when its power fails."""
    node = cluster.add_node(num_cpus=1)

    def lose() -> None:
        cluster.remove_node(node, allow_graceful=False)

    yield SimpleNamespace(lose=lose)
    if node in cluster.list_all_nodes():
        lose()


def run(folder: Path, name: str, catalog: Catalog, observers: Sequence[RunObserver] = (), **fields: Any) -> RunResult:
    usual = {"models": ["half-space"], "datasets": ["near-half"], "database": str(folder / f"{name}.db")}
    return run_experiment(ExperimentSpec.from_flags(**{**usual, **fields}), catalog, observers=observers)


class Watch(RunObserver):
    """Writes down what happens to units, and does something when all slots are seen at work."""

    def __init__(self, at_work: Callable[[], None] = lambda: None) -> None:
        self._at_work = at_work
        self.slots: tuple[Slot, ...] = ()
        self.used: set[Slot] = set()
        self.retried: list[tuple[str, int, int]] = []
        self.reasons: list[str] = []
        self.finished: list[tuple[str, int, int]] = []
        self.progress: list[UnitProgress] = []

    def slots_known(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)

    def unit_progressed(self, progress: UnitProgress) -> None:
        self.progress.append(progress)
        if progress.slot not in self.used:
            self.used.add(progress.slot)
            if len(self.used) == len(self.slots):
                self._at_work()

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        self.retried.append((unit.cell.cell_id, unit.start, unit.stop))
        self.reasons.append(reason)

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        self.finished.append((record.cell_id, record.start, record.stop))


def assert_same(first: RunResult, second: RunResult) -> None:
    """Cell by cell and sample by sample."""
    assert len(first.records) == len(second.records)
    for one, other in zip(first.records, second.records, strict=True):
        assert (one.cell.cell_id, one.status, one.metrics) == (other.cell.cell_id, other.status, other.metrics)
        assert (one.verdict, one.findings) == (other.verdict, other.findings)
        assert one.outcomes is not None
        assert other.outcomes is not None
        assert np.array_equal(one.outcomes.clean_correct, other.outcomes.clean_correct)
        assert np.array_equal(one.outcomes.robust, other.outcomes.robust)
        assert np.allclose(one.outcomes.distance, other.outcomes.distance, rtol=1e-5, equal_nan=True)


# ---------------------------------------------------------------- the same numbers


def test_a_run_that_loses_a_node_in_the_middle_has_the_outcomes_of_an_undisturbed_one_each_once(
    tmp_path: Path,
    cluster: Any,
    second_node: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cutting, "LEAST_SECONDS", 1e-3)  # so that cells are cut
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.read_text())
    catalog = open_catalog([str(plugin)])
    what = {
        "models": ["half-space", "other-half-space"],
        "attacks": ["pgd(steps=5)", "slow(seconds=1.5)"],  # work left when the second worker has started at last
        "defenses": ["none", "noisy"],
    }
    reference = run(tmp_path, "inline", catalog, executor="inline", **what)
    watch = Watch(second_node.lose)
    capfd.readouterr()
    result = run(tmp_path, "ray", catalog, [watch], executor="ray", address=cluster.address, **what)
    out, err = capfd.readouterr()
    assert [record.status for record in result.records] == [Status.OK] * 8
    assert_same(reference, result)
    assert [slot.name for slot in watch.slots] == ["cpu/0", "cpu/1"]
    assert len(watch.used) == 2
    assert len(watch.retried) == 1
    assert re.fullmatch(r"worker on \S+ was lost: its node cannot be reached", watch.reasons[0])
    assert watch.retried[0] in watch.finished
    assert len(watch.finished) == len(set(watch.finished))
    assert {record.executor for record in result.records} == {"ray"}
    assert out == ""
    assert "raylet" not in err


# ---------------------------------------------------------------- faults


@pytest.mark.slow
def test_whatever_an_attack_does_to_its_process_costs_its_own_cell_only(
    tmp_path: Path, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    catalog = open_catalog([str(PLUGIN)])
    bad = ["raises", "exits", "exits-at-once", "segfaults", "is-killed", "hangs"]
    watch = Watch()
    executor = f"ray(address={cluster.address!r})"
    attacks = [*bad, "prints", "step"]
    result = run(tmp_path, "faults", catalog, [watch], attacks=attacks, executor=executor, unit_timeout=5)
    records = {record.cell.attack.name: record for record in result.records}
    died = r"worker on \S+ was lost: its worker process has died"
    expected = {
        "raises": "RuntimeError: it broke in two lines",
        "exits": "SystemExit: 3",
        "exits-at-once": died,
        "segfaults": died,
        "is-killed": died,
        "hangs": r"took longer than --unit-timeout 5 s",
        "prints": None,
        "step": None,
    }
    for name, reason in expected.items():
        found = records[name].reason
        assert found == reason or (reason and found and re.fullmatch(reason, found)), (name, found)
    assert len(watch.retried) == 4
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_worker_that_falls_silent_is_given_up(tmp_path: Path, cluster: Any) -> None:
    catalog = open_catalog([str(PLUGIN)])
    executor = f"ray(address={cluster.address!r}, silence=4)"
    result = run(tmp_path, "silent", catalog, attacks=["freezes", "step"], executor=executor)
    assert {record.cell.attack.name: record.reason for record in result.records} == {
        "freezes": "worker gave no sign of life for 4 s",
        "step": None,
    }


@pytest.mark.slow
def test_data_that_a_node_does_not_have_costs_its_cells_with_a_line_that_says_what_to_do(
    tmp_path: Path, cluster: Any
) -> None:
    catalog = open_catalog([str(PLUGIN)])
    data = catalog.load_factory("datasets", "near-half")()
    file = tmp_path / "test.npz"
    np.savez(file, images=data.inputs.numpy(), labels=data.targets.numpy())

    class Replaces(RunObserver):
        def slots_known(self, slots: Sequence[Slot]) -> None:
            file.write_bytes(b"something else")

    what = {"attacks": ["step"], "datasets": [f"npz(path={str(file)!r})"], "norms": ["linf"], "eps": [0.02]}
    result = run(tmp_path, "data", catalog, [Replaces()], executor="ray", address=cluster.address, **what)
    (record,) = result.records
    assert record.status is Status.FAILED
    said = r"on node \S+: 'npz\(path='.*test.npz'\)' is not what the run was planned with: put its files there, .+"
    assert re.fullmatch(said, str(record.reason))


def test_a_plugin_file_that_changes_while_a_run_goes_on_ends_it_with_one_line(tmp_path: Path, cluster: Any) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.read_text())
    catalog = open_catalog([str(plugin)])
    plugin.write_text(PLUGIN.read_text() + "\n")
    with pytest.raises(RblError, match=r"^mine.py has changed since the run began: start the run again$"):
        run(tmp_path, "changed", catalog, attacks=["step"], executor="ray", address=cluster.address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "127.0.0.1:1",
            r"^no Ray cluster to use at '127.0.0.1:1' \(.*refused\): `ray start --head --port=6379` starts one",
        ),
        ("nonsense", r"^'nonsense' is no address of a Ray cluster: write HOST:PORT"),
        ("ray://localhost:10001", r"^'ray://localhost:10001' is no address of a Ray cluster: write HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path, address: str, said: str) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    with pytest.raises(UsageError, match=said):
        run(tmp_path, "refused", open_catalog([str(PLUGIN)]), attacks=["step"], executor="ray", address=address)
    assert not (tmp_path / "refused.db").exists()


@pytest.mark.slow
def test_a_cluster_whose_token_is_not_here_is_refused_with_what_to_do(tmp_path: Path, cluster: Any) -> None:
    run = started(tmp_path, "step", address=cluster.address, RAY_AUTH_MODE="disabled")
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith(f"rbl: no Ray cluster to use at '{cluster.address}'")
    assert line.endswith("RAY_AUTH_MODE and the token (~/.ray/auth_token) of this machine")


def test_an_address_is_for_executors_that_use_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^local.*: executor 'local' has no parameter 'address'"):
        run(tmp_path, "local", open_catalog([str(PLUGIN)]), attacks=["step"], executor="local", address="10.0.0.1:6379")


# ---------------------------------------------------------------- ends


def started(folder: Path, *attacks: str, address: str = "local", **environment: str) -> subprocess.Popen[str]:
    """`rbl run` in a session of its own, usually with a cluster of its own. Attacks note in which process they are."""
    marked = f"    Path({str(folder)!r}, f'at-work-{{os.getpid()}}').touch()\n    time.sleep(seconds)\n"
    (folder / "mine.py").write_text(PLUGIN.read_text().replace("    time.sleep(seconds)\n", marked))
    command = [str(Path(sys.executable).with_name("rbl")), "run", "--plugin", "mine.py", "--json"]
    command += ["--executor", "ray", "--address", address, "--model", "half-space", "--dataset", "near-half"]
    command += [part for attack in attacks for part in ("--attack", attack)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def process_at_work(folder: Path) -> int:
    deadline = time.monotonic() + 200
    while not (found := list(folder.glob("at-work-*"))):
        assert time.monotonic() < deadline, "nothing began"
        time.sleep(0.05)
    return int(found[0].name.removeprefix("at-work-"))


def ends(process: int) -> bool:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists() and "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_ctrl_c_once_finishes_what_runs(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    run = started(tmp_path, *(f"slow(seconds={seconds})" for seconds in (4.1, 4.2, 4.3)))
    worker = process_at_work(tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the run, to Ray, and to the workers
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert [cell["status"] for cell in json.loads(out)["cells"]] == ["ok"]
    assert "raylet" not in err
    assert ends(worker)


@pytest.mark.slow
def test_ctrl_c_twice_stops_now_and_nothing_outlives_the_run(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    run = started(tmp_path, "slow(seconds=1000)")
    worker = process_at_work(tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert json.loads(out)["cells"] == []
    assert ends(worker)

    (tmp_path / f"at-work-{worker}").unlink()
    run = started(tmp_path, "slow(seconds=1000)")
    worker = process_at_work(tmp_path)
    run.kill()
    assert ends(worker)
    run.communicate()


# ---------------------------------------------------------------- slots


class Probe:
    """An actor that says where it is."""

    def place(self) -> tuple[str, str | None]:
        import ray

        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_slots_of_one_gpu_share_a_gpu_and_others_do_not(cluster: Any) -> None:
    import ray
    from ray import cloudpickle

    from rbl_ray.connection import connect, disconnect, nodes
    from rbl_ray.placement import Placement

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other packages install a `tests` of their own
    lent = [cluster.add_node(num_cpus=4, num_gpus=2), cluster.add_node(num_cpus=2, num_gpus=1)]  # on paper
    connect(cluster.address)
    try:
        slots = cluster_slots(nodes(), SlotRequest(("auto",), slots_per_gpu=2))
        assert [slot.device for slot in slots] == [f"cuda:{gpu}@ray" for gpu in (0, 0, 1, 1, 2, 2)]
        placement = Placement(slots)
        actors = [ray.remote(Probe).options(**placement.options(slot)).remote() for slot in slots]
        places = ray.get([actor.place.remote() for actor in actors], timeout=60)
        placement.release()
    finally:
        for node in lent:
            cluster.remove_node(node, allow_graceful=False)
        while len(nodes()) > 1:  # the next run must not count on their GPUs
            time.sleep(0.1)
        disconnect()
    assert places[0::2] == places[1::2]
    assert len(set(places)) == 3


CPUS = st.lists(st.integers(0, 64).map(lambda cpus: Node(cpus, 0)), min_size=1, max_size=6)


@given(CPUS, st.one_of(st.none(), st.integers(1, 80)), st.one_of(st.none(), st.integers(1, 70)))
def test_slots_of_cpus_fit_their_nodes_and_are_as_many_as_asked_for(
    nodes: list[Node], workers: int | None, threads: int | None
) -> None:
    try:
        slots = cluster_slots(nodes, SlotRequest(("auto",), 1, workers, threads))
    except UsageError:
        room = sum(node.cpus // (threads or 1) for node in nodes)
        assert room < (workers or 1)
        return
    assert len({slot.name for slot in slots}) == len(slots)
    assert workers is None or len(slots) == workers
    assert threads is None or {slot.threads for slot in slots} == {threads}
    if workers is None and threads is None:
        assert [slot.threads for slot in slots] == [node.cpus for node in nodes if node.cpus]
    else:
        (each,) = {slot.threads for slot in slots}
        assert sum(node.cpus // each for node in nodes) >= len(slots)


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)).map(lambda one: Node(*one)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_every_gpu_of_the_cluster_has_as_many_slots_as_asked_for(nodes: list[Node], slots_per_gpu: int) -> None:
    gpus = [node for node in nodes if node.gpus]
    try:
        slots = cluster_slots(nodes, SlotRequest(("cuda",), slots_per_gpu))
    except UsageError:
        assert not gpus or any(node.cpus < node.gpus * slots_per_gpu for node in gpus)
        return
    assert len(slots) == len({slot.name for slot in slots}) == slots_per_gpu * sum(node.gpus for node in gpus)
    assert len({slot.device for slot in slots}) == sum(node.gpus for node in gpus)
    assert {slot.kind for slot in slots} == {"cuda"}
    (threads,) = {slot.threads for slot in slots}
    assert all(node.cpus >= threads * slots_per_gpu * node.gpus for node in gpus)


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (("cuda:1",), "Ray chooses the GPUs"),
        (("cpu", "cuda"), "either GPUs or CPUs"),
        (("mps",), "either GPUs or CPUs"),
        (("cuda",), "has no GPU"),
    ],
)
def test_devices_that_a_cluster_does_not_offer_are_refused(devices: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cluster_slots([Node(8, 0)], SlotRequest(devices))


@pytest.mark.slow
def test_two_runs_on_one_cluster_share_their_cells_although_there_is_room_for_one_alone(
    tmp_path: Path, cluster: Any
) -> None:
    attacks = [f"slow(seconds=1.{number})" for number in range(6)]
    runs = [started(tmp_path, *attacks, address=cluster.address) for _ in range(2)]
    documents = [json.loads(run.communicate(timeout=240)[0])["cells"] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert [len(cells) for cells in documents] == [6, 6]
    assert [{**cell, "wall_seconds": 0} for cell in documents[0]] == [
        {**cell, "wall_seconds": 0} for cell in documents[1]
    ]
    with open_store(str(tmp_path / "rbl.db"), create=False) as store:
        states = [one.state for one in store.board.runs() if one.state]
    assert sum(state["ok"] for state in states) == 6
