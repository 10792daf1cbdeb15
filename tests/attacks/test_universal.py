"""One perturbation for all samples: the same for each, in the ball, and stronger than chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.score_based.noise import noise
from rbl_attacks.universal.universal import universal
from robustbench_lab import hookimpl
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec, Bounds, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Untargeted
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.scheduling import cutting
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.threat_models.norm_balls import L2, Linf

SAMPLES, DIMENSION = 60, 20


class Linear(nn.Module):
    """Two classes with logits (w.x, 0)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(DIMENSION, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        score = x @ self.weight
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def one_sided(model: Linear, scale: float = 0.1) -> Tensor:
    """Inputs that are all of the first class: mirrored where they are not."""
    x = scale * torch.randn(SAMPLES, DIMENSION, generator=torch.Generator().manual_seed(1))
    return torch.where((x @ model.weight > 0)[:, None], x, -x)


def setting_on(
    model: nn.Module, threat_model: ThreatModel, clean: Tensor, batch_size: int = 13, bounds: Bounds | None = None
) -> ProblemSetting:
    return ProblemSetting(
        model=model.eval(),
        objective=Untargeted(),
        threat_model=threat_model,
        clean=clean,
        goal=model(clean).argmax(1),
        open=torch.ones(len(clean), dtype=torch.bool),
        bounds=bounds or Bounds(-10, 10),
        rng=SampleRng.for_samples(0, "universal", [str(index) for index in range(len(clean))], clean.device),
        batch_size=batch_size,
    )


def attacked(setting: ProblemSetting, **params: object) -> AttackProblem:
    problem = AttackProblem(setting)
    universal(problem, **params)
    assert audit_attack(problem, setting, setting.model, passes=1).problems == ()
    return problem


@pytest.mark.parametrize(("ball", "dual", "eps"), [(Linf, 1, 0.02), (L2, 2, 0.1)])
def test_where_all_samples_are_of_one_class_it_is_as_strong_as_an_attack_on_each(
    ball: type, dual: float, eps: float
) -> None:
    model = Linear()
    clean = one_sided(model)
    reach = (clean @ model.weight) / torch.linalg.vector_norm(model.weight, ord=dual)
    problem = attacked(setting_on(model, ball(eps), clean))
    assert 0 < int(problem.claimed.sum()) < SAMPLES
    assert problem.claimed[reach < 0.98 * eps].all()
    assert not problem.claimed[reach > 1.001 * eps].any()


@pytest.mark.parametrize(("ball", "order", "eps"), [(Linf, math.inf, 0.02), (L2, 2, 0.1)])
def test_the_perturbation_is_one_and_fills_the_ball(ball: type, order: float, eps: float) -> None:
    model = Linear()
    clean = one_sided(model)
    delta = attacked(setting_on(model, ball(eps), clean)).candidates - clean
    assert torch.allclose(delta, delta[:1].expand_as(delta), atol=1e-6)
    assert float(torch.linalg.vector_norm(delta[0], ord=order)) == pytest.approx(eps, rel=1e-3)


def test_it_is_clipped_to_the_bounds_of_each_sample() -> None:
    model = Linear()
    clean = one_sided(model).clamp(0, 1)
    candidates = attacked(setting_on(model, Linf(0.3), clean, bounds=Bounds(0, 1))).candidates
    assert candidates.amin() == 0
    assert candidates.amax() <= 1
    # Of the first class are those whose w.x is above 0: every value moves against its weight.
    expected = (clean - 0.3 * model.weight.sign()).clamp(0, 1)
    assert torch.allclose(candidates, expected, atol=1e-3)


def test_a_second_run_and_another_batch_size_give_the_same() -> None:
    model = Linear()
    first, second, one_by_one = (
        attacked(setting_on(model, Linf(0.02), one_sided(model), size), steps=50) for size in (13, 13, 1)
    )
    assert torch.equal(first.candidates, second.candidates)
    assert torch.equal(first.claimed, one_by_one.claimed)


@pytest.mark.parametrize("folds", [1, 2, 3])
def test_with_folds_no_sample_meets_a_perturbation_that_it_has_trained(folds: int) -> None:
    class Watched(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.trained_on: set[int] = set()
            self.overlaps: list[bool] = []

        def forward(self, x: Tensor) -> Tensor:
            seen = set(((x.detach() - clean[:, None]).abs().sum(2) < 0.45).nonzero()[:, 0].tolist())
            if x.requires_grad:
                self.trained_on |= seen
            else:  # tested; the next fold begins
                self.overlaps.append(bool(self.trained_on & seen))
                self.trained_on = set()
            return super().forward(x)

    clean = one_sided(Linear(), scale=3.0)
    model = Watched()
    setting = replace(setting_on(model, Linf(0.02), clean), batch_size=SAMPLES)
    model.overlaps.clear()
    problem = AttackProblem(setting)
    universal(problem, steps=30, batch=7, folds=folds)
    assert model.overlaps == [folds == 1] * folds
    assert not problem.unmoved.any()
    assert [finding.code for finding in problem.notes] == [
        "trained-on-its-samples" if folds == 1 else "trained-on-other-samples"
    ]


def test_more_folds_than_samples_are_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="61 folds need as many samples"):
        universal(AttackProblem(setting_on(Linear(), Linf(0.02), one_sided(Linear()))), folds=SAMPLES + 1)


def test_passes_are_as_estimated_and_no_sample_counts_as_broken_on_the_way() -> None:
    model = Linear()
    problem = attacked(setting_on(model, Linf(0.02), one_sided(model)), steps=30, batch=20)
    assert problem.counted_model.backward_passes == 30 * 20
    assert problem.counted_model.forward_passes == 30 * 20 + SAMPLES


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_model_without_a_useful_answer_is_survived(value: float) -> None:
    class Useless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, :3] * value).nan_to_num(nan=math.nan)

    setting = setting_on(Useless(), Linf(0.02), one_sided(Linear()))
    problem = AttackProblem(setting)
    universal(problem, steps=5)
    assert problem.candidates.isfinite().all()


