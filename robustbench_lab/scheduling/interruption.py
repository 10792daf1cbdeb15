"""Ctrl-C: once finishes the work units that run, twice stops now. The end of a terminal or of a job stops now, too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

REASON = "Ctrl-C"
MESSAGE = b"\nfinishing what runs; Ctrl-C once more stops now\n"
ENDINGS = ("SIGTERM", "SIGHUP")
"""What batch systems and terminals send before they kill: there may be no time to finish what runs. By name, since not
every platform has them."""
Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stops_gently(stop: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop(REASON)`; every further one, SIGTERM and SIGHUP raise KeyboardInterrupt.

    Signals that the caller handles in its own way, or that are ignored (Ctrl-C in the background of a script, SIGHUP
    under `nohup`), stay as they are; so does everything in a thread that gets no signals.
    """
    handlers = {signal.SIGINT: _once(stop)} if signal.getsignal(signal.SIGINT) is signal.default_int_handler else {}
    for name in ENDINGS:
        if signal.getsignal(number := getattr(signal, name, signal.SIGINT)) is signal.SIG_DFL:
            handlers[number] = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _once(stop: Callable[[str], None]) -> Handler:
    def first(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):  # the terminal has gone
            os.write(2, MESSAGE)  # print() is not safe in a signal handler
        stop(REASON)

    return first
