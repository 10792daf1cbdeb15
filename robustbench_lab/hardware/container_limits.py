"""What a container, a batch job or a service may use of its machine: Linux's control groups, versions 1 and 2."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def cpu_quota() -> int | None:
    """Cores that may be kept busy, rounded up; None: no limit.

    The system puts all threads to sleep for the rest of each tenth of a second once they have used up their share: a
    process with as many threads as the machine has cores gets slower by far, not faster.
    """
    quotas = [math.ceil(quota / period) for quota, period in _cpu_limits() if quota > 0 and period > 0]
    return max(1, min(quotas)) if quotas else None


def free_memory() -> int:
    """Bytes that this process could have without swapping, and without being ended for it."""
    free: int = psutil.virtual_memory().available
    return min([free, *(max(0, limit - used) for limit, used in _memory_limits())])


def _cpu_limits() -> Iterator[tuple[float, float]]:
    """Quota and period, in microseconds."""
    for group in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            quota, period = (group / "cpu.max").read_text().split()
            yield float(quota), float(period)
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
            yield float(quota), float(period)


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes. Copies of files that nobody reads at the moment are no use: they give way."""
    for group in _groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield int((group / limit).read_text()), int((group / used).read_text()) - int(counted["inactive_file"])


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups this process is in, from its own one up; inside a container the topmost is its own."""
    for root in (GROUPS, GROUPS / controller):
        own = root / _own_group(controller).lstrip("/")
        inside = [own, *own.parents]
        yield from inside[: inside.index(root) + 1]


def _own_group(controller: str) -> str:
    """As `/proc/self/cgroup` names it: `0::/path` in version 2, `4:memory:/path` in version 1."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines())
        paths = {name: path for _, names, path in lines for name in names.split(",")}
        return paths.get(controller) or paths.get("", "/")
    return "/"
