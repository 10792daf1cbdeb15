"""How long `rbl` takes to start, and to do its smallest real jobs.

    python benchmarks/startup.py

Whole processes, each command run several times after a warm-up, in turn; medians. Where other work shares the machine,
CPU seconds say more than seconds.
"""

from __future__ import annotations

import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "rbl --help": (["--help"], 0.3),
    "rbl list attacks": (["list", "attacks"], 0.5),
    "rbl leaderboard": (["leaderboard"], None),
    "rbl status": (["status"], None),
    "rbl show CELL": (["show", "CELL"], None),
    "rbl plan --attack pgd": (["plan", "--attack", "pgd"], None),
    "rbl run --attack pgd (bundled)": (["run", "--attack", "pgd", "--fresh"], 30.0),
}
"""Title to arguments and the seconds aimed at."""
ROUNDS = 9
LONG_ROUNDS = 3
"""Of a command that takes more than LONG seconds."""
LONG = 10.0


def main() -> None:
    rbl = shutil.which("rbl", path=str(Path(sys.executable).parent)) or "rbl"
    with tempfile.TemporaryDirectory() as folder:
        cell = _first_cell(rbl, folder)
        taken: dict[str, list[tuple[float, float]]] = {title: [] for title in COMMANDS}
        for number in range(ROUNDS + 1):
            for title, (arguments, _) in COMMANDS.items():
                if number <= LONG_ROUNDS or taken[title][0][0] < LONG:
                    command = [rbl, *(cell if argument == "CELL" else argument for argument in arguments)]
                    taken[title].append(_seconds(command, folder))
    for title, (_, aim) in COMMANDS.items():
        wall, cpu = zip(*taken[title][1:], strict=True)
        aimed = "" if aim is None else f", aim {aim:g} s"
        middle = f"{statistics.median(wall):6.2f} s, {statistics.median(cpu):6.2f} CPU s"
        print(f"{title:32} median {middle}   ({min(wall):.2f} to {max(wall):.2f} s{aimed})")


def _first_cell(rbl: str, folder: str) -> str:
    """The id of a cell of a small run in the usual database of this folder."""
    subprocess.run([rbl, "run", "--attack", "pgd", "--samples", "20"], cwd=folder, check=True, capture_output=True)
    connection = sqlite3.connect(Path(folder) / "rbl.db")
    (cell,) = connection.execute("SELECT cell_id FROM cells LIMIT 1").fetchone()
    connection.close()
    return str(cell)


def _seconds(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


if __name__ == "__main__":
    main()
