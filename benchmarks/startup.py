"""How long `rbl` takes to start, and to do its smallest real job.

    python benchmarks/startup.py

Whole processes, each run several times after a warm-up; medians.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "rbl --help": (["--help"], 0.3),
    "rbl list attacks": (["list", "attacks"], 0.5),
    "rbl run --attack pgd (bundled)": (["run", "--attack", "pgd", "--fresh"], 30.0),
}
"""Title to arguments and the seconds aimed at."""


def main() -> None:
    rbl = shutil.which("rbl", path=str(Path(sys.executable).parent)) or "rbl"
    with tempfile.TemporaryDirectory() as folder:
        for title, (arguments, aim) in COMMANDS.items():
            rounds = 9 if aim < 1 else 3
            taken = [_seconds([rbl, *arguments], folder) for _ in range(rounds + 1)][1:]
            low, middle, high = min(taken), statistics.median(taken), max(taken)
            print(f"{title:32} median {middle:6.2f} s   ({low:.2f} to {high:.2f}, aim {aim:g} s)")


def _seconds(command: list[str], folder: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
