"""What a run's process and its workers tell each other, as pickles over pipes: between our own processes only."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions
from robustbench_lab.records import UnitRecord, WorkUnit

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True)
class Setup:
    """To a new worker."""

    parent: int
    """Process id of the run's process: a worker ends with it."""
    files: tuple[str, ...]
    """Single-file plugins."""
    versions: tuple[str, ...]
    """Their SHA-256: a file that has changed since the run began must not be taken for the one in the plan."""
    device: str
    threads: int


@dataclass(frozen=True)
class Task:
    """To a worker: evaluate this."""

    unit: WorkUnit
    options: EvaluationOptions


@dataclass(frozen=True)
class Ready:
    """From a worker: it has started."""


@dataclass(frozen=True)
class Unusable:
    """From a worker: nothing can be evaluated there."""

    reason: str


@dataclass(frozen=True)
class Began:
    """From a worker: it begins its task."""


@dataclass(frozen=True)
class Alive:
    """From a worker, every second."""


@dataclass(frozen=True)
class Progressed:
    """From a worker: how far its task is (see `UnitProgress`)."""

    unbroken: int
    forward_passes: int
    backward_passes: int


@dataclass(frozen=True)
class Ended:
    """From a worker: what its task gave."""

    record: UnitRecord
    usable: bool = True
    """False: the worker's device answers no more, as after a fault in a CUDA kernel."""


def write_message(stream: IO[bytes], message: Any) -> None:
    """Raises OSError where nobody reads any more."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(LENGTH.pack(len(content)) + content)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where the writer has gone, also in the middle of one."""
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
    return pickle.loads(_exactly(stream, length))  # noqa: S301 (from our own process)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content
