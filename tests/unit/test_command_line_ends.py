"""How the command line ends: what it says on stderr, and the exit code."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from robustbench_lab.cli import main as command_line
from robustbench_lab.exit_codes import ExitCode


def interrupted_run() -> ExitCode:
    return ExitCode.INTERRUPTED  # it has said itself what is stored


def stopped_at_once() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("command", "said"), [(interrupted_run, ""), (stopped_at_once, "rbl: interrupted")])
def test_an_interruption_is_said_once(
    command: object, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.command()(command)  # type: ignore[arg-type]
    monkeypatch.setattr(command_line, "build_app", lambda: app)
    monkeypatch.setattr("sys.argv", ["rbl"])
    assert command_line._run() == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.strip() == said


def test_a_warning_for_users_is_one_line_and_one_for_developers_keeps_its_place() -> None:
    assert command_line._warning("two\nlines", UserWarning, "file.py", 7) == "rbl: two lines\n"
    place = command_line._warning("old", DeprecationWarning, "file.py", 7)
    assert place.startswith("file.py:7: DeprecationWarning: old")


ENDLESS = """
import threading
from robustbench_lab.cli import main

def run():
    threading.Thread(target=threading.Event().wait).start()
    return 3

main._run, main.LINGERING_SECONDS = run, 0.1
main.main()
"""


def test_a_thread_that_a_plugin_has_left_behind_does_not_keep_the_process() -> None:
    assert subprocess.run([sys.executable, "-c", ENDLESS], timeout=120).returncode == ExitCode.SOME_CELLS_FAILED


LISTING = """
import sys
from robustbench_lab.cli.main import main

sys.argv = ["rbl", "list", "tasks"]
main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("stdout", "code", "said"),
    [
        (
            "/dev/full",
            ExitCode.STORE,
            "rbl: cannot write all that came out: No space left on device; what is stored is kept",
        ),
        ("&-", ExitCode.OK, ""),  # closed, as some that start programs leave it
    ],
)
def test_where_results_cannot_be_written_that_is_one_line_or_none(stdout: str, code: ExitCode, said: str) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(LISTING)} >{stdout}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.strip()) == (code, said)
