"""What the scheduler asks the store before it begins."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from robustbench_lab.result_store import CellTiming, open_store

results = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))


def test_open_units_of_many_cells_come_by_cell_in_the_order_of_their_samples(database: str) -> None:
    with open_store(database) as store:
        run_id = store.begin_run([], {}, {})
        for cell_id, start in (("b", 2), ("b", 0), ("a", 0)):
            store.save_unit(results.make_unit(cell_id, start, start + 2), run_id)
        found = store.open_units(["a", "b", "c", *(f"none-{index}" for index in range(2000))])
    assert {cell_id: [unit.start for unit in units] for cell_id, units in found.items()} == {"a": [0], "b": [0, 2]}


def test_timings_of_like_cells_are_added_and_those_of_failed_ones_left_out(database: str) -> None:
    like = results.ok_record()
    with open_store(database) as store:
        run_id = store.begin_run([], {}, {})
        for number, seconds in enumerate((10.0, 30.0)):
            cell = replace(like.cell, cell_id=f"ok-{number}", seed=number)
            store.save_cell(replace(like, cell=cell, wall_seconds=seconds), run_id)
        store.save_cell(results.failed_record("failed", cell=replace(like.cell, cell_id="failed")), run_id)
        (found,) = store.timings([like.cell.model.label])
        assert store.timings(["another model"]) == []
    assert like.forward_per_sample is not None
    assert like.backward_per_sample is not None
    samples = len(like.cell.samples.sample_ids)
    assert found == CellTiming(
        model=like.cell.model.label,
        defense=like.cell.defense.label,
        dataset=like.cell.dataset.label,
        attack=like.cell.attack.label,
        threat_model=like.cell.threat_model.label,
        device=like.device,
        samples=2 * samples,
        passes=2 * samples * (like.forward_per_sample + like.backward_per_sample),
        seconds=40.0,
    )
