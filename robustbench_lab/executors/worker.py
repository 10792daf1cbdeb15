"""A worker: a process that evaluates work units on one slot, one after another. Started by `worker_process.py`.

What it has to tell goes over a private copy of its stdout; whatever a plugin prints, in whatever language, ends up on
stderr. It ends with the process of its run, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from queue import SimpleQueue
from threading import Lock, Thread
from typing import IO, Any, NoReturn

import torch

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.plugin_loading import PluginSource, load_plugins
from robustbench_lab.errors import RblError
from robustbench_lab.evaluation.evaluate_cell import evaluate_unit
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.executors.messages import (
    Alive,
    Began,
    Ended,
    Progressed,
    Ready,
    Setup,
    Task,
    Unusable,
    read_message,
    write_message,
)
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.records import Status

ALIVE_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read a Setup and Tasks from stdin, evaluate, and end when stdin does."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = _Outgoing(os.fdopen(os.dup(1), "wb"))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    setup: Setup = read_message(incoming)
    _end_with(setup.parent)
    tasks: SimpleQueue[Task] = SimpleQueue()
    Thread(target=_receive, args=(incoming, tasks), daemon=True).start()
    Thread(target=_beat, args=(outgoing,), daemon=True).start()
    try:
        bench = _workbench(setup)
    except RblError as error:
        outgoing.send(Unusable(str(error)))
        return
    outgoing.send(Ready())
    while True:
        task = tasks.get()
        outgoing.send(Began())
        record = evaluate_unit(task.unit, bench, task.options, _Reporter(outgoing))
        outgoing.send(Ended(record, usable=record.status is not Status.FAILED or _answers(bench.device)))


class _Outgoing:
    """The pipe to the run's process, for several threads."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = Lock()
        self._process = os.getpid()

    def send(self, message: Any) -> None:
        if os.getpid() != self._process:  # a copy of it that a plugin has forked: it would speak for the worker
            os._exit(0)
        try:
            with self._lock:
                write_message(self._stream, message)
        except OSError:  # the run's process has gone
            _end_now()


class _Reporter:
    """Passes progress on, a few times a second."""

    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing
        self._last = 0.0

    def __call__(self, unbroken: int, forward_passes: int, backward_passes: int) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS:
            self._last = now
            self._outgoing.send(Progressed(unbroken, forward_passes, backward_passes))


def _workbench(setup: Setup) -> Workbench:
    """Raises RblError where the plugins do not load as they did in the run's process."""
    keep_freed_memory()
    torch.set_num_threads(setup.threads)
    device = torch.device(setup.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for plugins that say `.cuda()`
    plugins = load_plugins(setup.files)
    for record, version in zip(
        (one for one in plugins.records if one.source is PluginSource.FILE), setup.versions, strict=True
    ):
        if record.version != version:
            raise RblError(f"{record.name} has changed since the run began: start the run again")
    return Workbench(Catalog.from_plugins(plugins), device)


def _answers(device: torch.device) -> bool:
    """A fault in a CUDA kernel makes every later call fail, in this process."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _receive(incoming: IO[bytes], tasks: SimpleQueue[Task]) -> None:
    try:
        while True:
            tasks.put(read_message(incoming))
    except (EOFError, OSError):
        _end_now()


def _beat(outgoing: _Outgoing) -> None:
    while True:
        outgoing.send(Alive())
        time.sleep(ALIVE_SECONDS)


def _end_with(parent: int) -> None:
    """Let the system end this process with its parent: a plugin that never lets Python run keeps `_receive` from it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            _end_now()


def _end_now() -> NoReturn:
    """With whatever processes a plugin has started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
