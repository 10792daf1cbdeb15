"""What Ray is asked for when it looks for a place for a slot's actor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from robustbench_lab.hardware.device_slots import Slot


class Placement:
    """The claims of one run: CPUs, and shares of GPUs. The slots of one GPU get the same GPU, whichever it is."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._sharing = Counter(slot.device for slot in slots)
        self._groups: dict[str, PlacementGroup] = {}

    def share(self, slot: Slot) -> float:
        """Of its device, that is the slot's."""
        return 1 / self._sharing[slot.device]

    def options(self, slot: Slot) -> dict[str, Any]:
        """Options of the slot's actor."""
        if slot.kind != "cuda":
            return {"num_cpus": slot.threads}
        if slot.device not in self._groups:
            bundle = {"GPU": 1.0, "CPU": float(slot.threads * self._sharing[slot.device])}
            self._groups[slot.device] = placement_group([bundle])
        strategy = PlacementGroupSchedulingStrategy(self._groups[slot.device], placement_group_bundle_index=0)
        return {"num_cpus": slot.threads, "num_gpus": self.share(slot), "scheduling_strategy": strategy}

    def needs(self, slot: Slot) -> str:
        """`2 CPUs and 0.5 GPU`."""
        gpu = f" and {self.share(slot):g} GPU" if slot.kind == "cuda" else ""
        return f"{slot.threads} CPU{'' if slot.threads == 1 else 's'}{gpu}"

    def release(self) -> None:
        """Give everything back."""
        for group in self._groups.values():
            remove_placement_group(group)
        self._groups.clear()
