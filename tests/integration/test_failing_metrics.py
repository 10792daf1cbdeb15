"""A metric that raises, or gives what is no number in its own interval, costs its own number and nothing else."""

from __future__ import annotations

import math
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab import hookimpl
from robustbench_lab.contracts import Estimate, MetricSpec
from robustbench_lab.errors import StoreError
from robustbench_lab.evaluation.metric_values import measure
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition
from robustbench_lab.ranking.stored_leaderboard import rank_store
from robustbench_lab.records import Outcomes, Severity
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.testing.example_results import example_result

laboratory = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))
OUTCOMES = Outcomes(np.array([True]), np.array([True]), np.array([math.nan], np.float32))

BAD = {
    "outside": (lambda _: Estimate(0.5, 0.6, 0.7), r"its value 0\.5 lies outside of its own interval, 0\.6 to 0\.7"),
    "number": (lambda _: 0.5, "it gave a float, not an Estimate"),
    "words": (lambda _: Estimate("half", 0, 1), "it gave what are no numbers"),  # type: ignore[arg-type]
    "raises": (lambda _: 1 / 0, "ZeroDivisionError: division by zero"),
    "exits": (lambda _: sys.exit(3), "SystemExit: 3"),
    "missing": ("no_such_module:metric", "needs no_such_module, which is not installed"),
}


class Metrics:
    __version__ = "1"

    @hookimpl
    def rbl_metrics(self) -> list[MetricSpec]:
        bad: list[Any] = [(name, factory) for name, (factory, _) in BAD.items()]
        good = [("single_precision", lambda _: Estimate(*np.float32([0.5, 0.25, 0.75])))]
        return [MetricSpec(name=name, factory=made, tasks=("classification",)) for name, made in bad + good]


CATALOG = open_catalog(extra=[("lab", laboratory.Lab()), ("metrics", Metrics())])


@pytest.mark.filterwarnings("ignore:metric ")
def test_every_cell_is_stored_with_all_other_numbers_and_says_what_became_of_the_metric(tmp_path: Path) -> None:
    database = str(tmp_path / "rbl.db")
    fields = {"models": ["half-space"], "datasets": ["near-half"], "attacks": ["fgsm", "noise"], "executor": "inline"}
    result = run_experiment(ExperimentSpec.from_flags(**fields, database=database), CATALOG)
    expected = laboratory.run(tmp_path, attacks=["fgsm", "noise"], database=":memory:")
    assert [record.status for record in result.records] == [record.status for record in expected.records]
    for record, plain in zip(result.records, expected.records, strict=True):
        assert plain.metrics.items() <= record.metrics.items()
        assert record.metrics["single_precision"] == Estimate(0.5, 0.25, 0.75)
        assert record.verdict == plain.verdict
        said = {one.message for one in record.findings if one.code == "metric-failed"}
        assert len(said) == len(BAD)
        assert all(math.isnan(record.metrics[name].value) for name in BAD)
        assert all(any(f"metric '{name}' has no value" in one for one in said) for name in BAD)
    with open_store(database) as store:
        ranked = rank_store(store, LeaderboardDefinition(), CATALOG)
    assert ranked.tables[0].rows[0].rank == 1


@pytest.mark.parametrize("name", [name for name in BAD if name != "missing"])
def test_the_reason_is_a_warning_and_a_finding(name: str) -> None:
    metric: Any
    metric, reason = BAD[name]
    with pytest.warns(UserWarning, match=f"^metric '{name}' has no value: {reason}"):
        estimate, (finding,) = measure(name, metric, OUTCOMES)
    assert math.isnan(estimate.value)
    assert (finding.code, finding.severity) == ("metric-failed", Severity.INFO)


NUMBERS = st.one_of(st.floats(0, 1), st.just(math.nan))


@pytest.fixture(scope="module")
def store() -> Iterator[ResultStore]:
    with open_store(":memory:") as opened:
        yield opened


@given(NUMBERS, NUMBERS, NUMBERS)
def test_an_estimate_is_taken_exactly_when_a_database_takes_it(
    store: ResultStore, value: float, low: float, high: float
) -> None:
    estimate = Estimate(value, low, high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, troubles = measure("any", lambda _: estimate, OUTCOMES)
    with pytest.raises(StoreError) if troubles else nullcontext():
        store.save_cell(replace(example_result([True]), metrics={"any": estimate}), store.begin_run([], {}, {}))
    assert troubles or repr(found) == repr(estimate)
