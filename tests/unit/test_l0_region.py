"""The l0 threat model: a count of changed values, and a projection that is exact and nearest."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.testing.known_models import HalfSpace, half_space_setting
from robustbench_lab.threat_models.norm_balls import L0, L2, unlimited

UNIT = Bounds(0.0, 1.0)
OPEN = Bounds(-math.inf, math.inf)
quickly = settings(deadline=None, max_examples=60)


@dataclass
class Case:
    bounds: Bounds
    eps: int
    clean: torch.Tensor
    x: torch.Tensor
    generator: torch.Generator

    @property
    def region(self):
        return L0(self.eps).around(self.clean, self.bounds)


@st.composite
def cases(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    bounds = draw(st.sampled_from((UNIT, Bounds(-3.0, 5.0), Bounds(0.0, 255.0), OPEN)))
    shape = (draw(st.integers(1, 4)), *draw(st.sampled_from([(1,), (2,), (7,), (3, 4, 5)])))
    width = bounds.width if math.isfinite(bounds.width) else 10.0
    low = bounds.low if math.isfinite(bounds.low) else -5.0
    # A grid, so that many coordinates tie, and many lie at a bound.
    clean = low + width * torch.randint(0, 5, shape, generator=generator) / 4
    x = clean + width * torch.randint(-6, 7, shape, generator=generator) / 4
    return Case(bounds, draw(st.integers(1, 70)), clean, x, generator)


def changes(first, second):
    return (first != second).flatten(1).sum(1)


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("eps", [1, 24, 24.0, 3072])
def test_a_whole_number_of_values_is_a_budget(eps):
    L0(eps).check(UNIT)


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (0, "l0 eps=0: eps must be above 0; the accuracy without an attack is clean_accuracy"),
        (-3, "l0 eps=-3: eps must be above 0; the accuracy without an attack is clean_accuracy"),
        (0.5, "l0 eps=0.5: eps counts the values that may change; give a whole number, from 1"),
        (2.5, "l0 eps=2.5: eps counts the values that may change; give a whole number, from 1"),
        (math.inf, "l0 eps=inf is not finite: give a number above 0, such as 24"),
    ],
)
def test_a_budget_that_is_no_whole_number_from_1_is_refused_with_one_line(eps, message):
    with pytest.raises(UsageError) as refusal:
        L0(eps).check(UNIT)
    assert str(refusal.value) == message


# ---------------------------------------------------------------- projection


@quickly
@given(cases())
def test_a_projected_point_is_in_the_region(case):
    projected = case.region.project(case.x)
    assert case.region.contains(projected).all()
    assert (changes(projected, case.clean) <= case.eps).all()


@quickly
@given(cases())
def test_projecting_twice_is_projecting_once_bit_by_bit(case):
    once = case.region.project(case.x.clone())
    assert torch.equal(case.region.project(once.clone()), once)


@quickly
@given(cases())
def test_no_point_of_the_region_is_nearer_than_the_projection(case):
    x = case.x.double()
    nearest = (x - case.region.project(case.x.clone())).flatten(1).norm(dim=1)
    clipped = case.x.clamp(case.bounds.low, case.bounds.high).flatten(1)
    clean = case.clean.flatten(1)
    for _ in range(50):
        # With its coordinates chosen, the nearest point takes them from the clipped x.
        chosen = torch.rand(clean.shape, generator=case.generator).argsort(1)[:, : case.eps]
        other = clean.scatter(1, chosen, clipped.gather(1, chosen))
        assert (nearest <= (x.flatten(1) - other).norm(dim=1) + 1e-9).all()


def test_the_bounds_decide_which_coordinate_is_worth_keeping():
    region = L0(1).around(torch.tensor([[0.9, 0.5, 0.0]]), UNIT)
    # Kept at 1.0 the first comes nearer by 1.1**2 - 1**2 = 0.21, the second by 0.45**2 = 0.20, the third by nothing.
    assert region.project(torch.tensor([[2.0, 0.95, -5.0]])).tolist() == [[1.0, 0.5, 0.0]]


def test_of_equal_coordinates_exactly_as_many_are_kept_as_there_is_room_for():
    region = L0(3).around(torch.full((2, 10), 0.5), UNIT)
    assert changes(region.project(torch.ones(2, 10)), region.clean).tolist() == [3, 3]


def test_a_budget_of_all_values_or_none_at_all_leaves_the_bounds_only():
    clean, x = torch.full((2, 4), 0.5), torch.tensor([[2.0, -1.0, 0.1, 0.5]]).expand(2, 4)
    for ball in (L0(4), L0(100), unlimited(L0(1))):
        region = ball.around(clean, UNIT)
        assert torch.equal(region.project(x.clone()), x.clamp(0, 1))
        assert region.contains(x.clamp(0, 1)).all()


# ---------------------------------------------------------------- random starts, steps


@pytest.mark.parametrize("bounds", [UNIT, Bounds(0.4, 0.6), OPEN])
def test_a_random_start_changes_as_many_coordinates_as_the_budget_allows(bounds):
    region = L0(5).around(torch.full((200, 3, 4, 4), 0.5), bounds)
    rng = SampleRng.for_samples(0, "noise", [str(i) for i in range(200)], torch.device("cpu"))
    start = region.random_start(rng, "start/0")
    assert region.contains(start).all()
    assert (region.distance(start) == 5).all()
    assert not torch.equal(start, region.random_start(rng, "start/1"))
    often = (start != region.clean).sum(0).flatten()
    assert float(often.min()) > 2  # every coordinate is chosen now and then: 20.8 times of 200 on average
    assert float(often.max()) < 50
    moved = start[start != region.clean]
    low, high = (bounds.low, bounds.high) if bounds != OPEN else (-0.5, 1.5)
    assert float(moved.mean()) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    assert float(moved.var()) == pytest.approx((high - low) ** 2 / 12, rel=0.1)


def test_a_sample_has_the_same_start_bit_by_bit_in_every_batch():
    clean = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rng = SampleRng.for_samples(0, "noise", [str(i) for i in range(5)], torch.device("cpu"))
    region = L0(20).around(clean, UNIT)
    whole = region.random_start(rng, "start/0")
    for index in ([3], [4, 0, 2]):
        chosen = torch.tensor(index)
        assert torch.equal(whole[chosen], region.select(chosen).random_start(rng.select(chosen), "start/0"))


@quickly
@given(cases())
def test_no_change_of_one_coordinate_gains_more_than_the_steepest(case):
    gradient = torch.randn(case.clean.shape, generator=case.generator)
    position = case.clean
    step = case.region.steepest(gradient.clone(), position)
    gained = (gradient * step).flatten(1).sum(1)
    low, high = (case.bounds.low, case.bounds.high) if case.bounds != OPEN else (position - 1, position + 1)
    best = torch.maximum(gradient * (high - position), gradient * (low - position)).flatten(1).amax(1)
    assert torch.allclose(gained, best, rtol=1e-5)
    assert (changes(step, torch.zeros_like(step)) <= 1).all()


def test_a_gradient_of_zero_gives_no_step():
    region = L0(2).around(torch.rand(2, 3, 4, 4), UNIT)
    assert torch.equal(region.steepest(torch.zeros(2, 3, 4, 4), region.clean), torch.zeros(2, 3, 4, 4))


# ---------------------------------------------------------------- distance, contains


@quickly
@given(cases())
def test_the_distance_is_the_number_of_changed_values(case):
    assert torch.equal(case.region.distance(case.x), changes(case.x, case.clean).float())


def test_one_value_too_many_is_not_contained_however_small_its_change():
    region = L0(2).around(torch.full((2, 6), 0.5), UNIT)
    x = region.clean.clone()
    x[:, :2] = 1.0
    x[1, 5] += 1e-7
    assert region.contains(x).tolist() == [True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.001, -0.001])
@pytest.mark.parametrize("ball", [L0(3), unlimited(L0(3)), unlimited(L2(1.0))])
def test_a_value_that_is_not_finite_or_out_of_bounds_is_not_contained(value, ball):
    x = torch.full((2, 6), 0.5)
    x[0, 3] = value
    assert ball.around(torch.full((2, 6), 0.5), UNIT).contains(x).tolist() == [False, True]
    if not math.isfinite(value):
        assert ball.around(torch.full((2, 6), 0.5), OPEN).contains(x).tolist() == [False, True]


# ---------------------------------------------------------------- the model with known distances


def test_the_known_models_distance_is_the_smallest_number_of_changes_by_brute_force():
    setting = half_space_setting(L0(1), samples=12)
    model = HalfSpace()
    clean = setting.clean
    score = model(clean)[:, 0]
    reach = model.distance(clean, "l0")
    assert len(set(reach.tolist())) > 1
    extreme = torch.where((score[:, None, None, None] * model.weight) > 0, 0.0, 1.0)
    gain = ((extreme - clean) * model.weight).flatten(1).abs()
    for row in range(len(clean)):
        for count in range(1, int(reach[row]) + 1):
            possible = float(gain[row].topk(count).values.sum()) > abs(float(score[row]))
            assert possible == (count == int(reach[row]))
