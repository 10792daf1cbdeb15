"""A leaderboard whose rows are all kept comes from the file alone, and is the one that the store gives."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from robustbench_lab.cli.stored_results import stored_leaderboard
from robustbench_lab.errors import StoreError
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition
from robustbench_lab.ranking.stored_leaderboard import rank_kept, rank_store
from robustbench_lab.report.table import render
from robustbench_lab.result_store import open_store
from robustbench_lab.result_store.quick_rows import quick_rows
from robustbench_lab.testing.example_results import example_records

RULE = LeaderboardDefinition()
CATALOG = open_catalog()


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Every kind of row, none of which is kept yet. A `?` and a `%` in a path mean nothing to SQLite."""
    file = tmp_path / "50% of what?.db"
    with open_store(file) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        for record in example_records():
            store.save_cell(record, run_id)
    return str(file)


def ranked(database: str) -> str:
    with open_store(database) as store:
        return render(rank_store(store, RULE, CATALOG))


@pytest.mark.parametrize("tasks", [(), ("classification",), ("detection",), ("detection", "classification")])
def test_the_file_gives_the_rows_that_the_store_gives(database: str, tasks: tuple[str, ...]) -> None:
    ranked(database)
    with open_store(database) as store:
        expected = store.leaderboard_rows(tasks)
    assert quick_rows(database, tasks) == expected
    assert bool(expected) == (tasks != ("detection",))


def test_rows_that_are_all_kept_give_the_same_leaderboard_and_others_none(database: str) -> None:
    rows = quick_rows(database)
    assert rows
    assert rank_kept(rows, RULE, CATALOG) is None
    expected = ranked(database)
    rows = quick_rows(database)
    assert rows
    quick = rank_kept(rows, RULE, CATALOG)
    assert quick is not None
    assert render(quick) == expected


def test_other_readers_of_the_file_are_not_disturbed_and_nothing_is_left_beside_it(database: str) -> None:
    ranked(database)
    assert quick_rows(database)
    assert [file.name for file in Path(database).parent.iterdir()] == [Path(database).name]
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert quick_rows(database)


@pytest.mark.parametrize("what", ["missing", "folder", "text", "foreign", "older", "url"])
def test_whatever_is_no_file_of_this_schema_is_left_to_the_store_which_says_why(database: str, what: str) -> None:
    ranked(database)
    other = Path(database).with_name("other.db")
    named = {"folder": str(other.parent), "url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}.get(what, str(other))
    if what == "text":
        other.write_text("no database " * 100)
    elif what in ("foreign", "older"):
        with closing(sqlite3.connect(database if what == "older" else other)) as connection:
            change = "UPDATE alembic_version SET version_num = '0001'" if what == "older" else "CREATE TABLE a (b)"
            connection.execute(change)
            connection.commit()
        named = database if what == "older" else named
    assert quick_rows(named) is None
    if what != "url":  # a server that is not there is tested where there is one
        with pytest.raises(StoreError):
            stored_leaderboard(CATALOG, named, rows_only=True)
    assert what != "missing" or not other.exists()


def test_the_command_imports_no_sqlalchemy_for_rows_that_are_kept(database: str) -> None:
    expected = ranked(database)
    code = (
        "import sys\n"
        "from robustbench_lab.cli.main import main\n"
        f"sys.argv = ['rbl', 'leaderboard', '--db', {database!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        "    print([name for name in ('sqlalchemy', 'scipy', 'torch') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.splitlines()[0].startswith(expected.splitlines()[0])
