"""Published figures beside measured ones, and the flags where they do not go together."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec, Published, PublishedSubject
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardDefinition, LeaderboardRow
from robustbench_lab.ranking.published_figures import with_published
from robustbench_lab.report import csv as csv_report
from robustbench_lab.report import html, latex, markdown, table
from robustbench_lab.report.json_documents import leaderboard_document
from robustbench_lab.testing.example_results import example_leaderboard, example_result

SIZE = 100
STATED: dict[str, float] = {}
"""What the plugin below states."""


class Plugin:
    """Brings `stated`, about which something is known on `digits`, and `confused`, which cannot say."""

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        return [
            ModelSpec(name="stated", factory=dict, published=self.state),
            ModelSpec(name="confused", factory=dict, published=self.fail),
        ]

    def state(self, subject: PublishedSubject) -> Published | None:
        return Published(dict(STATED), "the paper") if subject.dataset == "digits" else None

    def fail(self, subject: PublishedSubject) -> Published | None:
        raise KeyError(subject.model)


CATALOG = open_catalog(extra=[("stating", Plugin())])


def measured(robust: int, clean: int = SIZE, **cell: Any) -> Any:
    """The result of a model of which so many samples are robust, and right without attack."""
    held, right = ([index < count for index in range(SIZE)] for count in (robust, clean))
    return example_result(held, clean=right, **{"model": "stated", **cell})


def with_figures(
    record: Any, figures: dict[str, float], definition: LeaderboardDefinition | None = None
) -> Leaderboard:
    STATED.clear()
    STATED.update(figures)
    filters = {} if definition is None else {"published": definition.published}
    return with_published(example_leaderboard([record], **filters), CATALOG)


def row_of(leaderboard: Leaderboard) -> LeaderboardRow:
    return leaderboard.tables[0].rows[0]


@given(robust=st.integers(0, SIZE), stated=st.floats(0, 1))
def test_a_row_is_flagged_exactly_where_its_interval_excludes_what_is_published(robust: int, stated: float) -> None:
    row = row_of(with_figures(measured(robust), {"robust_accuracy": stated}))
    interval = row.metrics["robust_accuracy"]
    expected = {"better-than-published"} if stated < interval.low else set()
    expected |= {"worse-than-published"} if stated > interval.high else set()
    assert set(row.flags) == expected
    assert row.published == Published({"robust_accuracy": stated}, "the paper")
    assert row.rank == 1


def test_another_clean_accuracy_has_a_flag_of_its_own() -> None:
    row = row_of(with_figures(measured(50, clean=80), {"robust_accuracy": 0.5, "clean_accuracy": 0.95}))
    assert row.flags == ("clean-unlike-published",)
    assert row.findings[0].line == "clean accuracy 80% [70.82, 87.33], published 95% (the paper)"


@pytest.mark.parametrize(
    "cell",
    [
        {"model": "another"},
        {"dataset": "letters"},
        {"defense": "jpeg(quality=75)"},
        {"adversary": "oblivious"},
    ],
)
def test_a_row_about_something_else_has_no_published_figure(cell: dict[str, str]) -> None:
    row = row_of(with_figures(measured(10, **cell), {"robust_accuracy": 0.9}))
    assert (row.published, row.flags) == (None, ())


def test_a_plugin_that_raises_costs_its_own_figures_only() -> None:
    with pytest.warns(UserWarning, match="model 'confused' has no published figures"):
        assert row_of(with_figures(measured(10, model="confused"), {})).published is None


def test_every_format_shows_what_is_published() -> None:
    built = with_figures(measured(50), {"robust_accuracy": 0.7125, "clean_accuracy": 0.9})
    for text in (table.render(built), markdown.render(built), latex.render(built), html.render(built, {})):
        assert "71.2" in text
        assert "worse-than-published" in text
    (line,) = csv.DictReader(io.StringIO(csv_report.render(built)))
    assert (line["published_robust_accuracy"], line["published_in"]) == ("0.7125", "the paper")
    (shown,) = leaderboard_document(built)["tables"][0]["rows"]
    assert shown["published"] == {"metrics": {"robust_accuracy": 0.7125, "clean_accuracy": 0.9}, "source": "the paper"}


def test_nothing_is_shown_where_nothing_is_published() -> None:
    built = with_published(example_leaderboard([measured(50, model="another")]), CATALOG)
    for text in (table.render(built), markdown.render(built), latex.render(built), html.render(built, {})):
        assert "ublished" not in text
    assert "published" not in csv_report.render(built)


# ---------------------------------------------------------------- figures of a leaderboard's rule


def rule(folder: Path, *tables: str) -> LeaderboardDefinition:
    file = folder / "leaderboard.toml"
    file.write_text("".join(f"[[published]]\n{lines}\n" for lines in tables))
    return LeaderboardDefinition.from_toml(file)


def test_figures_of_the_rule_come_before_those_of_the_plugin(tmp_path: Path) -> None:
    definition = rule(tmp_path, 'model = "stated"\neps = "8/255"\nrobust_accuracy = 0.25\nsource = "thesis"')
    assert row_of(with_figures(measured(50), {"robust_accuracy": 0.9}, definition)).published == Published(
        {"robust_accuracy": 0.25}, "thesis"
    )


@pytest.mark.parametrize("other", ['eps = "4/255"', 'norm = "l2"', 'dataset = "letters"', 'model = "unlike"'])
def test_figures_of_the_rule_are_for_what_they_name(other: str, tmp_path: Path) -> None:
    lines = {"model": "model = \"own(weights='w.pt')\""} | {other.partition(" ")[0]: other}
    definition = rule(tmp_path, "\n".join([*lines.values(), "robust_accuracy = 0.25"]))
    record = measured(50, model="own(weights='w.pt')")
    assert row_of(with_figures(record, {}, definition)).published is None
    assert (
        row_of(with_figures(record, {}, rule(tmp_path, 'model = "own"\nrobust_accuracy = 0.25'))).published is not None
    )


@pytest.mark.parametrize("lines", ["robust_accuracy = 0.5", 'model = "own"', 'model = "own"\nrobust_accuracy = "high"'])
def test_a_rule_that_cannot_be_read_is_one_line(lines: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="published: it must be ") as caught:
        rule(tmp_path, lines)
    assert "\n" not in str(caught.value)
