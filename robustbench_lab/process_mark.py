"""Which process on which machine does something, and whether it is still there."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True)
class ProcessMark:
    """No two processes have the same, not even one after another."""

    host: str
    process: str
    """Its number, and when it began."""

    @classmethod
    def own(cls) -> Self:
        """Of this process."""
        return cls(socket.gethostname(), _process(psutil.Process()))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended. Of processes on other machines nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            return _process(psutil.Process(int(self.process.partition("@")[0]))) != self.process
        except (psutil.NoSuchProcess, ValueError):
            return True
        except psutil.Error:  # it is there, and belongs to somebody else
            return False


def _process(process: psutil.Process) -> str:
    return f"{process.pid}@{process.create_time():.1f}"
