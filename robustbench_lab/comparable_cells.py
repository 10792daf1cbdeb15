"""Which cells stand in one table of a leaderboard, and which in one row of it."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lab.provenance import content_hash
from robustbench_lab.records import Cell, ResolvedComponent


@dataclass(frozen=True)
class ComponentName:
    """What a leaderboard needs to know of a component."""

    name: str
    label: str
    identity: str


@dataclass(frozen=True)
class RowSubject:
    """What the cells of a row have in common: one defended model in one table. They differ in attack and seed."""

    task: str
    model: ComponentName
    defense: ComponentName
    dataset: ComponentName
    objective: ComponentName
    threat_model: ComponentName
    norm: str | None
    eps: float
    adversary: str
    sample_set: str
    """Identity of the samples."""
    samples: int
    """How many."""

    @property
    def table(self) -> tuple[object, ...]:
        """Rows with the same key may be compared: same samples, threat model, objective and kind of adversary."""
        budget = (self.threat_model.label, self.norm, self.eps)
        return (self.task, self.dataset.label, self.sample_set, *budget, self.objective.label, self.adversary)

    @property
    def defended_model(self) -> tuple[str, str]:
        """What tells it from the other rows of its table."""
        return (self.model.identity, self.defense.identity)

    @property
    def key(self) -> tuple[object, ...]:
        """The same for cells of one row, and for no others."""
        return (*self.table, *self.defended_model)

    @property
    def row_id(self) -> str:
        """The key as 64 hex digits."""
        return content_hash(self.key)


def subject_of(cell: Cell) -> RowSubject:
    """What the row of a cell is about."""
    return RowSubject(
        task=cell.task,
        model=_name(cell.model),
        defense=_name(cell.defense),
        dataset=_name(cell.dataset),
        objective=_name(cell.objective),
        threat_model=_name(cell.threat_model),
        norm=cell.norm,
        eps=cell.eps,
        adversary=cell.adversary,
        sample_set=cell.samples.identity,
        samples=len(cell.samples.sample_ids),
    )


def _name(component: ResolvedComponent) -> ComponentName:
    return ComponentName(component.name, component.label, component.identity)
