"""Whole runs in this process: what is computed and what is not, what a plugin's mistake costs, and that nothing that
should change no number does.

The model is a half-space, on which the exact distance of each sample is known: an attack is right if it breaks exactly
the samples within eps.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lab import hookimpl, scheduler
from robustbench_lab.api import InMemoryDataset
from robustbench_lab.attack_audit import RANDOMIZED_PASSES
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import AttackSpec, DatasetSpec, DefenseSpec, ModelSpec
from robustbench_lab.experiment_spec import ExperimentSpec
from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.records import Cell, CellRecord, Outcomes, Severity, Status, Verdict, WorkUnit
from robustbench_lab.result_store import open_store
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

SAMPLES = 120
EPS = 0.02
"""About half of the samples lie nearer to the other class."""
PGD = "pgd(step_size=0.02, steps=14)"
"""On a linear model its second step reaches the optimum, so the loss has settled long before the last."""
FIRST, SECOND = HalfSpace(0).eval(), HalfSpace(1).eval()


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.5 + 0.05 * torch.randn(SAMPLES, *SHAPE, generator=generator).clamp(-2, 2)


LABELS = FIRST(inputs()).argmax(1)
LABELS[::10] = 1 - LABELS[::10]
RIGHT = (FIRST(inputs()).argmax(1) == LABELS).numpy()
WITHIN_EPS = (FIRST.distance(inputs(), "linf") <= EPS).numpy()


class Counting(nn.Module):
    """A model that notes how many samples went through it."""

    seen = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        Counting.seen += len(x)
        logits: Tensor = self.model(x)
        return logits


class Read(nn.Module):
    """`function(model(x))`."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = HalfSpace(0)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model(x))