# ---------------------------------------------------------------- on a real model, and cells that are not cut


@pytest.fixture(scope="module")
def digits() -> ProblemSetting:
    catalog = open_catalog()
    from robustbench_lab.catalog.component_syntax import parse_component

    model = catalog.build("models", catalog.resolve("models", parse_component("digits-cnn")))
    samples = catalog.build("datasets", catalog.resolve("datasets", parse_component("digits"))).load(range(200))
    model = model.eval().requires_grad_(False)
    setting = setting_on(model, Linf(0.2), samples.inputs, 200, Bounds())
    right = Classification().intact(model(samples.inputs), samples.targets)
    return ProblemSetting(**{**vars(setting), "goal": samples.targets, "open": right})


def test_on_digits_it_breaks_many_times_what_random_noise_does(digits: ProblemSetting) -> None:
    random = AttackProblem(digits)
    noise(random, repeats=1)
    searched = attacked(digits, steps=150)
    assert int(searched.claimed.sum()) > 60
    assert int(searched.claimed.sum()) > 5 * int(random.claimed.sum())


def test_it_breaks_many_digits_that_it_has_not_seen(digits: ProblemSetting) -> None:
    assert int(attacked(digits, steps=150, folds=2).claimed.sum()) > 40


class Toys:
    """Two attacks that differ in whether they look at all samples together."""

    __version__ = "1"

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [
            AttackSpec(name="alone", factory=same_for_all, joint=False),
            AttackSpec(name="together", factory=same_for_all, joint=True),
        ]


SEEN: list[int] = []


def same_for_all(problem: AttackProblem) -> None:
    SEEN.append(problem.open_samples)
    problem.submit(problem.project(problem.clean + problem.eps))


@pytest.mark.parametrize(("attack", "units"), [("alone", 5), ("together", 1)])
def test_a_cell_whose_attack_looks_at_all_samples_together_is_not_cut(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, attack: str, units: int
) -> None:
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 20)
    SEEN.clear()
    spec = ExperimentSpec.from_flags(
        attacks=[attack], models=["digits-cnn"], samples=100, norms=["linf"], eps=[0.1], database=f"{tmp_path}/x.db"
    )
    result = run_experiment(spec, open_catalog(extra=[("toys", Toys())]))
    assert len(SEEN) == units
    assert result.records[0].outcomes is not None
    assert sum(SEEN) == int(np.count_nonzero(result.records[0].outcomes.clean_correct))
