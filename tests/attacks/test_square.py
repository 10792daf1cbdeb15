"""Square Attack: closed forms on linear models, its geometry, its budget, and its strength beside the official code."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.score_based.image_windows import ImageShape
from rbl_attacks.score_based.square import square
from rbl_attacks.score_based.square_bumps import L2Bumps
from rbl_attacks.score_based.square_sparse_bumps import L1Bumps
from rbl_reference.digits import Digits
from rbl_reference.digits_cnn import digits_cnn_at
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.testing.known_models import HalfSpace, half_space_setting
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

BALLS = {"linf": Linf, "l2": L2, "l1": L1}
SAMPLES = 24


def problem_on(
    model: nn.Module,
    threat_model: ThreatModel,
    clean: Tensor,
    *,
    goal: Tensor | None = None,
    objective: Objective | None = None,
    bounds: Bounds | None = None,
    batch_size: int = 1000,
    seed: int = 0,
) -> AttackProblem:
    """Every sample is open; without a goal the labels are what the model predicts."""
    return AttackProblem(
        ProblemSetting(
            model=model.eval().requires_grad_(False),
            objective=objective or Untargeted(),
            threat_model=threat_model,
            clean=clean,
            goal=model(clean).argmax(1) if goal is None else goal,
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds or Bounds(),
            rng=SampleRng.for_samples(seed, "square", [str(one) for one in range(len(clean))], clean.device),
            batch_size=batch_size,
        )
    )


class Classes(nn.Module):
    """A linear classifier of inputs of any shape."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(math.prod(shape), classes, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("norm", "well_below"), [("linf", 0.99), ("l2", 0.4), ("l1", 0.4)])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 1000))
def test_on_a_half_space_it_breaks_what_is_well_within_reach_and_nothing_beyond(
    norm: str, well_below: float, seed: int
) -> None:
    """In l2 and l1 its bumps are at least 3 pixels wide, so that it comes less close to an optimum of single pixels."""
    reach = HalfSpace(seed).distance(half_space_setting(Linf(0.1), seed=seed).clean, norm)
    eps = float(reach.median())
    setting = half_space_setting(BALLS[norm](eps), seed=seed)
    problem = AttackProblem(setting)
    square(problem, queries=1500)
    assert problem.claimed[(reach < well_below * eps) & setting.open].all()
    assert not problem.claimed[reach > 1.001 * eps].any()


def test_in_linf_it_reaches_every_corner_of_the_box() -> None:
    """Also the last row and column: on a linear model the best corner is where each sign opposes the weight."""
    setting = half_space_setting(Linf(0.01))
    problem = AttackProblem(setting)
    square(problem, queries=2500)
    held = setting.open & ~problem.claimed
    assert held.any()
    side = torch.where(HalfSpace()(setting.clean)[:, 0] > 0, -1.0, 1.0).view(-1, 1, 1, 1)
    best = setting.clean + 0.01 * side * HalfSpace().weight.sign()
    torch.testing.assert_close(problem.candidates[held], best[held])


# ---------------------------------------------------------------- geometry


