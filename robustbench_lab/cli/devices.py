"""`rbl devices`: what this machine has for runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustbench_lab.cli.common_flags import Json

if TYPE_CHECKING:
    from robustbench_lab.hardware.device_slots import Slot
    from robustbench_lab.hardware.machine import Machine


def devices(json: Json = False) -> None:
    """Show the GPUs, CPU threads and memory of this machine.

    And the slots in which a run would use them by default.
    """
    from robustbench_lab.cli.output import print_json, say
    from robustbench_lab.hardware.device_slots import make_slots
    from robustbench_lab.hardware.machine import look_at_machine

    machine = look_at_machine()
    slots = make_slots([gpu.device for gpu in machine.gpus] or ["cpu"])
    if json:
        print_json(_document(machine, slots))
    else:
        _print_table(machine, slots)
    if machine.note:
        say(machine.note)


def _document(machine: Machine, slots: tuple[Slot, ...]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "gpus": [
            {
                "device": gpu.device,
                "name": gpu.name,
                "memory_bytes": gpu.memory,
                "free_bytes": gpu.free,
                "use": gpu.use,
            }
            for gpu in machine.gpus
        ],
        "cpu": {"threads": machine.threads, "memory_bytes": machine.memory, "free_bytes": machine.free},
        "slots": [{"slot": slot.name, "device": slot.device, "threads": slot.threads} for slot in slots],
        "note": machine.note,
    }


def _print_table(machine: Machine, slots: tuple[Slot, ...]) -> None:
    from rich import box
    from rich.table import Table

    from robustbench_lab.cli.output import console
    from robustbench_lab.report.formatting import ABSENT, memory_text, printable

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("device", "what it is", "memory", "free", "in use"):
        table.add_column(column, justify="left" if column in ("device", "what it is") else "right")
    for gpu in machine.gpus:
        use = ABSENT if gpu.use is None else f"{gpu.use:.0%}"
        table.add_row(gpu.device, printable(gpu.name), memory_text(gpu.memory), memory_text(gpu.free), use)
    threads = f"{machine.threads} thread{'' if machine.threads == 1 else 's'}"
    table.add_row("cpu", threads, memory_text(machine.memory), memory_text(machine.free), ABSENT)
    out = console()
    out.print(table)
    shared = slots[0].device == "cpu" and slots[0].threads > 1
    long_run = "; a long run shares them out among as many processes as it is worth" if shared else ""
    out.print(f"slots of a run: {slots_text(slots)}{long_run}")


def slots_text(slots: tuple[Slot, ...]) -> str:
    """`cuda:0 and cuda:1, 8 threads each`."""
    names = [slot.name for slot in slots]
    shown = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    threads = slots[0].threads
    return f"{shown}, {threads} thread{'' if threads == 1 else 's'}{' each' if len(names) > 1 else ''}"