class BothHalfSpaces(nn.Module):
    """A defense that asks a second model as well: for the two together the exact distance is known again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.first, self.second = model, HalfSpace(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class Noisy(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.02 * torch.randn_like(x))
        return logits


# ---------------------------------------------------------------- attacks, good and bad


class Interrupted:
    """Makes the attack `interruptible` raise Ctrl-C at its next calls."""

    at_call: int | None = None
    calls = 0


def step(problem: AttackProblem) -> Tensor:
    """The best input of a linear model."""
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    return problem.project(problem.clean + problem.eps * problem.steepest(gradient, problem.clean))


def raises(problem: AttackProblem) -> None:
    step(problem)
    raise RuntimeError("it broke\nin two lines")


def exits(problem: AttackProblem) -> None:
    sys.exit(3)


def hands_in_nan(problem: AttackProblem) -> None:
    problem.submit(torch.full_like(problem.clean, torch.nan))


def leaves_the_ball(problem: AttackProblem) -> None:
    _, gradient = problem.loss_and_gradient(problem.clean, candidate=False)
    problem.submit((problem.clean + 3 * problem.eps * gradient.sign()).clamp(0, 1))


def wrong_shape(problem: AttackProblem) -> None:
    problem.submit(problem.clean[:-1])


def prints(problem: AttackProblem) -> None:
    print("a library says hello")  # noqa: T201 (what is tested)
    problem.submit(step(problem))


def overwrites_the_clean_inputs(problem: AttackProblem) -> None:
    """The usual slip: `x` is the clean input itself, so nothing that is measured against it shows the change."""
    x = problem.clean
    x += 10 * problem.eps * torch.sign(SECOND.weight)
    x.clamp_(0, 1)
    problem.submit(x)


def interruptible(problem: AttackProblem) -> None:
    Interrupted.calls += 1
    if Interrupted.calls == Interrupted.at_call:
        raise KeyboardInterrupt
    problem.submit(step(problem))


def bright_half(problem: AttackProblem, *, bright: bool) -> None:
    """Breaks what can be broken of the samples whose first value is above (or not above) the middle."""
    first = problem.clean.flatten(1)[:, :1, None, None]
    problem.submit(torch.where((first > 0.5) == bright, step(problem), problem.clean))


def notes_passes(problem: AttackProblem) -> None:
    problem.submit(problem.clean)
    notes_passes.seen = Counting.seen  # type: ignore[attr-defined]


ATTACKS = (
    raises,
    exits,
    hands_in_nan,
    leaves_the_ball,
    wrong_shape,
    prints,
    overwrites_the_clean_inputs,
    interruptible,
    bright_half,
    notes_passes,
)


class Lab:
    """The components of these tests."""

    __version__ = "1"

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        padded = nn.ConstantPad1d((0, 3), -20.0)
        return [
            ModelSpec(name="half-space", factory=lambda: Counting(HalfSpace(0))),
            ModelSpec(name="probabilities", factory=lambda: Read(lambda logits: logits.softmax(1))),
            ModelSpec(name="one-class", factory=lambda: Read(lambda logits: logits[:, :1])),
            ModelSpec(name="five-classes", factory=lambda: Read(padded)),
            ModelSpec(name="no-model", factory=lambda: {"weights": 1}),
        ]

    @hookimpl
    def rbl_datasets(self) -> list[DatasetSpec]:
        def near_half() -> Any:
            return replace(InMemoryDataset.of(inputs(), LABELS), classes=2)

        return [DatasetSpec(name="near-half", factory=near_half, default_eps=EPS)]

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [AttackSpec(name=one.__name__.replace("_", "-"), factory=one) for one in ATTACKS]

    @hookimpl
    def rbl_defenses(self) -> list[DefenseSpec]:
        return [
            DefenseSpec(name="second-opinion", factory=BothHalfSpaces),
            DefenseSpec(name="noisy", factory=Noisy, randomized=True),
            DefenseSpec(name="secretly-noisy", factory=Noisy),
        ]


CATALOG = open_catalog(extra=[("lab", Lab())])


def run(folder: Path, observers: Sequence[RunObserver] = (), **fields: Any) -> RunResult:
    """The usual run with what the test changes, in a database of that folder."""
    usual: dict[str, Any] = {
        "models": ["half-space"],
        "datasets": ["near-half"],
        "attacks": [PGD],
        "database": str(folder / "rbl.db"),
    }
    return run_experiment(ExperimentSpec.from_flags(**{**usual, **fields}), CATALOG, observers=observers)


def only(result: RunResult) -> CellRecord:
    (record,) = result.records
    return record


def outcomes(record: CellRecord) -> Outcomes:
    assert record.outcomes is not None, record.reason
    return record.outcomes


def same_outcomes(first: CellRecord, second: CellRecord) -> bool:
    pairs = (
        (getattr(outcomes(one), name) for one in (first, second)) for name in ("clean_correct", "robust", "distance")
    )
    return all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


class Events(RunObserver):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        self.seen.append(("run_started", len(to_do), stored))

    def unit_started(self, unit: WorkUnit, device: str) -> None:
        self.seen.append(("unit_started", unit.start, unit.stop))

    def cell_finished(self, record: CellRecord) -> None:
        self.seen.append(("cell_finished", record.cell.attack.label))

    def run_finished(self, interrupted: bool) -> None:
        self.seen.append(("run_finished", interrupted))


# ---------------------------------------------------------------- the numbers


def test_a_run_finds_exactly_the_samples_that_can_be_broken(tmp_path: Path) -> None:
    result = run(tmp_path, attacks=[PGD, "noise"], devices=["cpu"])
    pgd, noise = result.records
    assert np.array_equal(outcomes(pgd).clean_correct, RIGHT)
    assert np.array_equal(outcomes(pgd).robust, RIGHT & ~WITHIN_EPS)
    assert outcomes(pgd).distance[~RIGHT].tolist() == [0.0] * int((~RIGHT).sum())
    assert bool((outcomes(pgd).distance[RIGHT & WITHIN_EPS] <= EPS * 1.0001).all())
    assert pgd.metrics["clean_accuracy"].value == RIGHT.mean()
    assert pgd.metrics["robust_accuracy"].value == (RIGHT & ~WITHIN_EPS).mean()
    assert pgd.verdict is Verdict.RELIABLE
    assert (pgd.device, pgd.executor, pgd.status) == ("cpu", "inline", Status.OK)
    assert outcomes(noise).robust.sum() > outcomes(pgd).robust.sum()
    assert noise.verdict is Verdict.SUSPECT


def test_the_worst_case_over_attacks_is_taken_per_sample(tmp_path: Path) -> None:
    result = run(tmp_path, attacks=["bright-half(bright=True)", "bright-half(bright=False)"])
    shares = [record.metrics["robust_accuracy"].value for record in result.records]
    (table,) = result.leaderboard.tables
    (row,) = table.rows
    exact = float((RIGHT & ~WITHIN_EPS).mean())
    assert row.metrics["robust_accuracy"].value == pytest.approx(exact)
    assert min(shares) > exact
    assert np.array_equal(outcomes(result.records[0]).robust & outcomes(result.records[1]).robust, RIGHT & ~WITHIN_EPS)


@pytest.mark.parametrize("attack", ["pgd(steps=10)", "pgd(steps=5, restarts=2, momentum=0.75)", "noise"])
def test_the_batch_size_changes_no_outcome_on_a_trained_network(tmp_path: Path, attack: str) -> None:
    fields = {"models": ["digits-cnn"], "datasets": ["digits"], "attacks": [attack], "eps": [0.07]}
    records = [
        only(run(tmp_path, **fields, norms=["linf"], batch_size=size, database=str(tmp_path / f"{size}.db")))
        for size in (7, 64, 500)
    ]
    assert len({record.cell.cell_id for record in records}) == 1
    assert [record.batch_size for record in records] == [7, 64, 500]
    first, *others = [outcomes(record) for record in records]
    assert 0 < first.robust.sum() < first.clean_correct.sum()
    for other in others:
        assert np.array_equal(other.clean_correct, first.clean_correct)
        assert int((other.robust != first.robust).sum()) <= 1  # a margin within float error


# ---------------------------------------------------------------- what is computed, and what is not


def test_a_second_run_computes_nothing_and_gives_the_same_records(tmp_path: Path) -> None:
    attacks = [PGD, "noise", "fgsm"]
    first = run(tmp_path, attacks=attacks)
    seen, events = Counting.seen, Events()
    second = run(tmp_path, [events], attacks=attacks)
    assert (first.computed, second.computed) == (3, 0)
    assert Counting.seen == seen
    assert events.seen == [("run_started", 0, 3), ("run_finished", False)]
    assert [record.cell for record in second.records] == list(first.plan.cells)
    assert all(same_outcomes(*pair) for pair in zip(first.records, second.records, strict=True))
    assert second.leaderboard.tables[0].rows[0].metrics == first.leaderboard.tables[0].rows[0].metrics


def test_only_what_is_new_is_computed_and_the_records_come_in_the_order_of_the_plan(tmp_path: Path) -> None:
    run(tmp_path, attacks=["noise"])
    events = Events()
    result = run(tmp_path, [events], attacks=["fgsm", "noise", PGD])
    assert result.computed == 2
    assert events.seen[0] == ("run_started", 2, 1)
    assert [record.cell.attack.label for record in result.records] == ["fgsm", "noise", PGD]


def test_fresh_evaluates_again_and_replaces_what_was_stored(tmp_path: Path) -> None:
    run(tmp_path)
    with open_store(tmp_path / "rbl.db") as store:
        (stored,) = store.cells()
        before = store.run_of(stored.cell.cell_id)["run_id"]
    result = run(tmp_path, fresh=True)
    with open_store(tmp_path / "rbl.db") as store:
        (again,) = store.cells()
        assert store.run_of(again.cell.cell_id)["run_id"] == result.run_id != before
    assert result.computed == 1
    assert same_outcomes(stored, again)


def test_adversarial_inputs_are_kept_where_asked_for(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    record = only(run(tmp_path, save_adversarials=True))
    with open_store(tmp_path / "rbl.db") as store:
        (artifact,) = store.artifacts(record.cell.cell_id)
        kept = load_file(store.artifacts_folder / artifact.path)["adversarial"]
    assert bool(((kept - inputs()).abs().amax((1, 2, 3)) <= EPS * 1.0001).all())
    assert np.array_equal((FIRST(kept).argmax(1) == LABELS).numpy(), outcomes(record).robust)


# ---------------------------------------------------------------- what a mistake costs


def test_every_mistake_of_an_attack_costs_its_own_cell_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["raises", "exits", "wrong-shape", "hands-in-nan", "leaves-the-ball", "prints", PGD]
    records = {record.cell.attack.label: record for record in run(tmp_path, attacks=names).records}
    failed = {name: one.reason for name, one in records.items() if one.status is Status.FAILED}
    right = int(RIGHT.sum())
    assert failed == {
        "raises": "RuntimeError: it broke in two lines",
        "exits": "SystemExit: 3",
        "wrong-shape": f"the attack queried a torch.float32 tensor [{right - 1}, 1, 5, 5] on cpu; "
        f"the open samples are torch.float32 [{right}, 1, 5, 5] on cpu",
    }
    for name, record in records.items():
        assert (record.metrics == {}) == (name in failed)
        assert (record.outcomes is None) == (name in failed)
        assert (record.verdict is None) == (name in failed)
    for name in ("hands-in-nan", "leaves-the-ball"):
        # What is not allowed counts as a failed attack, and the number as worthless.
        assert np.array_equal(outcomes(records[name]).robust, RIGHT)
        assert records[name].verdict is Verdict.FAILED
        (finding,) = [one for one in records[name].findings if one.code == "outside-threat-model"]
        assert (finding.value, finding.severity) == (right, Severity.FATAL)
    for name in ("prints", PGD):
        assert np.array_equal(outcomes(records[name]).robust, RIGHT & ~WITHIN_EPS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a library says hello\n"


def test_an_attack_that_overwrites_the_clean_inputs_does_not_move_what_it_is_measured_against(tmp_path: Path) -> None:
    record = only(run(tmp_path, attacks=["overwrites-the-clean-inputs"]))
    assert np.array_equal(outcomes(record).robust, RIGHT)
    assert "outside-threat-model" in {finding.code for finding in record.findings}


def test_a_model_that_cannot_be_judged_skips_or_marks_its_own_cells(tmp_path: Path) -> None:
    models = ["one-class", "no-model", "probabilities", "five-classes", "half-space"]
    records = {record.cell.model.name: record for record in run(tmp_path, models=models).records}
    assert {name: record.status for name, record in records.items()} == {
        "one-class": Status.SKIPPED,
        "no-model": Status.FAILED,
        "probabilities": Status.OK,
        "five-classes": Status.OK,
        "half-space": Status.OK,
    }
    assert records["one-class"].reason == (
        "the model has a single output: return one logit for each of 2 or more classes"
    )
    assert records["no-model"].reason == (
        "TypeError: a model factory must return a torch.nn.Module; this one returned dict"
    )
    assert [finding.code for finding in records["one-class"].findings] == ["one-class"]
    for name, code in {"probabilities": "probabilities", "five-classes": "class-count"}.items():
        assert code in {finding.code for finding in records[name].findings}
        assert records[name].verdict is Verdict.SUSPECT
    for name in ("one-class", "no-model"):
        assert records[name].metrics == {}
        assert records[name].outcomes is None
    assert records["half-space"].verdict is Verdict.RELIABLE


def test_a_loss_that_needs_more_classes_skips_the_cell(tmp_path: Path) -> None:
    record = only(run(tmp_path, attacks=["pgd(loss='dlr')"]))
    assert (record.status, record.reason) == (
        Status.SKIPPED,
        "the dlr loss needs at least 3 classes: use loss='margin'",
    )


def test_a_failed_cell_is_not_evaluated_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    attacks = ["raises", PGD]
    assert run(tmp_path, attacks=attacks).computed == 2
    assert run(tmp_path, attacks=attacks).computed == 0
    events = Events()
    result = run(tmp_path, [events], attacks=attacks, retry_failed=True)
    assert result.computed == 1
    assert ("cell_finished", "raises") in events.seen
    assert [record.status for record in result.records] == [Status.FAILED, Status.OK]


# ---------------------------------------------------------------- units, interruption, resumption


@pytest.fixture
def units_of_50(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "cut_units", functools.partial(scheduler.cut_units, size=50))


@pytest.mark.parametrize("attack", [PGD, "noise"])
def test_a_cell_in_several_units_gives_the_outcomes_of_one_unit(
    tmp_path: Path, attack: str, request: pytest.FixtureRequest
) -> None:
    whole = only(run(tmp_path, attacks=[attack]))
    request.getfixturevalue("units_of_50")
    events = Events()
    cut = only(run(tmp_path, [events], attacks=[attack], database=str(tmp_path / "cut.db")))
    assert [event for event in events.seen if event[0] == "unit_started"] == [
        ("unit_started", 0, 50),
        ("unit_started", 50, 100),
        ("unit_started", 100, 120),
    ]
    assert same_outcomes(whole, cut)
    assert (cut.metrics, cut.findings) == (whole.metrics, whole.findings)
    assert cut.forward_per_sample == whole.forward_per_sample
    assert cut.backward_per_sample == whole.backward_per_sample


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`interrupt_at(2)`: the attack `interruptible` is interrupted in its second unit."""
    monkeypatch.setattr(Interrupted, "calls", 0)

    def set_call(number: int | None) -> None:
        Interrupted.at_call, Interrupted.calls = number, 0

    return set_call


