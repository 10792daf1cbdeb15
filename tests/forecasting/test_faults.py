"""Natural faults: what each kind does to a history, and what a region of faults holds."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from rbl_attacks.natural.fault_kinds import KINDS, with_fault
from rbl_attacks.natural.faults import Kind, faults
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecasting_objectives import Error
from robustbench_lab.testing.known_forecasters import forecast_setting
from robustbench_lab.threat_models.fault import Fault
from robustbench_lab.threat_models.series import Series

STEPS, CHANNELS, SAMPLES = 100, 2, 50
UNIT = torch.tensor([2.0, 30.0]).expand(SAMPLES, 1, -1)


class Numbers:
    """A sample's own random numbers, as a problem gives them."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.rng = SampleRng.for_samples(0, "faults", [str(one) for one in range(samples)], torch.device("cpu"))

    def uniform(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        return self.rng.uniform(shape or (STEPS, CHANNELS), draw)

    def normal(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        return self.rng.normal(shape or (STEPS, CHANNELS), draw)


def clean() -> Tensor:
    return 10 * UNIT + UNIT * torch.randn(SAMPLES, STEPS, CHANNELS, generator=torch.Generator().manual_seed(0))


def faulty(kind: str, severity: int) -> Tensor:
    return with_fault(clean(), UNIT, kind, severity, Numbers())


def runs(hit: Tensor) -> Tensor:
    """How many runs of consecutive steps each channel has, `[N, C]`."""
    return hit[:, 0].long() + (hit[:, 1:] & ~hit[:, :-1]).sum(1)


def test_every_kind_is_one_the_attack_can_be_asked_for() -> None:
    assert {*KINDS, "all"} == set(get_args(Kind))
    assert all(len(fault.levels) == 5 for fault in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_the_same_for_a_sample_in_any_batch_and_larger_at_higher_severities(kind: str) -> None:
    x = 10 * UNIT + (clean() - 10 * UNIT).cumsum(1)  # a random walk: the further away, the more different
    made = [with_fault(x, UNIT, kind, severity, Numbers()) for severity in range(1, 6)]
    assert torch.equal(with_fault(x[:4], UNIT[:4], kind, 3, Numbers(4)), made[2][:4])
    size = [float(((one - x) / UNIT).abs().mean()) for one in made]
    assert size == sorted(size)
    assert size[0] > 0


def test_kinds_do_what_they_are_called() -> None:
    x = clean()
    change = (faulty("gaussian_noise", 3) - x) / UNIT
    assert math.isclose(float(change.std()), 0.2, rel_tol=0.05)
    hit = (faulty("spikes", 4) != x).float().mean()
    assert math.isclose(float(hit), 0.1, rel_tol=0.1)
    assert torch.allclose(((faulty("spikes", 4) - x) / UNIT).abs().amax(), torch.tensor(3.0), rtol=1e-3)
    for severity, steps in enumerate((2, 5, 10, 20, 40), 1):
        gone = faulty("dropout", severity) == 0
        assert (gone.sum(1) == steps).all()
        assert (runs(gone) == 1).all()
        held = faulty("stuck", severity)
        assert torch.equal(held[:, :-steps], x[:, :-steps])
        assert (held[:, -steps:] == x[:, -steps - 1 : -steps]).all()
    filled = faulty("missing_blocks", 4)
    gone = filled != x
    assert (runs(gone) <= 3).all()
    assert math.isclose(float(gone.float().mean()), 0.21, rel_tol=0.05)
    assert (filled[:, 1:][gone[:, 1:]] == filled[:, :-1][gone[:, 1:]]).all()
    change = (faulty("drift", 3) - x) / UNIT
    assert torch.allclose(change[:, -1].abs(), torch.tensor(0.5), rtol=1e-2)
    assert torch.allclose(change[:, 50], change[:, -1] * 50 / 99, atol=1e-3)
    change = ((faulty("level_shift", 4) - x) / UNIT).round(decimals=2).abs()
    assert set(change.unique().tolist()) == {0.0, 1.0}
    begin = (change == 0).sum(1)
    assert ((begin >= 25) & (begin <= 75)).all()
    assert torch.equal(faulty("time_shift", 5)[:, 8:], x[:, :-8])
    cut = faulty("saturation", 3)
    assert torch.allclose(cut.amax(1) - cut.amin(1), 0.6 * (x.amax(1) - x.amin(1)), rtol=1e-4)


def test_only_what_was_measured_has_faults() -> None:
    x = torch.rand(4, 12, 4) + 1
    targets = {
        "unit": torch.ones(4, 1),
        "input_unit": torch.ones(4, 4),
        "roles": torch.tensor([0, 1, 2, 3]).expand(4, -1),
        "future": torch.zeros(4, 3, 1),
    }
    for of, channels in (("all", [0, 1]), ("series", [0]), ("covariates", [1])):
        region = Fault(3, of=of).around(x, Bounds(0, math.inf), targets)  # type: ignore[arg-type]
        changed = region.project(x - 5) != x
        expected = torch.zeros(12, 4, dtype=torch.bool)
        expected[:9, channels] = True
        assert torch.equal(changed, expected.expand(4, -1, -1))
        assert region.contains(region.project(x - 5)).all()
        assert not region.contains(x + 1).any()
        assert not region.contains(x * torch.nan).any()


@pytest.mark.parametrize("kinds", [["drift"], ["spikes", "stuck"], ["all"]])
def test_the_attack_keeps_the_worst_of_its_kinds_and_passes_the_audit(kinds: list[Any]) -> None:
    outcomes = {}
    for kind in [*kinds, kinds]:
        setting = forecast_setting(Fault(4), Error(), bounds=Bounds(0.0, math.inf), samples=20)
        problem = AttackProblem(setting)
        faults(problem, kinds=[kind] if isinstance(kind, str) else kind)
        audit = audit_attack(problem, setting, setting.model, passes=1)
        assert not [finding for finding in audit.problems if finding.code == "outside-threat-model"]
        outcomes[str(kind)] = torch.from_numpy(audit.outcomes.columns["damage"])
    single = torch.stack([damage for kind, damage in outcomes.items() if kind != str(kinds)])
    assert torch.equal(outcomes[str(kinds)], single.amax(0))
    assert problem.counted_model.forward_passes == 20 * (9 if kinds == ["all"] else len(kinds))


def test_what_makes_no_sense_is_named() -> None:
    with pytest.raises(UsageError, match="whole number from 1 to 5"):
        Fault(0.1).check(Bounds())
    with pytest.raises(SkipCell, match="are for the threat model 'fault'"):
        faults(AttackProblem(forecast_setting(Series(0.1), Error())))
    with pytest.raises(SkipCell, match="use the attack 'faults'"):
        AttackProblem(forecast_setting(Fault(2), Error())).random_start()
    with pytest.raises(SkipCell, match="for forecasting datasets"):
        Fault(2).around(torch.zeros(2, 3, 4, 4), Bounds(), torch.zeros(2))
