"""Which unit a free slot gets. Pure: no clock, no devices, nothing is run here."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from robustbench_lab.comparable_cells import subject_of
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, WorkUnit

Loaded = tuple[str, str]
"""What a slot has at hand for its next unit: model and dataset, by their identities."""
Table = tuple[object, ...]
"""What cells of one table of a leaderboard have in common: `RowSubject.table`."""


class Order(StrEnum):
    """Which units come first."""

    COST = "cost"
    """Long ones, so that slots finish together."""
    COVERAGE = "coverage"
    """Table by table, and of each the cheap cells, so that a whole table is there early."""


@dataclass(frozen=True)
class _Priced:
    unit: WorkUnit
    seconds: float
    """Expected."""
    position: int
    """In the plan: decides between equals."""

    @property
    def cell_seconds(self) -> float:
        """Of the unit's whole cell."""
        return self.seconds * len(self.unit.cell.samples.sample_ids) / (self.unit.stop - self.unit.start)


class _Group(NamedTuple):
    """Units between which a slot need load nothing new."""

    loaded: Loaded
    table: Table
    """Empty where tables do not count."""


class Dispatcher:
    """Gives out every unit once.

    `cost`: a slot goes on with the model and data it has loaded, their longest unit first; then it takes those of which
    most work is left for each slot at them. But a unit so long that the run would wait for it goes before all others.
    `coverage`: the table with the least work left first, so that tables are finished one after another and as early as
    can be. In it the cheapest cells; among those of like cost (within a factor of 2) those of the loaded model.
    """

    def __init__(
        self, units: Iterable[WorkUnit], seconds: Callable[[WorkUnit], float], slots: int, order: Order = Order.COST
    ) -> None:
        """seconds: what a unit is expected to take. slots: how many ask for units."""
        self._seconds = seconds
        self._slots = slots
        self._order = order
        self._loaded: dict[Slot, Loaded] = {}
        self._tables: dict[str, Table] = {}
        """By cell id."""
        self._groups: dict[_Group, list[_Priced]] = {}
        """Of each the next one last."""
        self._work: dict[_Group, float] = {}
        """Expected seconds left."""
        self._arrange(enumerate(units))

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def take(self, slot: Slot, fits: Callable[[WorkUnit], bool] = lambda _unit: True) -> WorkUnit | None:
        """The next unit for a slot. fits: whether there is room for a unit beside what runs on the slot's device."""
        for name in self._preferred(slot):
            group = self._groups[name]
            for index in reversed(range(len(group))):
                if fits(group[index].unit):
                    return self._give(slot, name, index)
        return None

    def drop(self, unneeded: Callable[[WorkUnit], bool]) -> None:
        """Forget units that are no longer needed."""
        for name, group in list(self._groups.items()):
            kept = [one for one in group if not unneeded(one.unit)]
            if len(kept) < len(group):
                self._set_group(name, kept)

    def queued(self) -> Iterator[WorkUnit]:
        """What was not given out yet."""
        return (one.unit for one in self._priced())

    def put_back(self, unit: WorkUnit) -> None:
        """A unit that was given out is to be given out again."""
        self._arrange([(-1, unit), *((one.position, one.unit) for one in self._priced())])

    def reprice(self, recut: Callable[[Sequence[WorkUnit]], Iterable[WorkUnit]] = lambda units: units) -> None:
        """Costs are better known now. recut: what is left in units of the right size, in the order of the plan."""
        left = [one.unit for one in sorted(self._priced(), key=lambda one: one.position)]
        self._arrange(enumerate(recut(left)))

    # ------------------------------------------------------------ inside

    def _priced(self) -> Iterator[_Priced]:
        return (one for group in self._groups.values() for one in group)

    def _arrange(self, units: Iterable[tuple[int, WorkUnit]]) -> None:
        priced = [_Priced(unit, self._seconds(unit), position) for position, unit in units]
        self._groups, self._work = {}, {}
        for one in priced:
            group = _Group(_loaded_by(one.unit), self._table_of(one.unit.cell))
            self._groups.setdefault(group, []).append(one)
        for name, members in list(self._groups.items()):
            self._set_group(name, sorted(members, key=self._rank, reverse=True))

    def _table_of(self, cell: Cell) -> Table:
        if self._order is Order.COST:
            return ()
        if cell.cell_id not in self._tables:
            self._tables[cell.cell_id] = subject_of(cell).table
        return self._tables[cell.cell_id]

    def _set_group(self, name: _Group, group: list[_Priced]) -> None:
        if group:
            self._groups[name], self._work[name] = group, math.fsum(one.seconds for one in group)
        else:
            self._groups.pop(name)
            self._work.pop(name)

    def _rank(self, one: _Priced) -> tuple[float, int]:
        """The smallest is next within its group."""
        return (-one.seconds if self._order is Order.COST else _magnitude(one.cell_seconds)), one.position

    def _preferred(self, slot: Slot) -> Iterator[_Group]:
        """The groups to look at, the best first.

        The others' turn comes where little memory is free, or another run has the best one's cells.
        """
        if self._order is Order.COVERAGE:
            yield from self._by_coverage(slot)
        elif self._groups:
            best = self._most_work(slot)
            yield best
            yield from [name for name in self._groups if name != best]

    def _most_work(self, slot: Slot) -> _Group:
        longest = max(self._groups, key=lambda name: self._groups[name][-1].seconds)
        if self._groups[longest][-1].seconds * self._slots >= sum(self._work.values()):
            return longest
        own = self._loaded.get(slot)
        if own and (same := _Group(own, ())) in self._groups:
            return same
        at_it = Counter(self._loaded.values())
        return max(self._groups, key=lambda name: self._work[name] / (1 + at_it[name.loaded]))

    def _by_coverage(self, slot: Slot) -> list[_Group]:
        own = self._loaded.get(slot)
        left: dict[Table, float] = defaultdict(float)
        for name, seconds in self._work.items():
            left[name.table] += seconds

        def rank(name: _Group) -> tuple[float, float, bool, int]:
            first = self._groups[name][-1]
            return left[name.table], _magnitude(first.cell_seconds), name.loaded != own, first.position

        return sorted(self._groups, key=rank)

    def _give(self, slot: Slot, name: _Group, index: int) -> WorkUnit:
        given = self._groups[name].pop(index)
        self._work[name] -= given.seconds
        if not self._groups[name]:
            self._set_group(name, [])
        self._loaded[slot] = name.loaded
        return given.unit


def _loaded_by(unit: WorkUnit) -> Loaded:
    return unit.cell.model.identity, unit.cell.dataset.identity


def _magnitude(seconds: float) -> float:
    return math.floor(math.log2(max(seconds, 1e-9)))
