"""Workers and whole runs are killed at random moments: the database ends up as that of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import CellRecord, Status
from robustbench_lab.result_store import open_store

PLUGIN = str(Path(__file__).with_name("worker_plugin.py"))
ATTACKS = ["slow(seconds=0.5)", "pgd(steps=30)", "autoattack", "swift", "noise"]
RBL = [sys.executable, "-c", "from robustbench_lab.cli.main import main; main()"]
COMMAND = ["run", "--plugin", PLUGIN, "--model", "half-space", "--dataset", "near-half", "--device", "cpu"]
COMMAND += [part for attack in ATTACKS for part in ("--attack", attack)]
COMMAND += ["--defense", "none", "--defense", "noisy", "--objective", "untargeted(eot=1)", "--workers", "2", "--quiet"]
MAIN_SHARE = 0.3
"""Of the kills that hit the run's own process."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[CellRecord]:
    database = str(tmp_path_factory.mktemp("undisturbed") / "rbl.db")
    spec = ExperimentSpec.from_flags(
        models=["half-space"],
        datasets=["near-half"],
        attacks=ATTACKS,
        defenses=["none", "noisy"],
        objectives=["untargeted(eot=1)"],
        devices=["cpu"],
        database=database,
    )
    records = run_experiment(spec, open_catalog([PLUGIN])).records
    assert [record.status for record in records] == [Status.OK] * 10
    return list(records)


def start(database: Path, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*RBL, *COMMAND, "--db", str(database), *flags], stdout=subprocess.DEVNULL)


def children(process: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def disturb(database: Path, kills: int, numbers: random.Random) -> int:
    """Run until all is done, or so many processes were killed; returns how many were."""
    done = 0
    while done < kills:
        main = start(database)
        while main.poll() is None and done < kills:
            time.sleep(numbers.uniform(0.1, 6))
            workers = children(main.pid)
            if workers and numbers.random() > MAIN_SHARE:
                os.kill(numbers.choice(workers), signal.SIGKILL)
                done += 1
            elif main.poll() is None:
                main.kill()
                done += 1
        if done == kills:
            main.kill()
        if main.wait() != -signal.SIGKILL:
            return done
    return done


def finish(database: Path) -> None:
    """A unit whose worker was killed twice has failed; that is asked for once more."""
    assert start(database, "--retry-failed").wait() == ExitCode.OK


def assert_undisturbed(database: Path, expected: list[CellRecord]) -> None:
    with open_store(database) as store:
        found = store.cells(ids=[record.cell.cell_id for record in expected])
    assert [record.cell.cell_id for record in found] == [record.cell.cell_id for record in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.status, one.metrics, one.verdict) == (other.status, other.metrics, other.verdict)
        assert one.outcomes is not None
        assert other.outcomes is not None
        assert np.array_equal(one.outcomes.clean_correct, other.outcomes.clean_correct)
        assert np.array_equal(one.outcomes.robust, other.outcomes.robust)
        assert np.allclose(one.outcomes.distance, other.outcomes.distance, rtol=1e-5, equal_nan=True)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (len(expected),)
        assert connection.execute("SELECT count(*) FROM unit_outcomes").fetchone() == (0,)
        for table in ("metrics", "sample_outcomes"):
            lost = f"SELECT count(*) FROM {table} WHERE cell_id NOT IN (SELECT cell_id FROM cells)"  # noqa: S608
            assert connection.execute(lost).fetchone() == (0,)
    assert not list(database.parent.glob("*-checkpoints"))


def test_a_run_that_is_killed_several_times_ends_with_what_an_undisturbed_one_gives(
    tmp_path: Path, undisturbed: list[CellRecord]
) -> None:
    database = tmp_path / "rbl.db"
    numbers = random.Random(1)  # noqa: S311 (no secret)
    assert disturb(database, 3, numbers) == 3
    finish(database)
    assert_undisturbed(database, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills_change_nothing(tmp_path: Path, undisturbed: list[CellRecord]) -> None:
    kills, run = 0, 0
    numbers = random.Random(2)  # noqa: S311 (no secret)
    while kills < 200:
        database = tmp_path / f"{run}.db"
        kills += disturb(database, min(20, 200 - kills), numbers)
        finish(database)
        assert_undisturbed(database, undisturbed)
        run += 1
