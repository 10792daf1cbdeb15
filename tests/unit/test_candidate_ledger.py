"""Which candidate of a sample is kept, and when the sample is done."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.problem_parts.candidate_ledger import SURE, CandidateLedger

SAMPLES = 4
ROWS = torch.arange(SAMPLES)


def ledger(*, stops: bool = True, needs_success: bool = True) -> CandidateLedger:
    clean = torch.zeros(SAMPLES, 2)
    return CandidateLedger(clean, torch.ones(SAMPLES, dtype=torch.bool), stops=stops, needs_success=needs_success)


def inputs(value: float) -> torch.Tensor:
    return torch.full((SAMPLES, 2), value)


def test_the_first_success_is_kept_and_ends_the_search() -> None:
    kept = ledger()
    for value in (1.0, 2.0):
        success = torch.tensor([1.0, 0.0, 1.0, 0.0])
        kept.offer(ROWS, inputs(value), success, success, None)
    assert kept.best[:, 0].tolist() == [1, 0, 1, 0]
    assert kept.done.tolist() == kept.broken.tolist() == [True, False, True, False]
    assert kept.unbroken == 2


def test_on_a_randomized_model_what_succeeds_most_often_is_kept_and_only_a_sure_success_ends_the_search() -> None:
    kept = ledger()
    for value, share in ((1.0, 0.6), (2.0, 0.8), (3.0, 0.7), (4.0, SURE)):
        success = torch.full((SAMPLES,), share)
        kept.offer(ROWS[:2], inputs(value)[:2], success[:2], success[:2], None)
        if value < 4:
            assert not kept.done.any()
    kept.offer(ROWS[2:], inputs(5.0)[2:], torch.tensor([0.5, 0.55]), torch.tensor([0.5, 0.55]), None)
    assert kept.best[:, 0].tolist() == [4, 4, 0, 5]
    assert kept.broken.tolist() == [True, True, False, True]
    assert kept.done.tolist() == [True, True, False, False]


@given(st.lists(st.tuples(st.floats(0.125, 100, width=32), st.booleans()), min_size=1, max_size=20))
def test_minimum_norm_keeps_the_nearest_success(tried: list[tuple[float, bool]]) -> None:
    kept = ledger(stops=False)
    for distance, succeeds in tried:
        success = torch.full((SAMPLES,), float(succeeds))
        kept.offer(ROWS, inputs(distance), success, torch.full((SAMPLES,), -distance), None)
    nearest = min((distance for distance, succeeds in tried if succeeds), default=float("inf"))
    assert kept.nearest(ROWS).tolist() == [nearest] * SAMPLES
    assert kept.best[0, 0] == (nearest if nearest < float("inf") else 0)
    assert not kept.done.any()


def test_without_need_of_success_the_most_damaging_is_kept() -> None:
    kept = ledger(stops=False, needs_success=False)
    for value, damage, success in ((1.0, -3.0, 0.0), (2.0, 2.0, 1.0), (3.0, 1.0, 1.0)):
        kept.offer(ROWS, inputs(value), torch.full((SAMPLES,), success), torch.full((SAMPLES,), damage), None)
    assert kept.best[:, 0].tolist() == [2] * SAMPLES
    assert kept.unbroken == 0


def test_what_is_not_permitted_is_no_candidate() -> None:
    kept = ledger()
    success = torch.ones(SAMPLES)
    kept.offer(ROWS, inputs(1.0), success, success, torch.tensor([True, False, True, False]))
    assert kept.broken.tolist() == [True, False, True, False]


def test_the_last_input_is_kept_where_nothing_succeeded() -> None:
    kept = ledger()
    success = torch.tensor([1.0, 0.0, 0.0, 0.0])
    kept.offer(ROWS, inputs(1.0), success, success, None)
    kept.keep_last(ROWS, inputs(2.0))
    assert kept.best[:, 0].tolist() == [1, 2, 2, 2]
    assert kept.broken.tolist() == [True, False, False, False]


def test_of_several_candidates_for_one_sample_the_first_of_the_best_is_kept() -> None:
    kept = ledger()
    rows = torch.tensor([1, 3, 1, 3, 1])
    x = torch.arange(10.0).view(5, 2)
    kept.note_moves(rows, x, torch.zeros(5, 2))
    kept.offer(rows, x, torch.tensor([0.0, 1, 1, 0, 1]), torch.tensor([-1.0, -3, -2, -9, -2]), None)
    assert kept.best.tolist() == [[0, 0], [4, 5], [0, 0], [2, 3]]
    assert kept.done.tolist() == kept.broken.tolist() == [False, True, False, True]
    assert kept.unmoved.tolist() == [True, False, True, False]
    kept.keep_last(torch.tensor([2, 2, 3]), torch.tensor([[7.0, 7], [8, 8], [9, 9]]))
    assert kept.best[:, 0].tolist() == [0, 4, 8, 2]
