"""What the driver says of the GPUs, and which of them a process sees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.hardware.gpus import Gpu, Nvml, visible_gpus
from robustbench_lab.hardware.machine import look_at_machine

UUIDS = ["GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333"]
GB = 1024**3


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-bbbb,GPU-aaaa1", [2, 0]),
        ("GPU-aaaa", []),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("MIG-cccc4444,1", ["MIG-cccc4444", 1]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(setting: str | None, seen: list[int | str]) -> None:
    assert visible_gpus(setting, UUIDS) == seen


@given(st.permutations(range(3)), st.integers(0, 3))
def test_numbers_and_ids_mean_the_same_gpus(order: list[int], count: int) -> None:
    chosen = order[:count]
    assert visible_gpus(",".join(map(str, chosen)), UUIDS) == chosen
    assert visible_gpus(",".join(UUIDS[index] for index in chosen), UUIDS) == chosen


class NvmlError(Exception):
    """As the driver's."""


class NotSupportedError(NvmlError):
    """For a slice of a GPU."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A driver with two GPUs: the first works for a quarter of the time, of the second that is not known."""
    library = ModuleType("pynvml")
    library.NVMLError, library.NVMLError_NotSupported = NvmlError, NotSupportedError  # type: ignore[attr-defined]

    def use(handle: int) -> SimpleNamespace:
        if handle == 1:
            raise NotSupportedError
        return SimpleNamespace(gpu=25)

    functions: dict[str, Callable[..., object]] = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: UUIDS[handle],
        "nvmlDeviceGetName": lambda handle: f"GPU number {handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=(handle + 1) * 8 * GB, free=GB),
        "nvmlDeviceGetUtilizationRates": use,
    }
    for name, function in functions.items():
        setattr(library, name, function)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return library


@pytest.mark.usefixtures("driver")
def test_gpus_are_numbered_among_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    both = (
        Gpu("cuda:0", "GPU number 0", 8 * GB, GB, 0.25),
        Gpu("cuda:1", "GPU number 1", 16 * GB, GB, None),
    )
    assert Nvml().read() == both
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert Nvml().read() == (Gpu("cuda:0", "GPU number 1", 16 * GB, GB, None),)


def test_torch_is_not_asked_where_the_driver_answers(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would raise
    machine = look_at_machine()
    assert [gpu.device for gpu in machine.gpus] == ["cuda:0", "cuda:1"]
    assert machine.note is None
    assert 0 < machine.free <= machine.memory
    assert machine.threads >= 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in str(look_at_machine().note)


def test_a_driver_that_refuses_is_told_from_one_without_gpus(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise NvmlError("Driver/library version mismatch")

    monkeypatch.setattr(driver, "nvmlInit", refuse)
    with pytest.raises(OSError, match="version mismatch"):
        Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OSError, match="nvidia-ml-py is not installed"):
        Nvml()
