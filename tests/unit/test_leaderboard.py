"""Stage 6: records to tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.contracts import Access, Estimate
from robustbench_lab.errors import UsageError
from robustbench_lab.ranking.leaderboard import AttackTraits, LeaderboardDefinition, NamedMetric, build_leaderboard
from robustbench_lab.records import Finding, Severity, Status, Verdict
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.testing.example_results import (
    ATTACK_TRAITS,
    CLASSIFIER_METRICS,
    example_gap,
    example_leaderboard,
    example_result,
)

ATTACKS = ("fgsm", "pgd", "square", "noise")


def first(count, size=100):
    """The first `count` of `size` samples hold out."""
    return [index < count for index in range(size)]


def only_row(records, **definition):
    (table,) = example_leaderboard(records, **definition).tables
    (row,) = table.rows
    return row


def rows_by_name(records, **definition):
    (table,) = example_leaderboard(records, **definition).tables
    return {row.name: row for row in table.rows}


@st.composite
def outcomes_of_attacks(draw):
    """For each of some attacks, which samples it left robust."""
    size = draw(st.integers(1, 30))
    attacks = draw(st.lists(st.sampled_from(ATTACKS), min_size=1, max_size=4, unique=True))
    return {attack: draw(st.lists(st.booleans(), min_size=size, max_size=size)) for attack in attacks}


# ---------------------------------------------------------------- worst case


def test_the_worst_case_is_taken_per_sample_and_not_from_the_attacks_means():
    records = [
        example_result([True, True, False, False], attack="fgsm"),
        example_result([False, True, True, True], attack="pgd"),
    ]
    row = only_row(records)
    means = {attack.label: attack.metrics["robust_accuracy"].value for attack in row.attacks}
    assert means == {"fgsm": 0.5, "pgd": 0.75}
    assert row.metrics["robust_accuracy"].value == 0.25
    assert row.outcomes.robust.tolist() == [False, True, False, False]


@given(outcomes_of_attacks())
def test_a_row_is_never_more_robust_than_against_any_of_its_attacks(attacks):
    row = only_row([example_result(robust, attack=attack) for attack, robust in attacks.items()])
    for attack in row.attacks:
        assert row.metrics["robust_accuracy"].value <= attack.metrics["robust_accuracy"].value


@given(outcomes_of_attacks())
def test_one_more_attack_never_makes_a_row_more_robust(attacks):
    records = [example_result(robust, attack=attack) for attack, robust in attacks.items()]
    values = [only_row(records[:count]).metrics["robust_accuracy"].value for count in range(1, len(records) + 1)]
    assert values == sorted(values, reverse=True)


@given(outcomes_of_attacks(), st.randoms())
def test_the_order_of_the_records_does_not_change_a_row_numbers(attacks, random):
    records = [example_result(robust, attack=attack) for attack, robust in attacks.items()]
    shuffled = random.sample(records, len(records))
    one, other = only_row(records), only_row(shuffled)
    assert one.metrics == other.metrics
    assert set(one.flags) == set(other.flags)


def test_seeds_count_towards_the_worst_case_and_the_cost():
    records = [
        example_result([True, False, True], seed=0, passes=(11, 10), seconds=1.0),
        example_result([True, True, False], seed=1, passes=(5, 4), seconds=0.5),
    ]
    row = only_row(records)
    (attack,) = row.attacks
    assert row.metrics["robust_accuracy"].value == attack.metrics["robust_accuracy"].value == pytest.approx(1 / 3)
    assert (row.seeds, attack.seeds) == ((0, 1), (0, 1))
    assert (row.forward_per_sample, row.backward_per_sample, row.wall_seconds) == (16, 14, 1.5)
    assert set(row.cell_ids) == {record.cell.cell_id for record in records}


def test_a_record_without_its_outcomes_is_refused():
    record = example_result([True])
    stripped = type(record)(**{**vars(record), "outcomes": None})
    with pytest.raises(ValueError, match=record.cell.cell_id):
        example_leaderboard([stripped])


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(
    "difference",
    [
        {"revision": "r2"},
        {"samples": 3},
        {"dataset": "other"},
        {"norm": "l2"},
        {"eps": 4 / 255},
        {"adversary": "oblivious"},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_rows_about_different_samples_or_budgets_never_share_a_table(difference):
    robust = [True] * difference.pop("samples", 4)
    records = [example_result([True] * 4, model="one"), example_result(robust, model="two", **difference)]
    tables = example_leaderboard(records).tables
    assert [len(table.rows) for table in tables] == [1, 1]
    assert all(row.rank == 1 and not row.tied for table in tables for row in table.rows)


def test_a_model_with_other_weights_is_a_row_of_its_own_that_can_be_told_apart():
    records = [example_result(first(10), version="1"), example_result(first(90), version="2")]
    (table,) = example_leaderboard(records).tables
    assert [row.model for row in table.rows] == ["plain", "plain"]
    assert len({row.name for row in table.rows}) == 2


def test_a_defense_makes_a_row_of_its_own():
    rows = rows_by_name([example_result(first(10)), example_result(first(20), defense="jpeg")])
    assert set(rows) == {"plain", "plain + jpeg"}


# ---------------------------------------------------------------- ranks and order


def test_clearly_different_rows_are_ranked_in_order_and_close_ones_share_a_rank():
    rows = rows_by_name(
        [
            example_result(first(20), model="worst"),
            example_result(first(88), model="near"),
            example_result(first(90), model="best"),
        ]
    )
    assert {name: row.rank_label for name, row in rows.items()} == {"best": "1=", "near": "1=", "worst": "3"}


def test_the_sort_key_changes_the_order_and_no_rank():
    records = [
        example_result(first(90), model="b", seconds=3.0, passes=(50, 50)),
        example_result(first(10), model="a", seconds=2.0, passes=(9, 0), clean=first(95)),
        example_result(first(50), model="c", seconds=1.0, passes=(10, 0), clean=first(90)),
    ]
    expected = {
        None: "bca",
        "robust_accuracy": "bca",
        "clean_accuracy": "bac",
        "seconds": "cab",
        "passes": "acb",
        "model": "abc",
    }
    for sort, order in expected.items():
        (table,) = example_leaderboard(records, sort=sort).tables
        assert "".join(row.name for row in table.rows) == order, sort
        assert {row.name: row.rank for row in table.rows} == {"b": 1, "c": 2, "a": 3}


def test_a_metric_of_which_less_is_better_is_sorted_upwards():
    def broken(outcomes):
        share = float(1 - outcomes.robust.mean())
        return Estimate(share, share, share)

    records = [example_result(first(10), model="weak"), example_result(first(90), model="strong")]
    metrics = [NamedMetric("broken_rate", broken, higher_is_better=False)]
    definition = LeaderboardDefinition(sort="broken_rate")
    built = build_leaderboard(
        records, definition, {"classification": Classification()}, {"classification": metrics}, ATTACK_TRAITS
    )
    assert [row.name for row in built.tables[0].rows] == ["strong", "weak"]
    assert built.tables[0].rows[0].metrics["broken_rate"].value == pytest.approx(0.1)


def test_a_task_without_the_usual_metric_is_sorted_by_its_first():
    metrics = {"classification": [CLASSIFIER_METRICS[0]]}
    records = [example_result(first(5), model="a", clean=first(50)), example_result(first(5), model="b")]
    built = build_leaderboard(
        records, LeaderboardDefinition(), {"classification": Classification()}, metrics, ATTACK_TRAITS
    )
    assert built.tables[0].sort == "clean_accuracy"
    assert [row.name for row in built.tables[0].rows] == ["b", "a"]


def test_an_unknown_sort_key_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'robust_accuracy'"):
        example_leaderboard([example_result([True])], sort="robust_acuracy")


def test_a_task_that_is_not_installed_is_named():
    with pytest.raises(UsageError, match="'classification'"):
        build_leaderboard([example_result([True])], LeaderboardDefinition(), {}, {}, {})


def test_no_records_make_an_empty_leaderboard():
    assert example_leaderboard([], sort="anything").tables == ()


# ---------------------------------------------------------------- what costs a row its rank


def test_a_row_of_baselines_only_has_no_rank():
    rows = rows_by_name([example_result(first(99), model="a", attack="noise"), example_result(first(50), model="b")])
    assert rows["a"].rank is None
    assert "baseline-only" in rows["a"].flags
    assert rows["a"].metrics["robust_accuracy"].value == 0.99
    assert (rows["b"].rank, rows["b"].flags) == (1, ())


def test_unranked_rows_stand_below_ranked_ones_however_good_they_look():
    records = [example_result(first(99), model="a", attack="noise"), example_result(first(1), model="b")]
    for sort in ("robust_accuracy", "model", "seconds", "passes"):
        (table,) = example_leaderboard(records, sort=sort).tables
        assert [row.name for row in table.rows] == ["b", "a"]


def test_a_failed_verdict_costs_the_rank():
    row = only_row([example_result(first(99), verdict=Verdict.FAILED)])
    assert (row.rank, row.verdict) == (None, Verdict.FAILED)
    assert "attack-unable" in row.flags


@pytest.mark.parametrize("status", [Status.FAILED, Status.SKIPPED])
def test_a_required_attack_without_a_result_costs_the_rank(status):
    records = [example_result(first(9), attack="fgsm"), example_gap(status, "no memory", attack="pgd", samples=100)]
    row = only_row(records, required_attacks=("pgd",))
    assert row.rank is None
    assert "required-attack" in row.flags
    assert [(one.label, one.status, one.reason) for one in row.absent] == [("pgd", status.value, "no memory")]


def test_a_required_attack_that_was_never_run_costs_the_rank():
    row = only_row([example_result(first(9), attack="fgsm")], required_attacks=("pgd",))
    assert row.rank is None
    assert [(one.label, one.status) for one in row.absent] == [("pgd", "not run")]


def test_a_required_attack_may_be_named_with_its_parameters_or_without():
    records = [example_result(first(9), attack="pgd(steps=50)")]
    assert only_row(records, required_attacks=("pgd",)).rank == 1
    assert only_row(records, required_attacks=("pgd(steps=50)",)).rank == 1
    assert only_row(records, required_attacks=("pgd(steps=20)",)).rank is None


def test_an_attack_that_failed_without_being_required_is_flagged_and_the_rank_stays():
    row = only_row([example_result(first(9), attack="fgsm"), example_gap(Status.FAILED, "boom", samples=100)])
    assert (row.rank, row.flags) == (1, ("attack-failed",))
    assert row.metrics["robust_accuracy"].value == 0.09


def test_a_row_with_no_result_at_all_is_shown_without_numbers():
    row = only_row([example_gap(Status.FAILED, "boom")])
    assert (row.rank, row.metrics, row.outcomes, row.verdict, row.attacks) == (None, {}, None, None, ())
    assert row.absent[0].reason == "boom"


def test_a_row_that_fewer_attacks_were_run_on_is_flagged():
    records = [example_result(first(9), model="a"), example_result(first(9), model="b")]
    records.append(example_result(first(8), model="b", attack="fgsm"))
    rows = rows_by_name(records)
    assert (rows["a"].flags, rows["b"].flags) == (("fewer-attacks",), ())


# ---------------------------------------------------------------- diagnostics across attacks


@pytest.mark.parametrize(
    ("attack", "flag"), [("noise", "noise-beats-gradient"), ("square", "black-box-beats-gradient")]
)
def test_what_breaks_more_than_the_gradient_attack_makes_the_row_suspect(attack, flag):
    records = [
        example_result([True, True, False, True], attack="pgd"),
        example_result([False, True, True, False], attack=attack),
    ]
    row = only_row(records)
    (finding,) = row.findings
    assert (finding.code, finding.value, row.verdict) == (flag, 2.0, Verdict.SUSPECT)
    assert row.rank == 1


def test_samples_that_any_gradient_attack_breaks_are_no_sign_of_masking():
    records = [
        example_result([True, False], attack="pgd"),
        example_result([False, True], attack="fgsm"),
        example_result([False, False], attack="noise"),
    ]
    assert only_row(records).flags == ()


@pytest.mark.parametrize(
    ("known", "by_known", "by_gone", "flags"),
    [
        ("pgd", [True, False], [False, True], ("unknown-attack",)),
        ("pgd", [False, False], [False, True], ()),
        ("square", [True, False], [False, True], ("unknown-attack",)),
        ("square", [False, True], [False, False], ()),
    ],
)
def test_an_attack_that_is_not_installed_might_see_gradients_or_not(known, by_known, by_gone, flags):
    """by_known, by_gone: the samples that stay robust against each."""
    records = [example_result(by_known, attack=known), example_result(by_gone, attack="gone")]
    assert only_row(records).flags == flags


def test_a_wrapped_attack_may_be_known_by_its_family():
    records = [example_result([True], attack="foolbox:LinfPGD"), example_result([False], attack="noise")]
    traits = {"foolbox:": AttackTraits(False, Access.GRADIENTS), "noise": (True, Access.DECISIONS)}
    tasks, metrics = {"classification": Classification()}, {"classification": CLASSIFIER_METRICS}
    built = build_leaderboard(records, LeaderboardDefinition(), tasks, metrics, traits)
    assert built.tables[0].rows[0].flags == ("noise-beats-gradient",)


def test_the_verdict_of_a_baseline_does_not_weigh_on_the_row():
    doubt = Finding("baseline", Severity.SUSPECT, "a baseline")
    records = [
        example_result([True, False], attack="pgd"),
        example_result([True, True], attack="noise", verdict=Verdict.SUSPECT, findings=(doubt,)),
    ]
    row = only_row(records)
    assert (row.verdict, row.flags) == (Verdict.RELIABLE, ())


def test_a_row_is_as_reliable_as_its_most_reliable_attack():
    doubt = Finding("few-steps", Severity.SUSPECT, "too few steps")
    note = Finding("deterministic", Severity.INFO, "the same each time")
    weak = example_result([True], attack="fgsm", verdict=Verdict.SUSPECT, findings=(doubt, note))
    strong = example_result([True], attack="pgd", findings=(note,))
    assert (only_row([weak, strong]).verdict, only_row([weak, strong]).flags) == (Verdict.RELIABLE, ())
    assert (only_row([weak]).verdict, only_row([weak]).flags) == (Verdict.SUSPECT, ("few-steps",))


def test_the_doubts_of_each_attack_show_on_the_row_where_no_attack_is_free_of_them():
    doubt = Finding("zero-gradient", Severity.SUSPECT, "the gradient is zero")
    other = Finding("few-steps", Severity.SUSPECT, "too few steps")
    records = [
        example_result([True], attack="fgsm", verdict=Verdict.SUSPECT, findings=(doubt, other)),
        example_result([True], attack="pgd", verdict=Verdict.SUSPECT, findings=(doubt,)),
    ]
    row = only_row(records)
    assert (row.verdict, row.flags) == (Verdict.SUSPECT, ("zero-gradient", "few-steps"))
    assert [one.message for one in row.findings] == ["the gradient is zero", "fgsm: too few steps"]


# ---------------------------------------------------------------- the definition


def test_a_definition_admits_what_it_names_and_nothing_else():
    records = [
        example_result([True], model="wanted"),
        example_result([True], model="other-eps", eps=4 / 255),
        example_result([True], model="other-norm", norm="l2"),
        example_result([True], model="other-data", dataset="letters"),
    ]
    for definition in (
        {"task": "classification", "dataset": "digits", "norm": "linf", "eps": 8 / 255},
        {"dataset": "digits", "threat_models": (f"linf(eps={8 / 255})",)},
    ):
        built = example_leaderboard(records, **definition)
        assert [row.name for table in built.tables for row in table.rows] == ["wanted"]
        assert [record.cell.model.name for record in built.records] == ["wanted"]
    assert example_leaderboard(records, task="detection").tables == ()


def write(folder: Path, text: str) -> Path:
    path = folder / "leaderboard.toml"
    path.write_text(text)
    return path


def test_a_definition_is_read_from_toml_with_budgets_as_the_field_writes_them(tmp_path):
    path = write(
        tmp_path,
        """
        name = "digits-linf"
        title = "Digits"
        task = "classification"
        dataset = "digits"
        norm = "linf"
        eps = "8/255"
        threat_models = ["linf"]
        required_attacks = ["pgd(steps=50)"]
        sort = "robust_accuracy"
        alpha = 0.01
        """,
    )
    read = LeaderboardDefinition.from_toml(path)
    assert read == LeaderboardDefinition(
        name="digits-linf",
        title="Digits",
        task="classification",
        dataset="digits",
        norm="linf",
        eps=8 / 255,
        threat_models=("linf",),
        required_attacks=("pgd(steps=50)",),
        sort="robust_accuracy",
        alpha=0.01,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("requird_attacks = []", "requird_attacks.*Did you mean 'required_attacks'"),
        ("eps = 'much'", "eps: 'much' is not a number"),
        ("eps = -1", "eps: .*at least 0"),
        ("eps = true", "eps: .*a number"),
        ("alpha = 1.5", "alpha: .*between 0 and 1"),
        ("dataset = 3", "dataset: .*a string"),
        ("threat_models = 'linf'", "threat_models: .*a list of strings"),
        ("name = ", "no valid TOML"),
    ],
)
def test_a_wrong_definition_is_refused_in_one_line_that_names_the_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as refusal:
        LeaderboardDefinition.from_toml(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_definition_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        LeaderboardDefinition.from_toml(tmp_path / "nowhere.toml")


def test_outcomes_reach_the_row_in_the_order_of_the_samples():
    robust = np.random.default_rng(0).random(50) < 0.5
    assert np.array_equal(only_row([example_result(robust.tolist())]).outcomes.robust, robust)


# ---------------------------------------------------------------- versions of an attack


def of_version(record, version):
    """The same cell, by an attack that was changed."""
    attack = replace(record.cell.attack, identity=f"{version}-{record.cell.attack.identity}")
    return replace(record, cell=replace(record.cell, attack=attack, cell_id=f"{record.cell.cell_id}-{version}"))


def test_what_an_attack_found_before_it_was_changed_stands_beside_it():
    older = of_version(example_result(first(40), verdict=Verdict.SUSPECT, seed=0), "older")
    newer = of_version(example_result(first(90), seed=0), "newer")
    row = only_row([older, newer])
    assert [(one.label, one.metrics["robust_accuracy"].value) for one in row.attacks] == [
        ("pgd", 0.9),
        ("pgd #older-", 0.4),
    ]
    assert row.metrics["robust_accuracy"].value == 0.4  # an input that breaks the model counts, whoever has found it
    assert row.cell_ids == (older.cell.cell_id, newer.cell.cell_id)
    assert row.rank == 1


def test_an_older_version_that_failed_is_forgotten_and_a_newer_one_is_not():
    failed = of_version(example_gap(Status.FAILED, "it fell over", samples=100, seed=0), "failing")
    works = of_version(example_result(first(40), seed=0), "working")
    assert [one.label for one in only_row([failed, works]).attacks] == ["pgd"]
    assert not only_row([failed, works]).findings
    row = only_row([works, failed])
    assert [one.label for one in row.attacks] == ["pgd #workin"]
    assert "attack-failed" in {finding.code for finding in row.findings}


def test_other_models_need_no_result_of_an_older_version():
    older = of_version(example_result(first(40), model="a"), "older")
    newer = [of_version(example_result(first(90), model=name), "newer") for name in ("a", "b")]
    rows = rows_by_name([older, *newer])
    assert {name: row.rank for name, row in rows.items()} == {"a": 2, "b": 1}
    assert not rows["b"].findings
