"""A leaderboard from what a database has kept of its rows is the one that its cells give. SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustbench_lab.catalog import Catalog
from robustbench_lab.comparable_cells import subject_of
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking import stored_leaderboard as ranking
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardDefinition
from robustbench_lab.ranking.leaderboard_rows import build_row
from robustbench_lab.ranking.row_summary import RowRules, summarise
from robustbench_lab.ranking.row_summary_json import summary_from_json, summary_to_json
from robustbench_lab.ranking.stored_leaderboard import forged_rows, rank, rank_store
from robustbench_lab.records import CellRecord, Finding, Severity, Status, Verdict
from robustbench_lab.result_store import KeptRow, ResultStore, open_store
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.testing.example_results import (
    ATTACK_TRAITS,
    CLASSIFIER_METRICS,
    example_cell,
    example_gap,
    example_records,
    example_result,
)

RULE = LeaderboardDefinition()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


@pytest.fixture
def store(database: str, in_tmp_path: Path) -> Iterator[ResultStore]:
    with open_store(database) as opened:
        yield opened


@pytest.fixture(scope="module")
def file_store() -> Iterator[ResultStore]:
    with open_store(":memory:") as opened:
        yield opened


def fill(store: ResultStore, records: list[CellRecord]) -> None:
    run_id = store.begin_run(["rbl"], {}, {})
    with store.batched():
        for record in records:
            store.save_cell(record, run_id)


def shown(leaderboard: Leaderboard, catalog: Catalog) -> list[Any]:
    """All that a leaderboard says without its records."""
    tables = [replace(table, metrics=()) for table in leaderboard.tables]
    robust = [None if row.robust is None else row.robust.tolist() for table in tables for row in table.rows]
    formats = [entry.spec.name for entry in catalog.entries("reports") if entry.spec.rows_only]
    assert len(formats) >= 4
    return [tables, robust, *(catalog.load_factory("reports", name)(leaderboard) for name in formats)]


def kept(store: ResultStore) -> int:
    return sum(row.summary is not None for row in store.leaderboard_rows())


# ---------------------------------------------------------------- the same leaderboard


@pytest.mark.parametrize(
    "rule",
    [RULE, LeaderboardDefinition(required_attacks=("square",), sort="passes"), LeaderboardDefinition(eps=8 / 255)],
)
def test_a_leaderboard_is_the_same_whether_its_rows_are_made_or_kept(
    store: ResultStore, catalog: Catalog, rule: LeaderboardDefinition
) -> None:
    fill(store, example_records())
    expected = shown(rank(store.cells(), rule, catalog), catalog)
    assert kept(store) == 0
    assert shown(rank_store(store, rule, catalog), catalog) == expected
    assert kept(store) == len(store.leaderboard_rows()) > 4
    assert shown(rank_store(store, rule, catalog), catalog) == expected


def test_rows_that_are_kept_are_not_made_again(
    store: ResultStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, example_records())
    rank_store(store, RULE, catalog)
    asked: list[list[str]] = []
    cells_of_rows = store.cells_of_rows
    monkeypatch.setattr(store, "cells_of_rows", lambda rows: asked.append(list(rows)) or cells_of_rows(rows))
    rank_store(store, RULE, catalog)
    assert asked == []
    one = example_records()[0]
    fill(store, [one])
    rank_store(store, RULE, catalog)
    assert asked == [[subject_of(one.cell).row_id]]


RECORDS = st.builds(
    lambda kind, robust, seed, verdict, **cell: (
        example_gap(kind, "why", seed=seed, samples=4, **cell)
        if isinstance(kind, Status)
        else example_result(
            robust,
            seed=seed,
            verdict=verdict,
            findings=(Finding("few-steps", Severity.SUSPECT, "too few", 1.0),) if verdict is Verdict.SUSPECT else (),
            **cell,
        )
    ),
    kind=st.sampled_from(["ok", "ok", Status.FAILED, Status.SKIPPED]),
    robust=st.lists(st.booleans(), min_size=4, max_size=4),
    seed=st.integers(0, 1),
    verdict=st.sampled_from(list(Verdict)),
    model=st.sampled_from(["plain", "trained"]),
    attack=st.sampled_from(["pgd", "pgd(steps=9)", "square", "noise", "not-installed"]),
    eps=st.sampled_from([8 / 255, 0.5]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(RECORDS, max_size=5), max_size=3), st.booleans())
def test_whatever_changes_a_leaderboard_follows(
    file_store: ResultStore, catalog: Catalog, rounds: list[list[CellRecord]], deletes: bool
) -> None:
    store = file_store
    store.delete_cells([record.cell.cell_id for record in store.cells(with_outcomes=False)])
    for records in rounds:
        fill(store, records)
        if deletes and records:
            store.delete_cells([records[0].cell.cell_id])
        expected = shown(rank(store.cells(), RULE, catalog), catalog)
        for _ in range(2):
            assert shown(rank_store(store, RULE, catalog), catalog) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=8))
def test_a_summary_comes_back_from_its_text(records: list[CellRecord]) -> None:
    one_row = [record for record in records if subject_of(record.cell) == subject_of(records[0].cell)]
    summary = summarise(one_row, RowRules(Classification(), CLASSIFIER_METRICS, ATTACK_TRAITS))
    back = summary_from_json(summary_to_json(summary))
    assert back == summary
    assert build_row(back, ("pgd",), frozenset({"fgsm"})) == build_row(summary, ("pgd",), frozenset({"fgsm"}))
    if summary.robust is not None:
        assert back.robust is not None
        np.testing.assert_array_equal(back.robust, summary.robust, strict=True)


def test_a_run_leaves_its_rows_behind(tmp_path: Path, catalog: Catalog) -> None:
    spec = {"models": ["digits-cnn"], "attacks": ["fgsm", "noise"], "samples": 20, "database": str(tmp_path / "rbl.db")}
    run_experiment(ExperimentSpec.from_flags(**spec), catalog)
    with open_store(tmp_path / "rbl.db") as store:
        assert kept(store) == len(store.leaderboard_rows()) == 1
        expected = shown(rank(store.cells(), RULE, catalog), catalog)
        assert shown(rank_store(store, RULE, catalog), catalog) == expected


# ---------------------------------------------------------------- when a kept row is of no use


def test_rows_of_other_rules_are_made_anew(
    store: ResultStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, example_records())
    rank_store(store, RULE, catalog)
    before = {row.row_id: row.rules for row in store.leaderboard_rows()}
    monkeypatch.setattr(ranking, "__version__", "another")
    rank_store(store, RULE, catalog)
    after = {row.row_id: row.rules for row in store.leaderboard_rows()}
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_an_attack_that_is_installed_later_takes_part_in_the_diagnostics(
    store: ResultStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [example_result([True, True]), example_result([True, False], attack="brand-new")])
    (row,) = rank_store(store, RULE, catalog).tables[0].rows
    assert row.flags == ("unknown-attack",)
    installed = {**ranking.attack_traits(catalog), "brand-new": ATTACK_TRAITS["square"]}
    monkeypatch.setattr(ranking, "attack_traits", lambda _: installed)
    (row,) = rank_store(store, RULE, catalog).tables[0].rows
    assert row.flags == ("black-box-beats-gradient",)


def test_a_summary_of_cells_that_have_changed_meanwhile_is_not_kept(store: ResultStore) -> None:
    fill(store, [example_result([True])])
    (row,) = store.leaderboard_rows()
    late = KeptRow(row.row_id, row.state, "rules", "summary")
    fill(store, [example_result([False])])
    store.keep_rows([late])
    assert kept(store) == 0
    (row,) = store.leaderboard_rows()
    store.keep_rows([replace(late, state=row.state)])
    assert kept(store) == 1


def test_rows_whose_cells_are_gone_are_not_shown(store: ResultStore, catalog: Catalog) -> None:
    fill(store, example_records())
    rank_store(store, RULE, catalog)
    store.delete_cells([record.cell.cell_id for record in store.cells()])
    assert rank_store(store, RULE, catalog).tables == ()
    assert store.leaderboard_rows() == []


def test_a_task_that_is_not_installed_is_named(store: ResultStore, catalog: Catalog) -> None:
    alien = example_result([True])
    fill(store, [replace(alien, cell=replace(alien.cell, task="divination"))])
    with pytest.raises(UsageError, match="task 'divination', but no installed plugin"):
        rank_store(store, RULE, catalog)
    assert rank_store(store, RULE, catalog, ["classification"]).tables == ()


# ---------------------------------------------------------------- databases that take no writes now


def test_a_database_that_can_only_be_read_is_ranked(tmp_path: Path, catalog: Catalog) -> None:
    with open_store(tmp_path / "rbl.db") as writer:
        fill(writer, example_records())
        expected = shown(rank(writer.cells(), RULE, catalog), catalog)
    with open_store(f"sqlite:///file:{tmp_path / 'rbl.db'}?mode=ro&uri=true") as store:
        assert shown(rank_store(store, RULE, catalog), catalog) == expected
        assert kept(store) == 0


def test_a_leaderboard_waits_for_no_writer(tmp_path: Path, catalog: Catalog) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store, closing(sqlite3.connect(database)) as other:
        fill(store, example_records())
        other.execute("BEGIN IMMEDIATE")
        assert rank_store(store, RULE, catalog).tables
        assert kept(store) == 0
        other.rollback()
        rank_store(store, RULE, catalog)
        assert kept(store) > 0
        fill(store, example_records())  # waits for locks as before


def test_a_leaderboard_waits_for_no_writer_on_a_server(
    postgres_database: str, in_tmp_path: Path, catalog: Catalog
) -> None:
    with open_store(postgres_database) as store, open_store(postgres_database) as other:
        fill(store, example_records())

        def rank_meanwhile(_: object) -> None:
            assert rank_store(store, RULE, catalog).tables
            assert kept(store) == 0

        other._transactions.write(rank_meanwhile)
        rank_store(store, RULE, catalog)
        assert kept(store) > 0


# ---------------------------------------------------------------- rows and tables


PARTS = ("model", "version", "defense", "dataset", "norm", "eps", "adversary", "samples", "revision")


@pytest.mark.parametrize("part", [*PARTS, "attack", "seed"])
def test_cells_of_a_row_differ_in_attack_and_seed_alone(part: str) -> None:
    changed = {"eps": 0.5, "samples": 11, "seed": 1}.get(part, "other")
    one, other = subject_of(example_cell()), subject_of(example_cell(**{part: changed}))
    assert (one.row_id == other.row_id) == (part in ("attack", "seed"))
    assert (one.table == other.table) == (part in ("attack", "seed", "model", "version", "defense"))


def test_a_kept_row_that_its_cells_do_not_bear_out_is_named(file_store: ResultStore, catalog: Catalog) -> None:
    file_store.delete_cells([one.cell.cell_id for one in file_store.cells()])
    fill(file_store, example_records())
    rank_store(file_store, RULE, catalog)
    assert list(forged_rows(file_store, catalog)) == []
    row = next(one for one in file_store.leaderboard_rows() if one.summary is not None)
    summary = summary_from_json(str(row.summary))
    for forged in (
        replace(summary, verdict=Verdict.FAILED),
        replace(summary, metrics={name: replace(one, value=one.value / 2) for name, one in summary.metrics.items()}),
    ):
        file_store.keep_rows([replace(row, summary=summary_to_json(forged))])
        (line,) = forged_rows(file_store, catalog)
        assert row.row_id[:16] in line
    file_store.keep_rows([replace(row, summary='{"names": 3}')])
    assert list(forged_rows(file_store, catalog)) == []
    assert shown(rank_store(file_store, RULE, catalog), catalog) == shown(
        rank(file_store.cells(), RULE, catalog), catalog
    )
