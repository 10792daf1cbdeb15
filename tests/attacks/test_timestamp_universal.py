"""One change of the recorded series: windows agree wherever they overlap, and together do as much harm as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.universal.timestamp_universal import timestamp_universal
from robustbench_lab.attack_audit import audit_attack
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.plugin_tools.observed_series import Channels, ObservedSeries
from robustbench_lab.plugin_tools.series_windows import SeriesWindows, WindowShape
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecasting import Forecasting
from robustbench_lab.tasks.forecasting_objectives import Up
from robustbench_lab.threat_models.series import Series

HISTORY, HORIZON, EPS = 9, 3, 0.2


class Linear(nn.Module):
    """Every step of the first channels is forecast as one weighted sum of their window, known covariates included."""

    def __init__(self, rows: int, series: int, seed: int) -> None:
        super().__init__()
        self.series = series
        weight = torch.randn(rows, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.weight[:, None]).sum(1)  # [N, channels]
        shared = total[:, self.series :].sum(1, keepdim=True)
        return (total[:, : self.series] + shared)[:, None].expand(-1, HORIZON, -1)


def windows(stride: int, members: int, known: bool) -> SeriesWindows:
    """Of a panel, with gaps, and perhaps a covariate whose future is known."""
    random = np.random.default_rng(0)
    panel = []
    for member in range(members):
        values = random.normal(size=(80, 3 if known else 2)) * (member + 1)
        values[55:57, 0] = np.nan
        panel.append(ObservedSeries([str(step) for step in range(80)], values, name=f"series {member}"))
    channels = Channels(("a", "b"), known=("c",) if known else ())
    return SeriesWindows(panel, channels, WindowShape(HISTORY, HORIZON, season=1, stride=stride))


def setting_on(data: SeriesWindows, threat_model: Series, seed: int = 0, batch_size: int = 5) -> ProblemSetting:
    samples = data.load(range(len(data.sample_ids)))
    count, task = len(samples.inputs), Forecasting()
    model = Linear(samples.inputs.shape[1], 2, seed).eval()
    objective, prediction = Up(), model(samples.inputs)
    goal = objective.prepare(prediction, samples.targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=samples.inputs,
        goal=goal,
        open=torch.ones(count, dtype=torch.bool),
        bounds=data.bounds,
        rng=SampleRng.for_samples(0, "timestamp-universal", list(data.sample_ids), samples.inputs.device),
        batch_size=batch_size,
        task=task,
        targets=samples.targets,
        attackable=samples.attackable,
        clean_measure={
            **task.measure(prediction, samples.targets),
            "damage": objective.damage(prediction, goal),
        },
    )


def shared_values(setting: ProblemSetting) -> dict[tuple[int, int, int], list[tuple[int, int]]]:
    """Of each value of the recorded series that may change, (series, step, channel): where it is, (window, row)."""
    found: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    every = torch.ones_like(setting.clean).bool() if setting.attackable is None else setting.attackable
    blocks = setting.targets.get("block", torch.zeros(len(setting.clean)))
    for window, row, channel in every.nonzero().tolist():
        step = int(setting.targets["start"][window]) - HISTORY + row
        found.setdefault((int(blocks[window]), step, channel), []).append((window, row))
    return found


@given(
    stride=st.integers(1, 4),
    members=st.integers(1, 2),
    known=st.booleans(),
    seed=st.integers(0, 100),
    form=st.sampled_from([{}, {"relative": True}, {"channels": [0]}]),
)
@settings(max_examples=15, deadline=None)
def test_windows_agree_on_every_value_that_they_share_and_stay_in_the_budget(
    stride: int, members: int, known: bool, seed: int, form: dict[str, Any]
) -> None:
    setting = setting_on(windows(stride, members, known), Series(EPS, **form), seed)
    problem = AttackProblem(setting)
    timestamp_universal(problem, steps=20)
    assert audit_attack(problem, setting, setting.model, passes=1).problems == ()
    assert setting.around(setting.threat_model).contains(problem.candidates).all()
    change, overlaps = problem.candidates - setting.clean, 0
    for (_, _, channel), places in shared_values(setting).items():
        overlaps += len(places) > 1
        values = torch.stack([problem.candidates[window, row, channel] for window, row in places])
        assert (values == values[0]).all()
    assert overlaps
    assert change.any()


@pytest.mark.parametrize("known", [False, True])
def test_on_a_linear_forecaster_no_other_change_of_the_recorded_series_does_more(known: bool) -> None:
    setting = setting_on(windows(2, 2, known), Series(EPS))
    problem = AttackProblem(setting)
    timestamp_universal(problem, steps=20)
    made = setting.objective.damage(setting.model(problem.candidates), setting.goal)
    # How much a change of 1 of a value raises a window's mean forecast, times the largest change.
    leaf = setting.clean.clone().requires_grad_()
    (slope,) = torch.autograd.grad(setting.objective.loss(None, setting.model(leaf), setting.goal).sum(), leaf)
    unit = setting.targets["input_unit" if known else "unit"]
    best = sum(
        abs(sum(float(slope[window, row, channel]) * EPS * float(unit[window, channel]) for window, row in places))
        for (_, _, channel), places in shared_values(setting).items()
    )
    assert float(made.sum()) == pytest.approx(best, rel=1e-4)
    # Some windows pay for others: each by itself could be changed to do more.
    alone = EPS * (slope * unit[:, None]).abs().flatten(1).sum(1)
    assert float(made.sum()) < 0.95 * float(alone.sum())


def test_another_batch_size_gives_the_same() -> None:
    first, second = (
        AttackProblem(setting_on(windows(1, 1, known=True), Series(EPS), batch_size=size)) for size in (5, 50)
    )
    for problem in (first, second):
        timestamp_universal(problem, steps=20)
    assert torch.equal(first.candidates, second.candidates)


@pytest.mark.parametrize("form", [{"norm": "l2"}, {"last": 3}, {"steps": 2}, {"smooth": 0.1}, {"monotone": True}])
def test_threat_models_that_look_at_whole_windows_are_refused(form: dict[str, Any]) -> None:
    problem = AttackProblem(setting_on(windows(3, 1, known=False), Series(EPS, **form)))
    with pytest.raises(SkipCell, match="take series with norm='linf', without last"):
        timestamp_universal(problem)


def test_data_that_do_not_say_where_windows_lie_are_refused() -> None:
    setting = setting_on(windows(3, 1, known=False), Series(EPS))
    del setting.goal["start"]
    with pytest.raises(SkipCell, match="the targets hold no 'start'"):
        timestamp_universal(AttackProblem(setting))
