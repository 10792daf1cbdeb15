"""The norm balls: their budgets, and the geometry of the regions against closed forms, brute force and an optimiser."""

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

NORMS = {"linf": (Linf, math.inf), "l2": (L2, 2), "l1": (L1, 1)}
UNIT = Bounds(0.0, 1.0)
OPEN = Bounds(-math.inf, math.inf)
ALL_BOUNDS = (UNIT, Bounds(-3.0, 5.0), Bounds(0.0, 255.0), OPEN)
every_norm = pytest.mark.parametrize("norm", NORMS)
quickly = settings(deadline=None, max_examples=60)


@dataclass
class Case:
    """Clean inputs within bounds, many of them at a bound, a budget, and points around them, most of them outside."""

    norm: str
    bounds: Bounds
    eps: float
    clean: torch.Tensor
    x: torch.Tensor
    generator: torch.Generator

    @property
    def region(self):
        return NORMS[self.norm][0](self.eps).around(self.clean, self.bounds)

    @property
    def order(self):
        return NORMS[self.norm][1]

    def direction(self, count):
        """Random vectors of size 1 in the norm, `[count, *clean.shape]`."""
        vectors = torch.randn((count, *self.clean.shape), generator=self.generator)
        size = torch.linalg.vector_norm(vectors.flatten(2), ord=self.order, dim=2)
        return vectors / size.reshape(*size.shape, *(1,) * (vectors.dim() - 2))


@st.composite
def cases(draw, norms=tuple(NORMS), bounds=ALL_BOUNDS):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    limits = draw(st.sampled_from(bounds))
    shape = (draw(st.integers(1, 4)), *draw(st.sampled_from([(1,), (2,), (7,), (3, 4, 5), (300,)])))
    width = limits.width if math.isfinite(limits.width) else 10.0
    clean = torch.rand(shape, generator=generator) * width + (limits.low if math.isfinite(limits.low) else -5.0)
    at_bound = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    if math.isfinite(limits.width):
        extreme = torch.where(torch.rand(shape, generator=generator) < 0.5, limits.low, limits.high)
        clean = torch.where(at_bound, extreme, clean)
    spread = width * 10 ** draw(st.floats(-4, 2))
    moved = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.1, 1.0]))
    x = clean + spread * torch.randn(shape, generator=generator) * moved
    return Case(draw(st.sampled_from(norms)), limits, width * 10 ** draw(st.floats(-3, 0)), clean, x, generator)


def close_in(case, first, second):
    """Equal up to float32 rounding of numbers as large as these."""
    scale = max(float(case.clean.abs().max()), case.eps, 1e-3)
    return torch.allclose(first, second, rtol=1e-5, atol=2e-6 * scale)


# ---------------------------------------------------------------- budgets


@every_norm
@pytest.mark.parametrize("eps", [8 / 255, 1, 1e-9])
def test_a_sensible_budget_passes(norm, eps):
    NORMS[norm][0](eps).check(UNIT)


@every_norm
@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (0, "{norm} eps=0: eps must be above 0; the accuracy without an attack is clean_accuracy"),
        (-0.5, "{norm} eps=-0.5: eps must be above 0; the accuracy without an attack is clean_accuracy"),
        (math.nan, "{norm} eps=nan is not finite: give a number above 0, such as 8/255"),
        (math.inf, "{norm} eps=inf is not finite: give a number above 0, such as 8/255"),
    ],
)
def test_a_budget_that_is_no_positive_number_is_refused(norm, eps, message):
    with pytest.raises(UsageError) as refusal:
        NORMS[norm][0](eps).check(UNIT)
    assert str(refusal.value) == message.format(norm=norm)


@pytest.mark.parametrize(
    ("eps", "bounds", "message"),
    [
        (8, UNIT, "linf eps=8 is above the data's range 0..1. Did you mean 8/255 = 0.0314?"),
        (2.5, Bounds(-1, 1), "linf eps=2.5 is above the data's range -1..1. Did you mean 2.5/255 = 0.0098?"),
        (300, UNIT, "linf eps=300 is above the data's range 0..1. Give an eps of at most 1."),
    ],
)
def test_a_linf_budget_above_the_data_range_is_refused_with_what_was_probably_meant(eps, bounds, message):
    with pytest.raises(UsageError) as refusal:
        Linf(eps).check(bounds)
    assert str(refusal.value) == message


def test_a_sum_over_coordinates_may_be_larger_than_the_data_range():
    L2(3.0).check(UNIT)
    L1(12.0).check(UNIT)


@every_norm
def test_a_threat_model_names_its_norm_and_its_budget(norm):
    threat_model = NORMS[norm][0](0.5)
    assert (threat_model.norm, threat_model.eps) == (norm, 0.5)
    assert threat_model == NORMS[norm][0](0.5)