SHAPES = [(7,), (1,), (3, 11), (1, 4, 4), (3, 6, 13), (2, 12, 5), (1, 1, 20), (2, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", list(BALLS))
def test_inputs_of_any_shape_and_bounds_stay_in_the_region(shape: tuple[int, ...], norm: str) -> None:
    bounds = Bounds(-1.0, 3.0)
    clean = 4 * torch.rand(9, *shape, generator=torch.Generator().manual_seed(0)) - 1
    threat_model = BALLS[norm](0.2)
    problem = problem_on(Classes(shape, 3), threat_model, clean, bounds=bounds)
    before = clean.clone()
    square(problem, queries=60)
    region = threat_model.around(clean, bounds)
    assert region.contains(problem.candidates).all()
    assert not problem.unmoved.any()
    assert torch.equal(clean, before)


@pytest.mark.parametrize("norm", list(BALLS))
def test_every_input_queried_lies_in_the_region(norm: str) -> None:
    setting = half_space_setting(BALLS[norm](0.05))
    region = setting.threat_model.around(setting.clean, setting.bounds)
    queried = 0

    class Watched(HalfSpace):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal queried
            if len(x) == len(setting.clean):
                assert region.contains(x).all()
                queried += 1
            return super().forward(x)

    clean = setting.clean
    goal = 1 - HalfSpace()(clean).argmax(1)  # the class that has lost: nothing succeeds towards the true one
    problem = problem_on(Watched(), BALLS[norm](0.05), clean, goal=goal, objective=Targeted(stop_on_success=False))
    square(problem, queries=300)
    assert queried == 300


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.floats(0.0005, 1),
    least=st.sampled_from([1, 3]),
)
def test_a_window_covers_its_share_of_the_image_and_fits_into_it(
    height: int, width: int, share: float, least: int
) -> None:
    image = ImageShape(2, height, width)
    tall, wide = image.window(share, least=least)
    assert 1 <= tall <= height
    assert 1 <= wide <= width
    side = max(round(math.sqrt(share * height * width)), least)
    if side <= min(height, width):
        assert tall == wide == side
    else:
        assert tall * wide >= min(height * width, side**2) / 2


def test_windows_of_the_published_sizes() -> None:
    """On CIFAR-10 images, with p_init 0.8 halved nine times: the sides that the official code comes to."""
    image = ImageShape.of((3, 32, 32))
    shares = [0.8 / 2**halved for halved in range(10)]
    assert [image.window(share)[0] for share in shares] == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert [image.window(share, least=3, odd=True)[0] for share in shares] == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]


def test_windows_stand_everywhere_and_never_outside() -> None:
    image = ImageShape(1, 4, 6)
    uniform = torch.cartesian_prod(torch.linspace(0, 1 - 2**-24, 50), torch.linspace(0, 1 - 2**-24, 50))
    corner = image.corners((2, 3), uniform).unique()
    assert corner.tolist() == [row * 6 + column for row in range(3) for column in range(4)]
    offsets = image.offsets((2, 3), uniform.device)
    assert offsets.tolist() == [0, 1, 2, 6, 7, 8]
    assert (corner[:, None] + offsets).max() == 23


def test_an_undone_change_in_l2_leaves_no_trace() -> None:
    problem = AttackProblem(half_space_setting(L2(0.3)))
    moves = L2Bumps(problem, ImageShape.of((1, 5, 5)))
    moves.start("start")
    before = [tensor.clone() for tensor in moves.state]
    plan = moves.plan(0.3, problem.uniform("one", (1, moves.numbers())))
    moves.change(*(one[:, 0] for one in plan))
    moves.settle(torch.zeros(SAMPLES, dtype=torch.bool))
    for now, then in zip(moves.state, before, strict=True):
        assert torch.equal(now, then)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), eps=st.floats(0.05, 20), share=st.floats(0.001, 1))
def test_the_short_cut_in_l1_is_the_projection(seed: int, eps: float, share: float) -> None:
    """Also at bounds that some elements stand at, and after changes that were kept for some samples only."""
    generator = torch.Generator().manual_seed(seed)
    clean = (1.5 * torch.rand(12, 2, 8, 8, generator=generator) - 0.25).clamp(0, 1)
    problem = problem_on(Classes((2, 8, 8), 3), L1(eps), clean)
    moves = L1Bumps(problem, ImageShape.of((2, 8, 8)))
    moves.start("start")
    for turn in range(6):
        plan = moves.plan(share, problem.uniform(str(turn), (1, moves.numbers())))
        x = moves.change(*(one[:, 0] for one in plan))
        exact = problem.project(clean + moves.state[0].view_as(clean))
        torch.testing.assert_close(x, exact, atol=2e-5 * eps, rtol=0)
        moves.settle(torch.rand(12, generator=generator) < 0.5)


# ---------------------------------------------------------------- budget, batches, bad models


@pytest.mark.parametrize("norm", list(BALLS))
@pytest.mark.parametrize("restarts", [1, 3])
def test_it_spends_exactly_its_queries_where_nothing_breaks(norm: str, restarts: int) -> None:
    clean = torch.full((5, 1, 6, 6), 0.5)
    problem = problem_on(Classes((1, 6, 6), 1), BALLS[norm](0.01), clean)  # one class: no other can win
    square(problem, queries=70, restarts=restarts)
    assert problem.counted_model.forward_passes == 5 * 70 * restarts
    assert problem.counted_model.backward_passes == 0


