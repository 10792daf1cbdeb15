"""How the command line ends: what it says on stderr, and the exit code."""

from __future__ import annotations

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
