"""One change of the recorded series: windows agree wherever they overlap, and together do as much harm as can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from rbl_attacks.universal.timestamp_universal import timestamp_universal
from robustbench_lab.api import evaluate
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack, audit_candidates
from robustbench_lab.plugin_tools.observed_series import Channels, ObservedSeries
from robustbench_lab.plugin_tools.series_windows import SeriesWindows, WindowShape
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecasting import Forecasting
from robustbench_lab.tasks.forecasting_objectives import Up
from robustbench_lab.threat_models.recorded_series import RecordedSeries
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


def setting_on(data: SeriesWindows, threat_model: ThreatModel, seed: int = 0, batch_size: int = 5) -> ProblemSetting:
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
        shared=isinstance(threat_model, RecordedSeries),
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
    threat_model=st.sampled_from([Series, RecordedSeries]),
)
@settings(max_examples=15, deadline=None)
def test_windows_agree_on_every_value_that_they_share_and_stay_in_the_budget(
    stride: int, members: int, known: bool, seed: int, form: dict[str, Any], threat_model: Any
) -> None:
    setting = setting_on(windows(stride, members, known), threat_model(EPS, **form), seed)
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
@pytest.mark.parametrize("threat_model", [Series, RecordedSeries])
def test_on_a_linear_forecaster_no_other_change_of_the_recorded_series_does_more(
    known: bool, threat_model: Any
) -> None:
    setting = setting_on(windows(2, 2, known), threat_model(EPS))
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


# ---------------------------------------------------------------- a threat model of its own


@given(stride=st.integers(1, 4), known=st.booleans(), change=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_value_that_one_window_alone_sees_changed_is_out_of_all_windows_that_share_it(
    stride: int, known: bool, change: int
) -> None:
    setting = setting_on(windows(stride, 2, known), RecordedSeries(EPS))
    shared = list(shared_values(setting).items())
    (_, _, channel), seen = shared[change % len(shared)]
    window, row = seen[change % len(seen)]
    x = setting.clean.clone()
    x[window, row, channel] += 0.01 * float(setting.targets["unit"].min())
    with_it = {one for one, _ in seen} if len(seen) > 1 else set()
    allowed = setting.around(setting.threat_model).contains(x)
    assert {place for place, inside in enumerate(allowed.tolist()) if not inside} == with_it
    for one, place in seen:
        x[one, place, channel] = x[window, row, channel]
    assert setting.around(setting.threat_model).contains(x).all()


def test_windows_that_were_attacked_one_by_one_are_not_allowed() -> None:
    data = windows(1, 1, known=False)
    alone, recorded = setting_on(data, Series(EPS)), setting_on(data, RecordedSeries(EPS))
    problem = AttackProblem(alone)
    pgd(problem, steps=5)
    audit = audit_attack(problem, recorded, recorded.model, passes=1)
    assert [one.code for one in audit.problems] == ["outside-threat-model"]
    np.testing.assert_array_equal(audit.outcomes.columns["shift"], 0)
    with pytest.raises(SkipCell, match="no random points for each window"):
        AttackProblem(recorded).random_start()


def test_what_one_change_does_counts_where_it_is_less_than_nothing_too() -> None:
    """The change that does most, and its mirror image, which does as much good."""
    setting = setting_on(windows(1, 1, known=False), RecordedSeries(EPS))
    problem = AttackProblem(setting)
    timestamp_universal(problem, steps=20)
    mirrored = 2 * setting.clean - problem.candidates
    mirrored = series_values(setting, mirrored)  # rounding differs between windows
    made = setting.objective.damage(setting.model(mirrored), setting.goal).numpy()
    assert (made < 0).all()
    nobody = torch.zeros_like(setting.open)
    for shared, counted in ((True, made), (False, 0 * made)):
        audit = audit_candidates(mirrored, nobody, replace(setting, shared=shared), setting.model, passes=1)
        np.testing.assert_allclose(audit.outcomes.columns["damage"], counted, rtol=1e-5, atol=1e-6)


def series_values(setting: ProblemSetting, x: Tensor) -> Tensor:
    """Inputs in which all windows have the value of the first that sees it."""
    for (_, _, channel), ((first, at), *others) in shared_values(setting).items():
        for window, row in others:
            x[window, row, channel] = x[first, at, channel]
    return x


def test_of_several_shared_changes_the_worst_for_all_windows_is_the_worst_case(tmp_path: Path) -> None:
    """In `series` the worst of each window."""
    means = {}
    for name in ("recorded-series", "series"):
        result = evaluate(
            "demand-mlp",
            "victoria-demand",
            attacks=["timestamp-universal(steps=9)", "timestamp-universal(steps=9, loss='mse')"],
            threat_models=[f"{name}(eps=0.2)"],
            samples=40,
            database=tmp_path / f"{name}.db",
        )
        errors = [one.outcomes.columns["robust_mase"].astype(float) for one in result.records if one.outcomes]
        mixed = np.maximum(*errors).mean()
        assert mixed > max(one.mean() for one in errors) + 1e-6
        (row,) = result.leaderboard.tables[0].rows
        means[name] = (row.metrics["robust_mase"].value, max(one.mean() for one in errors), mixed)
    whole, most, _ = means["recorded-series"]
    assert whole == pytest.approx(most)
    per_window, _, mixed = means["series"]
    assert per_window == pytest.approx(mixed)


@pytest.mark.parametrize("threat_model", [Series, RecordedSeries])
def test_data_that_do_not_say_where_windows_lie_are_refused(threat_model: Any) -> None:
    setting = setting_on(windows(3, 1, known=False), threat_model(EPS))
    del setting.goal["start"], setting.targets["start"]
    with pytest.raises(SkipCell, match="the targets hold no 'start'"):
        timestamp_universal(AttackProblem(setting))
