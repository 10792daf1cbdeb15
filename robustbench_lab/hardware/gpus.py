"""The GPUs of this machine and what they do, as the driver (NVML) tells it; without NVML, as PyTorch does.

NVML knows the share of time in which a GPU works, and takes milliseconds where importing PyTorch takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment. Memory is in bytes."""

    device: str
    """As runs name it: `cuda:0`. Numbered among the GPUs that CUDA_VISIBLE_DEVICES shows."""
    name: str
    memory: int
    free: int
    use: float | None
    """Share of the last moments in which it worked, in [0, 1]; None where that is not known."""


class Nvml:
    """The driver's own view. Raises OSError where NVML, or its Python package, is not there."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise OSError("the package nvidia-ml-py is not installed") from error
        try:
            pynvml.nvmlInit()
            self._library: Any = pynvml
            self._handles = [self._handle(one) for one in self._visible()]
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error

    def read(self) -> tuple[Gpu, ...]:
        """All visible GPUs, as they are now. Raises OSError where one has gone."""
        try:
            return tuple(self._gpu(index, handle) for index, handle in enumerate(self._handles))
        except self._library.NVMLError as error:
            raise OSError(str(error)) from error

    def _visible(self) -> list[int | str]:
        count = self._library.nvmlDeviceGetCount()
        uuids = [self._library.nvmlDeviceGetUUID(self._handle(index)) for index in range(count)]
        return visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)

    def _handle(self, gpu: int | str) -> Any:
        if isinstance(gpu, int):
            return self._library.nvmlDeviceGetHandleByIndex(gpu)
        return self._library.nvmlDeviceGetHandleByUUID(gpu)

    def _gpu(self, index: int, handle: Any) -> Gpu:
        memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        name = self._library.nvmlDeviceGetName(handle)
        return Gpu(f"cuda:{index}", name, memory.total, memory.free, self._use(handle))

    def _use(self, handle: Any) -> float | None:
        try:
            return float(self._library.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._library.NVMLError_NotSupported:  # a slice of a GPU (MIG)
            return None


def visible_gpus(setting: str | None, uuids: Sequence[str]) -> list[int | str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order: the driver's number, or the id of a MIG slice.

    As CUDA reads it: numbers or beginnings of ids; the first that is none ends the list; unset shows all.
    """
    if setting is None:
        return list(range(len(uuids)))
    found: list[int | str] = []
    for part in (text.strip() for text in setting.split(",")):
        matching = [index for index, uuid in enumerate(uuids) if part.startswith("GPU-") and uuid.startswith(part)]
        if part.isdecimal() and int(part) < len(uuids):
            found.append(int(part))
        elif len(matching) == 1:
            found.append(matching[0])
        elif part.startswith("MIG-"):
            found.append(part)
        else:
            break
    return found


def gpus_of_torch() -> tuple[Gpu, ...]:
    """What PyTorch can use. Imports it, and occupies some memory of each GPU."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(f"cuda:{index}", torch.cuda.get_device_name(index), total, free, None))
    return tuple(found)
