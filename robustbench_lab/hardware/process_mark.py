"""Which process on which machine does something, and whether it is still there."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class ProcessMark:
    """No two processes have the same, not even one after another."""

    host: str
    """Where numbers of processes mean the same: a machine between two starts, and a container on it by itself."""
    process: str
    """Its number, and when it began."""

    @classmethod
    def own(cls) -> Self:
        """Of this process."""
        return cls(_host(), _process(psutil.Process()))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended. Of processes elsewhere nothing is known."""
        if self.host != _host():
            return False
        try:
            return _process(psutil.Process(int(self.process.partition("@")[0]))) != self.process
        except (psutil.NoSuchProcess, ValueError):
            return True
        except psutil.Error:  # it is there, and belongs to somebody else
            return False


def _host() -> str:
    """Machines and containers often share a name (`localhost`); on Linux these two do not."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except (OSError, ValueError):  # no Linux, or none that tells
        return socket.gethostname()
    return f"{socket.gethostname()} {start} {namespace}"


def _process(process: psutil.Process) -> str:
    return f"{process.pid}@{process.create_time():.1f}"