def test_checking_a_budget_needs_no_torch():
    code = """
import sys
from robustbench_lab.contracts import Bounds
from robustbench_lab.threat_models.norm_balls import L0, L1, L2, Linf
for ball in (Linf, L2, L1, L0):
    ball(1).check(Bounds())
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- projection


@quickly
@given(cases())
def test_a_projected_point_is_in_the_region(case):
    assert case.region.contains(case.region.project(case.x)).all()


@quickly
@given(cases())
def test_projecting_twice_is_projecting_once(case):
    once = case.region.project(case.x.clone())
    assert close_in(case, case.region.project(once.clone()), once)


@quickly
@given(cases())
def test_a_point_of_the_region_stays_where_it_is(case):
    distance = case.region.distance(case.x).clamp(min=1e-20)
    shorter = (0.99 * case.eps / distance).clamp(max=1).reshape(-1, *(1,) * (case.x.dim() - 1))
    inside = (case.clean + (case.x - case.clean) * shorter).clamp(case.bounds.low, case.bounds.high)
    assert close_in(case, case.region.project(inside.clone()), inside)


@quickly
@given(cases())
def test_the_clean_inputs_survive_being_projected(case):
    before = case.clean.clone()
    assert torch.equal(case.region.project(case.region.clean), before)
    assert torch.equal(case.region.clean, before)


@quickly
@given(cases(norms=("linf", "l1")))
def test_no_point_of_the_region_is_nearer_than_the_projection(case):
    x = case.x.double()
    projected = case.region.project(case.x.clone()).double()
    nearest = (x - projected).flatten(1).norm(dim=1)
    for direction in case.direction(50):
        # Random points of the region, and steps from the projection towards them.
        size = torch.rand(1, generator=case.generator)
        other = (case.clean + case.eps * size * direction).clamp(case.bounds.low, case.bounds.high).double()
        for share in (1.0, 0.1):
            candidate = projected + share * (other - projected)
            distance = (x - candidate).flatten(1).norm(dim=1)
            assert (nearest <= distance * (1 + 1e-5) + 1e-5 * case.eps).all()


def l1_projection_by_bisection(x, clean, eps, bounds):
    """One sample, in float64, from the optimality condition alone."""
    x, clean = x.double().flatten().numpy(), clean.double().flatten().numpy()
    low, high = bounds.low - clean, bounds.high - clean

    def shrunk(threshold):
        delta = x - clean
        return np.clip(np.sign(delta) * np.maximum(np.abs(delta) - threshold, 0), low, high)

    least, most = 0.0, np.abs(x - clean).max()
    if np.abs(shrunk(0.0)).sum() <= eps:
        return clean + shrunk(0.0)
    for _ in range(200):
        middle = (least + most) / 2
        least, most = (middle, most) if np.abs(shrunk(middle)).sum() > eps else (least, middle)
    return clean + shrunk(most)


@quickly
@given(cases(norms=("l1",)))
def test_the_l1_projection_agrees_with_a_fine_bisection(case):
    projected = case.region.project(case.x.clone())
    for x, clean, found in zip(case.x, case.clean, projected, strict=True):
        expected = torch.from_numpy(l1_projection_by_bisection(x, clean, case.eps, case.bounds))
        assert close_in(case, found.double().flatten(), expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.floats(0.05, 2))
def test_the_l1_projection_agrees_with_a_general_purpose_optimiser(seed, eps):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 5, generator=generator)
    x = clean + torch.randn(1, 5, generator=generator)
    base, target = clean[0].double().numpy(), (x - clean)[0].double().numpy()
    # delta = up - down with both parts nonnegative makes the l1 ball a linear constraint
    found = optimize.minimize(
        lambda parts: ((parts[:5] - parts[5:] - target) ** 2).sum(),
        np.zeros(10),
        jac=lambda parts: np.tile(2 * (parts[:5] - parts[5:] - target), 2) * np.repeat([1, -1], 5),
        bounds=[(0, room) for room in 1 - base] + [(0, room) for room in base],
        constraints={"type": "ineq", "fun": lambda parts: eps - parts.sum(), "jac": lambda parts: -np.ones(10)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    expected = found.x[:5] - found.x[5:]
    projected = (L1(eps).around(clean, UNIT).project(x.clone()) - clean)[0].double().numpy()
    assert projected == pytest.approx(expected, abs=1e-5)


@quickly
@given(cases(norms=("l2",), bounds=(OPEN,)))
def test_without_bounds_the_l2_projection_is_the_nearest_point_of_the_ball(case):
    delta = (case.x - case.clean).double()
    norm = delta.flatten(1).norm(dim=1).reshape(-1, *(1,) * (delta.dim() - 1))
    expected = case.clean + delta * (case.eps / norm.clamp(min=case.eps))
    assert close_in(case, case.region.project(case.x).double(), expected)


def test_the_l1_projection_of_points_worked_by_hand():
    region = L1(1.0).around(torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.9, 0.5]]), UNIT)
    x = torch.tensor([[1.3, 0.2, 0.5], [2.0, 1.9, 0.6]])
    # Row 1: sizes 0.8, 0.3, room 0.5: the first is held at 0.5, so 0.5 + 0.3 <= 1 needs no threshold.
    # Row 2: sizes 2, 1, 0.1, room 1, 0.1, 0.5: 1 + 0.1 is above 1; threshold t: min(2 - t, 1) + 0.1 = 1 at t = 1.1,
    # but then 1 - t < 0; so t is between 0.9 and 1: min(2 - t, 1) = 1, and 1 - t = 0 at t = 1.
    assert region.project(x).flatten().tolist() == pytest.approx([1.0, 0.2, 0.5, 1.0, 0.9, 0.5], abs=1e-6)


def test_the_l1_projection_of_a_far_point_with_sizes_of_every_magnitude_is_exact():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(20, 3000, generator=generator)
    x = clean + torch.randn(20, 3000, generator=generator) * torch.exp(5 * torch.randn(20, 3000, generator=generator))
    region = L1(0.5).around(clean, UNIT)
    projected = region.project(x.clone())
    assert region.contains(projected).all()
    assert region.distance(projected).tolist() == pytest.approx([0.5] * 20, rel=1e-4)


# ---------------------------------------------------------------- random starts


@every_norm
@pytest.mark.parametrize("bounds", [UNIT, Bounds(0.4, 0.6), OPEN])
def test_random_starts_are_inside_and_spread(norm, bounds):
    ids = [str(i) for i in range(200)]
    region = NORMS[norm][0](0.2).around(torch.full((200, 3, 4, 4), 0.5), bounds)
    rng = SampleRng.for_samples(0, "pgd", ids, torch.device("cpu"))
    start = region.random_start(rng, "start/0")
    assert region.contains(start).all()
    assert float(region.distance(start).max()) > 0.5 * 0.2
    assert not torch.equal(start, region.random_start(rng, "start/1"))
    moved = (start - region.clean).flatten(1)
    assert float((moved > 0).double().mean()) == pytest.approx(0.5, abs=0.02)


@every_norm
def test_random_starts_are_uniform_in_the_ball(norm):
    """Then the radius to the power of the dimension is uniform, and so is the sign of every coordinate."""
    count, dimension = 4000, 3
    region = NORMS[norm][0](0.2).around(torch.zeros(count, dimension), OPEN)
    rng = SampleRng.for_samples(1, "pgd", [str(i) for i in range(count)], torch.device("cpu"))
    start = region.random_start(rng, "start/0")
    share = (region.distance(start).double() / 0.2) ** dimension
    assert stats.kstest(share.numpy(), "uniform").pvalue > 0.01
    octants = np.bincount(((start > 0) * torch.tensor([1, 2, 4])).sum(1).numpy(), minlength=8)
    assert stats.chisquare(octants).pvalue > 0.01


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@every_norm
@pytest.mark.parametrize("shape", [(5,), (3, 8, 8), (3, 128, 128)])
@pytest.mark.usefixtures("two_threads")
def test_a_sample_has_the_same_start_bit_by_bit_in_every_batch(norm, shape):
    clean = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    rng = SampleRng.for_samples(0, "pgd", [str(i) for i in range(5)], torch.device("cpu"))
    region = NORMS[norm][0](0.3).around(clean, UNIT)
    whole = region.random_start(rng, "start/0")
    for index in ([3], [4, 0, 2]):
        chosen = torch.tensor(index)
        assert torch.equal(whole[chosen], region.select(chosen).random_start(rng.select(chosen), "start/0"))


# ---------------------------------------------------------------- steepest ascent


def inner(first, second):
    return (first.double() * second.double()).flatten(1).sum(1)


@quickly
@given(cases(norms=("linf", "l2")))
def test_no_step_of_size_one_gains_more_than_the_steepest(case):
    gradient = torch.randn(case.clean.shape, generator=case.generator)
    step = case.region.steepest(gradient, case.clean)
    size = torch.linalg.vector_norm(step.flatten(1), ord=case.order, dim=1)
    assert size.tolist() == pytest.approx([1.0] * len(size), rel=1e-5)
    for direction in case.direction(50):
        assert (inner(gradient, direction) <= inner(gradient, step) + 1e-5).all()


@quickly
@given(cases(norms=("l1",)))
def test_the_l1_step_is_one_percent_of_the_coordinates_that_can_move_with_the_largest_gradients(case):
    gradient = torch.randn(case.clean.shape, generator=case.generator)
    x = case.region.project(case.x.clone())
    step = case.region.steepest(gradient, x)
    for g, position, taken in zip(gradient.flatten(1), x.flatten(1), step.flatten(1), strict=True):
        movable = ((g > 0) & (position < case.bounds.high)) | ((g < 0) & (position > case.bounds.low))
        ranked = sorted(g.abs()[movable].tolist(), reverse=True)[: max(1, len(g) // 100)]
        used = taken != 0
        assert sorted(g.abs()[used].tolist(), reverse=True) == ranked
        assert torch.equal(taken[used].sign(), g[used].sign())
        assert taken[used].abs().tolist() == pytest.approx([1 / max(1, len(ranked))] * len(ranked))


@every_norm
def test_a_gradient_of_zero_gives_no_step(norm):
    region = NORMS[norm][0](0.1).around(torch.rand(2, 3, 4, 4), UNIT)
    assert torch.equal(region.steepest(torch.zeros(2, 3, 4, 4), region.clean), torch.zeros(2, 3, 4, 4))


@every_norm
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_step_depends_on_the_direction_of_the_gradient_only(norm, scale):
    generator = torch.Generator().manual_seed(0)
    region = NORMS[norm][0](0.1).around(torch.rand(2, 3, 4, 4, generator=generator), UNIT)
    gradient = torch.randn(2, 3, 4, 4, generator=generator)
    scaled = region.steepest(gradient * scale, region.clean)
    assert torch.allclose(scaled, region.steepest(gradient, region.clean), rtol=1e-5)


# ---------------------------------------------------------------- distance, contains, select


@quickly
@given(cases())
def test_the_distance_is_the_norm_of_the_change(case):
    change = (case.x - case.clean).flatten(1).double()
    expected = torch.linalg.vector_norm(change, ord=case.order, dim=1).float()
    assert torch.allclose(case.region.distance(case.x), expected, rtol=1e-5)


@quickly
@given(cases())
def test_what_is_clearly_outside_the_ball_or_the_bounds_is_not_contained(case):
    region = case.region
    assert not region.contains(case.clean + 1.2 * case.eps * case.direction(1)[0]).any()
    if math.isfinite(case.bounds.width):
        beyond = case.clean.clone()
        beyond.flatten(1)[:, 0] = case.bounds.high + 1e-4 * case.bounds.width
        assert not region.contains(beyond).any()
        beyond.flatten(1)[:, 0] = case.bounds.low - 1e-4 * case.bounds.width
        assert not region.contains(beyond).any()


@every_norm
def test_the_budget_may_be_overstepped_by_rounding_and_no_more(norm):
    region = NORMS[norm][0](0.1).around(torch.full((4, 3), 0.5), UNIT)
    x = region.clean.clone()
    x[:, 1] += torch.tensor([0.1, -0.1, 0.1001, -0.1001])
    assert region.contains(x).tolist() == [True, True, False, False]


def test_rounding_that_adds_up_over_many_coordinates_is_no_violation():
    region = L1(1.0).around(torch.full((1, 10_000), 0.7), UNIT)
    x = region.clean + 1e-4
    assert float(region.distance(x)) > 1.0001  # every coordinate is rounded the same way
    assert region.contains(x).all()
    assert not region.contains(region.clean + 1.1e-4).any()


@every_norm
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bounds", [UNIT, OPEN])
def test_a_point_that_is_not_finite_is_not_contained_and_leaves_the_others_alone(norm, value, bounds):
    region = NORMS[norm][0](0.5).around(torch.full((2, 6), 0.5), bounds)
    x = torch.full((2, 6), 0.52)
    x[0, 3] = value
    assert region.contains(x).tolist() == [False, True]
    assert torch.allclose(region.project(x)[1], torch.full((6,), 0.52))


@quickly
@given(cases(), st.data())
def test_selecting_samples_commutes_with_everything(case, data):
    rows = data.draw(st.lists(st.integers(0, len(case.clean) - 1), max_size=5))
    index = torch.tensor(rows, dtype=torch.int64)
    whole, part = case.region, case.region.select(index)
    gradient = torch.randn(case.clean.shape, generator=case.generator)
    x = case.x[index]
    assert torch.equal(part.clean, whole.clean[index])
    assert torch.equal(part.contains(x), whole.contains(case.x)[index])
    assert torch.allclose(part.distance(x), whole.distance(case.x)[index])
    assert torch.allclose(part.steepest(gradient[index], x), whole.steepest(gradient, case.x)[index])
    assert close_in(case, part.project(x.clone()), whole.project(case.x.clone())[index])
