"""Adversarial inputs that are made on one model and judged on another, where both are known in closed form."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))
FROM_NEIGHBOUR = "transfer(model='neighbour')"


def misled_by_the_neighbour() -> np.ndarray:
    """Every value moves by eps along the neighbour's weights; that may break the first model or not."""
    away = 1 - 2 * (lab.LABELS == 0).int()
    moved = lab.inputs() + lab.EPS * away[:, None, None, None] * lab.NEIGHBOUR.weight.sign()
    broken: np.ndarray = (lab.FIRST(moved).argmax(1) != lab.LABELS).numpy()
    return broken


def test_exactly_those_are_broken_that_the_other_models_direction_breaks(tmp_path: Path) -> None:
    result = lab.run(tmp_path, adversary=["adaptive", FROM_NEIGHBOUR, "transfer(model='half-space')"])
    adaptive, transferred = result.records
    assert np.array_equal(lab.outcomes(transferred).robust, lab.RIGHT & ~misled_by_the_neighbour())
    assert lab.outcomes(adaptive).robust.sum() < lab.outcomes(transferred).robust.sum() < lab.RIGHT.sum()
    # They are about different adversaries, and stand in different tables.
    assert {table.adversary for table in result.leaderboard.tables} == {"adaptive", FROM_NEIGHBOUR}
    (left_out,) = [one for one in result.plan.left_out if "half-space with" in one.label]
    assert left_out.reason == "a model is not attacked by way of itself: use adaptive"


def test_the_search_does_not_end_where_the_source_just_breaks(tmp_path: Path) -> None:
    stopping = lab.run(tmp_path, models=["neighbour"], attacks=[lab.PGD]).records[0]
    transferred = lab.run(tmp_path, adversary=[FROM_NEIGHBOUR]).records[0]
    assert stopping.forward_per_sample < 10 < transferred.forward_per_sample


def test_minimum_norm_attacks_are_left_out_and_unknown_models_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="minimum-norm attacks end where the source just breaks"):
        lab.run(tmp_path, attacks=["deepfool"], adversary=[FROM_NEIGHBOUR])
    with pytest.raises(UsageError, match=r"there is no model 'neighbor'\. Did you mean 'neighbour'\?"):
        lab.run(tmp_path, adversary=["transfer(model='neighbor')"])


def test_the_source_is_part_of_what_a_result_is(tmp_path: Path) -> None:
    plain, transferred = lab.run(tmp_path, adversary=["adaptive", FROM_NEIGHBOUR]).records
    assert plain.cell.cell_id != transferred.cell.cell_id
    assert lab.run(tmp_path, adversary=['transfer(model="neighbour")']).computed == 0


def test_on_forecasters_the_goal_is_the_sources_own_forecast(tmp_path: Path) -> None:
    fields = {
        "models": ["demand-mlp"],
        "objectives": ["error(labels='self')"],
        "attacks": ["pgd(steps=10)"],
        "samples": 30,
        "database": str(tmp_path / "series.db"),
        "adversary": ["adaptive", "transfer(model='demand-dlinear')"],
    }
    adaptive, transferred = run_experiment(ExperimentSpec.from_flags(**fields), open_catalog()).records
    rise = [one.metrics["robust_mase"].value - one.metrics["clean_mase"].value for one in (adaptive, transferred)]
    assert 0 < rise[1] < rise[0]
