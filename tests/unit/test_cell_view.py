"""One cell as `rbl show` prints it, and the command that computes a row again."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from robustbench_lab.cli.output import say
from robustbench_lab.records import Finding, Severity, Status
from robustbench_lab.report import cell_view, reproduce
from robustbench_lab.testing.example_results import (
    CLASSIFIER_METRICS,
    example_gap,
    example_leaderboard,
    example_minimum_norm_result,
    example_result,
)


def shown(record, provenance, **options):
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(cell_view.renderable(record, provenance, **options))
    return stream.getvalue()


def test_a_cell_is_shown_with_definition_result_findings_and_provenance():
    finding = Finding("loss-still-rises", Severity.SUSPECT, "the loss still rises", 1.0)
    record = example_result([True, False], model="net(width=[1, 2])", findings=(finding,))
    provenance = {"run_id": "r1", "environment": {"libraries": {"torch": "2.15"}}}
    text = shown(record, provenance, metrics=CLASSIFIER_METRICS)
    for part in (
        record.cell.cell_id,
        "net(width=[1, 2])",
        "8/255",
        "50.0% [1.3, 98.7]",
        "loss-still-rises",
        "(1 sample)",
        "11/10",
        "r1",
        "2.15",
    ):
        assert part in text


def test_provenance_is_a_command_to_copy_and_one_line_of_libraries_or_else_what_was_asked_for():
    record = example_result([True, False])
    run = {
        "run_id": "r1",
        "command": "rbl run --attack pgd",
        "spec": {"attacks": ["pgd"]},
        "environment": {"libraries": {"numpy": "2.4", "torch": "2.15"}},
    }
    text = shown(record, run)
    assert [line.split() for line in text.splitlines() if "rbl run" in line] == [["command", *run["command"].split()]]
    assert "numpy 2.4, torch 2.15" in text
    assert "spec" not in text
    assert "spec attacks 1" in shown(record, {**run, "command": None})


def test_a_minimum_norm_cell_is_shown_with_its_median_distance_and_what_holds_at_other_budgets():
    record = example_minimum_norm_result([0, 0.02, 0.1, 0.15, 9.0, None], clean=[False] + [True] * 5, eps=0.1)
    lines = [" ".join(line.split()) for line in shown(record, {}, metrics=CLASSIFIER_METRICS).split("\n")]
    assert "Median distance 0.15" in lines
    for budget, share in (("0.025", "66.7%"), ("0.05", "66.7%"), ("0.1", "50.0%"), ("0.2", "33.3%"), ("0.4", "33.3%")):
        assert any(line.startswith(f"Robust at {budget} at most {share}") for line in lines)
    assert "Median distance" not in shown(example_result([True, False]), {}, metrics=CLASSIFIER_METRICS)


def test_a_median_distance_that_does_not_exist_is_said_in_words():
    record = example_minimum_norm_result([0, 0.02, 0.1, 0.15, 9.0, None], clean=[False] + [True] * 5, eps=0.1)
    none = replace(record.outcomes, distance=np.array([0, 0.02, 0.1, np.nan, np.nan, np.nan], dtype=np.float32))
    assert "none found for most samples" in shown(replace(record, outcomes=none), {}, metrics=CLASSIFIER_METRICS)


def test_a_failed_cell_is_shown_with_its_reason_and_no_result():
    text = shown(example_gap(Status.FAILED, "RuntimeError: [bold]boom[/bold]"), {})
    assert "RuntimeError: [bold]boom[/bold]" in text
    assert "accuracy" not in text


def test_a_cell_is_shown_sample_by_sample_where_asked_for():
    record = example_result([True, False, False], clean=[True, True, False])
    assert "digits-1" not in shown(record, {})
    lines = [line.split() for line in shown(record, {}, samples=True).splitlines() if line.startswith("digits-")]
    assert lines == [
        ["digits-0", "right", "robust", "—"],
        ["digits-1", "right", "broken", "0.03137"],
        ["digits-2", "wrong", "wrong", "0"],
    ]


def test_no_field_of_a_stored_cell_and_no_message_moves_the_cursor(capsys):
    bad = "\x1b[31m\u202e"
    record = example_result([True, False], findings=(Finding(bad, Severity.SUSPECT, bad),))
    record = replace(record, cell=replace(record.cell, adversary=bad), device=bad, executor=bad)
    say(bad)
    text = shown(record, {bad: bad}) + capsys.readouterr().err
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]


# ---------------------------------------------------------------- commands


def test_the_command_of_a_row_names_everything_that_defines_it_and_is_safe_to_paste():
    import shlex

    name = "torch(path='my model.py:make', weights=\"$(rm -rf x)\")"
    records = [
        example_result([True], model=name, defense="jpeg(quality=75)", seed=3),
        example_result([True], model=name, defense="jpeg(quality=75)", attack="noise", adversary="adaptive", seed=4),
    ]
    (one,) = example_leaderboard(records).tables
    command = shlex.split(reproduce.reproduce_command(one, records))
    assert command[:2] == ["rbl", "run"]
    given = list(zip(command[2::2], command[3::2], strict=True))
    assert given == [
        ("--model", name),
        ("--defense", "jpeg(quality=75)"),
        ("--dataset", "digits"),
        ("--attack", "pgd"),
        ("--attack", "noise"),
        ("--norm", "linf"),
        ("--eps", "8/255"),
        ("--objective", "untargeted"),
        ("--samples", "1"),
        ("--seed", "3"),
        ("--seed", "4"),
    ]


def test_the_command_names_the_plugin_files_of_its_runs():
    records = [example_result([True], attack="mine")]
    (one,) = example_leaderboard(records).tables
    command = reproduce.reproduce_command(one, records, ["my attack.py", "other.py"])
    assert command.startswith("rbl run --plugin 'my attack.py' --plugin other.py --model ")


@pytest.mark.parametrize("eps", [8 / 255, 0.031, 1 / 3, 0.5, 1e-7])
def test_the_budget_in_a_command_is_exact(eps):
    records = [example_result([True], eps=eps)]
    (one,) = example_leaderboard(records).tables
    number, _, steps = re.search(r"--eps (\S+)", reproduce.reproduce_command(one, records)).group(1).partition("/")
    assert (float(number) / float(steps) if steps else float(number)) == eps