@pytest.mark.usefixtures("units_of_50")
def test_a_run_interrupted_inside_a_cell_goes_on_after_its_last_finished_unit(
    tmp_path: Path, interrupt_at: Callable[[int | None], None]
) -> None:
    interrupt_at(None)
    whole = only(run(tmp_path, attacks=["interruptible"], database=str(tmp_path / "whole.db")))
    interrupt_at(2)
    events = Events()
    stopped = run(tmp_path, [events], attacks=["interruptible"])
    assert (stopped.interrupted, stopped.records, stopped.computed) == (True, (), 0)
    assert stopped.leaderboard.tables == ()
    assert events.seen[-1] == ("run_finished", True)
    with open_store(tmp_path / "rbl.db") as store:
        (unit,) = store.units(stopped.plan.cells[0].cell_id)
    assert (unit.start, unit.stop) == (0, 50)

    interrupt_at(None)
    events = Events()
    result = run(tmp_path, [events], attacks=["interruptible"])
    assert [event[1:] for event in events.seen if event[0] == "unit_started"] == [(50, 100), (100, 120)]
    assert Interrupted.calls == 2
    assert (result.interrupted, result.computed) == (False, 1)
    assert same_outcomes(only(result), whole)
    assert only(result).forward_per_sample == whole.forward_per_sample
    assert run(tmp_path, attacks=["interruptible"]).computed == 0


