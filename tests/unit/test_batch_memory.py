"""What is remembered of units that ran out of memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from robustbench_lab.executors.batch_memory import BatchMemory
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Status, UnitRecord, WorkUnit
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import simulated_record

CELL = example_cell()


def ended(size: int, *, ran_out: bool = True, status: Status = Status.OK) -> UnitRecord:
    record = simulated_record(WorkUnit(CELL, 0, 10), Slot("cuda:0", "cuda:0", 1), 1.0, status=status)
    return replace(record, batch_size=size, memory_ran_out=ran_out)


def test_what_worked_is_remembered_for_like_cells_only() -> None:
    memory = BatchMemory()
    memory.learn(CELL, ended(64), "cuda")
    assert memory.limit(example_cell(seed=1, eps=0.1), "cuda") == 64
    others = [example_cell(model="other"), example_cell(attack="other"), example_cell(dataset="x")]
    assert [memory.limit(cell, "cuda") for cell in others] == [None, None, None]
    assert memory.limit(CELL, "cpu") is None
    assert memory.limit(CELL, "cuda", 0.5) is None


def test_a_unit_that_had_room_or_failed_sets_no_limit() -> None:
    memory = BatchMemory()
    memory.learn(CELL, ended(64, ran_out=False), "cuda")
    memory.learn(CELL, ended(1, status=Status.FAILED), "cuda")
    assert memory.limit(CELL, "cuda") is None


def test_half_a_batch_that_worked_after_a_worker_was_killed_is_remembered() -> None:
    memory = BatchMemory()
    memory.learn(CELL, ended(256, ran_out=False), "cpu", batch_divisor=2)
    assert memory.limit(CELL, "cpu") == 256


def test_a_unit_that_ends_later_with_a_larger_batch_does_not_make_it_forgotten() -> None:
    memory = BatchMemory()
    for size in (64, 128, 32):
        memory.learn(CELL, ended(size), "cuda")
    assert memory.limit(CELL, "cuda") == 32


def test_a_later_run_on_the_same_machine_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rbl-batches.json"
    assert BatchMemory(path).limit(CELL, "cuda") is None
    assert not path.exists()
    BatchMemory(path).learn(CELL, ended(64), "cuda")
    BatchMemory(path).learn(example_cell(model="other"), ended(16), "cuda")
    assert BatchMemory(path).limit(CELL, "cuda") == 64
    monkeypatch.setattr("platform.node", lambda: "another")
    assert BatchMemory(path).limit(CELL, "cuda") is None
    BatchMemory(path).learn(CELL, ended(8), "cuda")
    monkeypatch.undo()
    assert BatchMemory(path).limit(CELL, "cuda") == 64
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": 3}', "\xff", json.dumps({"a": {"b": "c"}})])
def test_a_file_that_is_none_of_ours_costs_no_run(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rbl-batches.json"
    path.write_text(content, encoding="latin-1")
    memory = BatchMemory(path)
    memory.learn(CELL, ended(64), "cuda")
    assert BatchMemory(path).limit(CELL, "cuda") == 64


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    memory = BatchMemory(tmp_path / "missing" / "rbl-batches.json")
    memory.learn(CELL, ended(64), "cuda")
    assert memory.limit(CELL, "cuda") == 64
