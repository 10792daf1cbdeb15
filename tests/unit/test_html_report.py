"""The static page."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from robustbench_lab.errors import UsageError
from robustbench_lab.records import Finding, Severity, Status
from robustbench_lab.report import figures
from robustbench_lab.report.html import render, write_report
from robustbench_lab.report.page_figures import MOST_CURVES
from robustbench_lab.statistics import clopper_pearson
from robustbench_lab.testing.example_results import (
    example_gap,
    example_leaderboard,
    example_minimum_norm_result,
    example_records,
    example_result,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title></style></svg><b>out</b>",
    "$\\frac$ _hidden",
    "]]><!-- \x1b \x00 \ud800",
]
VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and notes what there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def all_text(self):
        return " ".join(self.text)


def provenance_of(records, **more):
    run = {"run_id": "run-1", "command": "rbl run --attack pgd", "environment": {"libraries": {"torch": "2.15"}}}
    return {record.cell.cell_id: {**run, **more, "stored_at": str(number)} for number, record in enumerate(records)}


@pytest.fixture(scope="module")
def text():
    records = example_records()
    return render(example_leaderboard(records, title="Everything"), provenance_of(records))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_balanced_and_no_id_is_given_twice(page):
    assert len(page.ids) == len(set(page.ids))


def test_the_page_needs_nothing_from_elsewhere_and_no_script(text, page):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    for key, value in page.attributes:
        assert not key.startswith("on")
        if key in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert not re.search(r"url\((?!#)|@import", text)


def test_every_link_inside_the_page_leads_somewhere(page):
    targets = {value[1:] for key, value in page.attributes if key == "href"}
    assert targets <= set(page.ids)


def test_every_row_flag_and_command_is_on_the_page(page):
    board = example_leaderboard(example_records())
    for table in board.tables:
        for row in table.rows:
            assert row.name in page.all_text
            assert all(flag in page.all_text for flag in row.flags)
            assert all(cell_id in page.all_text for attack in row.attacks for cell_id in attack.cell_ids)
    assert "80.0%" in page.all_text
    assert "rbl run --model trades --dataset digits --attack pgd --norm linf --eps 8/255" in page.all_text


def test_a_run_and_its_environment_are_shown_once_for_all_their_cells(page):
    assert page.all_text.count("Run run-1") == 1
    assert page.all_text.count("2.15") == 1
    assert page.all_text.count("rbl run --attack pgd") == 1


def test_figures_have_a_title_and_a_description_that_gives_the_numbers(page, text):
    figures_found = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures_found) == 3
    for svg in figures_found:
        root = ET.fromstring(svg)  # noqa: S314 (made by the code under test)
        assert root.get("role") == "img"
        named = {element.get("id"): element.text for element in root if element.tag.endswith(("title", "desc"))}
        assert set(root.get("aria-labelledby").split()) == set(named)
        assert all(named.values())
    assert "trades: 97.0% at 0, 80.0% at 4/255, 60.0% at 8/255" in text


def test_figures_follow_the_colours_of_the_page(text):
    svg = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--text)" in svg
    assert not re.search(r"#0[123]0[123]0", svg)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", svg))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", text))


def test_the_same_results_give_the_same_page(text):
    records = example_records()
    assert render(example_leaderboard(records, title="Everything"), provenance_of(records)) == text


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reason_or_plugin_text_gets_out_of_its_place(name):
    finding = Finding(name, Severity.SUSPECT, name)
    records = [
        example_result([True, False], model=name, dataset=name, defense=name, attack=name, findings=(finding,)),
        example_result([True, False], model=name, dataset=name, attack=name, norm=name, eps=0.25),
        example_gap(Status.FAILED, name, model="other", dataset=name, samples=2),
    ]
    hostile = render(example_leaderboard(records, title=name, description=name), provenance_of(records, status=name))
    harmless = re.sub(r"(?s)<svg.*?</svg>", "", hostile)
    tags = set(Page(hostile).tags)
    assert not {"script", "img", "b"} & tags
    assert not any(key.startswith("on") for key, _ in Page(hostile).attributes)
    assert "svg" not in Page(harmless).tags


def test_no_character_of_a_finding_or_a_name_turns_the_text_of_the_page_around():
    records = [
        replace(record, findings=(Finding("\u202ecode", Severity.SUSPECT, "\x1b[31m\u202eline"),), reason=record.reason)
        for record in example_records()
    ]
    page = render(
        example_leaderboard(records, title="\u202et", description="\x07d"), provenance_of(records, status="\u202e")
    )
    assert not [letter for letter in page if not letter.isprintable() and letter != "\n"]


def test_a_name_is_never_read_as_part_of_the_template():
    name = "{{ 7 * 7 }}{% raw %}{# gone #}"
    assert name in Page(render(example_leaderboard([example_result([True], model=name)]), {})).all_text


def test_the_curve_starts_at_the_accuracy_without_attack_and_has_a_point_for_each_budget():
    records = [
        example_result([True, True, False, False], clean=[True] * 3 + [False], eps=2 / 255),
        example_result([True, False, False, False], clean=[True] * 3 + [False], eps=8 / 255),
    ]
    (curve,) = figures.security_curves(example_leaderboard(records).tables)
    assert curve.eps == (0.0, 2 / 255, 8 / 255)
    assert [one.value for one in curve.estimates] == [0.75, 0.5, 0.25]


def value_at(curve, eps):
    return next(one.value for place, one in zip(curve.eps, curve.estimates, strict=True) if place >= eps)


def test_one_minimum_norm_result_gives_the_whole_curve():
    record = example_minimum_norm_result([0.01, 0.02, 0.05, None, 0.0], clean=[True] * 4 + [False], eps=0.03)
    (curve,) = figures.security_curves(example_leaderboard([record]).tables)
    assert curve.fine
    assert curve.evaluated == (0.0, 0.03)
    for eps, robust in ((0.0, 0.8), (0.009, 0.8), (0.011, 0.6), (0.021, 0.4), (0.03, 0.4), (0.045, 0.4)):
        assert value_at(curve, eps) == robust
    assert curve.eps[-1] > 0.04
    values = [one.value for one in curve.estimates]
    assert values == sorted(values, reverse=True)
    assert curve.estimates[0] == clopper_pearson(4, 5)


def test_the_curve_of_several_attacks_takes_the_smallest_distance_and_every_budget():
    records = [
        example_minimum_norm_result([0.01, 0.06, None], eps=0.03, attack="fgsm"),
        example_result([True, False, True], eps=0.03, attack="pgd"),
        example_result([False, False, False], eps=0.05, attack="pgd"),
    ]
    (curve,) = figures.security_curves(example_leaderboard(records).tables)
    assert curve.evaluated == (0.0, 0.03, 0.05)
    for eps, robust in ((0.009, 1), (0.02, 2 / 3), (0.03, 1 / 3), (0.049, 1 / 3), (0.05, 0)):
        assert value_at(curve, eps) == pytest.approx(robust)


def test_at_the_evaluated_budget_the_curve_agrees_with_the_table():
    generator = np.random.default_rng(0)
    record = example_minimum_norm_result(generator.exponential(0.03, 200).tolist(), eps=8 / 255)
    table = example_leaderboard([record]).tables[0]
    (curve,) = figures.security_curves([table])
    assert curve.estimates[curve.eps.index(8 / 255)] == table.rows[0].metrics["robust_accuracy"]


def test_a_fine_curve_is_drawn_with_a_mark_at_evaluated_budgets_only():
    record = example_minimum_norm_result([0.01, 0.02, 0.05, None], eps=0.03)
    text = render(example_leaderboard([record]), {})
    assert "100.0% at 0, 50.0% at 0.03" in text
    assert "upper bound" in text
    Page(text)


def test_a_curve_where_every_sample_is_wrong_or_none_is_broken_is_drawn():
    for distances, clean in (([None, None], [True, True]), ([0.0, 0.0], [False, False])):
        Page(render(example_leaderboard([example_minimum_norm_result(distances, clean=clean)]), {}))


def test_rows_without_a_rank_have_no_curve():
    assert figures.security_curves(example_leaderboard([example_result([True], attack="noise")]).tables) == []


def test_many_rows_are_cut_in_figures_and_the_caption_says_so():
    records = [example_result([True, False], model=f"m{number}") for number in range(figures.MOST_ROWS + 1)]
    text = render(example_leaderboard(records), {})
    assert f"The first {figures.MOST_ROWS} of {figures.MOST_ROWS + 1} rows" in text
    assert f"the first {MOST_CURVES} of {figures.MOST_ROWS + 1} rows" in text


def test_a_leaderboard_without_any_result_still_makes_a_page():
    empty, failed = example_leaderboard([]), example_leaderboard([example_gap(Status.FAILED, "boom")])
    assert empty.definition.title in render(empty, {})
    assert "boom" in render(failed, {})
    for leaderboard in (empty, failed):
        Page(render(leaderboard, {}))  # refuses what is not balanced


def test_the_report_is_written_to_a_new_folder(tmp_path):
    records = [example_result([True])]
    path = write_report(example_leaderboard(records), provenance_of(records), tmp_path / "new" / "report")
    assert path == tmp_path / "new" / "report" / "index.html"
    Page(path.read_text(encoding="utf-8"))


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file") as refusal:
        write_report(example_leaderboard([]), {}, tmp_path / "file")
    assert "\n" not in str(refusal.value)
