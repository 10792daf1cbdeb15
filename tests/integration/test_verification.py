"""A changed result is found out, wherever it was changed; an honest one passes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from robustbench_lab.catalog import Catalog
from robustbench_lab.experiment_spec import ExperimentSpec
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.provenance import file_sha256
from robustbench_lab.ranking import task_metrics
from robustbench_lab.records import CellRecord
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.result_store.packing import pack_outcomes, unpack_outcomes
from robustbench_lab.verification import Outcome, Verification, verify
from robustbench_lab.workbench import Workbench


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def evaluated(folder: Path, catalog: Catalog, **fields: object) -> Path:
    database = folder / "rbl.db"
    spec = ExperimentSpec.from_flags(
        attacks=["pgd(steps=5)"],
        samples=60,
        devices=["cpu"],
        **{"database": str(database), "save_adversarials": True, "models": ["digits-cnn"], **fields},
    )
    run_experiment(spec, catalog)
    return database


def check(database: Path, catalog: Catalog) -> Verification:
    with open_store(str(database)) as store:
        (record,) = store.cells()
        return checked(store, record, catalog)


def checked(store: ResultStore, record: CellRecord, catalog: Catalog) -> Verification:
    metrics = {one.name: one.function for one in task_metrics(catalog, {"classification"})["classification"]}
    bench = Workbench(catalog, torch.device("cpu"))
    return verify(record, store.artifacts(record.cell.cell_id), store.artifacts_folder, bench, metrics)


@pytest.mark.parametrize("defense", ["none", "gaussian-noise(sigma=0.1)", "jpeg"])
def test_an_honest_result_is_verified(tmp_path: Path, catalog: Catalog, defense: str) -> None:
    database = evaluated(tmp_path, catalog, defenses=[defense])
    assert check(database, catalog) == Verification(check(database, catalog).cell_id, Outcome.VERIFIED, ())


def test_without_saved_inputs_a_result_cannot_be_verified(tmp_path: Path, catalog: Catalog) -> None:
    database = evaluated(tmp_path, catalog, save_adversarials=False)
    verification = check(database, catalog)
    assert verification.outcome is Outcome.UNVERIFIABLE
    assert "--save-adversarials" in verification.remarks[0]


def _flip_outcomes(database: Path, _file: Path) -> None:
    with sqlite3.connect(database) as connection:
        (packed,) = connection.execute("SELECT packed FROM sample_outcomes").fetchone()
        outcomes = unpack_outcomes(packed)
        outcomes.robust[:] = outcomes.clean_correct
        connection.execute("UPDATE sample_outcomes SET packed = ?", (pack_outcomes(outcomes),))


def _raise_metric(database: Path, _file: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE metrics SET value = high WHERE name = 'robust_accuracy'")


def _touch_file(_database: Path, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _remove_file(_database: Path, file: Path) -> None:
    file.unlink()


def _weaken_inputs_and_their_hash(database: Path, file: Path) -> None:
    inputs = load_file(file)["adversarial"]
    save_file({"adversarial": torch.zeros_like(inputs)}, file, {"start": "0", "stop": "60"})
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE artifacts SET sha256 = ?", (file_sha256(file),))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_flip_outcomes, "robust comes out differently"),
        (_raise_metric, "robust_accuracy does not follow from the stored per-sample outcomes"),
        (_touch_file, "its SHA-256 is another"),
        (_remove_file, "is missing"),
        (_weaken_inputs_and_their_hash, "robust comes out differently"),
    ],
)
def test_a_changed_result_is_found_out(
    tmp_path: Path, catalog: Catalog, tamper: Callable[[Path, Path], None], said: str
) -> None:
    database = evaluated(tmp_path, catalog)
    (file,) = (tmp_path / "rbl-artifacts").rglob("*.safetensors")
    tamper(database, file)
    verification = check(database, catalog)
    assert verification.outcome is Outcome.DIFFERS
    assert said in " | ".join(verification.remarks)


def test_a_model_whose_contents_have_changed_is_named(tmp_path: Path, catalog: Catalog) -> None:
    script = tmp_path / "model.py"
    script.write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    np.savez(
        tmp_path / "data.npz",
        images=np.random.default_rng(0).random((60, 1, 8, 8), np.float32),
        labels=np.zeros(60, int),
    )
    fields = {"models": [f"torch(path='{script}:make')"], "datasets": [f"npz(path='{tmp_path / 'data.npz'}')"]}
    database = evaluated(tmp_path, catalog, eps=[0.1], **fields)
    assert check(database, catalog).outcome is Outcome.VERIFIED
    script.write_text(script.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    verification = check(database, catalog)
    assert verification.outcome is Outcome.UNVERIFIABLE
    assert "is not the same here" in verification.remarks[0]


def test_forged_detections_are_found_out_though_every_metric_follows_from_them(
    tmp_path: Path, catalog: Catalog
) -> None:
    database = tmp_path / "rbl.db"
    fields = {"models": ["scene-fcos"], "attacks": ["pgd(steps=3)"], "samples": 6, "devices": ["cpu"]}
    spec = ExperimentSpec.from_flags(**fields, database=str(database), save_adversarials=True)
    run_experiment(spec, catalog)
    metrics = {one.name: one.function for one in task_metrics(catalog, {"detection"})["detection"]}
    with open_store(str(database)) as store:
        (record,) = store.cells()
        bench = Workbench(catalog, torch.device("cpu"))
        artifacts = store.artifacts(record.cell.cell_id)
        honest = verify(record, artifacts, store.artifacts_folder, bench, metrics)
        assert record.outcomes is not None
        unharmed = {
            name: record.outcomes.columns["clean_" + name.removeprefix("robust_")]
            if name.startswith("robust_")
            else one
            for name, one in record.outcomes.columns.items()
        }
        outcomes = replace(record.outcomes, columns=unharmed)
        stated = {name: metric(outcomes) for name, metric in metrics.items()}
        forged = replace(record, outcomes=outcomes, metrics=stated)
        verdict = verify(forged, artifacts, store.artifacts_folder, bench, metrics)
    assert honest.outcome is Outcome.VERIFIED
    assert stated["robust_map"].value > record.metrics["robust_map"].value
    assert verdict.outcome is Outcome.DIFFERS
    assert any(remark.startswith("robust_scores comes out differently") for remark in verdict.remarks)
