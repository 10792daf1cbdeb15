"""Every hook a plugin can implement, on one page.

A hook returns a list of specs (see contracts.py). Specs are cheap: they name their factory as a string, so that
listing plugins imports no heavy library. Nothing depends on the order in which plugins are called.

    from robustbench_lab import hookimpl

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="mine", factory="my_package.mine:mine", threat_models=("linf",))]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from robustbench_lab.contracts import (
    AttackSpec,
    CommandSpec,
    DatasetSpec,
    DefenseSpec,
    ExecutorSpec,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    ReportSpec,
    TaskSpec,
    ThreatModelSpec,
)

if TYPE_CHECKING:
    from robustbench_lab.run_observer import RunObserver

PROJECT = "rbl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rbl_models() -> list[ModelSpec]:
    """Models: factories of `torch.nn.Module`."""


@hookspec
def rbl_datasets() -> list[DatasetSpec]:
    """Datasets, or loaders for a user's own files."""


@hookspec
def rbl_attacks() -> list[AttackSpec]:
    """Attacks: functions of an `AttackProblem`."""


@hookspec
def rbl_defenses() -> list[DefenseSpec]:
    """Defenses: functions from a model to the defended model."""


@hookspec
def rbl_tasks() -> list[TaskSpec]:
    """Tasks: what a prediction and a target are, and when a sample is broken."""


@hookspec
def rbl_objectives() -> list[ObjectiveSpec]:
    """Objectives: what an adversary maximises, for one or more tasks."""


@hookspec
def rbl_threat_models() -> list[ThreatModelSpec]:
    """Threat models: what an adversary may do."""


@hookspec
def rbl_metrics() -> list[MetricSpec]:
    """Metrics of a finished cell, from its per-sample outcomes."""


@hookspec
def rbl_executors() -> list[ExecutorSpec]:
    """Executors: where work units are evaluated."""


@hookspec
def rbl_reports() -> list[ReportSpec]:
    """Text formats of a leaderboard, for `rbl leaderboard --format`."""


@hookspec
def rbl_commands() -> list[CommandSpec]:
    """Further commands of `rbl`."""


@hookspec
def rbl_run_observers() -> list[RunObserver]:
    """Observers of a run, called in the scheduler's process. One that raises is dropped with a warning and stops
    nothing else.
    """
