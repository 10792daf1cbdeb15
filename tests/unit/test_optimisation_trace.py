"""What a gradient attack's own queries show about whether it could work."""

from __future__ import annotations

import pytest
import torch

from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.diagnostics.optimisation_trace import WINDOW, OptimisationTrace
from robustbench_lab.diagnostics.verdict import verdict_of
from robustbench_lab.records import Finding, Severity, Verdict

SAMPLES = 4
SOME_GRADIENT = torch.ones(SAMPLES, 3)


def codes(trace: OptimisationTrace) -> dict[str, tuple[Severity, float | None]]:
    return {finding.code: (finding.severity, finding.value) for finding in merge_findings(trace.findings())}


def run(losses: list[torch.Tensor], gradient: torch.Tensor = SOME_GRADIENT) -> OptimisationTrace:
    trace = OptimisationTrace()
    trace.restart()
    for loss in losses:
        trace.observe(loss, gradient)
    return trace


def rising(steps: int, speed: float) -> list[torch.Tensor]:
    """A loss that comes near its end at a speed: 1 - exp(-speed * step)."""
    return [(1 - torch.exp(torch.tensor(-speed * step))).expand(SAMPLES) for step in range(steps)]


def test_a_search_that_settles_gives_no_finding() -> None:
    assert codes(run(rising(60, 0.3))) == {}


def test_a_loss_that_still_rises_at_the_end_is_suspect() -> None:
    assert codes(run(rising(60, 0.02))) == {"loss-still-rises": (Severity.SUSPECT, SAMPLES)}


def test_one_sample_in_many_that_still_rises_is_for_information_only() -> None:
    settled = [torch.full((30,), float(step > 0)) for step in range(60)]
    losses = [torch.cat([loss[:1], others]) for loss, others in zip(rising(60, 0.02), settled, strict=True)]
    trace = run(losses, torch.ones(31, 3))
    assert codes(trace) == {"loss-still-rises": (Severity.INFO, 1)}


def test_a_few_steps_cannot_show_that_a_search_has_settled() -> None:
    assert codes(run(rising(WINDOW, 5.0))) == {"few-steps": (Severity.SUSPECT, None)}


def test_a_search_that_goes_down_is_suspect() -> None:
    down = run([-loss for loss in rising(60, 0.3)])
    assert codes(down) == {"loss-never-rises": (Severity.SUSPECT, SAMPLES)}


def test_a_search_that_begins_where_another_has_ended_may_find_nothing_higher() -> None:
    trace = run(rising(60, 0.3))
    trace.restart()
    for _ in range(60):
        trace.observe(torch.ones(SAMPLES), SOME_GRADIENT)
    assert codes(trace) == {}


def test_a_loss_that_is_flat_on_the_few_that_are_left_is_no_finding() -> None:
    trace = run([torch.zeros(SAMPLES)])
    trace.keep(torch.tensor([0]), of=SAMPLES)
    for _ in range(60):
        trace.observe(torch.zeros(1), None)
    assert codes(trace) == {}


def test_a_loss_that_stays_where_it_is_on_a_few_samples_is_no_finding() -> None:
    losses = [torch.cat([loss[:1].expand(3), torch.ones(2)]) for loss in rising(60, 0.3)]
    assert codes(run(losses, torch.ones(5, 3))) == {}


def test_samples_that_were_broken_are_not_judged() -> None:
    trace = run(rising(60, 0.02))
    trace.keep(torch.tensor([], dtype=torch.int64), of=4)
    assert codes(trace) == {}


def test_a_restart_begins_anew() -> None:
    trace = run(rising(60, 0.3))
    trace.restart()
    trace.observe(torch.zeros(SAMPLES), SOME_GRADIENT)
    assert set(codes(trace)) == {"few-steps"}


@pytest.mark.parametrize(("value", "code"), [(0.0, "zero-gradient"), (torch.nan, "bad-gradient")])
def test_gradients_without_use_are_counted_by_sample(value: float, code: str) -> None:
    gradient = SOME_GRADIENT.clone()
    gradient[:2] = value
    assert codes(run(rising(60, 0.3), gradient)) == {code: (Severity.SUSPECT, 2)}


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ([], Verdict.RELIABLE),
        ([Severity.INFO], Verdict.RELIABLE),
        ([Severity.INFO, Severity.SUSPECT], Verdict.SUSPECT),
        ([Severity.FATAL, Severity.SUSPECT], Verdict.FAILED),
    ],
)
def test_the_severest_finding_makes_the_verdict(severities: list[Severity], verdict: Verdict) -> None:
    assert verdict_of([Finding("x", severity, "x") for severity in severities]) is verdict
