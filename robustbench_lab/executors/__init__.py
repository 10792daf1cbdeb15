"""Where work units are evaluated: one interface, any number of places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from robustbench_lab.catalog import Catalog
from robustbench_lab.evaluate_cell import EvaluationOptions
from robustbench_lab.records import UnitRecord, WorkUnit
from robustbench_lab.run_observer import RunObserver


@dataclass(frozen=True)
class ExecutionContext:
    """What an executor needs beside the units."""

    catalog: Catalog
    devices: tuple[str, ...]
    options: EvaluationOptions
    observers: Sequence[RunObserver]


class Executor(Protocol):
    """Evaluates work units and hands their records back as they end."""

    @property
    def name(self) -> str: ...

    def run(self, units: Iterable[WorkUnit], context: ExecutionContext) -> Iterator[UnitRecord]:
        """One record for each unit, in any order. A unit that fails gives a record that says so.

        `units` is read only as far as there is room: it leaves out units that are no longer needed.
        """
        ...
