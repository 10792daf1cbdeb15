"""Text formats of a leaderboard."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from robustbench_lab.contracts import Estimate
from robustbench_lab.printable_text import printable
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition, NamedMetric, build_leaderboard
from robustbench_lab.records import Finding, Severity, Status
from robustbench_lab.report import csv as csv_format
from robustbench_lab.report import formatting, latex, markdown, table
from robustbench_lab.report import json as json_format
from robustbench_lab.report.listing_table import version_text
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.testing.example_results import (
    CLASSIFIER_METRICS,
    example_gap,
    example_leaderboard,
    example_records,
    example_result,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b|c",
    "`code` **bold** [link](http://example.org)",
    "[red]markup[/red]",
    r"\input{x} & 100% $x_1^2$ #1 ~ {}",
    "line one\nline two",
    "\x1b[2Jescape\x07",
    "under_score__init__",
    'quote"comma,semicolon;',
]


@pytest.fixture(scope="module")
def board():
    return example_leaderboard(example_records(), title="Everything", description="Every kind of row.")


def hostile_board(name):
    finding = Finding("strange-code", Severity.SUSPECT, f"about {name}")
    records = [
        example_result([True, False], model=name, dataset=name, findings=(finding,)),
        example_gap(Status.FAILED, f"error: {name}", model="other", dataset=name, samples=2),
    ]
    return example_leaderboard(records, title=name)


# ---------------------------------------------------------------- numbers and names


def test_estimates_are_written_in_percent_with_their_interval():
    assert formatting.estimate_text(Estimate(0.891, 0.86, 0.917), fraction=True) == "89.1% [86.0, 91.7]"
    assert formatting.estimate_text(Estimate(12.345, 11.0, 13.5), fraction=False) == "12.35 [11, 13.5]"
    assert formatting.estimate_text(None, fraction=True) == "—"


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (2 / 255, "2/255"), (0.5, "0.5"), (0.031, "0.031"), (0.0, "0"), (1.0, "1"), (0.2, "0.2")],
)
def test_budgets_are_written_as_the_field_writes_them(eps, text):
    assert formatting.eps_text(eps) == text


@given(st.floats(0, 10, allow_nan=False))
def test_a_written_budget_is_the_budget_and_no_neighbour(eps):
    number, _, steps = formatting.eps_text(eps).partition("/")
    assert (float(number) / float(steps) if steps else float(number)) == eps


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (75, "75 s"), (720, "12 min"), (12240, "3.4 h")]
)
def test_durations_have_the_unit_that_fits(seconds, text):
    assert formatting.duration_text(seconds) == text


@given(st.text(max_size=60), st.integers(5, 40))
def test_a_shortened_name_fits_and_keeps_both_ends(text, width):
    short = formatting.shorten(text, width)
    assert len(short) <= width
    assert short == text if len(text) <= width else (text.startswith(short[:2]) and text.endswith(short[-2:]))


@given(st.text())
def test_printable_text_stays_on_one_line(text):
    assert formatting.printable(text).isprintable()


# ---------------------------------------------------------------- formats for people


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_markdown_has_one_line_a_row_and_the_same_number_of_cells_in_each(board):
    rows = [row for row in markdown_rows(markdown.render(board)) if row[0].strip() not in ("#", "--:")]
    names = [row[1].strip().strip("`") for row in rows]
    assert names == [row.name for one in board.tables for row in one.rows]
    assert {len(row) for row in rows} == {9}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_markdown_table_or_gets_out_of_it(name):
    text = markdown.render(hostile_board(name))
    rows = markdown_rows(text)
    assert len(rows) == 4
    assert len({len(row) for row in rows}) == 1
    outside_code = re.sub(r"(`+) ?.*? ?\1(?!`)", "", text)
    assert not re.search(r"(?<!\\)<[a-z]", outside_code)
    assert "\x1b" not in text


def test_the_csv_parses_back_to_the_rows_with_full_numbers(board):
    lines = list(csv.DictReader(io.StringIO(csv_format.render(board))))
    rows = [(one, row) for one in board.tables for row in one.rows]
    assert len(lines) == len(rows)
    for line, (one, row) in zip(lines, rows, strict=True):
        assert (line["model"], line["defense"], line["dataset"]) == (row.model, row.defense, one.dataset)
        assert line["rank"] == ("" if row.rank is None else str(row.rank))
        assert float(line["eps"]) == one.eps
        assert line["flags"] == "; ".join(row.flags)
        if row.metrics:
            robust = row.metrics["robust_accuracy"]
            assert float(line["robust_accuracy"]) == robust.value
            assert (float(line["robust_accuracy_low"]), float(line["robust_accuracy_high"])) == (
                robust.low,
                robust.high,
            )
        else:
            assert line["robust_accuracy"] == ""


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_survives_the_csv_but_for_what_moves_a_cursor(name):
    lines = list(csv.DictReader(io.StringIO(csv_format.render(hostile_board(name)), newline="")))
    assert sorted(line["model"] for line in lines) == sorted([printable(name), "other"])


@pytest.mark.parametrize("name", ["=cmd|' /c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_field_of_the_csv_is_a_formula(name):
    lines = list(csv.DictReader(io.StringIO(csv_format.render(hostile_board(name)), newline="")))
    assert f"'{printable(name)}" in [line["model"] for line in lines]


def test_an_empty_leaderboard_can_be_rendered_in_every_format():
    empty = example_leaderboard([])
    assert list(csv.DictReader(io.StringIO(csv_format.render(empty)))) == []
    assert json.loads(json_format.render(empty))["tables"] == []
    assert "No results" in markdown.render(empty)
    assert "No results" in table.render(empty)
    assert "tabular" not in latex.render(empty)


def test_the_version_of_a_single_file_is_shown_by_its_beginning():
    assert version_text("0a" * 32) == "0a0a0a0a"
    assert version_text("1+timm-1.0.22") == "1+timm-1.0.22"


def board_with(name, value, **traits):
    """A board whose rows have this metric as well, and a further one of which tables of limited width have nothing."""
    brief = NamedMetric(name, lambda _outcomes: Estimate(value, value, value), fraction=False, **traits)
    minor = NamedMetric("minor_share", lambda _outcomes: Estimate(0.25, 0.2, 0.3), brief=False)
    metrics = {"classification": [*CLASSIFIER_METRICS, brief, minor]}
    records = [example_result([False, True])]
    return build_leaderboard(records, LeaderboardDefinition(), {"classification": Classification()}, metrics, {})


def test_what_has_no_value_is_empty_in_the_csv():
    (line,) = csv.DictReader(io.StringIO(csv_format.render(board_with("mean_rise", math.nan))))
    assert [line[name] for name in ("mean_rise", "mean_rise_low", "mean_rise_high")] == ["", "", ""]
    assert line["minor_share_low"] == "0.2"


def test_latex_leaves_out_what_a_terminal_leaves_out():
    text = latex.render(board_with("mean_rise", 1.5))
    assert "Mean rise" in text
    assert "Minor share" not in text


def test_the_terminal_shows_what_the_objective_is_after_first_and_so_does_latex():
    assert "Mean rise" not in latex.render(board_with("mean_rise", 1.5, brief=False))
    own = board_with("mean_rise", 1.5, brief=False, objectives=("untargeted",))
    (board,) = own.tables
    names = [metric.name for metric in formatting.brief_metrics(board)]
    assert names == ["clean_accuracy", "robust_accuracy", "mean_rise"]
    assert "Mean rise" in latex.render(own)
    assert "rise" in table.render(own)
    with_params = replace(board, objective="untargeted(labels='self')")
    assert formatting.brief_metrics(with_params) == formatting.brief_metrics(board)
    other = formatting.brief_metrics(replace(board, objective="targeted"))
    assert [metric.name for metric in other] == ["clean_accuracy", "robust_accuracy"]


@pytest.mark.parametrize("render", [table.render, markdown.render, latex.render])
def test_a_metric_that_no_row_has_a_value_of_has_no_column(render):
    assert "Mean rise" in re.sub(r"\s+", " ", markdown.render(board_with("mean_rise", 1.5)))
    assert "rise" not in render(board_with("mean_rise", math.nan))


def test_latex_has_one_table_a_group_and_every_environment_is_closed(board):
    text = latex.render(board)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table"] * 2 + ["tabular"] * 2
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_means_anything_to_latex(name):
    escaped = latex.escape(name)
    bare = re.sub(r"\\text\w+{}|\\dots{}|{\[}|{\]}|\\[&%$#_{}]", "", escaped)
    assert not set(bare) & set("\\&%$#_{}~^")
    assert "\n" not in escaped


def test_latex_escapes_what_a_label_holds():
    assert latex.escape("a_b(c=50%)") == r"a\_b(c=50\%)"
    assert latex.escape("x\\y^2") == r"x\textbackslash{}y\textasciicircum{}2"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_terminal_table_fits_the_terminal_and_keeps_the_main_interval(board, width):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table.renderable(board))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "80.0% [73.8, 85.3]" in text
    assert "1=" in text
    assert ("97.0% [93.6, 98.9]" in text) == (width >= 100)


@pytest.mark.parametrize("width", [80, 100])
def test_a_table_with_more_than_fits_leaves_out_minor_columns_and_keeps_names_and_verdicts_whole(width):
    minor = [f"further_metric_{letter}" for letter in "abcdef"]
    metrics = [replace(metric, main=metric.name == "robust_accuracy") for metric in CLASSIFIER_METRICS]
    metrics += [NamedMetric(name, lambda outcomes: Estimate(0.5, 0.4, 0.6)) for name in minor]
    attacks = [f"an-attack-with-a-long-name-{letter}" for letter in "abc"]
    records = [
        example_result([True, False], model="a-model-with-a-name-of-36-characters", attack=one) for one in attacks
    ]
    built = build_leaderboard(
        records, LeaderboardDefinition(), {"classification": Classification()}, {"classification": metrics}, {}
    )
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table.renderable(built))
    rows = "".join(stream.getvalue().split())
    assert max(map(len, stream.getvalue().splitlines())) <= width
    assert "…" not in rows
    assert "50.0%[1.3,98.7]" in rows
    assert "reliable" in rows
    assert "a-model-with" in rows


@pytest.mark.parametrize("detail", ["━", "97.0% [93.6, 98.9]"])
def test_a_detail_is_shown_from_the_width_on_that_the_table_then_has(board, detail):
    one = replace(board, tables=board.tables[:1])

    def shown(width):
        stream = io.StringIO()
        Console(file=stream, width=width, color_system=None).print(table.renderable(one))
        return stream.getvalue()

    least = next(width for width in range(60, 200) if detail in shown(width))
    assert shown(least).count("─") == least


def test_the_terminal_can_be_asked_for_the_best_rows_only(board):
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(table.renderable(board, 2))
    full = next(one for one in board.tables if len(one.rows) > 2)
    text = stream.getvalue()
    assert f"... and {len(full.rows) - 2} more: `--rows 0` shows all" in text
    assert all(row.name in text for row in full.rows[:2])
    assert full.rows[-1].name not in text


def test_a_row_of_very_many_attacks_names_some_and_counts_the_others():
    records = [example_result([True], attack=f"pgd(steps={steps})") for steps in range(40)]
    text = table.render(example_leaderboard(records))
    shown = re.findall(r"pgd\(steps=\d+\)", text)
    assert 3 < len(shown) < 10
    assert re.search(rf"{40 - len(shown)}\s+more", text)


def test_plain_text_shows_every_row_and_explains_every_flag(board):
    text = table.render(board)
    for one in board.tables:
        for row in one.rows:
            assert row.name in text
            assert all(finding.message in text for finding in row.findings)
    assert max(map(len, text.splitlines())) <= table.PLAIN_WIDTH


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_read_as_markup_or_sent_to_the_terminal_as_a_command(name):
    text = table.render(hostile_board(name))
    assert "\x1b" not in text
    shown = formatting.shorten(formatting.printable(name), table.MODEL_WIDTH)
    assert "".join(shown.split()) in "".join(text.split())


def test_rows_of_which_the_same_is_said_share_a_note():
    rises, zero = (Finding(code, Severity.SUSPECT, "see there", 3.0) for code in ("loss-still-rises", "zero-gradient"))
    findings = {"a": (rises,), "b": (zero,), "c": (rises,), "d": (rises, zero), "e": ()}
    records = [example_result([True, False], model=name, findings=found) for name, found in findings.items()]
    (made,) = example_leaderboard(records).tables
    sharing = [sorted(row.model for row in note.rows) for note in formatting.notes(made)]
    assert sorted(sharing) == [["a", "c"], ["b"], ["d"]]
    text = table.render(example_leaderboard(records))
    assert text.count("loss-still-rises") == 2


def test_a_metric_that_is_no_share_is_not_shown_in_percent():
    def mean_distance(outcomes):
        mean = float(np.nanmean(outcomes.distance))
        return Estimate(mean, mean / 2, mean * 2)

    metrics = {"classification": [NamedMetric("mean_distance", mean_distance, fraction=False)]}
    records = [example_result([False, True], eps=0.5)]
    built = build_leaderboard(records, LeaderboardDefinition(), {"classification": Classification()}, metrics, {})
    for render in (table.render, markdown.render, latex.render):
        assert "0.5" in render(built)
        assert "50.0" not in render(built)
