"""MI-, NI-, SI-NI-, DI2- and VMI-FGSM against closed forms and against torchattacks, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.transfer.difgsm import ShrinkAndPad, difgsm
from rbl_attacks.transfer.mim import mim
from rbl_attacks.transfer.nifgsm import nifgsm
from rbl_attacks.transfer.vmifgsm import vmifgsm
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L2, Linf

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
RUN_ON = Untargeted(stop_on_success=False)
DETERMINISTIC = [mim, nifgsm, partial(nifgsm, scales=5)]
ALL = [*DETERMINISTIC, partial(vmifgsm, neighbours=3), difgsm]


class Recorded(AttackProblem):
    """Remembers what was handed in last: with an objective that does not stop, every sample's last iterate."""

    last: Tensor

    def submit(self, x: Tensor) -> None:
        self.last = x.clone()
        super().submit(x)


class Linear(nn.Module):
    """Two classes with logits (w.(x - 1/2), 0)."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.weight).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def small_net(size: tuple[int, int] = (8, 7), classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    hidden = 6 * (size[0] - 2) * (size[1] - 2)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(hidden, classes))
    return net.eval().requires_grad_(False)


def images(count: int, size: tuple[int, int] = (8, 7), seed: int = 1) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def problem_on(
    model: nn.Module,
    clean: Tensor,
    threat_model: ThreatModel,
    *,
    objective: Objective = RUN_ON,
    bounds: Bounds = Bounds(),  # noqa: B008 (frozen)
    names: list[str] | None = None,
) -> Recorded:
    prediction = model(clean)
    return Recorded(
        ProblemSetting(
            model=model,
            objective=objective,
            threat_model=threat_model,
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds,
            rng=SampleRng.for_samples(
                0, "transfer", names or [str(one) for one in range(len(clean))], torch.device("cpu")
            ),
            batch_size=16,
        )
    )


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("attack", [*DETERMINISTIC, partial(vmifgsm, neighbours=2)])
@pytest.mark.parametrize("ball", [Linf, L2])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_on_a_linear_model_exactly_the_samples_within_reach_are_broken(
    attack: Callable[..., None], ball: Any, seed: int
) -> None:
    model = Linear((30,), seed)
    clean = 0.5 + 0.1 * torch.randn(64, 30, generator=torch.Generator().manual_seed(seed + 1)).clamp(-2, 2)
    dual = {"linf": 1, "l2": 2}[ball.norm]
    reach = model(clean)[:, 0].abs() / torch.linalg.vector_norm(model.weight, ord=dual)
    eps = float(reach.median())
    problem = problem_on(model, clean, ball(eps=eps), objective=Untargeted(), bounds=Bounds(-10, 10))
    attack(problem)
    assert problem.claimed[reach < 0.999 * eps].all()
    assert not problem.claimed[reach > 1.001 * eps].any()


def test_a_broken_sample_costs_nothing_from_then_on() -> None:
    model, clean = Linear((3, 6, 5), 0), images(20, (6, 5))
    problem = problem_on(model, clean, Linf(eps=0.5), objective=Untargeted())
    mim(problem)
    assert problem.claimed.all()
    assert problem.counted_model.backward_passes < 20 * STEPS


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.parametrize("ball", [Linf(eps=0.1), L2(eps=0.5)])
def test_a_model_without_a_gradient_gives_finite_candidates_and_no_crash(
    attack: Callable[..., None], ball: ThreatModel
) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.flatten(1)[:, :2] + torch.tensor([1.0, 0.0])

    problem = problem_on(Constant().eval(), images(4), ball)
    attack(problem)
    assert problem.candidates.isfinite().all()
    assert not problem.claimed.any()


@pytest.mark.parametrize("attack", ALL)
def test_a_gradient_that_is_not_a_number_moves_nothing(attack: Callable[..., None]) -> None:
    class SquareRootOfZero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x - x).abs().flatten(1).sum(1).sqrt()
            return torch.stack([score + 1, -score], dim=1)

    problem = problem_on(SquareRootOfZero().eval(), images(4), Linf(eps=0.1))
    attack(problem)
    assert torch.equal(problem.last, images(4))


@pytest.mark.parametrize("attack", ALL)
def test_a_sample_fares_the_same_alone_and_among_others(attack: Callable[..., None]) -> None:
    model, clean = small_net(), images(9)
    together = problem_on(model, clean, Linf(eps=EPS))
    alone = problem_on(model, clean[4:5], Linf(eps=EPS), names=["4"])
    attack(together)
    attack(alone)
    assert torch.allclose(together.last[4:5], alone.last, atol=1e-6)


# ---------------------------------------------------------------- the changes of DI2-FGSM


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), share=st.floats(0.3, 0.95), seed=st.integers(0, 99))
def test_every_sample_is_resized_and_padded_as_torch_would_do_it(
    height: int, width: int, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, numbers = torch.rand(5, 2, height, width, generator=generator), torch.rand(5, 3, generator=generator)
    made = ShrinkAndPad.random(numbers, (height, width), share).apply(x)
    for image, (u, top, left), result in zip(x, numbers.tolist(), made, strict=True):
        size = [max(1, int(n * share)) + int(u * (n - max(1, int(n * share)))) for n in (height, width)]
        gap = [height - size[0], width - size[1]]
        before = [int(top * (gap[0] + 1)), int(left * (gap[1] + 1))]
        small = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)
        expected = F.pad(small, [before[1], gap[1] - before[1], before[0], gap[0] - before[0]])
        assert torch.allclose(result, expected[0], atol=1e-5)


def test_a_gradient_is_pulled_back_as_autograd_would_do_it() -> None:
    x = images(6, (9, 11)).requires_grad_()
    change = ShrinkAndPad.random(torch.rand(6, 3, generator=torch.Generator().manual_seed(3)), (9, 11), 0.7)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    (expected,) = torch.autograd.grad(change.apply(x), x, upstream)
    assert torch.allclose(change.pull_back(upstream), expected, atol=1e-5)


def test_difgsm_without_changes_is_plain_gradient_ascent() -> None:
    model, clean = small_net(), images(8)
    plain, diverse = problem_on(model, clean, Linf(eps=EPS)), problem_on(model, clean, Linf(eps=EPS))
    mim(plain, decay=0.0)
    difgsm(diverse, diversity_prob=0.0)
    assert torch.equal(plain.last, diverse.last)


def test_difgsm_skips_inputs_that_are_no_images() -> None:
    problem = problem_on(Linear((30,), 0), torch.rand(4, 30), Linf(eps=0.1))
    with pytest.raises(SkipCell, match="needs inputs"):
        difgsm(problem)


# ---------------------------------------------------------------- parity with torchattacks


@pytest.mark.parametrize(
    ("attack", "name", "own"),
    [(mim, "MIFGSM", {}), (nifgsm, "NIFGSM", {}), (partial(nifgsm, scales=5), "SINIFGSM", {"m": 5})],
)
def test_the_deterministic_ones_make_the_inputs_that_torchattacks_makes(
    attack: Callable[..., None], name: str, own: dict[str, int]
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, clean = small_net(), images(24)
    peer = getattr(torchattacks, name)(model, eps=EPS, alpha=STEP, steps=STEPS, decay=1.0, **own)
    expected = peer(clean, model(clean).argmax(1))
    problem = problem_on(model, clean, Linf(eps=EPS))
    attack(problem, steps=STEPS, step_size=STEP)
    assert torch.allclose(problem.last, expected, atol=1e-6)


def test_mim_makes_the_targeted_inputs_that_torchattacks_makes() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, clean = small_net(), images(24)
    objective = Targeted(target="next", stop_on_success=False)
    problem = problem_on(model, clean, Linf(eps=EPS), objective=objective)
    peer = torchattacks.MIFGSM(model, eps=EPS, alpha=STEP, steps=STEPS)
    peer.set_mode_targeted_by_function(lambda _images, labels: labels)
    expected = peer(clean, problem.goal)
    mim(problem, steps=STEPS, step_size=STEP)
    assert torch.allclose(problem.last, expected, atol=1e-6)


def test_vmifgsm_makes_the_inputs_that_torchattacks_makes_of_the_same_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, clean = small_net(), images(24)
    problem = problem_on(model, clean, Linf(eps=EPS))
    draws = [problem.uniform(f"neighbour/{step}/{one}") for step in range(STEPS) for one in range(5)]
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: draws.pop(0) * (high - low) + low)
    peer = torchattacks.VMIFGSM(model, eps=EPS, alpha=STEP, steps=STEPS, N=5, beta=1.5)
    expected = peer(clean, model(clean).argmax(1))
    vmifgsm(problem, steps=STEPS, step_size=STEP, neighbours=5)
    assert torch.allclose(problem.last, expected, atol=1e-6)


def test_difgsm_raises_the_loss_as_much_as_that_of_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, clean = nn.Sequential(nn.AvgPool2d(4), small_net((10, 10))).eval(), images(96, (40, 40))
    labels = model(clean).argmax(1)
    before = F.cross_entropy(model(clean), labels)
    peer = torchattacks.DIFGSM(model, eps=EPS, alpha=STEP, steps=STEPS, diversity_prob=1.0)
    torch.manual_seed(5)
    # It draws once for a batch: several batches, to have several draws.
    theirs = torch.cat([peer(some, label) for some, label in zip(clean.split(8), labels.split(8), strict=True)])
    problem = problem_on(model, clean, Linf(eps=EPS))
    difgsm(problem, steps=STEPS, step_size=STEP, diversity_prob=1.0)
    rise = [float(F.cross_entropy(model(x), labels) - before) for x in (problem.last, theirs)]
    assert rise[0] == pytest.approx(rise[1], rel=0.1)
    assert rise[0] > 0