@pytest.mark.parametrize("queries", [2, 3, 10])
def test_no_pass_goes_to_a_finished_sample(queries: int) -> None:
    clean = torch.full((6, 3, 8, 8), 0.5)

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)

    problem = problem_on(Wrong(), Linf(0.1), clean, goal=torch.zeros(6, dtype=torch.int64))
    square(problem, queries=queries, restarts=4)
    assert problem.finished
    assert problem.claimed.all()
    assert problem.counted_model.forward_passes == 6


@pytest.mark.parametrize("norm", list(BALLS))
def test_a_sample_comes_out_the_same_in_any_batch_and_any_company(norm: str) -> None:
    clean = torch.rand(10, 2, 7, 9, generator=torch.Generator().manual_seed(1))
    model = Classes((2, 7, 9), 4)
    one = problem_on(model, BALLS[norm](0.05), clean)
    few = problem_on(model, BALLS[norm](0.05), clean, batch_size=3)
    square(one, queries=150)
    square(few, queries=150)
    assert torch.equal(one.claimed, few.claimed)
    torch.testing.assert_close(one.candidates, few.candidates)


class NanAbove(nn.Module):
    """NaN logits where the mean is above a level."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        logits = torch.stack([mean, -mean, mean - 3], dim=1)
        return torch.where(mean[:, None] > 0.5, float("nan"), logits)


@pytest.mark.parametrize("norm", list(BALLS))
@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target=1)])
def test_nan_logits_neither_crash_it_nor_lead_it_out_of_the_region(norm: str, objective: Objective) -> None:
    clean = torch.full((4, 1, 6, 6), 0.5)
    threat_model = BALLS[norm](0.3)
    problem = problem_on(NanAbove(), threat_model, clean, goal=torch.ones(4, dtype=torch.int64), objective=objective)
    square(problem, queries=80)
    assert threat_model.around(clean, Bounds()).contains(problem.candidates).all()


# ---------------------------------------------------------------- strength beside the official code


class NeverWrong(Classes):
    """Two classes, the first of which cannot lose: so the whole budget of queries goes into the margin."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([1000.0, 0.0])


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
def test_it_comes_as_far_as_the_official_code_with_the_same_queries(norm: str, eps: float, rescale: bool) -> None:
    """By the mean margin over 60 samples, whose spread over seeds is 2%; AutoAttack never reaches the last row."""
    official = pytest.importorskip("pyautoattack.square")
    clean = 0.5 + 0.1 * torch.randn(60, 3, 20, 20, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    model, labels = NeverWrong((3, 20, 20), 2), torch.zeros(60, dtype=torch.int64)
    before = (model(clean)[:, 0] - model(clean)[:, 1]).mean()

    def lowered(x: Tensor) -> float:
        return float(before - (model(x)[:, 0] - model(x)[:, 1]).mean())

    ours = problem_on(model, BALLS[norm](eps), clean)
    square(ours, queries=400, rescale=rescale)
    theirs = official.SquareAttack(
        model, norm=norm.capitalize(), n_queries=398, eps=eps, resc_schedule=rescale, device="cpu"
    )
    theirs.init_hyperparam(clean)
    torch.manual_seed(0)
    _, adversarial = theirs.attack_single_run(clean, labels)
    assert lowered(ours.candidates) >= 0.97 * lowered(adversarial)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 1.0)])
def test_on_a_trained_network_it_breaks_as_many_as_the_official_code(norm: str, eps: float, rescale: bool) -> None:
    """Of 120 images; two random searches differ by chance on about 5 of them."""
    official = pytest.importorskip("pyautoattack.square")
    samples = Digits(split="test").load(range(120))
    model = digits_cnn_at().eval().requires_grad_(False)
    right = model(samples.inputs).argmax(1) == samples.targets
    clean, labels = samples.inputs[right], samples.targets[right]
    ours = problem_on(model, BALLS[norm](eps), clean)
    square(ours, queries=500, rescale=rescale)
    theirs = official.SquareAttack(
        model, norm=norm.capitalize(), n_queries=500, eps=eps, resc_schedule=rescale, device="cpu"
    )
    held = model(theirs.perturb(clean, labels)).argmax(1) == labels
    assert int((~ours.claimed).sum()) <= int(held.sum()) + 5
