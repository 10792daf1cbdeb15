"""Places where work units run."""

from __future__ import annotations

import pytest

from robustbench_lab.errors import UsageError
from robustbench_lab.hardware import device_slots
from robustbench_lab.hardware.device_slots import Slot, make_slots


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_slots, "cpu_cores", lambda: list(range(8)))
    monkeypatch.setattr(device_slots, "cpu_quota", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_each_gpu_is_a_slot_and_they_share_the_cpus_threads() -> None:
    assert make_slots(["cuda:0", "cuda:1"]) == (Slot("cuda:0", "cuda:0", 4), Slot("cuda:1", "cuda:1", 4))


def test_several_units_may_share_a_gpu() -> None:
    slots = make_slots(["cuda:0", "cuda:1"], slots_per_gpu=2)
    assert [slot.name for slot in slots] == ["cuda:0/0", "cuda:0/1", "cuda:1/0", "cuda:1/1"]
    assert [slot.device for slot in slots] == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def test_the_cpu_is_one_slot_with_all_threads_unless_several_workers_are_asked_for() -> None:
    assert make_slots(["cpu"]) == (Slot("cpu", "cpu", 8),)
    assert make_slots(["cpu"], workers=3) == tuple(Slot(f"cpu/{index}", "cpu", 2) for index in range(3))
    assert [slot.threads for slot in make_slots(["cpu"], workers=16)] == [1] * 16
    assert make_slots(["cpu"], workers=2, threads_per_worker=1)[0].threads == 1


def test_the_environment_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [make_slots(["cpu"], workers=count)[0].threads for count in (1, 4)] == [3, 2]


def test_a_containers_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_slots, "cpu_quota", lambda: 2)
    assert make_slots(["cpu"])[0].threads == 2


def test_workers_without_a_cpu_are_refused_with_what_to_use() -> None:
    with pytest.raises(
        UsageError, match=r"^--workers is for the CPU, and the devices are cuda:0: use --slots-per-gpu$"
    ):
        make_slots(["cuda:0"], workers=4)


def test_kinds_of_device() -> None:
    assert [Slot("x", device, 1).kind for device in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda", "mps"]
