"""Attacks of other libraries run through the same problem, counter and audit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.contracts import Access, AttackSpec, Bounds, Objective
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.global_randomness import seeded
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L0, L1, L2, Linf

SAMPLES, STEPS = 30, 10
BALLS = {"linf": Linf(eps=0.1), "l2": L2(eps=0.6), "l1": L1(eps=2.0), "l0": L0(eps=4)}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.from_plugins(load_plugins())


def setting(norm: str, objective: Objective, *, minimum_norm: bool = False, classes: int = 4) -> ProblemSetting:
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, classes)).eval().requires_grad_(False)
    )
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
        minimum_norm=minimum_norm,
    )


def run_attack(catalog: Catalog, text: str, given: ProblemSetting) -> AttackProblem:
    problem = AttackProblem(given)
    with seeded("wrapped"):
        catalog.build("attacks", catalog.resolve("attacks", parse_component(text)), problem)
    return problem


def spec_of(catalog: Catalog, text: str) -> AttackSpec:
    name = parse_component(text).name
    return next(entry.spec for entry in catalog.entries("attacks") if entry.spec.name == name)


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

WITHIN_BUDGET = [
    ("art:AutoProjectedGradientDescent(max_iter=10)", "linf"),
    ("art:AutoProjectedGradientDescent(max_iter=10)", "l2"),
    ("art:AutoProjectedGradientDescent(max_iter=10)", "l1"),
    ("art:AutoProjectedGradientDescent(max_iter=10, loss_type='difference_logits_ratio')", "linf"),
    ("art:SquareAttack(p_init=0.3)", "linf"),
]
"""More attacks within a budget: they stop by themselves, so their passes have no closed form."""

BRENDEL_BETHGE = [
    ("foolbox:L0BrendelBethgeAttack(steps=50)", "l0"),
    ("foolbox:L1BrendelBethgeAttack(steps=50)", "l1"),
    ("foolbox:L2BrendelBethgeAttack(steps=50)", "l2"),
    ("foolbox:LinfinityBrendelBethgeAttack(steps=50)", "linf"),
]
"""They need numba, and compile for a minute."""

NEAREST = [
    ("foolbox:L2DeepFoolAttack", "l2", 0.95),
    ("foolbox:LinfDeepFoolAttack", "linf", 0.95),
    ("foolbox:L2CarliniWagnerAttack(steps=30, binary_search_steps=5, stepsize=0.05)", "l2", 0.95),
    ("foolbox:EADAttack(steps=50)", "l1", 0.95),
    ("foolbox:DDNAttack(steps=30)", "l2", 0.95),
    ("foolbox:L0FMNAttack(steps=30)", "l0", 0.95),
    ("foolbox:L1FMNAttack(steps=30)", "l1", 0.5),
    ("foolbox:HopSkipJumpAttack(steps=2)", "l2", 0.95),
    ("foolbox:HopSkipJumpAttack(steps=2)", "linf", 0.95),
    ("foolbox:BoundaryAttack(steps=150)", "l2", 0.95),
    ("art:SimBA(max_iter=100)", "l2", 0.95),
    ("art:SimBA(max_iter=100, attack='px')", "l2", 0.95),
    ("art:HopSkipJump(max_iter=2)", "l2", 0.95),
    ("art:HopSkipJump(max_iter=2)", "linf", 0.95),
    ("art:BoundaryAttack(max_iter=15)", "l2", 0.95),
    ("art:SignOPTAttack(query_limit=60, num_trial=5, k=5)", "l2", 0.6),
]
"""Attacks without a budget, with the share of samples for which they find an adversarial input at all."""


@pytest.mark.parametrize(("text", "norm", "steps"), WRAPPED)
def test_a_wrapped_attack_passes_the_audit_and_is_counted(catalog: Catalog, text: str, norm: str, steps: int) -> None:
    given = setting(norm, Untargeted())
    problem = AttackProblem(given)
    catalog.build("attacks", catalog.resolve("attacks", parse_component(text)), problem)
    audit = audit_attack(problem, given, given.model, passes=1)
    attacked = SAMPLES - 5
    assert audit.problems == ()
    assert 0 < audit.outcomes.robust.sum() < attacked or norm == "linf"
    assert not audit.outcomes.robust[5:].all()
    assert problem.counted_model.backward_passes == steps * attacked
    assert problem.counted_model.forward_passes >= (steps + 1) * attacked


def test_every_wrapped_attack_of_the_catalog_is_tested_here(catalog: Catalog) -> None:
    wrapped = {entry.spec.name for entry in catalog.entries("attacks") if ":" in entry.spec.name}
    tested = {parse_component(text).name for text, *_ in (*WRAPPED, *WITHIN_BUDGET, *NEAREST, *BRENDEL_BETHGE)}
    assert wrapped == tested


@pytest.mark.parametrize(("text", "norm"), WITHIN_BUDGET)
def test_a_wrapped_attack_within_a_budget_breaks_samples(catalog: Catalog, text: str, norm: str) -> None:
    given = setting(norm, Untargeted())
    problem = run_attack(catalog, text, given)
    audit = audit_attack(problem, given, given.model, passes=1)
    assert audit.problems == ()
    assert not audit.outcomes.robust[5:].all()
    assert problem.counted_model.forward_passes > SAMPLES
    assert (problem.counted_model.backward_passes == 0) == (spec_of(catalog, text).access != Access.GRADIENTS)


def is_nearer_than_noise(problem: AttackProblem, given: ProblemSetting) -> bool:
    noise = AttackProblem(given)
    for draw in range(20):
        noise.submit(noise.uniform(str(draw)))
    found = problem.nearest().isfinite()
    return bool(problem.nearest()[found].median() < 0.8 * noise.nearest()[found].median())


@pytest.mark.parametrize(("text", "norm", "share"), NEAREST)
def test_a_wrapped_attack_without_a_budget_finds_inputs_nearer_than_noise(
    catalog: Catalog, text: str, norm: str, share: float
) -> None:
    given = setting(norm, Untargeted(), minimum_norm=True)
    problem = run_attack(catalog, text, given)
    audit = audit_attack(problem, given, given.model, passes=1)
    # Some of their inputs lie so close to the boundary that rounding may decide.
    assert {finding.code for finding in audit.problems} <= {"unconfirmed-success"}
    assert problem.claimed[5:].float().mean() >= share
    assert is_nearer_than_noise(problem, given)
    assert (problem.counted_model.backward_passes == 0) == (spec_of(catalog, text).access != Access.GRADIENTS)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "norm"), BRENDEL_BETHGE)
def test_the_attacks_that_need_numba_find_inputs_nearer_than_noise(catalog: Catalog, text: str, norm: str) -> None:
    pytest.importorskip("numba")
    given = setting(norm, Untargeted(), minimum_norm=True)
    problem = run_attack(catalog, text, given)
    audit = audit_attack(problem, given, given.model, passes=1)
    assert {finding.code for finding in audit.problems} <= {"unconfirmed-success"}
    assert problem.claimed[5:].float().mean() >= 0.9
    assert is_nearer_than_noise(problem, given)


@pytest.mark.parametrize(
    "text",
    [
        "foolbox:L2CarliniWagnerAttack(steps=30, binary_search_steps=5)",
        "foolbox:HopSkipJumpAttack(steps=1)",
        "art:BoundaryAttack(max_iter=2)",
    ],
)
def test_a_targeted_objective_reaches_an_attack_without_a_budget(catalog: Catalog, text: str) -> None:
    given = setting("l2", Targeted(target="second"), minimum_norm=True)
    problem = run_attack(catalog, text, given)
    reached = given.model(problem.candidates).argmax(1) == given.goal
    assert reached[problem.claimed].all()
    assert problem.claimed.sum() > 15


@pytest.mark.parametrize(
    ("text", "objective", "classes"),
    [
        ("foolbox:L2DeepFoolAttack", Targeted(), 4),
        ("art:SquareAttack(p_init=0.3)", Targeted(), 4),
        ("art:SignOPTAttack(query_limit=60)", Targeted(), 4),
        ("art:SignOPTAttack(query_limit=60)", Untargeted(), 2),
        ("art:SquareAttack(p_init=0.9)", Untargeted(), 4),
    ],
)
def test_what_a_wrapped_attack_cannot_do_is_said_in_one_line(
    catalog: Catalog, text: str, objective: Objective, classes: int
) -> None:
    with pytest.raises(SkipCell) as refused:
        run_attack(catalog, text, setting("l2", objective, classes=classes))
    assert "\n" not in str(refused.value)


def test_samples_without_adversarial_noise_are_left_unbroken_and_noted(catalog: Catalog) -> None:
    """A model that sees class 0 everywhere but near one corner: Foolbox itself stops with an error there."""

    class OnlyNearBlack(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1), torch.ones(len(x))], dim=1)

    zeros = torch.zeros(SAMPLES, dtype=torch.int64)
    plain = setting("l2", Untargeted(), minimum_norm=True)
    given = replace(plain, model=OnlyNearBlack().eval(), goal=zeros)
    problem = run_attack(catalog, "foolbox:BoundaryAttack(steps=3)", given)
    assert not problem.claimed.any()
    assert [note.code for note in problem.notes] == ["no-starting-point"]


@pytest.mark.parametrize("text", ["foolbox:LinfPGD(steps=20)", "art:ProjectedGradientDescent(max_iter=20)"])
def test_a_targeted_objective_reaches_the_library(catalog: Catalog, text: str) -> None:
    given = setting("linf", Targeted(target="second"))
    problem = run_attack(catalog, text, given)
    reached = given.model(problem.candidates).argmax(1) == given.goal
    assert reached[problem.claimed].all()
    assert problem.claimed.any()
