"""Ctrl-C: once finishes the work units that run, twice stops now."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REASON = "Ctrl-C"
MESSAGE = b"\nfinishing what runs; Ctrl-C once more stops now\n"


@contextmanager
def stops_gently(stop: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop(REASON)`, every further one raises KeyboardInterrupt.

    In a thread that gets no signals, or where the caller handles Ctrl-C in its own way, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, MESSAGE)  # print() is not safe in a signal handler
        stop(REASON)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
