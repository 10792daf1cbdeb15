"""The slots that a cluster offers. Pure: knows its nodes by their numbers only, and nothing of Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lab.errors import UsageError
from robustbench_lab.hardware.device_slots import Slot, SlotRequest


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster lends."""

    cpus: int
    gpus: int


def cluster_slots(nodes: Sequence[Node], wanted: SlotRequest) -> tuple[Slot, ...]:
    """The slots that a run uses, all on GPUs or all on CPUs. Which node each is on is decided later, by Ray.

    `auto` takes the GPUs, where there are any. On CPUs: as many slots as there is room for; where neither their number
    nor their threads were asked for, one a node with all its CPUs. Raises UsageError where there is no room.
    """
    named = {"gpu" if name.startswith("cuda") else name for name in wanted.devices}
    if any(name.startswith("cuda:") for name in wanted.devices):
        raise UsageError("Ray chooses the GPUs: write --device cuda, without a number")
    if "mps" in named or len(named - {"auto"}) > 1:
        raise UsageError("on Ray a run uses either GPUs or CPUs: --device cuda or --device cpu")
    gpus = sum(node.gpus for node in nodes)
    if "gpu" in named and not gpus:
        raise UsageError("the Ray cluster has no GPU: --device cpu, or start its nodes with --num-gpus")
    if "cpu" in named or not gpus:
        return _cpu_slots([node.cpus for node in nodes], wanted)
    if wanted.workers:
        raise UsageError("--workers is for the CPU, and the run uses the cluster's GPUs: use --slots-per-gpu")
    return _gpu_slots([node for node in nodes if node.gpus], wanted)


def _gpu_slots(nodes: Sequence[Node], wanted: SlotRequest) -> tuple[Slot, ...]:
    """GPUs are numbered through the cluster; `@ray` says that this is not the number on any machine."""
    room = min(node.cpus // (node.gpus * wanted.slots_per_gpu) for node in nodes)
    threads = wanted.threads_per_worker or room
    if not 1 <= threads <= room:
        raise UsageError(
            f"a node of the Ray cluster has {room} CPUs for each work unit on its GPUs, and each needs "
            f"{max(1, threads)}: lower --slots-per-gpu or --threads-per-worker"
        )
    devices = [f"cuda:{index}@ray" for index in range(sum(node.gpus for node in nodes))]
    return tuple(
        Slot(device if wanted.slots_per_gpu == 1 else f"{device}/{index}", device, threads)
        for device in devices
        for index in range(wanted.slots_per_gpu)
    )


def _cpu_slots(cpus: Sequence[int], wanted: SlotRequest) -> tuple[Slot, ...]:
    threads, workers = wanted.threads_per_worker, wanted.workers
    if threads is None and workers is None:
        each = [count for count in cpus if count]
    else:
        threads = threads or _most_threads(cpus, workers or 1)
        room = sum(count // threads for count in cpus)
        if room < (workers or 1):
            raise UsageError(
                f"the Ray cluster has room for {room} workers with {threads} CPUs each: lower --workers or "
                "--threads-per-worker"
            )
        each = [threads] * (workers or room)
    if not each:
        raise UsageError("the Ray cluster has no CPU to lend: start its nodes with --num-cpus")
    return tuple(Slot(f"cpu/{index}", "cpu", count) for index, count in enumerate(each))


def _most_threads(cpus: Sequence[int], workers: int) -> int:
    """The most that each of so many workers can have; 1 where there is no room for them."""
    fitting = (one for one in range(max(cpus, default=0), 0, -1) if sum(count // one for count in cpus) >= workers)
    return next(fitting, 1)
