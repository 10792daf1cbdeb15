"""What keeping freed memory saves (robustbench_lab/hardware/host_memory.py).

PGD in processes of their own, with and without.

    python benchmarks/host_memory.py

Each case runs in turn in a process that keeps its freed memory, as those of `rbl run` do, and in one that does not.
Processor seconds and page faults of the steps, without loading; medians of the rounds. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CASES = ("classifier", "detector", "forecaster")
RESULTS = Path(__file__).parent / "results" / "host_memory.json"


def work(case: str) -> Callable[[], object]:
    """Some seconds of PGD, ready to start."""
    if case == "classifier":
        import attack_loop

        attacked = attack_loop.load(attack_loop.settings(["--steps", "50"]), attack_loop.ALMOST_NOTHING)
        return lambda: attack_loop.ours(attacked)
    if case == "detector":
        import detection

        setting = detection.setting_of(detection.scene_fcos(), detection.scenes(64), detection.Untargeted(), 64)
        return lambda: detection.ours(setting)
    import etth1
    import forecasting

    windows = etth1.etth1().load(range(1000))
    of_windows = forecasting.setting_of(etth1.trained("DLinear"), windows, forecasting.Error(), 0.1, batch_size=256)
    return lambda: forecasting.under_pgd(of_windows)


def measure(case: str, keep: str) -> None:
    """In a process of its own: prints seconds and page faults."""
    import torch

    from robustbench_lab.hardware.host_memory import keep_freed_memory

    if keep == "keep" and not keep_freed_memory():
        sys.exit("malloc is not glibc's: there is nothing to measure")
    torch.set_num_threads(1)
    run = work(case)
    run()
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "faults": after.ru_minflt - before.ru_minflt}))


def compared(case: str, rounds: int) -> dict[str, float]:
    """Medians, and of the ratios within a round."""
    taken: dict[str, list[dict[str, float]]] = {"keep": [], "usual": []}
    for _ in range(rounds):
        for how, runs in taken.items():
            made = subprocess.run(
                [sys.executable, __file__, "--measure", case, how], stdout=subprocess.PIPE, text=True, check=True
            )
            runs.append(json.loads(made.stdout))
    ratios = [kept["seconds"] / usual["seconds"] for kept, usual in zip(taken["keep"], taken["usual"], strict=True)]
    found = {
        f"{how}_{what}": statistics.median(run[what] for run in runs)
        for how, runs in taken.items()
        for what in ("seconds", "faults")
    }
    return {**found, "ratio": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "HOW"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        return measure(*asked.measure)
    figures = {case: compared(case, asked.rounds) for case in CASES}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    for case, found in figures.items():
        print(f"{case:12} {found['ratio']:.2f} of the time, {found['keep_faults']:,.0f} page faults", end="")
        print(f" instead of {found['usual_faults']:,.0f}")
    return None


if __name__ == "__main__":
    main()
