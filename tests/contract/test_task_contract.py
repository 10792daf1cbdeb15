"""The contract test of tasks finds the usual mistakes, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.cli.plugin_check import check_plugin
from robustbench_lab.testing.task_contract import check_task

PLUGIN = '''
"""Images of several labels."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from robustbench_lab import hookimpl
from robustbench_lab.contracts import Bounds, DatasetSpec, Estimate, MetricSpec, ModelSpec, ObjectiveSpec, Samples
from robustbench_lab.contracts import TaskSpec
from robustbench_lab.objectives import Untargeted
from robustbench_lab.tasks.classification import Classification, robust_accuracy


@dataclass(frozen=True)
class MultiLabel(Classification):
    name: str = "multilabel"
    default_objective: str = "any-label"

    def intact(self, prediction, targets):
        return ((prediction > 0) == (targets > 0.5)).all(1)

    def examine(self, kept, targets, classes):
        return []


@dataclass(frozen=True)
class Faulty(MultiLabel):
    # FAULT
    pass


@dataclass(frozen=True)
class AnyLabel(Untargeted):
    def loss(self, name, prediction, goal):
        return ((1 - 2 * goal) * prediction).amax(1)

    def succeeded(self, prediction, goal):
        return self.loss(None, prediction, goal) > 0

    def damage(self, prediction, goal):
        return self.loss(None, prediction, goal)


class Colours:
    bounds, classes, revision = Bounds(), 3, "1"
    sample_ids = [f"colours/{index}" for index in range(60)]

    def load(self, indices):
        images = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))[list(indices)]
        return Samples(images, (images.mean((2, 3)) > 0.5).float())


class Means(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) - 0.5


TASK = ("multilabel",)


@hookimpl
def rbl_tasks():
    return [TaskSpec(name="multilabel", factory=Faulty)]


@hookimpl
def rbl_objectives():
    return [ObjectiveSpec(name="any-label", factory=AnyLabel, tasks=TASK)]


@hookimpl
def rbl_datasets():
    return [DatasetSpec(name="colours", factory=Colours, tasks=TASK, default_eps=0.05)]


@hookimpl
def rbl_models():
    return [ModelSpec(name="means", factory=Means, tasks=TASK, reference_dataset="colours")]


@hookimpl
def rbl_metrics():
    return [MetricSpec(name="robust_exact_match", factory=robust_accuracy, tasks=TASK, main=True)]
'''

FAULTS = {
    'default_objective: str = "every-label"': "its default objective 'every-label' is no objective of this task",
    "name: str = 'other'": "its spec calls it 'multilabel', and it calls itself 'other'",
    "def intact(self, prediction, targets): return prediction.sum(1) >= prediction.sum(1).mean()": (
        "cut into two units a cell gives another robust_exact_match: treat every sample on its own"
    ),
    "def worst_case(self, outcomes): return outcomes[0]": "worst_case calls samples robust that an attack broke",
    "def worst_case(self, outcomes): return replace(outcomes[0], robust=~outcomes[0].robust)": (
        "worst_case of the outcomes of one attack gives others than these"
    ),
    "def worst_case(self, outcomes): return min(outcomes, key=lambda one: one.robust.sum())": (
        "worst_case must be the worst for each sample by itself, whichever attack did it"
    ),
    "def replicates(self, outcomes): return np.random.default_rng().random(9)": (
        "replicates differ from call to call: draw the same resamples for as many samples"
    ),
    "def replicates(self, outcomes): return np.zeros((3, 2))": (
        "replicates must give arrays [R] of one length for as many samples, or None always"
    ),
}


Made = Callable[[str], Catalog]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def with_fault(fault: str) -> Catalog:
        plugin = tmp_path / "multilabel.py"
        plugin.write_text(PLUGIN.replace("# FAULT", fault))
        return Catalog.from_plugins(load_plugins([str(plugin)]))

    return with_fault


def test_a_task_that_keeps_to_the_contract_has_nothing_wrong(made: Made) -> None:
    assert check_task(made("# none"), "multilabel") == []


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_what_a_task_does_wrong_is_said(made: Made, fault: str, said: str) -> None:
    found = check_task(made(fault), "multilabel")
    assert said in found


def test_a_task_whose_models_name_no_data_is_not_checked(made: Made, tmp_path: Path) -> None:
    catalog = made("# none")
    plugin = tmp_path / "multilabel.py"
    plugin.write_text(plugin.read_text().replace(', reference_dataset="colours"', ""))
    catalog = Catalog.from_plugins(load_plugins([str(plugin)]))
    (name,) = [one.name for one in catalog.plugins if one.name.endswith("multilabel.py") or one.name == "multilabel"]
    (checked,) = [one for one in check_plugin(catalog, name) if one.title == "task 'multilabel'"]
    assert (checked.state, checked.remarks) == (
        "not checked",
        ("no model of this task names a reference_dataset in its spec",),
    )
