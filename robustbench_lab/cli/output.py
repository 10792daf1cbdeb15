"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from robustbench_lab.errors import StoreError
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.printable_text import printable

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
"""Columns of tables where stdout is no terminal."""
STDOUT, STDERR = 1, 2
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


def results_only(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with stdout for its results alone: what anybody else prints, such as a plugin, goes to stderr."""

    @functools.wraps(command)
    def quiet(*args: Any, **given: Any) -> Any:
        try:
            with _private_stdout() as stream:
                token = _results.set(stream)
                try:
                    with redirect_stdout(sys.stderr):
                        return command(*args, **given)
                finally:
                    _results.reset(token)
        except BrokenPipeError:  # the reader has gone (`rbl leaderboard | head`)
            return ExitCode.OK
        except OSError as error:
            if error.errno not in FULL or error.filename is not None:  # an open file is written to without its name
                raise
            raise StoreError(f"cannot write all that came out: {error.strerror}; what is stored is kept") from error

    return quiet


@contextmanager
def _private_stdout() -> Iterator[TextIO]:
    """The process's stdout. What libraries in C write to it goes to stderr from now on, to the end of the process."""
    stream = sys.stdout
    try:
        ours = stream.fileno() == STDOUT
        os.fstat(STDERR)
    except OSError:  # a stream that is no file, or no stderr
        ours = False
    if not ours:
        yield stream
        return
    stream.flush()
    with os.fdopen(os.dup(STDOUT), "w", encoding=stream.encoding, errors=stream.errors) as private:
        os.dup2(STDERR, STDOUT)
        yield private


def results() -> TextIO:
    """Where results are written."""
    return _results.get() or sys.stdout


def console() -> Console:
    """The console for results."""
    from rich.console import Console

    stream = results()
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def say(message: str) -> None:
    """One line for a person, on stderr. Where the terminal has gone there is nobody to tell."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr)  # noqa: T201


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on stdout."""
    results().write(json.dumps(document, indent=2, allow_nan=False) + "\n")
