"""Whole runs in this process: what is computed and what is not, what a plugin's mistake costs, and that nothing that
should change no number does. laboratory.py holds the components.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robustbench_lab.evaluation.attack_audit import RANDOMIZED_PASSES
from robustbench_lab.records import Severity, Status, Verdict
from robustbench_lab.result_store import open_store

lab = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("laboratory.py"))))

# ---------------------------------------------------------------- the numbers


def test_a_run_finds_exactly_the_samples_that_can_be_broken(tmp_path: Path) -> None:
    result = lab.run(tmp_path, attacks=[lab.PGD, "noise"], devices=["cpu"])
    pgd, noise = result.records
    assert np.array_equal(lab.outcomes(pgd).clean_correct, lab.RIGHT)
    assert np.array_equal(lab.outcomes(pgd).robust, lab.RIGHT & ~lab.WITHIN_EPS)
    assert lab.outcomes(pgd).distance[~lab.RIGHT].tolist() == [0.0] * int((~lab.RIGHT).sum())
    assert bool((lab.outcomes(pgd).distance[lab.RIGHT & lab.WITHIN_EPS] <= lab.EPS * 1.0001).all())
    assert pgd.metrics["clean_accuracy"].value == lab.RIGHT.mean()
    assert pgd.metrics["robust_accuracy"].value == (lab.RIGHT & ~lab.WITHIN_EPS).mean()
    assert pgd.verdict is Verdict.RELIABLE
    assert (pgd.device, pgd.executor, pgd.status) == ("cpu", "inline", Status.OK)
    assert lab.outcomes(noise).robust.sum() > lab.outcomes(pgd).robust.sum()
    assert noise.verdict is Verdict.SUSPECT


def test_the_worst_case_over_attacks_is_taken_per_sample(tmp_path: Path) -> None:
    result = lab.run(tmp_path, attacks=["bright-half(bright=True)", "bright-half(bright=False)"])
    shares = [record.metrics["robust_accuracy"].value for record in result.records]
    (table,) = result.leaderboard.tables
    (row,) = table.rows
    exact = float((lab.RIGHT & ~lab.WITHIN_EPS).mean())
    assert row.metrics["robust_accuracy"].value == pytest.approx(exact)
    assert min(shares) > exact
    assert np.array_equal(
        lab.outcomes(result.records[0]).robust & lab.outcomes(result.records[1]).robust, lab.RIGHT & ~lab.WITHIN_EPS
    )


@pytest.mark.parametrize("attack", ["pgd(steps=10)", "pgd(steps=5, restarts=2, momentum=0.75)", "noise"])
def test_the_batch_size_changes_no_outcome_on_a_trained_network(tmp_path: Path, attack: str) -> None:
    fields = {"models": ["digits-cnn"], "datasets": ["digits"], "attacks": [attack], "eps": [0.07]}
    records = [
        lab.only(lab.run(tmp_path, **fields, norms=["linf"], batch_size=size, database=str(tmp_path / f"{size}.db")))
        for size in (7, 64, 500)
    ]
    assert len({record.cell.cell_id for record in records}) == 1
    assert [record.batch_size for record in records] == [7, 64, 500]
    first, *others = [lab.outcomes(record) for record in records]
    assert 0 < first.robust.sum() < first.clean_correct.sum()
    for other in others:
        assert np.array_equal(other.clean_correct, first.clean_correct)
        assert int((other.robust != first.robust).sum()) <= 1  # a margin within float error


# ---------------------------------------------------------------- what is computed, and what is not


def test_a_second_run_computes_nothing_and_gives_the_same_records(tmp_path: Path) -> None:
    attacks = [lab.PGD, "noise", "fgsm"]
    first = lab.run(tmp_path, attacks=attacks)
    seen, events = lab.Counting.seen, lab.Events()
    second = lab.run(tmp_path, [events], attacks=attacks)
    assert (first.computed, second.computed) == (3, 0)
    assert lab.Counting.seen == seen
    assert events.seen == [("run_started", 0, 3), ("run_finished", False)]
    assert [record.cell for record in second.records] == list(first.plan.cells)
    assert all(lab.same_outcomes(*pair) for pair in zip(first.records, second.records, strict=True))
    assert second.leaderboard.tables[0].rows[0].metrics == first.leaderboard.tables[0].rows[0].metrics


def test_only_what_is_new_is_computed_and_the_records_come_in_the_order_of_the_plan(tmp_path: Path) -> None:
    lab.run(tmp_path, attacks=["noise"])
    events = lab.Events()
    result = lab.run(tmp_path, [events], attacks=["fgsm", "noise", lab.PGD])
    assert result.computed == 2
    assert events.seen[0] == ("run_started", 2, 1)
    assert [record.cell.attack.label for record in result.records] == ["fgsm", "noise", lab.PGD]


def test_fresh_evaluates_again_and_replaces_what_was_stored(tmp_path: Path) -> None:
    lab.run(tmp_path)
    with open_store(tmp_path / "rbl.db") as store:
        (stored,) = store.cells()
        before = store.run_of(stored.cell.cell_id)["run_id"]
    result = lab.run(tmp_path, fresh=True)
    with open_store(tmp_path / "rbl.db") as store:
        (again,) = store.cells()
        assert store.run_of(again.cell.cell_id)["run_id"] == result.run_id != before
    assert result.computed == 1
    assert lab.same_outcomes(stored, again)


def test_adversarial_inputs_are_kept_where_asked_for(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = tmp_path / "adversarial"
    record = lab.only(lab.run(tmp_path, save_adversarials=True, artifacts=str(folder)))
    with open_store(tmp_path / "rbl.db") as store:
        (artifact,) = store.artifacts(record.cell.cell_id)
    kept = load_file(folder / artifact.path)["adversarial"]
    assert bool(((kept - lab.inputs()).abs().amax((1, 2, 3)) <= lab.EPS * 1.0001).all())
    assert np.array_equal((lab.FIRST(kept).argmax(1) == lab.LABELS).numpy(), lab.outcomes(record).robust)


# ---------------------------------------------------------------- what a mistake costs


def test_every_mistake_of_an_attack_costs_its_own_cell_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["raises", "exits", "wrong-shape", "hands-in-nan", "leaves-the-ball", "prints", lab.PGD]
    records = {record.cell.attack.label: record for record in lab.run(tmp_path, attacks=names).records}
    failed = {name: one.reason for name, one in records.items() if one.status is Status.FAILED}
    right = int(lab.RIGHT.sum())
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
        assert np.array_equal(lab.outcomes(records[name]).robust, lab.RIGHT)
        assert records[name].verdict is Verdict.FAILED
        (finding,) = [one for one in records[name].findings if one.code == "outside-threat-model"]
        assert (finding.value, finding.severity) == (right, Severity.FATAL)
    for name in ("prints", lab.PGD):
        assert np.array_equal(lab.outcomes(records[name]).robust, lab.RIGHT & ~lab.WITHIN_EPS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a library says hello\n"


def test_an_attack_that_overwrites_the_clean_inputs_does_not_move_what_it_is_measured_against(tmp_path: Path) -> None:
    record = lab.only(lab.run(tmp_path, attacks=["overwrites-the-clean-inputs"]))
    assert np.array_equal(lab.outcomes(record).robust, lab.RIGHT)
    assert "outside-threat-model" in {finding.code for finding in record.findings}


def test_an_attack_that_changes_the_model_fails_and_spoils_no_other_cell(tmp_path: Path) -> None:
    attacks = ["changes-the-weights", lab.PGD, "leaves-training-mode", "noise"]
    records = {record.cell.attack.name: record for record in lab.run(tmp_path, attacks=attacks).records}
    reasons = {name: record.reason or "" for name, record in records.items()}
    assert "changed the weights of the model" in reasons["changes-the-weights"]
    assert "put the model in training mode" in reasons["leaves-training-mode"]
    assert np.array_equal(lab.outcomes(records["pgd"]).robust, lab.RIGHT & ~lab.WITHIN_EPS)
    assert records["noise"].status is Status.OK


def test_a_model_that_cannot_be_judged_skips_or_marks_its_own_cells(tmp_path: Path) -> None:
    models = ["one-class", "no-model", "probabilities", "five-classes", "half-space"]
    records = {record.cell.model.name: record for record in lab.run(tmp_path, models=models).records}
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
    record = lab.only(lab.run(tmp_path, attacks=["pgd(loss='dlr')"]))
    assert (record.status, record.reason) == (
        Status.SKIPPED,
        "the dlr loss needs at least 3 classes: use loss='margin'",
    )


def test_a_failed_cell_is_not_evaluated_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    attacks = ["raises", lab.PGD]
    assert lab.run(tmp_path, attacks=attacks).computed == 2
    assert lab.run(tmp_path, attacks=attacks).computed == 0
    events = lab.Events()
    result = lab.run(tmp_path, [events], attacks=attacks, retry_failed=True)
    assert result.computed == 1
    assert ("cell_finished", "raises") in events.seen
    assert [record.status for record in result.records] == [Status.FAILED, Status.OK]


# ---------------------------------------------------------------- defenses


def test_an_adaptive_adversary_goes_through_the_defense_and_an_oblivious_one_does_not(tmp_path: Path) -> None:
    result = lab.run(tmp_path, defenses=["second-opinion"], adversary=["adaptive", "oblivious"])
    adaptive, oblivious = result.records
    weight = lab.FIRST.weight + lab.SECOND.weight
    score = ((lab.inputs() - 0.5) * weight).flatten(1).sum(1)
    right = ((score < 0).long() == lab.LABELS).numpy()
    within = (score.abs() <= lab.EPS * weight.abs().sum()).numpy()
    assert np.array_equal(lab.outcomes(adaptive).clean_correct, right)
    assert np.array_equal(lab.outcomes(oblivious).clean_correct, right)
    assert np.array_equal(lab.outcomes(adaptive).robust, right & ~within)
    # Both adversaries are judged on the defended model; what misleads the bare one alone is no success.
    assert not bool((lab.outcomes(adaptive).robust & ~lab.outcomes(oblivious).robust).any())
    assert lab.outcomes(oblivious).robust.sum() > lab.outcomes(adaptive).robust.sum()


def test_a_defense_that_changes_its_model_in_place_changes_no_other_cell(tmp_path: Path) -> None:
    names = ["second-opinion", "shifted-in-place", "also-shifted-in-place", "none"]
    summed, *shifted, bare = lab.run(tmp_path, defenses=names, attacks=["fgsm"]).records
    assert all(lab.same_outcomes(summed, one) for one in shifted)  # the sum of both scores, either way
    assert np.array_equal(lab.outcomes(bare).robust, lab.RIGHT & ~lab.WITHIN_EPS)


@pytest.mark.parametrize(("defense", "passes"), [("none", 1), ("noisy", RANDOMIZED_PASSES)])
def test_a_randomized_defense_is_judged_by_several_passes(tmp_path: Path, defense: str, passes: int) -> None:
    lab.run(tmp_path, attacks=["notes-passes"], defenses=[defense])
    assert lab.Counting.seen - lab.notes_passes.seen == passes * lab.SAMPLES


def test_a_randomized_defense_gives_the_same_outcomes_run_after_run_whatever_ran_before(tmp_path: Path) -> None:
    alone = lab.only(lab.run(tmp_path, attacks=["fgsm"], defenses=["noisy"]))
    torch.manual_seed(12345)
    others = lab.run(
        tmp_path, attacks=["noise", "pgd(steps=3)", "fgsm"], defenses=["noisy"], database=str(tmp_path / "2.db")
    )
    assert others.computed == 3
    assert lab.same_outcomes(alone, others.records[-1])
    assert "randomized" in {finding.code for finding in alone.findings}
    assert 0 < lab.outcomes(alone).robust.sum() < lab.outcomes(alone).clean_correct.sum()


def test_randomness_that_a_defense_does_not_declare_is_suspect(tmp_path: Path) -> None:
    record = lab.only(lab.run(tmp_path, attacks=["fgsm"], defenses=["secretly-noisy"]))
    assert record.verdict is Verdict.SUSPECT
    assert "undeclared-randomness" in {finding.code for finding in record.findings}


def test_a_run_leaves_the_global_random_numbers_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    lab.run(tmp_path, attacks=["fgsm"], defenses=["noisy"])
    assert torch.equal(torch.rand(3), expected)


def test_an_attack_on_a_randomized_defense_averages_each_query_over_20_passes(tmp_path: Path) -> None:
    single, averaged = (
        lab.only(lab.run(tmp_path, attacks=["pgd(steps=5)"], defenses=["noisy"], objectives=[objective]))
        for objective in ("untargeted(eot=1)", "untargeted")
    )
    assert averaged.backward_per_sample is not None
    assert single.backward_per_sample is not None
    assert averaged.cell.estimated_backward == 20 * single.cell.estimated_backward
    assert averaged.backward_per_sample > 5 * single.backward_per_sample
    unconfirmed = [
        sum(one.value or 0 for one in record.findings if one.code == "unconfirmed-success")
        for record in (averaged, single)
    ]
    assert unconfirmed[0] < unconfirmed[1], "a success over many passes is confirmed more often than one over a single"
    assert lab.outcomes(averaged).robust.sum() <= lab.outcomes(single).robust.sum()


def test_a_search_in_mixed_precision_is_confirmed_in_float32_and_says_so(tmp_path: Path) -> None:
    exact = lab.only(lab.run(tmp_path))
    mixed = lab.only(lab.run(tmp_path, precision="mixed", database=str(tmp_path / "mixed.db")))
    assert [one.code for one in mixed.findings] == ["mixed-precision"]
    assert "unconfirmed-success" not in {one.code for one in mixed.findings}
    assert np.array_equal(lab.outcomes(mixed).clean_correct, lab.outcomes(exact).clean_correct)
    assert abs(int(lab.outcomes(mixed).robust.sum()) - int(lab.outcomes(exact).robust.sum())) <= 2
