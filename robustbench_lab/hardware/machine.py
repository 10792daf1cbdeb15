"""What this machine has for runs."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from robustbench_lab.hardware.container_limits import free_memory
from robustbench_lab.hardware.device_slots import usable_threads
from robustbench_lab.hardware.gpus import Gpu, Nvml, gpus_of_torch


@dataclass(frozen=True)
class Machine:
    """GPUs, CPU threads and memory. Memory is in bytes."""

    gpus: tuple[Gpu, ...]
    threads: int
    """CPU threads that this process may keep busy."""
    memory: int
    free: int
    """Memory that could be had without swapping, within the limit of a container."""
    note: str | None
    """One line on what could not be found out, and why."""


def look_at_machine() -> Machine:
    """What there is now. PyTorch is imported only where the driver cannot answer."""
    gpus, note = _gpus()
    return Machine(gpus, usable_threads(), psutil.virtual_memory().total, free_memory(), note)


def _gpus() -> tuple[tuple[Gpu, ...], str | None]:
    try:
        gpus = Nvml().read()
    except OSError as error:
        gpus = gpus_of_torch()
        if gpus:
            return gpus, f"how busy the GPUs are is not known ({error}): pip install 'robustbench-lab[gpu]'"
        return (), f"no GPU: PyTorch finds none, and the NVIDIA driver cannot be asked ({error})"
    return gpus, None if gpus else "no GPU: the NVIDIA driver has none, or CUDA_VISIBLE_DEVICES hides them"
