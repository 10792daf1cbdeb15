"""What evaluating samples of a cell will take, from what like cells took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.result_store import CellTiming

GUESSED_PASSES = 100.0
"""Passes a sample takes in an attack that cannot tell, and of which nothing has ended yet."""
GUESSED_VALUES = 3072
"""Numbers in one input (a CIFAR image), where that is not known."""
GUESSED_SECONDS = {"cpu": 2e-7}
"""Of one pass of one input, for each of its numbers, where nothing has been measured. The bundled networks lie between
5e-8 and 1e-6 on one CPU core."""
GUESSED_SECONDS_ELSEWHERE = 1e-8


@dataclass
class _Ratio:
    """A sum of something over a sum of what it is counted in."""

    amount: float = 0.0
    of: float = 0.0

    def value(self) -> float | None:
        return self.amount / self.of if self.of else None


@dataclass
class UnitCosts:
    """Expected seconds of work units on one kind of device; corrected by every unit that ends.

    What like cells took (same model, defense, data, attack and threat model), by the sample. Otherwise the passes of
    the attack times the seconds of a pass: measured on the same model and data, in units that have ended, else in one
    that runs; else on the same model, else on any, and by the size of the inputs; else guessed.
    """

    kind: str
    """`cpu`, `cuda`: timings of other kinds of device say nothing."""
    input_values: Mapping[str, int] = field(default_factory=dict)
    """Label of a dataset to the numbers in one of its inputs; absent where that is not known."""
    surprises: int = 0
    """How often something was measured that had been guessed until then, and may be far from it."""
    _sample_seconds: dict[Hashable, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    _pass_seconds: dict[Hashable, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    _running_seconds: dict[Hashable, float] = field(default_factory=dict)
    _model_seconds: dict[Hashable, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    """Of a pass, for each number in its input."""
    _value_seconds: _Ratio = field(default_factory=_Ratio)
    """The same, of all models."""
    _passes: dict[Hashable, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))

    def learn(self, timings: Iterable[CellTiming]) -> None:
        """What is stored of earlier runs."""
        for one in timings:
            if one.device.partition(":")[0] == self.kind:
                place = (one.model, one.defense, one.dataset)
                self._add(place, one.attack, one.threat_model, one.seconds, one.samples, one.passes)

    def observe(self, cell: Cell, record: UnitRecord) -> None:
        """A unit of a cell has ended. Failed and skipped ones say nothing."""
        if record.status is Status.OK and record.device.partition(":")[0] == self.kind:
            passes = record.forward_passes + record.backward_passes
            samples = record.stop - record.start
            self.surprises += not (self.knows_pass(cell) and self._knows_passes(cell))
            self._add(_place(cell), cell.attack.label, cell.threat_model.label, record.wall_seconds, samples, passes)

    def glimpse(self, cell: Cell, seconds: float, passes: float) -> None:
        """Passes of a unit that still runs: they count until one of this model on these data has ended."""
        self.surprises += 1
        self._running_seconds[_place(cell)] = seconds / passes

    def knows_pass(self, cell: Cell) -> bool:
        """Whether a pass was measured on a cell's own model and data."""
        same = self._pass_seconds.get(_place(cell))
        return _place(cell) in self._running_seconds or (same is not None and same.value() is not None)

    def seconds(self, unit: WorkUnit) -> float:
        """Expected for a unit."""
        return (unit.stop - unit.start) * self.seconds_per_sample(unit.cell)

    def seconds_per_sample(self, cell: Cell) -> float:
        """Expected for a sample of a cell."""
        like = self._sample_seconds.get((*_place(cell), cell.attack.label, cell.threat_model.label))
        if like and (known := like.value()) is not None:
            return known
        return self._passes_of(cell) * self._pass_seconds_of(cell)

    def _knows_passes(self, cell: Cell) -> bool:
        return cell.attack.label in self._passes or cell.estimated_forward + cell.estimated_backward > 0

    def _passes_of(self, cell: Cell) -> float:
        seen = self._passes.get(cell.attack.label)
        measured = seen.value() if seen else None
        return measured or cell.estimated_forward + cell.estimated_backward or GUESSED_PASSES

    def _pass_seconds_of(self, cell: Cell) -> float:
        same = self._pass_seconds.get(_place(cell))
        if same and (known := same.value()) is not None:
            return known
        if running := self._running_seconds.get(_place(cell)):
            return running
        elsewhere = self._model_seconds.get(cell.model.label)
        measured = (elsewhere.value() if elsewhere else None) or self._value_seconds.value()
        guess = GUESSED_SECONDS.get(self.kind, GUESSED_SECONDS_ELSEWHERE)
        return (measured or guess) * self._values(cell.dataset.label)

    def _values(self, dataset: str) -> int:
        return self.input_values.get(dataset, GUESSED_VALUES)

    def _add(
        self, place: tuple[str, ...], attack: str, threat_model: str, seconds: float, samples: int, passes: float
    ) -> None:
        ratios = [
            (self._sample_seconds[*place, attack, threat_model], seconds, samples),
            (self._passes[attack], passes, samples),
            (self._pass_seconds[place], seconds, passes),
            (self._model_seconds[place[0]], seconds, passes * self._values(place[2])),
            (self._value_seconds, seconds, passes * self._values(place[2])),
        ]
        for ratio, amount, of in ratios:
            ratio.amount += amount
            ratio.of += of


def _place(cell: Cell) -> tuple[str, ...]:
    return cell.model.label, cell.defense.label, cell.dataset.label
