"""A worker, as the run's process sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from robustbench_lab.executors.messages import Setup, read_message, write_message

START = """
import os, sys
sys.path[:] = {path!r}
if {cores!r}:
    os.sched_setaffinity(0, {cores!r})
from robustbench_lab.executors.worker import main
main()
"""
CLOSING_SECONDS = 5.0
"""Between the end of a worker's messages and its own."""


class Closed:
    """Stands for the last message of a worker."""


class WorkerProcess:
    """Starts a worker. What it says comes into `inbox` as (worker, message); last `Closed()`."""

    def __init__(self, setup: Setup, cores: Sequence[int], inbox: SimpleQueue[tuple[WorkerProcess, Any]]) -> None:
        """cores: those that the worker keeps to; none: any."""
        self.ready = False
        self.heard = time.monotonic()
        """When it last gave a sign of life."""
        # Not `multiprocessing`: it would run the user's own script again in every worker, and offers no environment
        # of their own. A session of its own keeps Ctrl-C in the terminal from the workers.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", START.format(path=sys.path, cores=tuple(cores))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(setup.threads), "OMP_WAIT_POLICY": "passive"},
            start_new_session=True,
        )
        self._inbox = inbox
        self.send(setup)
        Thread(target=self._listen, daemon=True).start()

    def send(self, message: Any) -> None:
        """A worker that has gone is noticed by its end, not here."""
        assert self._process.stdin is not None  # noqa: S101 (a pipe was asked for)
        with contextlib.suppress(OSError):
            write_message(self._process.stdin, message)

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def how_it_ended(self) -> str:
        """In a few words; ends it first where it has only fallen silent."""
        try:
            code = self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return "worker closed its connection"
        if code >= 0:
            return f"worker exited with code {code}"
        return f"worker was killed by signal {-code} ({_meaning(-code)})"

    @property
    def killed(self) -> bool:
        """Whether it was ended by SIGKILL, as the system does when memory runs out."""
        return self._process.poll() == -9

    def kill(self) -> None:
        """End it now, with whatever processes a plugin has started, and wait for its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout as stream, contextlib.suppress(Exception):  # however it breaks off, it is over
            while True:
                self._inbox.put((self, read_message(stream)))
        self._inbox.put((self, Closed()))


def _meaning(number: int) -> str:
    if number == signal.SIGKILL:
        return "out of memory?"
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
