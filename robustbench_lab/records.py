"""Frozen records that the stages hand each other. No torch here: reading results must stay cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate


class Status(StrEnum):
    """How a cell ended. Only `ok` has metrics."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


class Verdict(StrEnum):
    """Whether the attack was able to work, as far as the diagnostics can tell."""

    RELIABLE = "reliable"
    SUSPECT = "suspect"
    FAILED = "failed"


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    SUSPECT = "suspect"
    """The number stands, but may be too high."""
    FATAL = "fatal"
    """No number can be had (preflight), or it means nothing (diagnostics)."""


@dataclass(frozen=True)
class Share:
    """Evidence that only all samples of a cell together can be judged by: sums over samples, which units can add."""

    total: float
    samples: int
    limit: float
    """Of total / samples, above which it counts as `above`, otherwise as `below`."""
    above: Severity
    below: Severity | None
    """None: it is no finding then."""
    more_than: float = 0.0
    """A total that is not above this never counts as `above`."""

    @property
    def severity(self) -> Severity | None:
        """What the samples so far say."""
        return self.above if self.total > max(self.limit * self.samples, self.more_than) else self.below


@dataclass(frozen=True)
class Finding:
    """One thing that a check found, with its evidence."""

    code: str
    """Stable and short, such as `zero-gradient`: what flags and filters use."""
    severity: Severity
    message: str
    """One line for a person."""
    value: float | None = None
    """How many samples it concerns, where it concerns single samples: the values of a cell's units are added. A finding
    with a share and a value of 0 is no finding, and counts in the sums of others."""
    share: Share | None = None
    """Decides the severity when a cell closes."""

    @property
    def line(self) -> str:
        """The message, with the number of samples where there is one."""
        if self.value is None:
            return self.message
        return f"{self.message} ({self.value:.0f} sample{'' if self.value == 1 else 's'})"


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding as plain values; `share` only where there is one."""
    values = asdict(finding)
    return values if finding.share else {name: value for name, value in values.items() if name != "share"}


def finding_of(values: Mapping[str, Any]) -> Finding:
    """What `finding_json` was given."""
    share = values.get("share")
    if share:
        below = share["below"] and Severity(share["below"])
        share = Share(**{**share, "above": Severity(share["above"]), "below": below})
    return Finding(values["code"], Severity(values["severity"]), values["message"], values["value"], share)


MINIMUM_NORM = "minimum-norm"
"""Code of the finding that marks results whose distances hold beyond the budget: see `CellRecord.minimum_norm`."""


CANCELLED = "cancelled"
"""Reason of cells that were skipped on request: `--retry-failed` evaluates them."""


@dataclass(frozen=True)
class ResolvedComponent:
    """A component as it enters a cell: complete parameters, and what identifies its contents."""

    name: str
    label: str
    """As the user wrote it, normalised: `pgd(steps=50)`."""
    params: Mapping[str, Any]
    """All parameters, defaults included."""
    plugin: str
    version: str
    identity: str
    """Hash of name, parameters (files by their contents) and version."""


@dataclass(frozen=True)
class SampleSet:
    """The samples of a dataset that a cell is about."""

    dataset_revision: str
    sample_ids: tuple[str, ...]
    indices: tuple[int, ...]
    identity: str


@dataclass(frozen=True)
class Cell:
    """One model x defense x dataset x attack x objective x threat model x seed."""

    cell_id: str
    task: str
    model: ResolvedComponent
    defense: ResolvedComponent
    dataset: ResolvedComponent
    attack: ResolvedComponent
    objective: ResolvedComponent
    threat_model: ResolvedComponent
    norm: str | None
    eps: float
    adversary: str
    """`adaptive`: attacks through the defense. `oblivious`: on the bare model. `transfer(model='...')`: on another."""
    seed: int
    samples: SampleSet
    estimated_forward: int
    """Passes a sample takes at most, where the attack can tell; otherwise 0."""
    estimated_backward: int


@dataclass(frozen=True)
class WorkUnit:
    """A slice of a cell's samples, evaluated at once on one device."""

    cell: Cell
    start: int
    stop: int


@dataclass(frozen=True)
class Outcomes:
    """What became of each sample. All arrays have length N, in the order of the cell's sample set.

    They cannot be written to: metrics and observers of plugins see them before and while they are stored.
    """

    clean_correct: NDArray[np.bool_]
    robust: NDArray[np.bool_]
    """Right without attack, and no admissible attack broke it."""
    distance: NDArray[np.float32]
    """Of the adversarial input that broke it, in the threat model's norm; NaN where none did, 0 where it was wrong
    from the start. A minimum-norm attack gives it beyond the budget, too, where the sample counts as robust."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """More numbers per sample, by the task."""

    def __post_init__(self) -> None:
        for name in ("clean_correct", "robust", "distance"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        columns = {name: _read_only(column) for name, column in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))

    def __reduce__(self) -> tuple[Any, ...]:
        """Arrays that come from another process can be written to; made anew, they cannot."""
        return Outcomes, (self.clean_correct, self.robust, self.distance, dict(self.columns))

    def __len__(self) -> int:
        return len(self.robust)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view: what the caller holds stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class UnitRecord:
    """What evaluating a work unit gave."""

    cell_id: str
    start: int
    stop: int
    status: Status
    reason: str | None
    outcomes: Outcomes | None
    forward_passes: int
    """Summed over samples."""
    backward_passes: int
    wall_seconds: float
    findings: tuple[Finding, ...]
    device: str
    batch_size: int
    artifact: bytes | None = None
    """Adversarial inputs as safetensors, where they were asked for."""
    memory_share: float = 0.0
    """Of the device's memory, at most; 0 where it is not known. Not stored: it is for the units that follow."""
    memory_ran_out: bool = False
    """`batch_size` is what worked after that. Not stored either."""


def without_result(unit: WorkUnit, reason: str, device: str, seconds: float = 0.0) -> UnitRecord:
    """The record of a unit that failed before, or outside of, its evaluation."""
    return UnitRecord(
        cell_id=unit.cell.cell_id,
        start=unit.start,
        stop=unit.stop,
        status=Status.FAILED,
        reason=reason,
        outcomes=None,
        forward_passes=0,
        backward_passes=0,
        wall_seconds=seconds,
        findings=(),
        device=device,
        batch_size=0,
    )


@dataclass(frozen=True)
class CellRecord:
    """One stored result."""

    cell: Cell
    status: Status
    reason: str | None
    metrics: Mapping[str, Estimate]
    outcomes: Outcomes | None
    forward_per_sample: float | None
    backward_per_sample: float | None
    wall_seconds: float
    verdict: Verdict | None
    findings: tuple[Finding, ...]
    device: str
    batch_size: int
    executor: str

    @property
    def minimum_norm(self) -> bool:
        """Whether the attack looked for the nearest adversarial input, whatever the budget."""
        return any(finding.code == MINIMUM_NORM for finding in self.findings)
