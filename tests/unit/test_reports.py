"""Text formats of a leaderboard, and the machine-readable documents with their schemas."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from rich.console import Console

from robustbench_lab.cli.output import say
from robustbench_lab.contracts import Estimate
from robustbench_lab.printable_text import printable
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition, NamedMetric, build_leaderboard
from robustbench_lab.records import MINIMUM_NORM, Finding, Outcomes, Severity, Status
from robustbench_lab.report import cell_view, formatting, json_documents, latex, markdown, reproduce, table
from robustbench_lab.report import csv as csv_format
from robustbench_lab.report import json as json_format
from robustbench_lab.report.attack_comparison import compare_attacks
from robustbench_lab.report.listing_table import version_text
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.testing.example_results import (
    CLASSIFIER_METRICS,
    example_gap,
    example_leaderboard,
    example_records,
    example_result,
)

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
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


# ---------------------------------------------------------------- one cell


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


def minimum_norm_result():
    """Six samples at budget 0.1: wrong, broken at 0.02, 0.1 and 0.15, broken far away, and never broken."""
    correct = np.array([False, True, True, True, True, True])
    distance = np.array([0, 0.02, 0.1, 0.15, 9.0, np.nan], dtype=np.float32)
    outcomes = Outcomes(correct, np.array([False, False, False, True, True, True]), distance)
    marked = Finding(MINIMUM_NORM, Severity.INFO, "looked for the nearest adversarial input")
    return replace(example_result(outcomes.robust, clean=correct, eps=0.1, findings=(marked,)), outcomes=outcomes)


def test_a_minimum_norm_cell_is_shown_with_its_median_distance_and_what_holds_at_other_budgets():
    lines = [
        " ".join(line.split()) for line in shown(minimum_norm_result(), {}, metrics=CLASSIFIER_METRICS).split("\n")
    ]
    assert "Median distance 0.15" in lines
    for budget, share in (("0.025", "66.7%"), ("0.05", "66.7%"), ("0.1", "50.0%"), ("0.2", "33.3%"), ("0.4", "33.3%")):
        assert any(line.startswith(f"Robust at {budget} at most {share}") for line in lines)
    assert "Median distance" not in shown(example_result([True, False]), {}, metrics=CLASSIFIER_METRICS)


def test_a_median_distance_that_does_not_exist_is_said_in_words():
    record = minimum_norm_result()
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


# ---------------------------------------------------------------- machine-readable documents


@pytest.fixture(scope="module")
def validators():
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema.json")}
    registry = Registry().with_resources((name, Resource.from_contents(one)) for name, one in schemas.items())
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    return {
        name.removesuffix(".schema.json"): Draft202012Validator(one, registry=registry) for name, one in schemas.items()
    }


def documents(board):
    provenance = {"run_id": "r1", "environment": {"torch": "2.15"}}
    records = board.records
    yield "run", json_documents.run_document("r1", "rbl.db", records)
    yield "leaderboard", json_documents.leaderboard_document(board)
    yield "comparison", json_documents.comparison_document(compare_attacks(board))
    for record in records:
        yield "cell", json_documents.cell_document(record, provenance, samples=True)
        yield "cell", json_documents.cell_document(record, provenance)


def objects(document, place=()):
    """Every object in a document but those whose keys are free, with the way to it."""
    if isinstance(document, dict):
        if not place or place[-1] not in ("params", "provenance", "environment"):
            if place[-1:] != ("metrics",):
                yield document
            for key, value in document.items():
                yield from objects(value, (*place, key))
    elif isinstance(document, list):
        for value in document:
            yield from objects(value, (*place, "[]"))


def test_every_document_is_valid_json_under_its_schema(board, validators):
    for name, document in documents(board):
        read = json.loads(json.dumps(document, allow_nan=False))
        assert [error.message for error in validators[name].iter_errors(read)] == []
    assert json.loads(json_format.render(board)) == json.loads(json.dumps(json_documents.leaderboard_document(board)))


def test_the_schemas_forbid_unknown_keys_and_require_known_ones_at_every_depth(validators):
    finding = Finding("zero-gradient", Severity.SUSPECT, "the gradient is zero", 1.0)
    records = [
        example_result([True], findings=(finding,)),
        example_gap(Status.FAILED, "boom", attack="fgsm", samples=1),
    ]
    small = example_leaderboard(records)
    for name in ("run", "leaderboard", "comparison", "cell"):
        document = json.loads(json.dumps(next(one for kind, one in documents(small) if kind == name)))
        for inner in objects(document):
            inner["surprise"] = 1
            assert not validators[name].is_valid(document)
            del inner["surprise"]
            for key in [key for key in inner if key != "outcomes"]:
                value = inner.pop(key)
                assert not validators[name].is_valid(document), key
                inner[key] = value
        assert validators[name].is_valid(document)


def test_the_schemas_allow_metrics_for_finished_cells_only(board, validators):
    document = json_documents.run_document("r1", "rbl.db", [example_gap(Status.FAILED, "boom")])
    assert validators["run"].is_valid(document)
    document["cells"][0]["metrics"] = {"robust_accuracy": {"value": 1.0, "low": 0.9, "high": 1.0}}
    assert not validators["run"].is_valid(document)


def test_a_cell_has_every_key_that_scripts_rely_on():
    record = example_result([True, False, False], clean=[True, True, False])
    document = json_documents.run_document("r1", "rbl.db", [record])["cells"][0]
    promised = """cell_id status reason task model defense dataset attack objective norm eps seed samples metrics
        forward_per_sample backward_per_sample wall_seconds verdict"""
    assert set(promised.split()) <= set(document)
    assert document["samples"] == 3
    assert document["eps"] == 8 / 255
    assert document["metrics"]["clean_accuracy"]["value"] == pytest.approx(2 / 3)
    assert set(document["metrics"]["robust_accuracy"]) == {"value", "low", "high"}


def test_the_samples_of_a_cell_are_listed_with_null_where_nothing_broke_them():
    record = example_result([True, False, False], clean=[True, True, False])
    document = json_documents.cell_document(record, {}, samples=True)
    assert [one["sample_id"] for one in document["outcomes"]] == ["digits-0", "digits-1", "digits-2"]
    assert [one["distance"] for one in document["outcomes"]] == [None, pytest.approx(8 / 255), 0.0]
    assert [(one["clean_correct"], one["robust"]) for one in document["outcomes"]] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert "outcomes" not in json_documents.cell_document(record, {})


def test_a_minimum_norm_cell_has_bounds_at_other_budgets_and_others_have_none(validators):
    document = json.loads(json.dumps(json_documents.cell_document(minimum_norm_result(), {}), allow_nan=False))
    assert validators["cell"].is_valid(document)
    assert document["distances"]["median"] == pytest.approx(0.15)
    shares = {one["eps"]: one["share"]["value"] for one in document["distances"]["robust_at"]}
    expected = {0.025: 4 / 6, 0.05: 4 / 6, 0.1: 3 / 6, 0.2: 2 / 6, 0.4: 2 / 6}
    assert shares == pytest.approx(expected)
    assert shares[0.1] == document["metrics"]["robust_accuracy"]["value"]
    assert json_documents.cell_document(example_result([True, False]), {})["distances"] is None


def test_numbers_that_json_lacks_become_null():
    given = {"nan": math.nan, "inf": [math.inf, 1.5], "path": Path("a"), "pair": (1, None), "np": np.float64(0.5)}
    assert json_documents.plain_json(given) == {
        "nan": None,
        "inf": [None, 1.5],
        "path": "a",
        "pair": [1, None],
        "np": 0.5,
    }


def test_a_row_for_data_frames_is_flat():
    row = json_documents.cell_row(example_result([True, False]))
    assert row["robust_accuracy"] == 0.5
    assert {"robust_accuracy_low", "robust_accuracy_high"} <= set(row)
    assert not any(isinstance(value, dict | list) for value in row.values())


def test_no_field_of_a_stored_cell_and_no_message_moves_the_cursor(capsys):
    bad = "\x1b[31m\u202e"
    record = example_result([True, False], findings=(Finding(bad, Severity.SUSPECT, bad),))
    record = replace(record, cell=replace(record.cell, adversary=bad), device=bad, executor=bad)
    say(bad)
    text = shown(record, {bad: bad}) + capsys.readouterr().err
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
