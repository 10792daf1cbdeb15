"""Plugins that go wrong in a run cost what they bring, in one line that says what it was; the numbers stay right."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_lab import hookimpl
from robustbench_lab.cli.main import _warning
from robustbench_lab.contracts import (
    AttackSpec,
    DatasetSpec,
    DefenseSpec,
    Estimate,
    ExecutorSpec,
    MetricSpec,
    ObjectiveSpec,
    Samples,
    ThreatModelSpec,
)
from robustbench_lab.errors import RblError
from robustbench_lab.executors.inline import InlineExecutor
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import CellRecord, Outcomes, Status, UnitRecord
from robustbench_lab.run_observer import RunObserver

laboratory = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))


class Cancelled(BaseException):
    """What some libraries raise to end a task."""


def raises_no_exception(_problem: Any) -> None:
    raise Cancelled("by a library")


def returns_its_candidates(problem: Any) -> torch.Tensor:
    return laboratory.step(problem)


def writes_into_outcomes(outcomes: Outcomes) -> Estimate:
    outcomes.robust[:] = True
    return Estimate(1.0, 1.0, 1.0)


class Executor:
    """As `inline`, with its records changed on the way."""

    name = "theirs"

    def __init__(self, change: Callable[[Iterator[UnitRecord]], Any]) -> None:
        self._change = change

    def run(self, queue: Any, context: Any) -> Any:
        return self._change(InlineExecutor().run(queue, context))


EXECUTORS: dict[str, tuple[Callable[[Iterator[UnitRecord]], Any], str]] = {
    "loses-units": (lambda records: iter(list(records)[1:]), "executor 'theirs' ended with 1 of 2 cells unfinished"),
    "hands-in-junk": (lambda records: ({"unit": 1} for _ in records), "what is no record of a unit of this run"),
}


class Theirs:
    __version__ = "1"

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        attacks = (raises_no_exception, returns_its_candidates)
        made = [AttackSpec(name=one.__name__.replace("_", "-"), factory=one) for one in attacks]
        return [
            *made,
            AttackSpec(name="no-estimate", factory=laboratory.step, estimate_passes=lambda one: one["steps"]),
        ]

    @hookimpl
    def rbl_metrics(self) -> list[MetricSpec]:
        return [MetricSpec(name="a_writer", factory=writes_into_outcomes)]

    @hookimpl
    def rbl_executors(self) -> list[ExecutorSpec]:
        made = [
            ExecutorSpec(name=name, factory=partial(Executor, change), tasks=())
            for name, (change, _) in EXECUTORS.items()
        ]
        return [*made, ExecutorSpec(name="no-executor", factory=object, tasks=())]

    @hookimpl
    def rbl_defenses(self) -> list[DefenseSpec]:
        return [DefenseSpec(name="no-module", factory=lambda model: model.forward)]

    @hookimpl
    def rbl_objectives(self) -> list[ObjectiveSpec]:
        return [ObjectiveSpec(name="no-objective", factory=object)]

    @hookimpl
    def rbl_threat_models(self) -> list[ThreatModelSpec]:
        return [ThreatModelSpec(name="no-threat", factory=_no_threat)]


def _no_threat(eps: float) -> Any:
    raise ValueError("it cannot be made")


CATALOG = open_catalog(extra=[("lab", laboratory.Lab()), ("theirs", Theirs())])
BUNDLED: dict[str, Any] = {"models": ["digits-cnn"], "datasets": ["digits"], "samples": 10}
"""With objects of this process every run is `inline`."""


def run(folder: Path, *, observers: tuple[RunObserver, ...] = (), catalog: Any = CATALOG, **fields: Any) -> RunResult:
    usual = {"models": ["half-space"], "datasets": ["near-half"], "database": str(folder / "rbl.db")}
    spec = ExperimentSpec.from_flags(**{**usual, "attacks": [laboratory.PGD], **fields})
    return run_experiment(spec, catalog, observers=observers)


@pytest.mark.filterwarnings("ignore:metric 'a_writer'")
@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("raises-no-exception", "Cancelled: by a library"),
        ("returns-its-candidates", "the attack returned a Tensor: hand candidates in with problem.submit(x)"),
    ],
)
def test_an_attack_that_goes_wrong_costs_its_own_cell(tmp_path: Path, attack: str, reason: str) -> None:
    bad, good = run(tmp_path, attacks=[attack, laboratory.PGD]).records
    assert (bad.status, bad.reason) == (Status.FAILED, reason)
    assert good.status is Status.OK


def test_a_defense_that_is_no_module_is_called_a_defense(tmp_path: Path) -> None:
    (bad,) = run(tmp_path, defenses=["no-module"]).records
    assert str(bad.reason).startswith("TypeError: a defense factory must return a torch.nn.Module")


class Writer(RunObserver):
    """Makes every model robust."""

    def unit_finished(self, record: UnitRecord, slot: Any) -> None:
        assert record.outcomes is not None
        record.outcomes.robust[:] = True

    def cell_finished(self, record: CellRecord) -> None:
        self.unit_finished(record, None)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:metric 'a_writer'", "ignore:observer Writer is dropped")
def test_neither_a_metric_nor_an_observer_can_change_a_number(tmp_path: Path) -> None:
    (record,) = run(tmp_path, observers=(Writer(),)).records
    assert record.outcomes is not None
    np.testing.assert_array_equal(record.outcomes.robust, laboratory.RIGHT & ~laboratory.WITHIN_EPS)
    assert record.metrics["robust_accuracy"].value == pytest.approx(record.outcomes.robust.mean())
    assert np.isnan(record.metrics["a_writer"].value)


def test_a_warning_s_text_cannot_reach_the_terminal_raw() -> None:
    shown = _warning("metric 'x': \x1b[2J<b>\nrbl: all is well", UserWarning, "file", 1)
    assert shown == "rbl: metric 'x':  [2J<b> rbl: all is well\n"


@pytest.mark.filterwarnings("ignore:metric 'a_writer'")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_executor_that_loses_units_is_found_out(tmp_path: Path, executor: str) -> None:
    with pytest.raises(RblError) as refused:
        run(tmp_path, executor=executor, attacks=["fgsm", "noise"], **BUNDLED)
    assert EXECUTORS[executor][1] in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"executor": "no-executor", "attacks": ["fgsm"], **BUNDLED},
            "executor 'no-executor' is not usable: it needs a name and run",
        ),
        (
            {"objectives": ["no-objective"]},
            "objective 'no-objective' of theirs: TypeError: it lacks stop_on_success, eot",
        ),
        ({"threat_models": ["no-threat(eps=1)"], "attacks": ["prints"]}, "nothing to run"),
        ({"attacks": ["no-estimate"]}, "estimate_passes of attack 'no-estimate' of theirs: KeyError: 'steps'"),
    ],
)
def test_what_cannot_be_planned_is_one_line_that_names_the_plugin(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(RblError, match=said) as refused:
        run(tmp_path, **fields)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "rbl.db").exists()


# ---------------------------------------------------------------- data


@dataclass
class Data:
    """`near-half` with changes."""

    changes: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name in self.changes:
            return self.changes[name]
        return getattr(self.__dict__["sound"], name)

    def __post_init__(self) -> None:
        (spec,) = laboratory.Lab().rbl_datasets()
        self.sound = spec.factory()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bounds as a pair": ({"bounds": (0, 1)}, r"bounds must be Bounds\(low, high\), not \(0, 1\)"),
    "ids as numbers": ({"sample_ids": list(range(120))}, "revision and sample_ids must be text"),
    "ids twice": ({"sample_ids": ["a"] * 120}, "sample_ids are not unique"),
}
LOST: dict[str, tuple[Callable[[Samples], Any], str]] = {
    "a pair": (lambda one: (one.inputs, one.targets), "load must return Samples(inputs, targets), not tuple"),
    "arrays": (lambda one: replace(one, inputs=one.inputs.numpy()), "as a torch.Tensor, not ndarray"),
    "too few": (lambda one: Samples(one.inputs[1:], one.targets[1:]), "load was asked for"),
    "labels as floats": (lambda one: replace(one, targets=one.targets.float()), "labels are torch.float32, not int64"),
    "one-hot labels": (lambda one: replace(one, targets=torch.eye(2)[one.targets].long()), "must be class numbers [N]"),
    "labels below 0": (lambda one: replace(one, targets=one.targets - 1), "a label is -1"),
    "grey levels": (lambda one: replace(one, inputs=one.inputs * 255), "divide them by 255"),
}


def on(data: Data, folder: Path) -> RunResult:
    class Brings:
        __version__ = "1"

        @hookimpl
        def rbl_datasets(self) -> list[DatasetSpec]:
            return [DatasetSpec(name="data", factory=lambda: data)]

    catalog = open_catalog(extra=[("lab", laboratory.Lab()), ("brings", Brings())])
    return run(folder, datasets=["data"], catalog=catalog, threat_models=["linf(eps=0.02)"])


@pytest.mark.parametrize("mistake", REFUSED)
def test_data_that_cannot_be_relied_on_are_refused(tmp_path: Path, mistake: str) -> None:
    changes, said = REFUSED[mistake]
    with pytest.raises(RblError, match=said):
        on(Data(changes), tmp_path)


@pytest.mark.parametrize("mistake", LOST)
def test_what_a_dataset_loads_is_looked_at_before_it_is_used(tmp_path: Path, mistake: str) -> None:
    change, said = LOST[mistake]
    data = Data({})
    data.changes["load"] = lambda indices: change(data.sound.load(indices))
    (record,) = on(data, tmp_path).records
    assert record.status in (Status.SKIPPED, Status.FAILED)
    assert said in str(record.reason)
