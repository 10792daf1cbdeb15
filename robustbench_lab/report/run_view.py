"""A run at work as lines of text: for the live view of `rbl run`, and for `rbl status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_lab.hardware.gpus import Gpu
from robustbench_lab.report.formatting import (
    ABSENT,
    count_text,
    duration_text,
    eps_text,
    memory_text,
    printable,
    shorten,
)

Document = Mapping[str, Any]
"""What `RunState.document` gives, or a slot in it."""
LEAST_NAME = 24
"""Columns for what runs, before others are left out."""
GAP = "  "


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    text: Callable[[Document, Gpu | None], str]
    rank: int
    """The highest goes first where there is little room."""


def slot_lines(state: Document, gpus: Mapping[str, Gpu], width: int, most: int) -> list[str]:
    """One line for each slot, below a heading; `most` lines in all, of the busy slots first. gpus: by device."""
    slots = state["slots"]
    shown = slots
    if len(slots) > most - 1:
        shown = sorted(slots, key=lambda slot: slot["work"] is None)[: max(most - 2, 1)]
    names = max(len(name) for name in ("slot", *(slot["slot"] for slot in shown)))
    on_gpus = any(slot["device"] in gpus for slot in shown)
    columns = _columns_that_fit((*_COLUMNS, *_GPU_COLUMNS) if on_gpus else _COLUMNS, width - names)
    room = max(width - names - sum(len(GAP) + one.width for one in columns) - len(GAP), 1)
    heading = GAP.join(["slot".ljust(names), "runs".ljust(room), *(one.title.rjust(one.width) for one in columns)])
    lines = [heading]
    for slot in shown:
        values = (one.text(slot, gpus.get(slot["device"])).rjust(one.width) for one in columns)
        lines.append(GAP.join([slot["slot"].ljust(names), shorten(work_name(slot["work"]), room).ljust(room), *values]))
    if len(shown) < len(slots):
        lines.append(f"… and {len(slots) - len(shown)} more slots")
    return [line.rstrip()[:width] for line in lines]


def run_line(state: Document) -> str:
    """`12 of 48 cells done, 1 failed, 3 stored before; 12 min left; 23,456 passes/s`."""
    done = state["to_do"] - state["left"]
    counts = [f"{done:,} of {state['to_do']:,} cells done"]
    counts += [f"{state[name]:,} {name}" for name in ("failed", "skipped") if state[name]]
    if found := state.get("found"):  # a run of an older rbl has none
        counts.append(f"{found:,} by other runs")
    if state["stored"]:
        counts.append(f"{state['stored']:,} stored before")
    parts = [", ".join(counts)]
    if state["seconds_left"] is not None:
        parts.append(f"{duration_text(state['seconds_left'])} left")
    parts.append(f"{state['passes_per_second']:,.0f} passes/s")
    if state["retries"]:
        parts.append(f"{state['retries']} unit{'' if state['retries'] == 1 else 's'} retried")
    if waiting := state.get("waiting"):
        parts.append(f"waits for {count_text(waiting, 'cell')} of other runs")
    if state["stopping"]:
        parts.append(f"stopping: {printable(state['stopping'])}")
    return "; ".join(parts)


def busy_line(state: Document) -> str:
    """`slots busy 97% of 12 min (cuda:0 98%, cuda:1 96%); 120 units, 2 retried`."""
    shares = [slot["busy_share"] for slot in state["slots"]]
    mean = sum(shares) / len(shares) if shares else 0.0
    if len(shares) == 1:
        slots = state["slots"][0]["slot"]
    elif len(shares) <= 8:
        slots = ", ".join(f"{slot['slot']} {slot['busy_share']:.0%}" for slot in state["slots"])
    else:
        slots = f"{len(shares)} slots, {min(shares):.0%} to {max(shares):.0%}"
    units = f"{state['units']:,} unit{'' if state['units'] == 1 else 's'}"
    retried = f", {state['retries']:,} retried" if state["retries"] else ""
    return f"busy {mean:.0%} of {duration_text(state['seconds'])} ({slots}); {units}{retried}"


def work_name(work: Document | None) -> str:
    """`pgd · digits-cnn · digits · linf 8/255`."""
    if work is None:
        return "waits"
    model = work["model"] if work["defense"] == "none" else f"{work['model']} + {work['defense']}"
    budget = f"{work['threat_model'].partition('(')[0]} {eps_text(work['eps'])}"
    return " · ".join(printable(part) for part in (work["attack"], model, work["dataset"], budget))


def _columns_that_fit(columns: Sequence[_Column], width: int) -> list[_Column]:
    kept = list(columns)
    while kept and width - sum(len(GAP) + one.width for one in kept) - len(GAP) < LEAST_NAME:
        kept.remove(max(kept, key=lambda one: one.rank))
    return kept


def _samples(slot: Document, _gpu: Gpu | None) -> str:
    work = slot["work"]
    return f"{work['stop'] - work['start']:,}" if work else ""


def _robust(slot: Document, _gpu: Gpu | None) -> str:
    """Of the unit's samples, those that are not broken so far."""
    work = slot["work"]
    if not work or work["unbroken"] is None:
        return ""
    return f"{work['unbroken'] / (work['stop'] - work['start']):.1%}"


def _speed(slot: Document, _gpu: Gpu | None) -> str:
    work = slot["work"]
    return f"{work['passes'] / work['seconds']:,.0f}" if work and work["passes"] and work["seconds"] > 0 else ""


def _time(slot: Document, _gpu: Gpu | None) -> str:
    return duration_text(slot["work"]["seconds"]) if slot["work"] else ""


def _busy(slot: Document, _gpu: Gpu | None) -> str:
    return f"{slot['busy_share']:.0%}"


def _memory(_slot: Document, gpu: Gpu | None) -> str:
    return f"{memory_text(gpu.memory - gpu.free)} of {memory_text(gpu.memory)}" if gpu else ""


def _use(_slot: Document, gpu: Gpu | None) -> str:
    if gpu is None:
        return ""
    return ABSENT if gpu.use is None else f"{gpu.use:.0%}"


_COLUMNS = (
    _Column("samples", 7, _samples, 4),
    _Column("robust", 6, _robust, 1),
    _Column("passes/s", 10, _speed, 2),
    _Column("for", 6, _time, 5),
    _Column("busy", 4, _busy, 3),
)
_GPU_COLUMNS = (_Column("memory", 20, _memory, 6), _Column("GPU", 4, _use, 2))
