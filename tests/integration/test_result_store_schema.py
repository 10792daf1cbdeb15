"""Alembic makes exactly the tables the code expects, and databases of every release stay readable."""

from __future__ import annotations

import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, create_engine, inspect, select, text

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError
from robustbench_lab.records import Finding, Severity, Status, Verdict
from robustbench_lab.result_store import ResultStore, open_store, upgrade
from robustbench_lab.result_store.engine import database_url
from robustbench_lab.result_store.revision import REVISION
from robustbench_lab.result_store.schema import metadata
from robustbench_lab.result_store.schema_state import check_current

OLD_DATABASES = sorted((Path(__file__).parents[1] / "old_databases").glob("v*.db"))


def tables(database: Path) -> dict[str, str]:
    """Name of each table and index to the statement that makes it, without what does not matter."""
    with closing(sqlite3.connect(database)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in made if name != "alembic_version"}


def stamp(database: str, revision: str) -> None:
    engine = create_engine(database_url(database))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


# ---------------------------------------------------------------- migrations


def test_migrations_make_exactly_the_tables_of_the_schema(database: str, in_tmp_path: Path) -> None:
    open_store(database).close()
    engine = create_engine(database_url(database))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrations_make_the_same_constraints_as_the_schema(tmp_path: Path) -> None:
    """`compare_metadata` does not look at CHECK constraints."""
    open_store(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    metadata.create_all(engine)
    engine.dispose()
    migrated, plain = tables(tmp_path / "migrated.db"), tables(tmp_path / "plain.db")
    assert migrated.keys() == plain.keys()
    for name, sql in plain.items():
        assert _clauses(migrated[name]) == _clauses(sql)


def _clauses(sql: str) -> list[str]:
    """Columns and constraints of a statement, in any order."""
    return sorted(clause.strip(" ()") for clause in sql.replace(" CONSTRAINT ", " ").split(", "))


def test_the_newest_migration_is_the_one_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", "robustbench_lab.result_store:migrations")
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions[0] == REVISION
    assert revisions == sorted(revisions, reverse=True)
    assert all(revision.isdigit() and len(revision) == len(REVISION) for revision in revisions)


@pytest.mark.usefixtures("in_tmp_path")
def test_a_new_database_is_at_the_newest_schema(database: str) -> None:
    with open_store(database) as store:
        assert store.schema_revision() == REVISION


def test_a_file_is_written_ahead_so_that_readers_never_wait(tmp_path: Path) -> None:
    open_store(tmp_path / "rbl.db").close()
    with closing(sqlite3.connect(tmp_path / "rbl.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---------------------------------------------------------------- other schemas


@pytest.mark.usefixtures("in_tmp_path")
def test_an_older_database_names_the_command_that_upgrades_it(database: str) -> None:
    open_store(database).close()
    stamp(database, "0000")
    with pytest.raises(StoreError) as caught:
        open_store(database)
    said = f"has schema 0000, this rbl needs {REVISION}: run `rbl db upgrade --db {database}`"
    assert str(caught.value) == f"{database} {said}"


def test_the_command_can_be_pasted_where_the_name_has_a_space() -> None:
    with pytest.raises(StoreError, match=r"run `rbl db upgrade --db 'my results\.db'`"):
        check_current("0000", "my results.db")


@pytest.mark.usefixtures("in_tmp_path")
def test_a_newer_database_is_left_alone(database: str) -> None:
    open_store(database).close()
    stamp(database, "9999")
    for action in (open_store, upgrade):
        with pytest.raises(StoreError, match=r"has schema 9999, .*pip install -U robustbench-lab"):
            action(database)


def test_a_newer_file_keeps_its_bytes(in_tmp_path: Path) -> None:
    open_store("rbl.db").close()
    stamp("rbl.db", "9999")
    before = Path("rbl.db").read_bytes()
    for action in (open_store, upgrade):
        with pytest.raises(StoreError, match=r"has schema 9999"):
            action("rbl.db")
    assert Path("rbl.db").read_bytes() == before


@pytest.mark.usefixtures("in_tmp_path")
def test_the_migrations_of_another_program_are_recognised(database: str) -> None:
    open_store(database).close()
    stamp(database, "ae1027a6acf")
    for action in (open_store, upgrade):
        with pytest.raises(StoreError, match="the database of another program"):
            action(database)


def test_the_tables_of_another_program_are_left_alone(postgres_database: str, in_tmp_path: Path) -> None:
    engine = create_engine(postgres_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE bookmarks (url TEXT)"))
    for action in (open_store, upgrade):
        with pytest.raises(StoreError, match="the database of another program"):
            action(postgres_database)
    assert inspect(engine).get_table_names() == ["bookmarks"]
    engine.dispose()


def test_upgrading_says_what_the_schema_was(in_tmp_path: Path) -> None:
    Path("rbl.db").touch()
    assert upgrade("rbl.db") is None
    assert upgrade("rbl.db") == REVISION
    with open_store("rbl.db", create=False) as store:
        assert store.cells() == []
    with pytest.raises(StoreError, match=r"no results in other\.db yet"):
        upgrade("other.db")


@pytest.mark.usefixtures("in_tmp_path")
def test_an_upgrade_from_an_unknown_schema_changes_nothing(database: str) -> None:
    open_store(database).close()
    stamp(database, "0000")
    engine = create_engine(database_url(database))
    before = inspect(engine).get_table_names()
    with pytest.raises(StoreError, match="no released rbl"):
        upgrade(database)
    assert inspect(engine).get_table_names() == before
    engine.dispose()


# ---------------------------------------------------------------- databases of released versions


@pytest.fixture(params=OLD_DATABASES, ids=lambda file: file.stem)
def old_store(request: pytest.FixtureRequest, database: str, in_tmp_path: Path) -> ResultStore:
    if "://" in database:
        move(request.param, database)
    else:
        shutil.copy(request.param, database)
    upgrade(database)
    return open_store(database, create=False)


def move(file: Path, server: str) -> None:
    """An old file's rows into a server's database of the same schema."""
    source, target = create_engine(f"sqlite:///{file}"), create_engine(server)
    with source.connect() as old, target.begin() as new:
        revision = old.scalar(text("SELECT version_num FROM alembic_version"))
        config = Config()
        config.set_main_option("script_location", "robustbench_lab.result_store:migrations")
        config.attributes["connection"] = new
        command.upgrade(config, revision)
        tables = MetaData()
        tables.reflect(new)
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                same = Table(table.name, MetaData(), *(Column(one.name, one.type) for one in table.columns))
                if rows := [dict(row._mapping) for row in old.execute(select(same))]:
                    new.execute(table.insert(), rows)
    source.dispose()
    target.dispose()


def test_there_is_a_database_of_a_release() -> None:
    assert OLD_DATABASES != []


def test_results_of_an_old_database_are_what_they_were(old_store: ResultStore) -> None:
    with old_store as store:
        ok, failed, skipped = store.cells()
    assert [one.cell.cell_id for one in (ok, failed, skipped)] == ["0dd5", "fa11ed", "5c1bbed"]
    assert (ok.status, ok.reason, ok.verdict) == (Status.OK, None, Verdict.SUSPECT)
    assert ok.metrics["clean_accuracy"] == Estimate(2 / 3, 0.094, 0.992)
    assert ok.metrics["robust_accuracy"] == Estimate(1 / 3, 0.008, 0.906)
    assert (ok.forward_per_sample, ok.backward_per_sample, ok.wall_seconds) == (8.5, 7.5, 0.125)
    assert ok.findings == (Finding("loss-rises", Severity.SUSPECT, "the loss still rises at the last step", 1.0),)
    assert (ok.device, ok.batch_size, ok.executor) == ("cpu", 128, "local")
    assert (failed.status, failed.reason) == (Status.FAILED, "RuntimeError: out of luck")
    assert (skipped.status, skipped.reason) == (Status.SKIPPED, "the model returns NaN logits")
    assert failed.metrics == {}
    assert failed.outcomes is None


def test_definitions_of_an_old_database_are_what_they_were(old_store: ResultStore) -> None:
    with old_store as store:
        cell = store.cells(ids=["0dd5"], with_outcomes=False)[0].cell
    assert (cell.task, cell.norm, cell.eps, cell.adversary, cell.seed) == (
        "classification",
        "linf",
        8 / 255,
        "adaptive",
        0,
    )
    assert cell.model.params == {"mean": (0.5, 0.25)}
    assert cell.attack.params == {"steps": 10, "step_size": None}
    assert (cell.attack.name, cell.attack.label, cell.attack.plugin) == ("pgd", "pgd(steps=10)", "rbl-reference")
    assert (cell.attack.version, cell.attack.identity) == ("0.1.0", "identity-of-pgd")
    assert (cell.samples.sample_ids, cell.samples.indices) == (("0", "1", "2"), (0, 1, 2))
    assert (cell.samples.dataset_revision, cell.samples.identity) == ("digits-revision", "identity-of-samples")
    assert (cell.estimated_forward, cell.estimated_backward) == (11, 10)


def test_outcomes_of_an_old_database_are_what_they_were(old_store: ResultStore) -> None:
    with old_store as store:
        outcomes = store.cells(ids=["0dd5"])[0].outcomes
    assert outcomes is not None
    np.testing.assert_array_equal(outcomes.clean_correct, [True, True, False])
    np.testing.assert_array_equal(outcomes.robust, [True, False, False])
    np.testing.assert_array_equal(outcomes.distance, np.array([math.nan, 8 / 255, 0], dtype=np.float32))
    np.testing.assert_array_equal(outcomes.columns["margin"], np.array([1.5, -0.25, -3.0], dtype=np.float32))


def test_an_interrupted_run_of_an_old_database_can_go_on(old_store: ResultStore) -> None:
    with old_store as store:
        (unit,) = store.units("09e17")
        provenance = store.run_of("0dd5")
        (artifact,) = store.artifacts("0dd5")
    assert (unit.start, unit.stop, unit.forward_passes, unit.backward_passes) == (0, 2, 17, 15)
    assert (unit.device, unit.batch_size, unit.artifact) == ("cuda:0", 64, b"inputs of two samples")
    assert unit.outcomes is not None
    np.testing.assert_array_equal(unit.outcomes.robust, [True, False])
    assert provenance["command"] == ["rbl", "run", "--attack", "pgd"]
    assert provenance["environment"]["libraries"] == {"torch": "2.15.0"}
    assert provenance["status"] == "interrupted"
    assert artifact.size == len(b"adversarial inputs")
