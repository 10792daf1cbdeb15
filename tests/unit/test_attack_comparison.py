"""Which attacks come nearest to the worst case of all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from robustbench_lab.records import MINIMUM_NORM, Finding, Severity, Status
from robustbench_lab.report.attack_comparison import compare_attacks
from robustbench_lab.report.attack_table import renderable
from robustbench_lab.report.html import render
from robustbench_lab.statistics import clopper_pearson
from robustbench_lab.testing.example_results import example_gap, example_leaderboard, example_result

EPS = 0.1


def result(robust, **cell):
    return example_result(robust, eps=EPS, **cell)


def nearest(distances, **cell):
    """Of an attack that looks for the nearest input; 0: wrong from the start, inf: it found none."""
    found = np.array(distances, dtype=np.float32)
    marked = Finding(MINIMUM_NORM, Severity.INFO, "looked for the nearest adversarial input")
    record = result((found > EPS).tolist(), clean=(found > 0).tolist(), findings=(marked,), **cell)
    stored = np.where(np.isinf(found), np.nan, found).astype(np.float32)
    return replace(record, outcomes=replace(record.outcomes, distance=stored))


def compared(records):
    (table,) = compare_attacks(example_leaderboard(records))
    return table, {row.label: row for row in table.rows}


def first(count, size=100):
    """All but the first `count` of `size` samples hold out."""
    return [index >= count for index in range(size)]


# ---------------------------------------------------------------- what each attack found


def test_an_attack_is_measured_by_the_samples_that_any_attack_broke():
    records = [
        result([False, False, True, True, True, False], clean=[True] * 5 + [False], attack="fgsm"),
        result([True, False, False, False, True, False], clean=[True] * 5 + [False], attack="pgd"),
    ]
    table, rows = compared(records)
    assert (table.models, table.broken) == (1, 4)
    assert (rows["fgsm"].found.value, rows["fgsm"].alone) == (0.5, 1)
    assert (rows["pgd"].found.value, rows["pgd"].alone) == (0.75, 2)


def test_models_count_alike_however_many_of_their_samples_were_broken():
    records = [
        result(first(80), model="soft", attack="pgd"),
        result(first(40), model="soft", attack="fgsm"),
        result(first(4), model="hard", attack="pgd"),
        result(first(1), model="hard", attack="fgsm"),
    ]
    table, rows = compared(records)
    assert (table.models, table.broken) == (2, 84)
    assert rows["pgd"].found.value == 1
    assert rows["fgsm"].found.value == pytest.approx((0.5 + 0.25) / 2)
    assert rows["fgsm"].found.low < rows["fgsm"].found.value < rows["fgsm"].found.high


def test_a_model_of_which_nothing_was_broken_says_nothing():
    records = [
        result(first(10), model="soft", attack="pgd"),
        result(first(5), model="soft", attack="fgsm"),
        result(first(0), model="hard", attack="pgd"),
        result(first(0), model="hard", attack="fgsm"),
    ]
    _, rows = compared(records)
    assert rows["fgsm"].found.value == 0.5


def test_where_nothing_was_broken_there_is_no_share_and_no_rank():
    table, rows = compared([result([True, True], attack="pgd"), result([True, True], attack="fgsm")])
    assert table.broken == 0
    for row in rows.values():
        assert math.isnan(row.found.value)
        assert (row.rank, row.rank_label, row.alone) == (None, "—", 0)


def test_seeds_of_an_attack_count_together_with_all_their_passes():
    records = [
        result([False, True, True, True], attack="pgd", seed=0, passes=(11, 10)),
        result([True, False, True, True], attack="pgd", seed=1, passes=(5, 4)),
        result([True, True, False, True], attack="fgsm"),
    ]
    _, rows = compared(records)
    assert rows["pgd"].found.value == pytest.approx(2 / 3)
    assert (rows["pgd"].forward_per_sample, rows["pgd"].backward_per_sample) == (16, 14)
    assert len(rows["pgd"].cell_ids) == 2


def test_an_attack_that_found_all_or_nothing_is_as_uncertain_as_its_samples_are_few():
    _, rows = compared([result(first(4, 10), attack="pgd"), result(first(0, 10), attack="fgsm")])
    assert rows["pgd"].found == clopper_pearson(4, 4)
    assert rows["fgsm"].found == clopper_pearson(0, 4)


def test_failed_and_skipped_attacks_do_not_count():
    records = [
        result([False, True], attack="pgd"),
        example_gap(Status.FAILED, "boom", attack="fgsm", eps=EPS, samples=2),
        example_gap(Status.SKIPPED, "no gradient", attack="square", eps=EPS, samples=2, seed=1),
    ]
    _, rows = compared(records)
    assert set(rows) == {"pgd"}
    assert compare_attacks(example_leaderboard(records[1:])) == ()


outcomes = st.integers(1, 25).flatmap(
    lambda size: st.dictionaries(
        st.sampled_from(["pgd", "fgsm", "square", "noise"]),
        st.lists(st.booleans(), min_size=size, max_size=size),
        min_size=1,
    )
)


@given(outcomes)
def test_shares_lie_between_0_and_1_and_those_who_found_all_are_first(robust):
    table, rows = compared([result(held, attack=attack) for attack, held in robust.items()])
    held_by_all = np.logical_and.reduce([np.array(one) for one in robust.values()])
    assert table.broken == (~held_by_all).sum()
    assert sum(row.alone for row in rows.values()) <= table.broken
    if len(rows) == 1:
        assert next(iter(rows.values())).alone == table.broken
    for attack, held in robust.items():
        row = rows[attack]
        if not table.broken:
            continue
        assert 0 <= row.found.low <= row.found.value <= row.found.high <= 1
        assert row.found.value == pytest.approx((~np.array(held)).sum() / table.broken)
        if row.found.value == 1:
            assert row.rank == 1


# ---------------------------------------------------------------- ranks


def test_attacks_that_a_paired_test_cannot_tell_apart_share_a_rank():
    records = [
        result(first(60), attack="pgd"),
        result([index not in (*range(58), 70) for index in range(100)], attack="square"),
        result(first(20), attack="fgsm"),
    ]
    table, rows = compared(records)
    assert [row.label for row in table.rows] == ["pgd", "square", "fgsm"]
    assert (rows["pgd"].rank_label, rows["square"].rank_label, rows["fgsm"].rank_label) == ("1=", "1=", "3")


def test_an_attack_that_some_model_lacks_is_shown_without_a_rank():
    records = [
        result(first(60), model="one", attack="pgd"),
        result(first(60), model="two", attack="pgd"),
        result(first(60), model="two", attack="square"),
    ]
    table, rows = compared(records)
    assert (rows["pgd"].rank, rows["square"].rank) == (1, None)
    assert (rows["pgd"].models, rows["square"].models) == (2, 1)
    assert table.rows[-1].label == "square"


def test_of_equals_the_one_with_the_fewest_passes_comes_first():
    records = [
        result(first(50), attack="pgd", passes=(101, 100)),
        result(first(50), attack="fgsm", passes=(2, 1)),
    ]
    table, _ = compared(records)
    assert [row.label for row in table.rows] == ["fgsm", "pgd"]
    assert {row.rank_label for row in table.rows} == {"1="}


# ---------------------------------------------------------------- optimality


def area_under_the_curve(distances, largest):
    """Of robust accuracy over budgets from 0 to `largest`, by small steps."""
    budgets = (np.arange(200_000) + 0.5) / 200_000 * largest
    broken = np.searchsorted(np.sort(distances), budgets, side="right")
    return (1 - broken / len(distances)).mean() * largest


distances = st.lists(st.tuples(st.integers(1, 1024), st.integers(1, 1024), st.booleans()), min_size=2, max_size=12)


@given(distances)
def test_optimality_is_the_area_between_the_curves_as_attackbench_defines_it(pairs):
    own, other = ([0.0 if wrong else pair[place] / 1024 for *pair, wrong in pairs] for place in (0, 1))
    best = np.minimum(own, other)
    right = best > 0
    largest = best.max()
    _, rows = compared([nearest(own, attack="own"), nearest(other, attack="other")])
    taken = right.mean() * largest - area_under_the_curve(best, largest)
    for name, found in (("own", own), ("other", other)):
        optimality = rows[name].optimality
        if right.sum() < 1 or len(set(best[right])) < 2:
            assert optimality is None
        elif taken > 1e-3:
            expected = (right.mean() * largest - area_under_the_curve(found, largest)) / taken
            assert optimality == pytest.approx(expected, abs=1e-2)


def test_the_best_attack_is_optimal_and_one_that_finds_nothing_is_not_at_all():
    records = [
        nearest([0.1, 0.2, 0.4], attack="best"),
        nearest([math.inf] * 3, attack="blind"),
        nearest([0.2, 0.4, 0.8], attack="twice"),
        result([False, True, True], attack="pgd"),
    ]
    _, rows = compared(records)
    assert rows["best"].optimality == 1
    assert rows["blind"].optimality == 0
    # Of the areas 0.3 and 0.2 that the best one takes below 0.4 it takes 0.2 and 0.
    assert rows["twice"].optimality == pytest.approx(0.4)
    assert rows["pgd"].optimality is None


def test_optimality_over_models_is_their_mean():
    records = [
        nearest([0.1, 0.3], model="one", attack="good"),
        nearest([0.2, 0.3], model="one", attack="poor"),
        nearest([0.1, 0.3], model="two", attack="good"),
        nearest([0.3, 0.3], model="two", attack="poor"),
    ]
    _, rows = compared(records)
    assert rows["good"].optimality == 1
    assert rows["poor"].optimality == pytest.approx((0.5 + 0) / 2)


# ---------------------------------------------------------------- how it is shown


def shown(records, width):
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        console.print(renderable(compare_attacks(example_leaderboard(records))))
    return captured.get()


@pytest.mark.parametrize("width", [50, 80, 200])
def test_names_and_shares_stand_whole_in_every_terminal(width):
    records = [result(first(60), attack="pgd"), result(first(15), attack="fgsm")]
    text = shown(records, width)
    assert "1 model, 60 samples broken by any attack" in " ".join(text.split())
    for name, share in (("pgd", "100.0%"), ("fgsm", "25.0%")):
        assert any(name in line and share in line for line in text.splitlines()), text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_the_page_compares_attacks_where_there_are_several():
    pgd, fgsm = result(first(60), attack="pgd"), result(first(15), attack="<img src=x onerror=alert(1)>")
    assert "Attacks beside each other" not in render(example_leaderboard([pgd]), {})
    page = render(example_leaderboard([pgd, fgsm]), {})
    assert "Attacks beside each other" in page
    assert "1 model, 60 samples broken by any attack" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page


def test_two_versions_of_an_attack_are_compared_as_two():
    def of_version(record, version):
        attack = replace(record.cell.attack, identity=f"{version}-{record.cell.attack.identity}")
        return replace(record, cell=replace(record.cell, attack=attack, cell_id=f"{record.cell.cell_id}-{version}"))

    weak = [of_version(result(first(10), model=name), "weaker") for name in ("a", "b")]
    strong = of_version(result(first(60), model="a"), "strong")
    _, rows = compared([*weak, strong])
    assert set(rows) == {"pgd #weaker", "pgd #strong"}
    assert (rows["pgd #weaker"].models, rows["pgd #strong"].models) == (2, 1)
    assert (rows["pgd #weaker"].rank, rows["pgd #strong"].rank) == (1, None)
