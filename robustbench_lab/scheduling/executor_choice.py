"""Which executor a run uses, and on which slots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.catalog.plugin_loading import PluginSource
from robustbench_lab.errors import PluginError, UsageError
from robustbench_lab.hardware.device_slots import Slot, SlotRequest, make_slots
from robustbench_lab.hardware.devices import resolve_devices
from robustbench_lab.planning.experiment_spec import AUTO_EXECUTOR, ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan
from robustbench_lab.records import Cell
from robustbench_lab.scheduling.auto_workers import worthwhile_workers

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.executors import Executor

PARTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")


def choose_executor(spec: ExperimentSpec, plan: RunPlan, catalog: Catalog) -> tuple[Executor, tuple[Slot, ...]]:
    """The executor asked for, with its slots.

    For `auto`, `local` where there are several slots, several cells on a GPU (a fault in a kernel ends what its process
    can do there), or a time limit for units; otherwise `inline`. On the CPU there are as many slots as the work is
    worth. Cells with objects of this process, such as the model that `robustbench_lab.evaluate` was given, stay in it.

    Raises UsageError where units have a time limit and nothing could end one that takes longer.
    """
    from robustbench_lab.executors import FindsSlots

    live = _live_object(plan.cells, catalog)
    wanted = _wanted_slots(spec, plan, catalog, live)
    asked = spec.executor
    if asked.name == AUTO_EXECUTOR:
        cells = len(plan.cells) if live is None else 1
        asked = replace(asked, name="local" if _apart(_slots_here(wanted), cells, spec) else "inline")
    if spec.address is not None:
        asked = replace(asked, params={**asked.params, "address": spec.address})
    advice = "use --executor local, or leave the flag out"
    if asked.name != "inline" and live is not None:
        warnings.warn(
            f"'{live}' is an object of this process, so everything runs in it, one unit after another (inline)",
            stacklevel=2,
        )
        asked = Component("inline")
        advice = "leave the flag out, or name components that other processes can load"
    if asked.name == "inline" and spec.unit_timeout is not None:
        raise UsageError(f"--unit-timeout is for workers that can be ended, and inline has none: {advice}.")
    executor: Executor = catalog.build("executors", catalog.resolve("executors", asked))
    if not (isinstance(getattr(executor, "name", None), str) and callable(getattr(executor, "run", None))):
        raise PluginError(f"executor '{asked.label}' is not usable: it needs a name and run(queue, context)")
    return executor, executor.find_slots(wanted) if isinstance(executor, FindsSlots) else _slots_here(wanted)


def _wanted_slots(spec: ExperimentSpec, plan: RunPlan, catalog: Catalog, live: str | None) -> SlotRequest:
    """What the spec says; where it leaves the workers on a CPU open, as many as pay. live: see `_live_object`."""
    wanted = SlotRequest(tuple(spec.devices), spec.slots_per_gpu, spec.workers, spec.threads_per_worker)
    left_open = spec.executor.name == AUTO_EXECUTOR and spec.workers is None and live is None
    if left_open and resolve_devices(wanted.devices) == ("cpu",):
        return replace(wanted, workers=worthwhile_workers(spec, plan, catalog))
    return wanted


def _apart(slots: Sequence[Slot], cells: int, spec: ExperimentSpec) -> bool:
    """Whether work units are better off in processes of their own."""
    return len(slots) > 1 or (slots[0].kind == "cuda" and cells > 1) or spec.unit_timeout is not None


def _slots_here(wanted: SlotRequest) -> tuple[Slot, ...]:
    devices = resolve_devices(wanted.devices)
    return make_slots(devices, wanted.slots_per_gpu, wanted.workers, wanted.threads_per_worker)


def _live_object(cells: Sequence[Cell], catalog: Catalog) -> str | None:
    """The label of a component that no other process can load."""
    live = {record.name for record in catalog.plugins if record.source is PluginSource.MEMORY}
    components = (getattr(cell, part) for cell in cells for part in PARTS)
    return next((one.label for one in components if one.plugin in live), None) if live else None
