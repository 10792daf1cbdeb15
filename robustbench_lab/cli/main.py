"""`rbl`: every command is one file of this folder, and imports what it needs when it runs."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

import typer

from robustbench_lab.cli import (
    bundle,
    cancel,
    compare,
    database,
    describe,
    devices,
    leaderboard,
    listing,
    plan,
    plugins,
    report,
    retry,
    run,
    show,
    status,
    verify,
)
from robustbench_lab.cli.output import results_only, say
from robustbench_lab.errors import PluginError, RblError
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.printable_text import printable

BUILT_IN: dict[str, Callable[..., Any]] = {
    "run": run.run,
    "plan": plan.plan,
    "status": status.status,
    "cancel": cancel.cancel,
    "retry": retry.retry,
    "leaderboard": leaderboard.leaderboard,
    "compare": compare.compare,
    "show": show.show,
    "report": report.report,
    "bundle": bundle.bundle,
    "verify": verify.verify,
    "list": listing.list_components,
    "describe": describe.describe,
    "devices": devices.devices,
}
LINGERING_SECONDS = 20.0
"""For threads that plugins have left behind to end, once everything is said and stored."""
GROUPS = {"plugins": plugins.app, "db": database.app}
CommandLineError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
"""Click's, or from some version on typer's own copy of it: a flag that does not exist, a number that is none."""


def main() -> None:
    """The command line, with its exit code. Expected errors are one line; a traceback is a bug."""
    # Idle OpenMP threads that spin starve every other process of the machine: 8 to 19 times slower on 2 cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # `cuda:1` is the GPU that nvidia-smi calls 1
    warnings.formatwarning = _warning
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # started with `>&-`
    try:
        code = _run()
        with suppress(ValueError):  # not in the main thread, which alone may
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and stored: the exit code stays what it is
        sys.stdout.flush()
        _wait_no_longer(code)
        sys.exit(code)
    except BrokenPipeError:
        # The reader has gone (`rbl leaderboard | head`); stop Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _wait_no_longer(code: int) -> None:
    """End the process in a while, if it has not ended by itself: Python waits for all threads, a plugin's as well."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        timer = threading.Timer(LINGERING_SECONDS, os._exit, (code,))
        timer.daemon = True
        timer.start()


def _run() -> int:
    try:
        result: Any = build_app()(standalone_mode=False)
    except RblError as error:
        return _complain(str(error), error.exit_code)
    except CommandLineError as error:
        return _complain_of_usage(error.format_message())
    except typer.Exit as done:
        return done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted", ExitCode.INTERRUPTED)
    if result == ExitCode.INTERRUPTED and not isinstance(result, ExitCode):  # typer's answer to Ctrl-C
        return _complain("interrupted", ExitCode.INTERRUPTED)
    return result if isinstance(result, int) else ExitCode.OK


def _complain_of_usage(message: str) -> int:
    """One line, or the help of a group of commands where none of them was named."""
    if message.startswith("Usage: "):
        typer.echo(message)
        return ExitCode.USAGE
    return _complain(_plain(" ".join(message.split())), ExitCode.USAGE)


def _plain(message: str) -> str:
    """Without the words of the library that checks values."""
    without_reason = re.sub(r", unable to parse string as an? \w+$", "", message)
    return without_reason.replace("Value error, ", "").replace("Input should be", "must be")


def build_app() -> typer.Typer:
    """All commands: built-in ones and plugins'."""
    app = typer.Typer(
        name="rbl",
        help="Measure adversarial robustness, and make the number one that others can check.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text: what Rich needs for its own would take a third of the start
    )
    for name, command in BUILT_IN.items():
        app.command(name)(results_only(command))
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)
    _add_plugin_commands(app)
    app.callback(invoke_without_command=True)(_global_options)
    return app


def _add_plugin_commands(app: typer.Typer) -> None:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.catalog.plugin_loading import load_plugins

    with redirect_stdout(sys.stderr):  # what a plugin prints while it is loaded is no result
        catalog = Catalog.from_plugins(load_plugins())
        for entry in catalog.entries("commands"):
            name = entry.spec.name
            try:
                if name in BUILT_IN or name in GROUPS:
                    raise PluginError(f"{entry.title} of {entry.plugin.name}: rbl has a command of that name")
                command = catalog.load_factory("commands", name)
            except RblError as error:  # costs this command, and none of the others
                _complain(f"left out: {error}", ExitCode.USAGE)
            else:
                app.command(name, help=entry.spec.summary)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from robustbench_lab import __version__

        typer.echo(f"rbl {__version__}")
        raise typer.Exit


def _global_options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What is meant for users on one line; what is meant for developers with its place, as Python writes it."""
    if category is UserWarning:
        return f"rbl: {printable(' '.join(str(message).split()))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {printable(str(message))}\n{line or ''}"


def _complain(message: str, code: int) -> int:
    say(f"rbl: {message}")
    return code