def test_units_that_were_cut_to_another_size_are_computed_anew(
    tmp_path: Path, interrupt_at: Callable[[int | None], None], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("units_of_50")
    interrupt_at(2)
    assert run(tmp_path, attacks=["interruptible"]).interrupted
    request.getfixturevalue("monkeypatch").undo()
    Interrupted.at_call = None
    record = only(run(tmp_path, attacks=["interruptible"]))
    assert np.array_equal(outcomes(record).robust, RIGHT & ~WITHIN_EPS)


def test_an_interrupted_run_keeps_its_finished_cells(
    tmp_path: Path, interrupt_at: Callable[[int | None], None]
) -> None:
    attacks, seeds = ["interruptible"], [0, 1, 2]
    interrupt_at(3)
    stopped = run(tmp_path, attacks=attacks, seeds=seeds)
    assert (stopped.interrupted, stopped.computed, len(stopped.records)) == (True, 2, 2)
    with open_store(tmp_path / "rbl.db") as store:
        assert store.run_of(stopped.records[0].cell.cell_id)["status"] == "interrupted"
    interrupt_at(None)
    result = run(tmp_path, attacks=attacks, seeds=seeds)
    assert (result.interrupted, result.computed, len(result.records)) == (False, 1, 3)


# ---------------------------------------------------------------- observers


def test_observers_hear_of_everything_in_order(tmp_path: Path) -> None:
    events = Events()
    run(tmp_path, [events], attacks=["fgsm", "noise"])
    assert events.seen == [
        ("run_started", 2, 0),
        ("unit_started", 0, SAMPLES),
        ("cell_finished", "fgsm"),
        ("unit_started", 0, SAMPLES),
        ("cell_finished", "noise"),
        ("run_finished", False),
    ]


def test_an_observer_that_raises_is_dropped_with_a_warning_and_stops_nothing(tmp_path: Path) -> None:
    class Broken(Events):
        def cell_finished(self, record: CellRecord) -> None:
            super().cell_finished(record)
            raise ValueError("no such channel\nanywhere")

    class FromPlugin:
        @hookimpl
        def rbl_run_observers(self) -> list[RunObserver]:
            return [broken]

    broken, healthy = Broken(), Events()
    catalog = open_catalog(extra=[("lab", Lab()), ("chat", FromPlugin())])
    spec = ExperimentSpec.from_flags(
        models=["half-space"], datasets=["near-half"], attacks=["fgsm", "noise"], database=str(tmp_path / "rbl.db")
    )
    said = r"^observer Broken is dropped: cell_finished: ValueError: no such channel anywhere$"
    with pytest.warns(UserWarning, match=said) as warned:
        result = run_experiment(spec, catalog, observers=[healthy])
    assert len(warned) == 1
    assert [record.status for record in result.records] == [Status.OK, Status.OK]
    assert broken.seen == [("run_started", 2, 0), ("unit_started", 0, SAMPLES), ("cell_finished", "fgsm")]
    assert [event[0] for event in healthy.seen].count("cell_finished") == 2


# ---------------------------------------------------------------- defenses


def test_an_adaptive_adversary_goes_through_the_defense_and_an_oblivious_one_does_not(tmp_path: Path) -> None:
    result = run(tmp_path, defenses=["second-opinion"], adversary=["adaptive", "oblivious"])
    adaptive, oblivious = result.records
    weight = FIRST.weight + SECOND.weight
    score = ((inputs() - 0.5) * weight).flatten(1).sum(1)
    right = ((score < 0).long() == LABELS).numpy()
    within = (score.abs() <= EPS * weight.abs().sum()).numpy()
    assert np.array_equal(outcomes(adaptive).clean_correct, right)
    assert np.array_equal(outcomes(oblivious).clean_correct, right)
    assert np.array_equal(outcomes(adaptive).robust, right & ~within)
    # Both adversaries are judged on the defended model; what misleads the bare one alone is no success.
    assert not bool((outcomes(adaptive).robust & ~outcomes(oblivious).robust).any())
    assert outcomes(oblivious).robust.sum() > outcomes(adaptive).robust.sum()


@pytest.mark.parametrize(("defense", "passes"), [("none", 1), ("noisy", RANDOMIZED_PASSES)])
def test_a_randomized_defense_is_judged_by_several_passes(tmp_path: Path, defense: str, passes: int) -> None:
    run(tmp_path, attacks=["notes-passes"], defenses=[defense])
    assert Counting.seen - notes_passes.seen == passes * SAMPLES  # type: ignore[attr-defined]


def test_a_randomized_defense_gives_the_same_outcomes_run_after_run_whatever_ran_before(tmp_path: Path) -> None:
    alone = only(run(tmp_path, attacks=["fgsm"], defenses=["noisy"]))
    torch.manual_seed(12345)
    others = run(
        tmp_path, attacks=["noise", "pgd(steps=3)", "fgsm"], defenses=["noisy"], database=str(tmp_path / "2.db")
    )
    assert others.computed == 3
    assert same_outcomes(alone, others.records[-1])
    assert "randomized" in {finding.code for finding in alone.findings}
    assert 0 < outcomes(alone).robust.sum() < outcomes(alone).clean_correct.sum()


def test_randomness_that_a_defense_does_not_declare_is_suspect(tmp_path: Path) -> None:
    record = only(run(tmp_path, attacks=["fgsm"], defenses=["secretly-noisy"]))
    assert record.verdict is Verdict.SUSPECT
    assert "undeclared-randomness" in {finding.code for finding in record.findings}


def test_a_run_leaves_the_global_random_numbers_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(tmp_path, attacks=["fgsm"], defenses=["noisy"])
    assert torch.equal(torch.rand(3), expected)
