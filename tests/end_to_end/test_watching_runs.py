"""Runs that are watched, cancelled and repeated from another terminal: real processes on one database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import sqlite3
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from robustbench_lab.cli.devices import devices
from robustbench_lab.cli.retry import retry
from robustbench_lab.errors import NothingStoredError, UsageError
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.result_store import RunNotice, open_store

RBL = str(Path(sysconfig.get_path("scripts")) / "rbl")
SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
OK, USAGE, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

PLUGIN = '''
import os, sys, time
from pathlib import Path
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec


def waits(problem):
    """As long as the file `wait` is there."""
    os.write(2, b"\\x1b[2Ja library written in C says hello\\n")
    while Path("wait").exists():
        problem.loss(problem.clean)
        time.sleep(0.05)
    problem.submit(problem.clean)


def breaks(problem):
    """As long as the file `broken` is there."""
    if Path("broken").exists():
        raise RuntimeError("it is broken")
    problem.submit(problem.clean)


@hookimpl
def rbl_attacks():
    return [AttackSpec(name="waits", factory=waits), AttackSpec(name="breaks", factory=breaks)]
'''
COMMON = ("--plugin", "mine.py", "--model", "digits-cnn", "--samples", "10")
SEEDS = ("--seed", "0", "--seed", "1", "--seed", "2")
WAITING = (*COMMON, "--attack", "waits", *SEEDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


Rbl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rbl(forked_rbl: Rbl) -> Rbl:
    def run(folder: Path, *arguments: str, expect: int = OK) -> subprocess.CompletedProcess[str]:
        done = forked_rbl(arguments, folder, os.environ)
        assert done.returncode == expect, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs at the same time; it must end by itself."""
    pipe = subprocess.PIPE
    with subprocess.Popen([RBL, *arguments], cwd=folder, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def newest_run(folder: Path) -> RunNotice:
    with open_store(folder / "rbl.db", create=False) as store:
        return store.board.runs()[0]


def check(document: Any, schema: str) -> None:
    Draft202012Validator(json.loads((SCHEMAS / f"{schema}.schema.json").read_text())).validate(document)


def wait_until_it_evaluates(folder: Path) -> RunNotice:
    """The newest run when it does."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(NothingStoredError, IndexError):
            run = newest_run(folder)
            if run.state and any(slot["work"] and slot["work"]["passes"] for slot in run.state["slots"]):
                return run
        time.sleep(0.05)
    pytest.fail("the run does not begin")


def test_a_run_is_watched_and_partly_cancelled_from_elsewhere_and_cancelled_cells_can_be_had_later(
    folder: Path, rbl: Rbl
) -> None:
    (folder / "wait").touch()
    with running(folder, "run", *WAITING, "--json") as run:
        at_work = wait_until_it_evaluates(folder)
        with running(folder, "status", at_work.run_id[:4], "--follow", "--json") as follower:
            page = rbl(folder, "status").stdout
            assert f"run {at_work.run_id}: 0 of 3 cells done" in page
            assert "waits · digits-cnn · digits · linf 0.15" in page
            other = not_begun(folder, at_work)
            assert "1 cell: stored as skipped" in rbl(folder, "cancel", other[:12]).stderr
            nothing = rbl(folder, "cancel", "zzzz", expect=USAGE).stderr
            assert "no cell that is still to be evaluated begins with 'zzzz'" in nothing
            (folder / "wait").unlink()
            out, _ = run.communicate()
            followed, _ = follower.communicate()
    assert run.returncode == OK
    cells = json.loads(out)["cells"]
    assert len(cells) == 3
    for cell in cells:
        cancelled = cell["cell_id"] == other
        assert (cell["status"], cell["reason"]) == (("skipped", "cancelled") if cancelled else ("ok", None))

    documents = [json.loads(line) for line in followed.splitlines()]
    for document in documents:
        check(document, "status")
    first, last = documents[0]["runs"][0], documents[-1]["runs"][0]
    assert (first["condition"], last["condition"]) == ("running", "finished")
    (slot,) = first["state"]["slots"]
    assert (slot["work"]["attack"], slot["work"]["stop"]) == ("waits", 10)
    state = last["state"]
    assert (state["ok"], state["skipped"], state["left"], state["seconds_left"]) == (2, 1, 0, None)

    again = json.loads(rbl(folder, "retry", "--cancelled", "--plugin", "mine.py", "--json").stdout)["cells"]
    assert [(cell["cell_id"], cell["status"]) for cell in again] == [(other, "ok")]


def not_begun(folder: Path, run: RunNotice) -> str:
    """A cell of the waiting run of which no unit runs."""
    assert run.state is not None
    running = {slot["work"]["cell_id"] for slot in run.state["slots"]}
    with contextlib.chdir(folder):
        spec = ExperimentSpec.from_flags(
            plugins=["mine.py"], models=["digits-cnn"], samples=10, attacks=["waits"], seeds=[0, 1, 2]
        )
        plan = make_plan(spec, open_catalog(spec.plugins))
    return next(cell.cell_id for cell in plan.cells if cell.cell_id not in running)


def test_a_run_that_is_stopped_from_elsewhere_ends_as_if_interrupted_and_goes_on_later(folder: Path, rbl: Rbl) -> None:
    (folder / "wait").touch()
    with running(folder, "run", *WAITING) as run:
        run_id = wait_until_it_evaluates(folder).run_id
        assert f"run {run_id} stops" in rbl(folder, "cancel", run_id[:5]).stderr
        (folder / "wait").unlink()
        _, said = run.communicate()
    assert run.returncode == INTERRUPTED
    assert "1 of 3 cells are in rbl.db; the same command goes on from there" in said
    assert newest_run(folder).condition == "interrupted"
    assert "2 of 3 cells evaluated, 1 stored before" in rbl(folder, "run", *WAITING).stderr


def test_a_run_that_was_killed_is_dead_once_it_has_been_silent_for_a_while(folder: Path, rbl: Rbl) -> None:
    (folder / "wait").touch()
    with running(folder, "run", *WAITING) as run:
        run_id = wait_until_it_evaluates(folder).run_id
        run.send_signal(signal.SIGKILL)
        run.communicate()
    assert newest_run(folder).condition == "running"
    with closing(sqlite3.connect(folder / "rbl.db")) as connection, connection:
        connection.execute("UPDATE heartbeats SET beat_at = datetime(beat_at, '-1 minute')")
    assert newest_run(folder).condition == "dead"
    assert "dead for" in rbl(folder, "status").stdout
    assert "there is nothing to cancel" in rbl(folder, "cancel", run_id, expect=USAGE).stderr


def test_what_failed_is_evaluated_again_with_the_settings_of_its_run(folder: Path, rbl: Rbl) -> None:
    flags = (*COMMON, "--attack", "breaks", "--attack", "noise", "--eps", "0.1", "--no-log")
    (folder / "broken").touch()
    cells = json.loads(rbl(folder, "run", *flags, "--json", "--quiet", expect=SOME_FAILED).stdout)["cells"]
    assert not (folder / "rbl-logs").exists()
    (folder / "broken").unlink()
    refused = rbl(folder, "retry", "--failed", expect=USAGE).stderr
    assert refused.endswith("used the plugin file mine.py: read it, then add --plugin mine.py\n")
    retried = rbl(folder, "retry", "--failed", "--plugin", "mine.py", "--json")
    (mended,) = json.loads(retried.stdout)["cells"]
    assert mended["cell_id"] == next(cell["cell_id"] for cell in cells if cell["status"] == "failed")
    assert (mended["attack"], mended["status"], mended["eps"]) == ("breaks", "ok", 0.1)
    assert "1 of 1 cells evaluated" in retried.stderr
    assert (folder / "rbl-logs").exists()


@pytest.fixture
def failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run of which all has failed, in the current folder."""
    monkeypatch.chdir(folder)
    Path("broken").touch()
    spec = ExperimentSpec.from_flags(plugins=["mine.py"], models=["digits-cnn"], samples=10, attacks=["breaks"])
    return run_experiment(spec, open_catalog(spec.plugins)).run_id


def test_what_cannot_be_evaluated_again_is_refused(failed: str) -> None:
    with pytest.raises(UsageError, match="--failed, --cancelled or both"):
        retry()
    with pytest.raises(UsageError, match=r"no run in rbl\.db begins with 'zz'"):
        retry("zz", failed=True)
    with pytest.raises(UsageError, match=f"run {failed} has no such cells"):
        retry(failed[:6], cancelled=True)
    with pytest.raises(UsageError, match=r"used the plugin file mine\.py: read it, then add --plugin mine\.py"):
        retry(failed=True)
    Path("mine.py").write_text(PLUGIN + "\n# changed\n")
    with pytest.raises(UsageError, match="a component has changed"):
        retry(failed=True, plugin=["mine.py"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": ["torch(path='net.py:make')"]}, r"^'torch\(path='net\.py:make'\)' is a program that the data"),
        (
            {"adversary": ["transfer(model=\"torch(path='net.py:make')\")"]},
            "is a program that the database names: read",
        ),
        ({"executor": "ray(address='10.0.0.1:6379')"}, r"used the cluster at 10\.0\.0\.1:6379: give --run-scripts"),
        ({"executor": "ray", "address": "10.0.0.1:6379"}, r"used the cluster at 10\.0\.0\.1:6379: give --run-scripts"),
    ],
)
def test_a_database_chooses_no_program_that_runs_here(failed: str, settings: dict[str, Any], said: str) -> None:
    Path("net.py").write_text("raise SystemExit('it ran')")
    with closing(sqlite3.connect("rbl.db")) as connection, connection:
        ((spec,),) = connection.execute("SELECT spec FROM runs").fetchall()
        connection.execute("UPDATE runs SET spec = ?", [json.dumps({**json.loads(spec), **settings})])
    with pytest.raises(UsageError, match=said):
        retry(failed=True, plugin=["mine.py"])


def test_the_live_view_stays_whole_whatever_a_plugin_writes_to_the_terminal(folder: Path) -> None:
    (folder / "wait").touch()
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [RBL, "run", *COMMON, "--attack", "waits"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer) as run:
        os.close(writer)
        run_id = wait_until_it_evaluates(folder).run_id
        (folder / "wait").unlink()
        shown = b"".join(iter(lambda: _read(reader), b"")).decode()
    os.close(reader)
    assert run.returncode == OK
    assert "\x1b[2J" not in shown
    assert "a library written in C says hello\r\n" in shown
    assert "waits · digits-cnn · digits · linf 0.15" in shown
    assert "0 of 1 cells done" in shown
    assert shown.splitlines()[-1] == "1 of 1 cells evaluated, 0 stored before; results in rbl.db"
    assert shown.splitlines()[-2].startswith("busy ")

    log = (folder / "rbl-logs" / f"{run_id}.jsonl").read_text().splitlines()
    for line in log:
        check(json.loads(line), "run-log")
    assert json.loads(log[-1])["event"] == "run_finished"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_asking_and_cancelling_import_no_torch(tmp_path: Path) -> None:
    with open_store(tmp_path / "rbl.db") as store:
        store.board.beat(store.begin_run([], {}, {}), "machine", {})
    code = (
        "import sys\n"
        "from robustbench_lab.cli import cancel, status\n"
        "status.status('', json=True)\n"
        "cancel.ANSWER_SECONDS = 0\n"
        "try:\n    cancel.cancel('c0ffee')\n"
        "except Exception as error:\n    print(error, file=sys.stderr)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "does not answer" in done.stderr) == (0, True), done.stderr


def test_the_devices_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    devices(json=True)
    document = json.loads(capsys.readouterr().out)
    check(document, "devices")
    devices()
    assert f"slots of a run: {document['slots'][0]['slot']}" in capsys.readouterr().out
