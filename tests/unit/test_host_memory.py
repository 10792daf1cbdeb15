"""What malloc does with freed memory, seen in the page faults of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = 10
PROGRAM = f"""
import resource, sys
import numpy as np
from robustbench_lab.hardware.host_memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    blocks = [np.ones(1 << 17) for _ in range(8)]  # 1 MiB each
    del blocks

kept = sys.argv[1] == "keep" and keep_freed_memory()
step()
before = faults()
for _ in range({STEPS}):
    step()
print(kept, faults() - before)
"""


def _faults(how: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_memory_freed_in_one_step_serves_the_next_one_without_a_page_fault() -> None:
    kept, faults = _faults("keep")
    if kept == "False":
        pytest.skip("malloc is not glibc's")
    assert faults < STEPS < _faults("usual")[1]
