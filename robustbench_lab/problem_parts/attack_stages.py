"""The stages of a long attack: after each, what has been found so far is kept, so that a killed attack can go on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robustbench_lab.diagnostics.optimisation_trace import OptimisationTrace
from robustbench_lab.global_randomness import global_state, restore_global_state
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.problem_parts.attack_checkpoint import AttackCheckpoint
from robustbench_lab.problem_parts.candidate_ledger import CandidateLedger
from robustbench_lab.records import Finding, finding_json, finding_of


class AttackStages:
    """Saves and restores everything an attack problem holds between two stages."""

    def __init__(
        self,
        checkpoint: AttackCheckpoint | None,
        ledger: CandidateLedger,
        trace: OptimisationTrace,
        counter: PassCounter,
        notes: list[Finding],
    ) -> None:
        """Restores them from the checkpoint, where an earlier process has left something in it."""
        self._checkpoint = checkpoint
        self._ledger, self._trace, self._counter, self._notes = ledger, trace, counter, notes
        self._finished: list[str] = []
        self._current: str | None = None
        self._resumed: dict[str, Any] | None = None
        saved = checkpoint.read(ledger.best.device) if checkpoint else None
        if saved:
            self._restore(*saved)

    def begin(self, name: str) -> bool:
        """The last stage has ended, and this one begins, unless an earlier process has finished it."""
        if name in self._finished:
            return False
        if self._resumed:
            # An attack may have queried the model on its way here, as it did before its first stage.
            self._count_from(self._resumed)
            restore_global_state(self._resumed["randomness"])
            self._resumed = None
        if self._current is not None:
            self._finished.append(self._current)
            if self._checkpoint:
                self._checkpoint.write(*self._state())
        self._current = name
        return True

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        trace_tensors, trace_facts = self._trace.state()
        tensors = {**_prefixed("ledger", self._ledger.state()), **_prefixed("trace", trace_tensors)}
        facts = {
            "finished": self._finished,
            "passes": [self._counter.forward_passes, self._counter.backward_passes],
            "notes": [finding_json(note) for note in self._notes],
            "trace": trace_facts,
            "randomness": global_state(),
        }
        return tensors, facts

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self._finished = facts["finished"]
        self._resumed = facts
        self._count_from(facts)
        self._notes.extend(finding_of(note) for note in facts["notes"])
        self._ledger.restore(_without_prefix("ledger", tensors))
        self._trace.restore(_without_prefix("trace", tensors), facts["trace"])

    def _count_from(self, facts: dict[str, Any]) -> None:
        self._counter.forward_passes, self._counter.backward_passes = facts["passes"]


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
