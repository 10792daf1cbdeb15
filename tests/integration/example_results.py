"""Records for the tests of the result store; as a script, a process that writes them until it is done or killed.

    python example_results.py DATABASE PREFIX COUNT [batched]

prints the id of each cell once it is stored; `batched`: with commits taken together, as in a run. Not a test module:
the tests load it with `runpy`, the script runs alone.
"""

from __future__ import annotations

import functools
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from robustbench_lab.contracts import Estimate
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
from robustbench_lab.result_store import open_store

SAMPLES = SampleSet("digits-1", ("a", "b", "ç/3.png", "d"), (7, 3, 11, 0), "5a" * 32)


def component(name: str, **params: Any) -> ResolvedComponent:
    return ResolvedComponent(name, f"{name}({params})", params, "rbl-test", "0.1.0", f"{name} {params}")


def make_cell(cell_id: str = "c0ffee", **changes: Any) -> Cell:
    cell = Cell(
        cell_id=cell_id,
        task="classification",
        model=component("digits-plain", path="net.onnx", mean=(0.49, 0.48), widths=[8, 16]),
        defense=component("none"),
        dataset=component("digits", split=None),
        attack=component("pgd", steps=50, step_size=2 / 255, limit=math.inf, nested={"$tuple": 1}),
        objective=component("untargeted"),
        threat_model=component("linf", eps=8 / 255),
        norm="linf",
        eps=8 / 255,
        adversary="adaptive",
        seed=2**40,
        samples=SAMPLES,
        estimated_forward=51,
        estimated_backward=50,
    )
    return replace(cell, **changes)


def make_outcomes() -> Outcomes:
    return Outcomes(
        clean_correct=np.array([True, True, False, True]),
        robust=np.array([True, False, False, False]),
        distance=np.array([np.nan, 8 / 255, 0, 0.1], dtype=np.float32),
        columns={"margin": np.array([1.5, -0.5, -2.0, np.nan]), "label": np.arange(4)},
    )


def ok_record(cell_id: str = "c0ffee", **changes: Any) -> CellRecord:
    record = CellRecord(
        cell=make_cell(cell_id),
        status=Status.OK,
        reason=None,
        metrics={"clean_accuracy": Estimate(0.75, 0.19, 0.99), "robust_accuracy": Estimate(0.25, 0.01, 0.81)},
        outcomes=make_outcomes(),
        forward_per_sample=30.25,
        backward_per_sample=29.25,
        wall_seconds=1 / 3,
        verdict=Verdict.SUSPECT,
        findings=(
            Finding("zero-gradient", Severity.SUSPECT, "the gradient of 1 sample is zero", 1.0),
            Finding("exploded", Severity.INFO, "a loss was infinite", math.inf),
            Finding("note", Severity.INFO, "no number"),
        ),
        device="cuda:0",
        batch_size=128,
        executor="local",
    )
    return replace(record, **changes)


def failed_record(cell_id: str = "badce11", **changes: Any) -> CellRecord:
    record = ok_record(
        cell_id,
        status=Status.FAILED,
        reason="RuntimeError: it broke",
        metrics={},
        outcomes=None,
        forward_per_sample=None,
        backward_per_sample=None,
        verdict=None,
        findings=(),
    )
    return replace(record, **changes)


def make_unit(cell_id: str, start: int, stop: int, **changes: Any) -> UnitRecord:
    yes = np.ones(stop - start, dtype=np.bool_)
    outcomes = Outcomes(yes, ~yes, np.full(stop - start, 0.03, dtype=np.float32))
    findings = (Finding("noisy", Severity.INFO, "logits differ between passes", 1e-7),)
    unit = UnitRecord(cell_id, start, stop, Status.OK, None, outcomes, 2**40, 99, 0.5, findings, "cpu", 64, b"tensors")
    return replace(unit, **changes)


def main(database: str, prefix: str, count: int, mode: str = "") -> None:
    with open_store(database) as store:
        run_id = store.begin_run(["example_results.py"], {}, {"library": "1.0"})
        with store.batched() if mode == "batched" else nullcontext():
            for number in range(count):
                cell_id = f"{prefix}-{number}"
                store.save_unit(make_unit(cell_id, 0, 2), run_id)
                store.save_cell(ok_record(cell_id), run_id, artifacts=[cell_id.encode()])
                store.when_stored(functools.partial(print, cell_id, flush=True))  # what the tests wait for


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
