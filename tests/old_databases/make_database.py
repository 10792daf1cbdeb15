"""Makes the database that stands for a release in this folder. Run once, by the released version itself:

    pip install robustbench-lab==0.1.0
    python tests/old_databases/make_database.py v0.1.0.db

`tests/integration/test_result_store_schema.py` opens a copy with today's code and expects what is written here. So a
database, once its version is released, never changes; after a migration, the next release adds a database beside it.

It holds one run with an `ok`, a `failed` and a `skipped` cell, and one unit of a cell that is not closed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

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
from robustbench_lab.result_store import ResultStore, open_store


def main(database: Path) -> None:
    if database.exists():
        sys.exit(f"{database} exists: the database of a released version never changes")
    with TemporaryDirectory() as folder, open_store(database, artifacts_folder=folder) as store:
        fill(store)


def fill(store: ResultStore) -> None:
    command = ["rbl", "run", "--attack", "pgd"]
    run_id = store.begin_run(command, {"attacks": ["pgd"]}, {"python": "3.11", "libraries": {"torch": "2.15.0"}})
    store.save_cell(ok_record(), run_id, artifacts=[b"adversarial inputs"])
    failed = replace(
        ok_record(),
        cell=replace(cell(), cell_id="fa11ed", seed=1),
        status=Status.FAILED,
        reason="RuntimeError: out of luck",
        metrics={},
        outcomes=None,
        forward_per_sample=None,
        backward_per_sample=None,
        verdict=None,
        findings=(),
    )
    store.save_cell(failed, run_id)
    skipped_cell = replace(cell(), cell_id="5c1bbed", seed=2)
    skipped = replace(failed, cell=skipped_cell, status=Status.SKIPPED, reason="the model returns NaN logits")
    store.save_cell(skipped, run_id)
    store.save_unit(unit(), run_id)
    store.finish_run(run_id, "interrupted")


def component(name: str, label: str, **params: object) -> ResolvedComponent:
    return ResolvedComponent(name, label, params, "rbl-reference", "0.1.0", f"identity-of-{name}")


def cell() -> Cell:
    return Cell(
        cell_id="0dd5",
        task="classification",
        model=component("digits-plain", "digits-plain", mean=(0.5, 0.25)),
        defense=component("none", "none"),
        dataset=component("digits", "digits", split="test"),
        attack=component("pgd", "pgd(steps=10)", steps=10, step_size=None),
        objective=component("untargeted", "untargeted"),
        threat_model=component("linf", "linf(eps=8/255)", eps=8 / 255),
        norm="linf",
        eps=8 / 255,
        adversary="adaptive",
        seed=0,
        samples=SampleSet("digits-revision", ("0", "1", "2"), (0, 1, 2), "identity-of-samples"),
        estimated_forward=11,
        estimated_backward=10,
    )


def ok_record() -> CellRecord:
    return CellRecord(
        cell=cell(),
        status=Status.OK,
        reason=None,
        metrics={"clean_accuracy": Estimate(2 / 3, 0.094, 0.992), "robust_accuracy": Estimate(1 / 3, 0.008, 0.906)},
        outcomes=Outcomes(
            clean_correct=np.array([True, True, False]),
            robust=np.array([True, False, False]),
            distance=np.array([np.nan, 8 / 255, 0], dtype=np.float32),
            columns={"margin": np.array([1.5, -0.25, -3.0], dtype=np.float32)},
        ),
        forward_per_sample=8.5,
        backward_per_sample=7.5,
        wall_seconds=0.125,
        verdict=Verdict.SUSPECT,
        findings=(Finding("loss-rises", Severity.SUSPECT, "the loss still rises at the last step", 1.0),),
        device="cpu",
        batch_size=128,
        executor="local",
    )


def unit() -> UnitRecord:
    two = np.array([True, False])
    return UnitRecord(
        cell_id="09e17",
        start=0,
        stop=2,
        status=Status.OK,
        reason=None,
        outcomes=Outcomes(two, two, np.array([np.nan, 0], dtype=np.float32)),
        forward_passes=17,
        backward_passes=15,
        wall_seconds=0.5,
        findings=(Finding("note", Severity.INFO, "all is well"),),
        device="cuda:0",
        batch_size=64,
        artifact=b"inputs of two samples",
    )


if __name__ == "__main__":
    main(Path(__file__).with_name(sys.argv[1]))
