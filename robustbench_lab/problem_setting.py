"""What an attack problem is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models import unlimited


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
    """Bool `[N]`: the samples to attack; the others were wrong from the start."""
    bounds: Bounds
    rng: SampleRng
    batch_size: int
    minimum_norm: bool = False
    """The attack looks for the nearest adversarial input, whatever the budget."""
    eot: int = 1
    """Forward passes averaged in one query: more than 1 on randomized models."""
    exact: nn.Module | None = None
    """Where `model` computes in less than float32: the same in float32, which each success is confirmed by."""

    @property
    def searched(self) -> ThreatModel:
        """Where candidates may lie: the threat model, for minimum-norm attacks without its budget."""
        if not self.minimum_norm:
            return self.threat_model
        return unlimited(self.threat_model)
