"""The leaderboards in the repository: their tables are fresh, and their numbers are still what comes out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from robustbench_lab.errors import StoreError
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import CellRecord
from robustbench_lab.report.jsonl import read_lines, result_line

FOLDER = Path(__file__).resolve().parents[2] / "leaderboards"
NAMES = sorted(rule.parent.name for rule in FOLDER.glob("*/leaderboard.toml"))


def stored(name: str) -> list[CellRecord]:
    records = []
    for file in sorted((FOLDER / name / "results").glob("*.jsonl")):
        records += read_lines(file.read_text().splitlines(), file.name)
    return records


def test_every_table_is_what_its_rule_and_results_make() -> None:
    done = subprocess.run([sys.executable, FOLDER / "build.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_follows_from_its_per_sample_outcomes(name: str) -> None:
    records, catalog = stored(name), open_catalog()
    assert records
    for record in records:
        assert record.outcomes is not None
        named = task_metrics(catalog, {record.cell.task})[record.cell.task]
        again = {metric.name: astuple(metric.function(record.outcomes)) for metric in named}
        assert record.metrics.keys() == again.keys()
        for metric, stored_one in record.metrics.items():
            # Equal to the last bit; metrics of distributions are NaN for models that forecast points.
            np.testing.assert_array_equal(astuple(stored_one), again[metric], err_msg=metric)
        assert len(record.outcomes) == len(record.cell.samples.sample_ids)


@pytest.mark.parametrize(
    "name",
    [
        "digits-linf",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("scenes-linf", "scene-masks-linf", "demand-series")),
    ],
)
def test_the_bundled_models_still_give_the_stored_outcomes(tmp_path: Path, name: str) -> None:
    spec = ExperimentSpec.from_file_and_flags(
        FOLDER / name / "experiment.toml", {"database": str(tmp_path / "again.db"), "devices": ["cpu"]}
    )
    again = {record.cell.cell_id: record for record in run_experiment(spec, open_catalog()).records}
    before = {record.cell.cell_id: record for record in stored(name)}
    assert again.keys() == before.keys(), "what defines the cells has changed: run the leaderboard again"
    for cell_id, record in again.items():
        differ = record.outcomes.robust != before[cell_id].outcomes.robust
        # Where a margin lies within float error, another processor's arithmetic may end on the other side of it.
        assert differ.mean() <= 0.01
        np.testing.assert_array_equal(record.outcomes.clean_correct, before[cell_id].outcomes.clean_correct)


def test_a_result_survives_its_line_and_a_damaged_line_is_named() -> None:
    (record, *_) = stored("digits-linf")
    (again,) = read_lines([result_line(record)], "x.jsonl")
    assert again.cell == record.cell
    assert again.metrics == record.metrics
    np.testing.assert_array_equal(again.outcomes.distance, record.outcomes.distance)
    with pytest.raises(StoreError, match=r"x\.jsonl, line 2 is no result of rbl"):
        read_lines([result_line(record), '{"cell_id": "1"}'], "x.jsonl")
