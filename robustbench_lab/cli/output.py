"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
"""Columns of tables where stdout is no terminal."""


_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


def results_only(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with stdout for its results alone: what anybody else prints, such as a plugin, goes to stderr."""

    @functools.wraps(command)
    def quiet(*args: Any, **given: Any) -> Any:
        token = _results.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                return command(*args, **given)
        finally:
            _results.reset(token)

    return quiet


def results() -> TextIO:
    """Where results are written."""
    return _results.get() or sys.stdout


def console() -> Console:
    """The console for results."""
    from rich.console import Console

    stream = results()
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def say(message: str) -> None:
    """One line for a person, on stderr."""
    print(message, file=sys.stderr)  # noqa: T201


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on stdout."""
    results().write(json.dumps(document, indent=2, allow_nan=False) + "\n")
