"""Kills, full disks, locks and strange files: what was stored is kept, and the user reads one clear line."""

from __future__ import annotations

import errno
import os
import random
import resource
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from robustbench_lab.errors import MissingLibraryError, StoreError
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.provenance import file_sha256
from robustbench_lab.records import Outcomes, Status
from robustbench_lab.result_store import open_store, schema_state, transactions
from robustbench_lab.result_store.commit_batches import BATCH_RECORDS
from robustbench_lab.result_store.quick_rows import quick_rows

SCRIPT = Path(__file__).with_name("example_results.py")
examples = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(params=["one by one", "batched"])
def mode(request: pytest.FixtureRequest) -> str:
    """How a writer commits."""
    return str(request.param)


def start_writer(
    database: Path | str, prefix: str, count: int, mode: str, prepare: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(database), prefix, str(count), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)


def assert_sound(database: Path | str) -> set[str]:
    """The ids of stored cells, each of which is complete."""
    if "://" not in str(database):
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    expected = examples.ok_record()
    with open_store(database, create=False) as store:
        records = store.cells()
        for record in records:
            assert record.metrics == expected.metrics
            assert record.findings == expected.findings
            assert record.outcomes is not None
            np.testing.assert_array_equal(record.outcomes.distance, expected.outcomes.distance)
            assert store.units(record.cell.cell_id) == []
            (artifact,) = store.artifacts(record.cell.cell_id)
            assert file_sha256(store.artifacts_folder / artifact.path) == artifact.sha256
    return {record.cell.cell_id for record in records}


# ---------------------------------------------------------------- kills


@pytest.mark.usefixtures("in_tmp_path")
def test_a_killed_writer_leaves_every_cell_complete_or_absent(database: str, mode: str) -> None:
    moments = random.Random(0)  # noqa: S311
    announced: set[str] = set()
    for life in range(3):
        with start_writer(database, f"life{life}", 100_000, mode) as writer:
            assert writer.stdout is not None
            announced |= {writer.stdout.readline().strip() for _ in range(moments.randint(1, 40))}
            writer.kill()  # in the midst of whatever it does by now
            announced |= set(writer.stdout.read().split("\n")[:-1])
        stored = assert_sound(database)
        assert announced <= stored
        silent = BATCH_RECORDS if mode == "batched" else 1  # stored, but killed before it could say so
        assert len(stored) <= len(announced) + (life + 1) * silent


