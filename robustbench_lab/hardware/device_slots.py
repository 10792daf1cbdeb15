"""Device slots: the places where work units run, one at a time in each. No torch here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lab.errors import UsageError
from robustbench_lab.hardware.container_limits import cpu_quota


@dataclass(frozen=True)
class Slot:
    """A place where one work unit runs at a time."""

    name: str
    """Unique in a run: `cuda:0`, `cuda:0/1` for the second of several on one GPU, `cpu/0`."""
    device: str
    """As torch names it."""
    threads: int
    """CPU threads of the process that runs there."""

    @property
    def kind(self) -> str:
        """`cpu`, `cuda`, `mps`: what timings and batch sizes have in common."""
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class SlotRequest:
    """What was asked for; None: the usual."""

    devices: tuple[str, ...]
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    slots_per_gpu: int = 1
    workers: int | None = None
    """Slots of the CPU."""
    threads_per_worker: int | None = None


def make_slots(
    devices: Sequence[str],
    slots_per_gpu: int = 1,
    workers: int | None = None,
    threads_per_worker: int | None = None,
) -> tuple[Slot, ...]:
    """Slots on devices that are there (see `resolve_devices`), GPUs first.

    workers: slots of the CPU; None: one, with all its threads. threads_per_worker: None: the CPU's threads are shared
    out evenly, and OMP_NUM_THREADS is the most that a slot gets.

    Raises UsageError where `workers` is given and the CPU is no device of the run.
    """
    gpus = [device for device in devices if device != "cpu"]
    cpu_slots = 0 if "cpu" not in devices else workers or 1
    if workers and not cpu_slots:
        raise UsageError(f"--workers is for the CPU, and the devices are {', '.join(gpus)}: use --slots-per-gpu")
    names = [(_numbered(gpu, index, slots_per_gpu), gpu) for gpu in gpus for index in range(slots_per_gpu)]
    names += [(_numbered("cpu", index, cpu_slots), "cpu") for index in range(cpu_slots)]
    threads = threads_per_worker or min(allowed_threads(), max(1, usable_threads() // len(names)))
    return tuple(Slot(name, device, threads) for name, device in names)


def allowed_threads() -> int:
    """CPU threads of a process: those that it may use, OMP_NUM_THREADS at most."""
    most = os.environ.get("OMP_NUM_THREADS", "")
    threads = usable_threads()
    return min(threads, int(most)) if most.isdecimal() and int(most) > 0 else threads


def usable_threads() -> int:
    """CPU threads that this process may keep busy: one a core, and no more than a container's quota pays for."""
    return min(len(cpu_cores()), cpu_quota() or sys.maxsize)


def cpu_cores() -> list[int]:
    """The cores that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _numbered(device: str, index: int, of: int) -> str:
    return device if of == 1 else f"{device}/{index}"
