"""The result store under load: how fast it takes results, how large it gets, and how fast a leaderboard comes out.

    python benchmarks/store.py [--cells 100000] [--folder FOLDER] [--url postgresql+psycopg://...] [--part large]

makes databases of random results, in a temporary folder unless one is named (a database made before is used again), and
writes results/store.json; of parts that are not asked for it keeps the figures. Times of `rbl leaderboard` are of whole
processes: start-up, reading, ranking, printing. `others_busy` is how busy other processes kept the machine's CPUs
meanwhile, from 0 to 1: what shares caches and memory with them takes longer, also in CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_lab.contracts import Estimate
from robustbench_lab.provenance import content_hash
from robustbench_lab.records import (
    Cell,
    CellRecord,
    Finding,
    Outcomes,
    ResolvedComponent,
    SampleSet,
    Severity,
    Status,
    UnitRecord,
    Verdict,
)
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.statistics import clopper_pearson

RESULTS = Path(__file__).with_name("results") / "store.json"
MODELS, ATTACKS, SEEDS = 100, 20, 5
SAMPLES = 500
RBL = shutil.which("rbl", path=str(Path(sys.executable).parent)) or "rbl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--part", choices=("size", "commits", "large"), action="append")
    given = parser.parse_args()
    parts = given.part or ["size", "commits", "large"]
    folder = given.folder or Path(tempfile.mkdtemp(prefix="rbl-store-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figures = json.loads(RESULTS.read_text()) if given.part else {}
        figures["machine"] = {"cpus": os.cpu_count(), "python": sys.version.split()[0]}
        if "size" in parts:
            figures["size"] = size(folder)
        if "commits" in parts:
            figures["commits"] = commits(folder)
        if "large" in parts:
            figures["large"] = large(given.url or str(folder / "large.db"), given.cells)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


# ---------------------------------------------------------------- random results


def component(name: str, **params: Any) -> ResolvedComponent:
    label = f"{name}({', '.join(f'{key}={value}' for key, value in params.items())})" if params else name
    return ResolvedComponent(name, label, params, "robustbench-lab", "0.1.0", content_hash([name, params]))


def sample_set(count: int) -> SampleSet:
    ids = tuple(f"test/{index:05d}" for index in range(count))
    return SampleSet("revision-1", ids, tuple(range(count)), content_hash(ids))


def cells(samples: int) -> Iterator[Cell]:
    """Budget by budget, as many as are taken: a table of 100 models by 20 attacks by 5 seeds each."""
    models = [component("timm:resnet50", variant=number) for number in range(MODELS)]
    attacks = [component("pgd", steps=10 * (number + 1)) for number in range(ATTACKS)]
    shared = {"defense": component("none"), "dataset": component("imagenet", split="val")}
    shared |= {"objective": component("untargeted"), "samples": sample_set(samples)}
    for budget in range(1, 1_000_000):
        threat = component("linf", eps=budget / 1000)
        for attack, seed, model in product(attacks, range(SEEDS), models):
            identity = content_hash([model.identity, attack.identity, threat.identity, seed])
            budgets = {"threat_model": threat, "norm": "linf", "eps": budget / 1000, "adversary": "adaptive"}
            passes = {"estimated_forward": 51, "estimated_backward": 50}
            attacked = {"task": "classification", "model": model, "attack": attack, "seed": seed}
            yield Cell(cell_id=identity, **attacked, **budgets, **passes, **shared)


def records(samples: int) -> Iterator[CellRecord]:
    """Every model has a robustness of its own; which samples fall differs from cell to cell."""
    rng = np.random.default_rng(0)
    for cell in cells(samples):
        clean = rng.random(samples) < 0.95
        strength = 0.2 + 0.6 * (int(cell.model.identity[:4], 16) / 65536)
        robust = clean & (rng.random(samples) < strength + (1 - strength) * 0.9)
        distance = np.where(robust, np.nan, np.where(clean, cell.eps, 0)).astype(np.float32)
        metrics = {"clean_accuracy": rate(clean), "robust_accuracy": rate(robust)}
        yield CellRecord(
            cell=cell, status=Status.OK, reason=None, metrics=metrics, outcomes=Outcomes(clean, robust, distance),
            forward_per_sample=51.0, backward_per_sample=50.0, wall_seconds=1.5, verdict=Verdict.RELIABLE,
            findings=(Finding("note", Severity.INFO, "nothing to say"),), device="cuda:0", batch_size=128,
            executor="local",
        )  # fmt: skip


def rate(hits: np.ndarray) -> Estimate:
    return clopper_pearson(int(hits.sum()), len(hits))


# ---------------------------------------------------------------- what is measured


def size(folder: Path) -> dict[str, float]:
    """1000 cells of 10,000 samples each, a third of them minimum-norm results, whose distances all differ."""
    file = folder / "size.db"
    file.unlink(missing_ok=True)
    rng = np.random.default_rng(1)
    with open_store(file) as store:
        run_id = store.begin_run(["benchmark"], {}, {})
        with store.batched():
            for number, record in enumerate(islice(records(10_000), 1000)):
                if number % 3 == 0 and record.outcomes is not None:
                    distances = rng.gamma(2.0, 0.02, 10_000).astype(np.float32)
                    record = replace(record, outcomes=replace(record.outcomes, distance=distances))
                store.save_cell(record, run_id)
        _, after = store.vacuum()
    return {"cells": 1000, "samples": 10_000, "megabytes": round(after / 1e6, 1)}


def commits(folder: Path) -> dict[str, float]:
    """Small results as fast as they come: each committed on its own, and together as in a run."""
    units = [
        UnitRecord(f"cell-{number}", 0, 100, Status.OK, None, None, 1, 1, 1.0, (), "cpu", 8) for number in range(2000)
    ]
    seconds = {}
    for mode in ("one_by_one", "batched"):
        file = folder / f"{mode}.db"
        file.unlink(missing_ok=True)
        with open_store(file) as store:
            run_id = store.begin_run(["benchmark"], {}, {})
            began = time.perf_counter()
            save(store, units, run_id, batched=mode == "batched")
            seconds[mode] = time.perf_counter() - began
    return {f"{mode}_ms_per_unit": round(1000 * taken / len(units), 3) for mode, taken in seconds.items()}


def save(store: ResultStore, units: list[UnitRecord], run_id: str, *, batched: bool) -> None:
    if batched:
        with store.batched():
            save(store, units, run_id, batched=False)
        return
    for unit in units:
        store.save_unit(unit, run_id)


def large(database: str, count: int) -> dict[str, Any]:
    """A database of many cells."""
    filled = fill(database, count)
    figures: dict[str, Any] = {"cells": count, "samples": SAMPLES, "rows": count // (ATTACKS * SEEDS)}
    figures |= {"database": database.partition("://")[0] if "://" in database else "sqlite"}
    if "://" not in database:
        figures["megabytes"] = round(Path(database).stat().st_size / 1e6, 1)
    if filled is not None:
        figures["store_ms_per_cell"] = round(1000 * filled / count, 3)
    with open_store(database, create=False) as store:
        asked = [cell.cell_id for cell in islice(cells(SAMPLES), 9_900)] + [f"{number:064x}" for number in range(100)]
        figures["status_of_10000_ids_seconds"] = median(lambda: store.stored_statuses(asked))
        figures["open_units_of_10000_ids_seconds"] = median(lambda: store.open_units(asked))
        store.forget_rows()
    figures["leaderboard_first"] = run(["leaderboard", "--db", database])  # it makes all rows
    figures["leaderboard"] = {
        "--help": rounds(["--help"]),
        **{form: rounds(["leaderboard", "--db", database, "--format", form]) for form in ("table", "markdown", "csv")},
    }
    return figures


def fill(database: str, count: int) -> float | None:
    """Seconds that the store takes for this many cells; None where they are in the database already."""
    with open_store(database) as store:
        if store.holds_cells():
            return None
        run_id = store.begin_run(["benchmark"], {}, {})
        seconds = 0.0
        made = records(SAMPLES)
        with store.batched():
            while batch := list(islice(made, min(1000, count))):
                began = time.perf_counter()
                for record in batch:
                    store.save_cell(record, run_id)
                seconds += time.perf_counter() - began
                count -= len(batch)
        store.finish_run(run_id, "finished")
    return seconds


def median(call: Any) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken), 4)


def rounds(arguments: list[str], number: int = 7) -> dict[str, float]:
    """Medians over whole processes, after a warm-up."""
    taken = [run(arguments) for _ in range(number + 1)][1:]
    return {name: round(statistics.median(one[name] for one in taken), 3) for name in taken[0]}


def run(arguments: list[str]) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_before = machine_busy_seconds()
    began = time.perf_counter()
    subprocess.run([RBL, *arguments], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    others = (machine_busy_seconds() - busy_before - cpu) / seconds / (os.cpu_count() or 1)
    return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "others_busy": round(max(0.0, others), 2)}


def machine_busy_seconds() -> float:
    """CPU seconds that all processes of this (Linux) machine have taken so far, summed over its CPUs."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