def test_a_process_killed_at_any_statement_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    script = SCRIPT.with_name("die_at_each_statement.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    databases = sorted(tmp_path.glob("*.db"), key=lambda file: int(file.stem))
    states = [_state(database) for database in databases]
    assert len(states) > 40
    assert list(dict.fromkeys(states)) == ["nothing", "unit", "failed", "ok"]
    assert states == sorted(states, key=["nothing", "unit", "failed", "ok"].index)


def _state(database: Path) -> str:
    """What a process of `die_at_each_statement.py` got done."""
    with open_store(database) as store:
        store.begin_run(["rbl"], {}, {})  # the next run can go on
        units, records = store.units("cell"), store.cells()
    if not records:
        return "unit" if units else "nothing"
    assert units == []
    if records[0].status is Status.OK:
        assert assert_sound(database) == {"cell"}
    return str(records[0].status)


# ---------------------------------------------------------------- full disks


@pytest.fixture
def page_limit() -> Iterator[Callable[[int], None]]:
    """Limits how many pages the databases of new connections may have, as a full disk would."""
    listeners: list[Callable[..., None]] = []

    def limit(pages: int) -> None:
        def set_limit(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute(f"PRAGMA max_page_count={pages}")

        event.listen(Engine, "connect", set_limit)
        listeners.append(set_limit)

    yield limit
    for listener in listeners:
        event.remove(Engine, "connect", listener)


def test_a_full_disk_keeps_what_was_stored(tmp_path: Path, page_limit: Callable[[int], None]) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store:
        store.save_cell(examples.ok_record("before"), store.begin_run(["rbl"], {}, {}), artifacts=[b"x"])
    page_limit(database.stat().st_size // 4096 + 2)
    noise = np.random.default_rng(0).random(50_000)
    yes = np.ones(50_000, dtype=np.bool_)
    large = examples.ok_record("large", outcomes=Outcomes(yes, yes, noise.astype(np.float32), {"loss": noise}))
    with open_store(database) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        for _ in range(2):
            with pytest.raises(StoreError, match=r"rbl\.db: the disk is full: .* what was stored before is kept"):
                store.save_cell(large, run_id)
        assert {record.cell.cell_id for record in store.cells()} == {"before"}
    assert assert_sound(database) == {"before"}


def test_a_file_system_that_takes_no_more_bytes_ends_the_run_with_one_line(tmp_path: Path, mode: str) -> None:
    database = tmp_path / "rbl.db"
    limit = 2_000_000

    def no_larger_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with start_writer(database, "cell", 100_000, mode, no_larger_files) as writer:
        out, err = writer.communicate()
    assert writer.returncode != 0
    assert "StoreError" in err.splitlines()[-1]
    assert "what was stored before is kept" in err.splitlines()[-1]
    announced = set(out.split())
    assert len(announced) > 10
    assert assert_sound(database) == announced


def test_a_disk_that_is_full_from_the_start_is_named(page_limit: Callable[[int], None], tmp_path: Path) -> None:
    page_limit(3)
    with pytest.raises(StoreError, match="the disk is full"):
        open_store(tmp_path / "rbl.db")


def test_an_artifacts_folder_that_cannot_be_written_stores_nothing(tmp_path: Path) -> None:
    (tmp_path / "rbl-artifacts").write_text("a file where the folder should be")
    with open_store(tmp_path / "rbl.db") as store:
        run_id = store.begin_run(["rbl"], {}, {})
        with pytest.raises(StoreError, match=r"rbl\.db: cannot write .*rbl-artifacts.*: (File exists|Not a directory)"):
            store.save_cell(examples.ok_record(), run_id, artifacts=[b"x"])
        assert store.cells() == []


def test_a_disk_that_is_full_while_a_file_is_written_is_named_with_the_file_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # writing, unlike opening, does not say to what

    with open_store(tmp_path / "rbl.db") as store:
        run_id = store.begin_run(["rbl"], {}, {})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot write .*rbl-artifacts.*\.safetensors: No space left on device"):
            store.save_cell(examples.ok_record(), run_id, artifacts=[b"x"])
        monkeypatch.undo()
        assert store.cells() == []
    assert [file for file in (tmp_path / "rbl-artifacts").rglob("*") if file.is_file()] == []


# ---------------------------------------------------------------- several processes


@pytest.mark.usefixtures("in_tmp_path")
def test_two_processes_write_into_one_new_database_at_the_same_time(database: str, mode: str) -> None:
    writers = [start_writer(database, prefix, 40, mode) for prefix in ("left", "right")]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert assert_sound(database) == {f"{side}-{number}" for side in ("left", "right") for number in range(40)}


@pytest.mark.usefixtures("in_tmp_path")
def test_two_processes_store_the_same_cells_once(database: str, mode: str) -> None:
    writers = [start_writer(database, "same", 40, mode) for _ in range(2)]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert assert_sound(database) == {f"same-{number}" for number in range(40)}


def test_a_reader_sees_one_state_while_another_writes(tmp_path: Path) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        for number in range(20):
            store.save_cell(examples.ok_record(f"cell-{number}"), run_id)
        with closing(sqlite3.connect(database, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM metrics")
            assert all(len(record.metrics) == 2 for record in store.cells())
            writer.execute("ROLLBACK")


def test_a_database_that_stays_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "PAUSES", (0.0,))
    database = tmp_path / "rbl.db"
    with open_store(f"sqlite:///{database}?timeout=0") as store, closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"rbl\.db: locked by another program for too long: wait"):
            store.begin_run(["rbl"], {}, {})
        assert store.cells() == []  # reading goes on
        other.rollback()
        store.begin_run(["rbl"], {}, {})


def test_a_writer_waits_for_a_lock_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "rbl.db"
    with open_store(f"sqlite:///{database}?timeout=0") as store, closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(transactions.time, "sleep", lambda _: other.rollback())
        store.save_cell(examples.ok_record(), store.begin_run(["rbl"], {}, {}))
        assert len(store.cells()) == 1


def test_a_new_database_waits_for_another_process_that_sets_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "rbl.db"
    with closing(sqlite3.connect(database, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # SQLite does not wait for it to end before it changes to WAL
        with pytest.raises(StoreError, match=r"rbl\.db: locked by another program for too long: wait"):
            open_store(f"sqlite:///{database}?timeout=0")
        monkeypatch.setattr(schema_state.time, "sleep", lambda _: other.rollback())
        with open_store(database) as store:
            assert store.cells() == []


def test_a_server_that_drops_its_connections_is_asked_again(postgres_database: str, in_tmp_path: Path) -> None:
    engine = create_engine(postgres_database, isolation_level="AUTOCOMMIT")
    drop = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = :n")
    dropped = []

    def drop_others(connection: Connection, *_: object) -> None:
        if not dropped:
            with engine.connect() as other:
                dropped.append(other.execute(drop, {"n": engine.url.database}).all())

    with open_store(postgres_database) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        event.listen(store._transactions.engine, "commit", drop_others)
        store.save_cell(examples.ok_record(), run_id)
        assert dropped[0]
        assert len(store.cells()) == 1
    engine.dispose()


# ---------------------------------------------------------------- what is no database of ours


def refused(database: Path | str, *, create: bool = True) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(database, create=create)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code is ExitCode.STORE
    return message


def test_a_database_that_does_not_exist_is_not_created_by_reading(in_tmp_path: Path) -> None:
    assert refused("rbl.db", create=False) == "no results in rbl.db yet: run `rbl run` first"
    assert not Path("rbl.db").exists()


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    database = tmp_path / "rbl.db"
    database.touch()
    assert "no results in" in refused(database, create=False)
    with open_store(database) as store:
        assert store.cells() == []
    with open_store(database, create=False) as store:
        assert store.cells() == []


def test_a_file_that_is_no_database_is_named_and_left_alone(in_tmp_path: Path) -> None:
    Path("notes.txt").write_text("what I did on my holidays, at some length" * 200)
    for create in (True, False):
        assert refused("notes.txt", create=create) == "notes.txt: no SQLite database: name another file"
    assert Path("notes.txt").read_text().startswith("what I did")


def test_the_database_of_another_program_is_left_alone(in_tmp_path: Path) -> None:
    with closing(sqlite3.connect("places.sqlite")) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = Path("places.sqlite").read_bytes()
    assert "the database of another program (it has a table 'bookmarks')" in refused("places.sqlite")
    assert Path("places.sqlite").read_bytes() == before


def test_a_folder_or_a_missing_folder_is_named(in_tmp_path: Path) -> None:
    assert refused(".") == ". is a folder: name a file in it, such as rbl.db"
    assert "the folder missing does not exist" in refused("missing/rbl.db")
    assert not Path("missing").exists()


def test_a_truncated_database_is_called_damaged(tmp_path: Path) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        for number in range(20):
            store.save_cell(examples.ok_record(f"cell-{number}"), run_id)
    content = database.read_bytes()
    database.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="damaged"), open_store(database, create=False) as store:
        store.cells()


def test_a_read_only_database_can_be_read_and_refuses_to_be_written(tmp_path: Path) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store:
        store.save_cell(examples.ok_record(), store.begin_run(["rbl"], {}, {}))
    with open_store(f"sqlite:///file:{database}?mode=ro&uri=true") as store:
        assert len(store.cells()) == 1
        with pytest.raises(StoreError, match="read-only"):
            store.begin_run(["rbl"], {}, {})


def test_what_lies_in_a_folder_that_takes_no_files_can_be_read_and_refuses_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "50% of what?.db"
    with open_store(database) as store:
        store.save_cell(examples.ok_record(), store.begin_run(["rbl"], {}, {}))
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # no folder refuses root, who may run this
    with open_store(database, create=False) as store:
        assert len(store.cells()) == 1
        assert store.name == str(database)
        assert [file.name for file in tmp_path.glob("*.db*")] == [database.name]
        with pytest.raises(StoreError, match="read-only"):
            store.begin_run(["rbl"], {}, {})


def test_reading_a_read_only_file_leaves_none_beside_it_that_would_be_read_only_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "rbl.db"
    with open_store(database) as store:
        store.save_cell(examples.ok_record(), store.begin_run(["rbl"], {}, {}))
        store.keep_rows(store.leaderboard_rows())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or Path(path) == tmp_path)
    assert quick_rows(str(database)) is None
    with open_store(database, create=False) as store:
        assert len(store.cells()) == 1
        assert list(tmp_path.glob("rbl.db-*")) == []


def test_damage_to_the_name_of_a_table_is_damage(tmp_path: Path) -> None:
    database = tmp_path / "rbl.db"
    open_store(database).close()
    content = database.read_bytes()
    for whole, damaged in ((b"tablerunsruns", b"table\xa0unsruns"), (b"CREATE TABLE runs", b"CREATE TABEL runs")):
        assert content.count(whole) == 1
        content = content.replace(whole, damaged)
    database.write_bytes(content)  # the name is in SQLite's message, which Python cannot decode
    assert quick_rows(str(database)) is None
    assert "damaged: restore a copy" in refused(database)


def test_a_database_that_somebody_writes_is_not_taken_for_one_that_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "rbl.db"
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    with open_store(database) as writer, open_store(database, create=False) as reader:
        writer.save_cell(examples.ok_record(), writer.begin_run(["rbl"], {}, {}))
        assert len(reader.cells()) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("oracel://user@host/name", "there is no database dialect 'oracel'"),
        ("://nothing", "the database URL cannot be read"),
        ("postgresql+psycopg://user@host:port/name", "the database URL cannot be read"),
        ("", "the database has no name"),
        ("postgresql+no_such_driver://user@host/name", "there is no database dialect"),
    ],
)
def test_a_wrong_url_is_named(url: str, message: str) -> None:
    assert message in refused(url)


SECRET_URLS = (
    "postgresql+psycopg://user:secret@localhost:1/rbl",
    "postgresql+psycopg://user@localhost:1/rbl?password=secret&connect_timeout=1",
    "postgresql+psycopg://user:se%40cret%2Fsecret@localhost:1/rbl",
)


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_password_is_never_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        open_store(url)
    said = str(caught.value)
    assert "secret" not in said
    assert "***" in said
    assert "\n" not in said
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingLibraryError, match="needs the Python module 'psycopg'") as missing:
        open_store(url)
    assert "secret" not in str(missing.value)


@pytest.mark.usefixtures("in_tmp_path")
def test_a_password_is_not_stored_with_the_run(database: str) -> None:
    url = SECRET_URLS[0]
    with open_store(database) as store:
        run_id = store.begin_run(["rbl", "run", "--db", url, f"--db={url}"], {"db": url, "other": [url]}, {})
        store.save_cell(examples.ok_record(), run_id)
        stored = store.run_of("c0ffee")
    assert "secret" not in str(stored)
    assert stored["spec"]["db"] == "postgresql+psycopg://user:***@localhost:1/rbl"


def test_a_database_in_memory_works_like_a_file(in_tmp_path: Path) -> None:
    with open_store(":memory:") as store:
        store.save_cell(examples.ok_record(), store.begin_run(["rbl"], {}, {}))
        assert len(store.cells()) == 1
    assert list(in_tmp_path.iterdir()) == []


def test_a_number_that_no_database_holds_is_refused_in_one_line(tmp_path: Path) -> None:
    with open_store(tmp_path / "rbl.db") as store:
        run_id = store.begin_run(["rbl"], {}, {})
        with pytest.raises(StoreError, match="too large"):
            store.save_cell(examples.ok_record(cell=examples.make_cell(seed=2**64)), run_id)
