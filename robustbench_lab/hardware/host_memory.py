"""Freed host memory stays with the process, where glibc would give it back.

An attack asks for the same few megabytes at every step. By default glibc returns freed blocks of that size to the
system, which clears every page anew when they are asked for again: up to a fifth of PGD's time on a CPU
(benchmarks/host_memory.py).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""`M_*` of glibc's malloc.h."""
_SETTINGS = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 1 << 26}
"""Bytes."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for its next tensors; False where malloc is not glibc's.

    For processes of `rbl` only: the setting holds for all of a process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, Windows
        return False
    taken = [mallopt(name, size) for name, size in _SETTINGS.items()]
    return all(taken)
