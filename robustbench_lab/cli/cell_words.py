"""A cell and its result in a few words, for lines of progress."""

from __future__ import annotations

from collections.abc import Collection

from robustbench_lab.records import Cell, CellRecord
from robustbench_lab.report.formatting import eps_text, printable, shorten, value_text


def cell_name(cell: Cell) -> str:
    """`pgd · digits-cnn · linf 8/255`; long labels are cut in the middle."""
    defended = cell.model.label if cell.defense.label == "none" else f"{cell.model.label} + {cell.defense.label}"
    parts = (shorten(printable(cell.attack.label), 30), shorten(printable(defended), 36), cell.threat_model.name)
    return f"{' · '.join(parts)} {eps_text(cell.eps)}"


def result_text(record: CellRecord, shares: Collection[str]) -> str:
    """What a finished cell gave, in a few words."""
    if record.reason:
        return f"{record.status.value}: {printable(record.reason)}"
    # The first two of a task are its main metric and what it is without attack.
    first = list(record.metrics.items())[:2]
    values = ", ".join(f"{name.replace('_', ' ')} {value_text(one, fraction=name in shares)}" for name, one in first)
    return f"{values} ({record.wall_seconds:.1f} s)"
