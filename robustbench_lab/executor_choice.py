"""Which executor a run uses, and on which slots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from robustbench_lab.component_syntax import Component
from robustbench_lab.device_slots import Slot, SlotRequest, make_slots
from robustbench_lab.devices import resolve_devices
from robustbench_lab.errors import PluginError, UsageError
from robustbench_lab.experiment_spec import AUTO_EXECUTOR, ExperimentSpec
from robustbench_lab.plugin_loading import PluginSource
from robustbench_lab.records import Cell

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.executors import Executor

PARTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")


def choose_executor(spec: ExperimentSpec, cells: Sequence[Cell], catalog: Catalog) -> tuple[Executor, tuple[Slot, ...]]:
    """The executor asked for, with its slots.

    For `auto`, `local` where there are several slots or units have a time limit, otherwise `inline`. Cells with objects
    of this process, such as the model that `robustbench_lab.evaluate` was given, stay in it.

    Raises UsageError where units have a time limit and nothing could end one that takes longer.
    """
    from robustbench_lab.executors import FindsSlots

    wanted = SlotRequest(tuple(spec.devices), spec.slots_per_gpu, spec.workers, spec.threads_per_worker)
    asked = spec.executor
    if asked.name == AUTO_EXECUTOR:
        apart = len(_slots_here(wanted)) > 1 or spec.unit_timeout is not None
        asked = replace(asked, name="local" if apart else "inline")
    if spec.address is not None:
        asked = replace(asked, params={**asked.params, "address": spec.address})
    if asked.name != "inline" and (live := _live_object(cells, catalog)):
        warnings.warn(
            f"'{live}' is an object of this process, so everything runs in it, one unit after another (inline)",
            stacklevel=2,
        )
        asked = Component("inline")
        advice = "leave the flag out, or name components that other processes can load"
    else:
        advice = "use --executor local, or leave the flag out"
    if asked.name == "inline" and spec.unit_timeout is not None:
        raise UsageError(f"--unit-timeout is for workers that can be ended, and inline has none: {advice}.")
    executor: Executor = catalog.build("executors", catalog.resolve("executors", asked))
    if not (isinstance(getattr(executor, "name", None), str) and callable(getattr(executor, "run", None))):
        raise PluginError(f"executor '{asked.label}' is not usable: it needs a name and run(queue, context)")
    return executor, executor.find_slots(wanted) if isinstance(executor, FindsSlots) else _slots_here(wanted)


def _slots_here(wanted: SlotRequest) -> tuple[Slot, ...]:
    devices = resolve_devices(wanted.devices)
    return make_slots(devices, wanted.slots_per_gpu, wanted.workers, wanted.threads_per_worker)


def _live_object(cells: Sequence[Cell], catalog: Catalog) -> str | None:
    """The label of a component that no other process can load."""
    live = {record.name for record in catalog.plugins if record.source is PluginSource.MEMORY}
    components = (getattr(cell, part) for cell in cells for part in PARTS)
    return next((one.label for one in components if one.plugin in live), None) if live else None
