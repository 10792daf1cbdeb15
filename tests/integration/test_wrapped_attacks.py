"""Attacks of other libraries run through the same problem, counter and audit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_lab.attack_audit import audit_attack
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.component_syntax import parse_component
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.plugin_loading import load_plugins
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models import L1, L2, Linf

SAMPLES, STEPS = 30, 10
BALLS = {"linf": Linf(eps=0.1), "l2": L2(eps=0.6), "l1": L1(eps=2.0)}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.from_plugins(load_plugins())


def setting(norm: str, objective: Objective) -> ProblemSetting:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).eval().requires_grad_(False)
    clean = torch.rand(SAMPLES, 1, 4, 4)
    prediction = model(clean)
    labels = prediction.argmax(1)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=BALLS[norm],
        clean=clean,
        goal=objective.prepare(prediction, labels),
        open=torch.arange(SAMPLES) >= 5,
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "wrapped", [str(one) for one in range(SAMPLES)], torch.device("cpu")),
        batch_size=8,
    )


WRAPPED = [
    ("foolbox:LinfPGD(steps=10, rel_stepsize=0.25)", "linf", STEPS),
    ("foolbox:L2PGD(steps=10, rel_stepsize=0.25)", "l2", STEPS),
    ("foolbox:L1PGD(steps=10, rel_stepsize=0.25)", "l1", STEPS),
    ("foolbox:LinfFastGradientAttack", "linf", 1),
    ("foolbox:L2FastGradientAttack", "l2", 1),
    ("art:ProjectedGradientDescent(max_iter=10)", "linf", STEPS),
    ("art:ProjectedGradientDescent(max_iter=10)", "l2", STEPS),
    ("art:ProjectedGradientDescent(max_iter=10)", "l1", STEPS),
]


@pytest.mark.parametrize(("text", "norm", "steps"), WRAPPED)
def test_a_wrapped_attack_passes_the_audit_and_is_counted(catalog: Catalog, text: str, norm: str, steps: int) -> None:
    given = setting(norm, Untargeted())
    problem = AttackProblem(given)
    catalog.build("attacks", catalog.resolve("attacks", parse_component(text)), problem)
    audit = audit_attack(problem, given, given.model, passes=1)
    attacked = SAMPLES - 5
    assert audit.findings == ()
    assert 0 < audit.outcomes.robust.sum() < attacked or norm == "linf"
    assert not audit.outcomes.robust[5:].all()
    assert problem.counted_model.backward_passes == steps * attacked
    assert problem.counted_model.forward_passes >= (steps + 1) * attacked


def test_every_wrapped_attack_of_the_catalog_is_tested_here(catalog: Catalog) -> None:
    wrapped = {entry.spec.name for entry in catalog.entries("attacks") if ":" in entry.spec.name}
    assert wrapped == {parse_component(text).name for text, _, _ in WRAPPED}


@pytest.mark.parametrize("text", ["foolbox:LinfPGD(steps=20)", "art:ProjectedGradientDescent(max_iter=20)"])
def test_a_targeted_objective_reaches_the_library(catalog: Catalog, text: str) -> None:
    given = setting("linf", Targeted(target="second"))
    problem = AttackProblem(given)
    catalog.build("attacks", catalog.resolve("attacks", parse_component(text)), problem)
    reached = given.model(problem.candidates).argmax(1) == given.goal
    assert reached[problem.claimed].all()
    assert problem.claimed.any()
