"""`rbl run` and `rbl db` on databases that processes and machines share: SQLite files and a PostgreSQL server."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from robustbench_lab.result_store import open_store

RBL = str(Path(sysconfig.get_path("scripts")) / "rbl")
MODELS, ATTACKS, SEEDS = 2, 2, 3


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([RBL, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


Rbl = Callable[..., tuple[str, str]]


@pytest.fixture
def rbl(forked_rbl: Callable[..., subprocess.CompletedProcess[str]]) -> Rbl:
    def run(folder: Path, *arguments: str, expect: int = 0) -> tuple[str, str]:
        done = forked_rbl(arguments, folder, os.environ)
        assert done.returncode == expect, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    return run


def test_two_runs_of_the_same_cells_at_the_same_time_share_them_and_both_finish(
    database: str, in_tmp_path: Path, rbl: Rbl
) -> None:
    attacks = ("--attack", "fgsm", "--attack", "noise", "--task", "classification", "--samples", "30")
    attacks += ("--seed", "0", "--seed", "1", "--seed", "2")
    runs = [start(in_tmp_path, "run", *attacks, "--quiet", "--json", "--db", database) for _ in range(2)]
    ended = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    documents = [json.loads(out)["cells"] for out, _ in ended]
    for cells in documents:
        assert len(cells) == MODELS * ATTACKS * SEEDS
    timeless = [[{**cell, "wall_seconds": 0} for cell in cells] for cells in documents]
    assert timeless[0] == timeless[1]
    with open_store(database, create=False) as store:
        assert len(store.cells()) == MODELS * ATTACKS * SEEDS
        assert all(store.units(cell["cell_id"]) == [] for cell in documents[0])
        ended = store.board.runs()
        assert [run.condition for run in ended] == ["finished", "finished"]
        states = [run.state for run in ended if run.state]
        assert sum(state["ok"] for state in states) == MODELS * ATTACKS * SEEDS
        assert all(state["ok"] + state["found"] + state["stored"] == MODELS * ATTACKS * SEEDS for state in states)
    out, err = rbl(in_tmp_path, "db", "check", "--db", database)
    assert (out, "is sound" in err) == ("", True)


def test_a_server_s_password_is_seen_nowhere(postgres_database: str, in_tmp_path: Path, rbl: Rbl) -> None:
    url = make_url(postgres_database).set(password="s3cret").render_as_string(hide_password=False)  # noqa: S106
    assert "s3cret" in url
    said = [
        *rbl(in_tmp_path, "run", "--attack", "fgsm", "--model", "digits-cnn", "--samples", "20", "--db", url),
        *rbl(in_tmp_path, "leaderboard", "--db", url),
        *rbl(in_tmp_path, "db", "vacuum", "--db", url),
        *rbl(in_tmp_path, "db", "merge", "missing.db", "--db", url, expect=4),
        *rbl(in_tmp_path, "db", "merge", url, "--db", url, expect=4),
        *rbl(in_tmp_path, "leaderboard", "--db", url.replace("rbl_test", "no_such"), expect=4),
    ]
    with open_store(postgres_database) as store:
        said += [str(store.board.runs()), str(store.run_of(store.cells()[0].cell.cell_id))]
    said += [file.read_text() for file in in_tmp_path.rglob("*") if file.is_file()]
    assert any(":***@" in text for text in said)
    assert not any("s3cret" in text for text in said)


def test_databases_are_merged_and_checked_from_the_command_line(in_tmp_path: Path, rbl: Rbl) -> None:
    small = ("--model", "digits-cnn", "--samples", "20", "--quiet")
    rbl(in_tmp_path, "run", "--attack", "fgsm", *small)
    rbl(in_tmp_path, "run", "--attack", "noise", *small, "--db", "other.db")
    _, err = rbl(in_tmp_path, "db", "merge", "other.db")
    assert err == "other.db into rbl.db: 1 new cell, 0 replaced, 0 here already, 1 new run\n"
    out, err = rbl(in_tmp_path, "db", "merge", "other.db", "--json")
    assert json.loads(out)["kept"] == 1
    _, err = rbl(in_tmp_path, "db", "merge", "nothere.db", expect=4)
    assert err == "rbl: no results in nothere.db: name a database that holds some\n"
    (in_tmp_path / "folder").mkdir()
    for same in ("rbl.db", "folder/../rbl.db", f"sqlite:///{in_tmp_path}/rbl.db"):
        _, err = rbl(in_tmp_path, "db", "merge", same, expect=4)
        assert err.endswith("rbl.db is the database to copy into: name another one to copy from\n")
    out, err = rbl(in_tmp_path, "db", "check", "--json")
    assert (json.loads(out)["problems"], err) == ([], "rbl.db is sound\n")
    with open_store("rbl.db") as store:
        (cell_id, *_) = sorted(record.cell.cell_id for record in store.cells())
    with closing(sqlite3.connect("rbl.db")) as connection, connection:
        connection.execute("DELETE FROM sample_outcomes")
    out, err = rbl(in_tmp_path, "db", "check", expect=3)
    assert min(out.splitlines()) == f"{cell_id}: it is ok, but has no outcomes"
    assert err == "rbl.db: 2 problems\n"
