"""What an attack problem is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, Region, Task, ThreatModel
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.sample_trees import take
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.threat_models.masked_region import masked
from robustbench_lab.threat_models.norm_balls import unlimited

Progress = Callable[[int, int, int], None]
"""Called with (unbroken samples, forward passes, backward passes), often."""
Candidate = bool | Tensor
"""Whether queried inputs are candidates: all, none, or a bool tensor `[A]`."""


@dataclass(frozen=True)
class ProblemSetting:
    """The samples of a work unit, N of them, with the model and the rules."""

    model: nn.Module
    """What the adversary attacks: on its device, in eval mode, parameters without gradient."""
    objective: Objective
    threat_model: ThreatModel
    clean: Tensor
    """`[N, ...]` on the model's device."""
    goal: Any
    """What `objective.prepare` returned."""
    open: Tensor
    """Bool `[N]`: the samples to attack; the others were wrong from the start, or nobody may change them."""
    bounds: Bounds
    rng: SampleRng
    batch_size: int
    minimum_norm: bool = False
    """The attack looks for the nearest adversarial input, whatever the budget."""
    eot: int = 1
    """Forward passes averaged in one query: more than 1 on randomized models."""
    exact: nn.Module | None = None
    """Where `model` computes in less than float32: the same in float32, which each success is confirmed by."""
    task: Task = field(default_factory=Classification)
    targets: Any = None
    """The samples' own, for the task's measures and for what a threat model binds to objects."""
    attackable: Tensor | None = None
    """Bool `[N, ...]`, broadcasts to the inputs: where the adversary can change values at all. None: everywhere."""
    shared: bool = False
    """`ThreatModelSpec.shared`: what an admissible candidate does to its sample counts, be it less than nothing."""
    right: Tensor | None = None
    """Bool `[N]`: the samples that are right without attack. None: those in `open`."""
    clean_measure: Mapping[str, Tensor] = field(default_factory=dict)
    """`Task.measure` of the clean inputs, and the objective's `damage` `[N]`, below which no candidate counts; empty
    for tasks that measure nothing."""

    @property
    def intact(self) -> Tensor:
        """Bool `[N]`: the samples that are right without attack."""
        return self.open if self.right is None else self.right

    def around(self, threat_model: ThreatModel, index: Tensor | None = None) -> Region:
        """A threat model's region around all samples, or around those at `index`.

        Clean inputs are copied where there is an index: an attack that overwrites them must not change those that the
        audit holds its results against.
        """
        if index is None:
            clean, targets, attackable = self.clean, self.targets, self.attackable
        else:
            clean = self.clean.index_select(0, index)
            targets = None if self.targets is None else take(self.targets, index)
            attackable = None if self.attackable is None else self.attackable.index_select(0, index)
        region = threat_model.around(clean, self.bounds, targets)
        return region if attackable is None else masked(region, attackable)

    @property
    def searched(self) -> ThreatModel:
        """Where candidates may lie: the threat model, for minimum-norm attacks without its budget."""
        if not self.minimum_norm:
            return self.threat_model
        return unlimited(self.threat_model)
