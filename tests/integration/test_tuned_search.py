"""A long search runs on a copy with folded normalisations; what it finds is judged on the model as it is."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_lab import hookimpl
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec, ModelSpec
from robustbench_lab.evaluation import evaluate_cell
from robustbench_lab.passes import memory_format
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))


def normalised_half_space() -> nn.Module:
    """A convolution and a normalisation that undo each other, before the half-space whose distances are known."""
    channels = SHAPE[0]
    conv, norm = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
    conv.weight.data = 3 * torch.eye(channels).view(channels, channels, 1, 1)
    norm.running_mean.fill_(0.6)
    norm.running_var.fill_(9 - norm.eps)
    norm.bias.data.fill_(0.2)
    return nn.Sequential(conv, norm, HalfSpace(0)).eval()


searched: list[bool] = []


def norms(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def looks(problem: AttackProblem, nearest: bool = False) -> None:
    """The best input of a linear model, after a note of whether it has normalisations."""
    searched.append(norms(problem.counted_model))
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    problem.submit(problem.project(problem.clean + problem.eps * problem.steepest(gradient, problem.clean)))


class Normalised:
    """The components of these tests."""

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        return [ModelSpec(name="normalised", factory=normalised_half_space)]

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [AttackSpec(name="looks", factory=looks), AttackSpec(name="nearest", factory=looks, minimum_norm=True)]


CATALOG = open_catalog(extra=[("lab", lab.Lab()), ("normalised", Normalised())])


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each model that success is judged on has normalisations."""
    seen: list[bool] = []
    audit = evaluate_cell.audit_candidates

    def audited(candidates: Any, claimed: Any, setting: Any, judge: nn.Module, *, passes: int) -> Any:
        seen.append(norms(judge))
        return audit(candidates, claimed, setting, judge, passes=passes)

    monkeypatch.setattr(evaluate_cell, "audit_candidates", audited)
    searched.clear()
    return seen


def run(folder: Path, **fields: Any) -> Any:
    usual: dict[str, Any] = {"models": ["normalised"], "datasets": ["near-half"], "attacks": ["looks"]}
    spec = ExperimentSpec.from_flags(**{**usual, "database": str(folder / "rbl.db"), **fields})
    return lab.only(run_experiment(spec, CATALOG))


def test_a_long_search_runs_on_folded_normalisations_and_is_judged_on_the_model_as_it_is(
    tmp_path: Path, judged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_format, "WORTH_SECONDS", 0.0)
    found = lab.outcomes(run(tmp_path))
    assert searched == [False]
    assert judged == [True]
    assert np.array_equal(found.clean_correct, lab.RIGHT)
    assert np.array_equal(found.robust, lab.RIGHT & ~lab.WITHIN_EPS)


@pytest.mark.parametrize(
    ("seconds", "fields"),
    [(1e9, {}), (0.0, {"attacks": ["nearest"]}), (0.0, {"defenses": ["noisy"]})],
    ids=["short", "minimum-norm", "randomized"],
)
def test_other_searches_run_on_the_model_itself(
    tmp_path: Path, judged: list[bool], monkeypatch: pytest.MonkeyPatch, seconds: float, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(memory_format, "WORTH_SECONDS", seconds)
    run(tmp_path, **fields)
    assert searched == [True]
    assert judged == [True]


def test_an_adversary_who_knows_another_model_searches_on_a_folded_copy_of_that_one(
    tmp_path: Path, judged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_format, "WORTH_SECONDS", 0.0)
    record = run(tmp_path, models=["half-space"], adversary=["transfer(model='normalised')"])
    assert searched == [False]
    assert judged == [False]
    assert np.array_equal(lab.outcomes(record).robust, lab.RIGHT & ~lab.WITHIN_EPS)
