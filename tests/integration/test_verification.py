"""A changed result is found out, wherever it was changed; an honest one passes."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import Estimate
from robustbench_lab.evaluation.metric_values import Metric
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.provenance import file_sha256
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import CellRecord, Verdict
from robustbench_lab.result_store import Artifact, ResultStore, open_store
from robustbench_lab.result_store.packing import pack_outcomes, unpack_outcomes
from robustbench_lab.trust.verification import Outcome, Verification, verify


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def evaluated(folder: Path, catalog: Catalog, **fields: object) -> Path:
    database = folder / "rbl.db"
    spec = ExperimentSpec.from_flags(
        samples=60,
        devices=["cpu"],
        **{
            "attacks": ["pgd(steps=5)"],
            "database": str(database),
            "save_adversarials": True,
            "models": ["digits-cnn"],
            **fields,
        },
    )
    run_experiment(spec, catalog)
    return database


def check(database: Path, catalog: Catalog, *, run_scripts: bool = False) -> Verification:
    with open_store(str(database)) as store:
        (record,) = store.cells()
        return checked(store, record, catalog, run_scripts=run_scripts)


def checked(store: ResultStore, record: CellRecord, catalog: Catalog, *, run_scripts: bool = False) -> Verification:
    metrics = {one.name: one.function for one in task_metrics(catalog, {"classification"})["classification"]}
    bench = Workbench(catalog, torch.device("cpu"))
    files = store.artifacts(record.cell.cell_id)
    return verify(record, files, store.artifacts_folder, bench, metrics, run_scripts=run_scripts)


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
        query = "SELECT packed, samples FROM sample_outcomes JOIN cells USING (cell_id)"
        outcomes = unpack_outcomes(*connection.execute(query).fetchone())
        flipped = replace(outcomes, robust=outcomes.clean_correct)
        connection.execute("UPDATE sample_outcomes SET packed = ?", (pack_outcomes(flipped),))


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
        (_touch_file, "its SHA-256 is not the stored one"),
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


@dataclass(frozen=True)
class Stored:
    """An honest result, with what it takes to check it."""

    record: CellRecord
    files: list[Artifact]
    folder: Path
    bench: Workbench
    metrics: dict[str, Metric]

    def told(self, record: CellRecord, files: list[Artifact] | None = None) -> Verification:
        return verify(record, files or self.files, self.folder, self.bench, self.metrics)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Stored:
    database = evaluated(tmp_path_factory.mktemp("honest"), catalog)
    metrics = {one.name: one.function for one in task_metrics(catalog, {"classification"})["classification"]}
    with open_store(str(database)) as store:
        (record,) = store.cells()
        files = store.artifacts(record.cell.cell_id)
        return Stored(record, files, store.artifacts_folder, Workbench(catalog, torch.device("cpu")), metrics)


def _part(name: str, /, **facts: object) -> Callable[[CellRecord], CellRecord]:
    """A forger who changes what is stored of one part of the cell, and leaves its label and its identity."""

    def forge(record: CellRecord) -> CellRecord:
        part = replace(getattr(record.cell, name), **facts)
        return replace(record, cell=replace(record.cell, **{name: part}))

    return forge


def _cell(**facts: object) -> Callable[[CellRecord], CellRecord]:
    return lambda record: replace(record, cell=replace(record.cell, **facts))


def _samples(change: Callable[[list[str]], list[str]]) -> Callable[[CellRecord], CellRecord]:
    def forge(record: CellRecord) -> CellRecord:
        ids = tuple(change(list(record.cell.samples.sample_ids)))
        return _cell(samples=replace(record.cell.samples, sample_ids=ids))(record)

    return forge


def _outcomes(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[CellRecord], CellRecord]:
    def forge(record: CellRecord) -> CellRecord:
        assert record.outcomes is not None
        columns = {name: change(getattr(record.outcomes, name)) for name, change in changes.items()}
        return replace(record, outcomes=replace(record.outcomes, **columns))

    return forge


FORGERIES = {
    "the program behind a harmless label": (
        _part("model", name="torch", params={"path": "evil.py:make"}),
        "model 'digits-cnn' is stored with another name",
    ),
    "a larger budget behind the label": (
        _part("threat_model", params={"eps": 0.9}),
        "is stored with another set of parameters",
    ),
    "the version": (_part("attack", version="99"), "attack 'pgd(steps=5)' is stored with another version"),
    "the budget of the table": (_cell(eps=0.3), "stored under linf 0.3, and its threat model is linf 0.15"),
    "the seed": (_cell(seed=7), "its id is not that of its parts"),
    "the adversary": (_cell(adversary="oblivious"), "its id is not that of its parts"),
    "the id": (_cell(cell_id="0" * 16), "its id is not that of its parts"),
    "the name of the data": (_part("dataset", label="wine"), "dataset 'wine' cannot be had here"),
    "samples that change places": (_samples(lambda ids: ids[::-1]), "stored with other ids, places"),
    "a sample there twice": (_samples(lambda ids: [ids[0], *ids[:-1]]), "stored with other ids, places"),
    "a sample less": (_samples(lambda ids: ids[:-1]), "does not hold the same samples here"),
    "distances": (_outcomes(distance=lambda one: one / 2), "distance comes out differently"),
    "outcomes of fewer samples": (
        _outcomes(robust=lambda one: one[1:], clean_correct=lambda one: one[1:], distance=lambda one: one[1:]),
        "outcomes of 59 samples, and 60 samples",
    ),
    "the verdict": (lambda record: replace(record, verdict=Verdict.FAILED), "does not follow from its findings"),
    "a metric that is text": (
        lambda record: replace(record, metrics={"robust_accuracy": Estimate("<b>", 0.0, 1.0)}),  # type: ignore[arg-type]
        "robust_accuracy does not follow",
    ),
    "a metric of nobody": (
        lambda record: replace(record, metrics={**record.metrics, "certified": Estimate(0.9, 0.9, 0.9)}),
        "nothing here computes its metric certified",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_definition_is_found_out(honest: Stored, forgery: str) -> None:
    forge, said = FORGERIES[forgery]
    verification = honest.told(forge(honest.record))
    assert verification.outcome is not Outcome.VERIFIED
    assert said in " | ".join(verification.remarks)


def test_a_flag_that_is_kept_back_is_found_out(tmp_path: Path, catalog: Catalog) -> None:
    database = evaluated(tmp_path, catalog, attacks=["noise"])
    with open_store(str(database)) as store:
        (record,) = store.cells()
        assert checked(store, record, catalog).outcome is Outcome.VERIFIED
        forged = replace(record, findings=(), verdict=Verdict.RELIABLE)
        assert "its findings lack baseline" in checked(store, forged, catalog).remarks[0]


def test_a_batch_size_that_makes_no_sense_changes_no_verdict(honest: Stored) -> None:
    assert honest.told(honest.record).outcome is Outcome.VERIFIED
    for size in (0, -3, 10**12):
        assert honest.told(replace(honest.record, batch_size=size)).outcome is Outcome.VERIFIED


def _file(folder: Path, inputs: torch.Tensor, start: str = "0") -> Artifact:
    name = f"forged-{len(list(folder.iterdir()))}.safetensors"
    save_file({"adversarial": inputs}, folder / name, {"start": start})
    return Artifact("adversarial-inputs", name, file_sha256(folder / name), 1)


def test_forged_files_are_found_out(honest: Stored, tmp_path: Path) -> None:
    inputs = load_file(honest.folder / honest.files[0].path)["adversarial"]
    (honest.folder / "pickle.safetensors").write_bytes(pickle.dumps({"adversarial": inputs}))
    (tmp_path / "outside.safetensors").write_bytes((honest.folder / honest.files[0].path).read_bytes())
    link = honest.folder / "link.safetensors"
    link.symlink_to(tmp_path / "outside.safetensors")
    digest = honest.files[0].sha256
    pickled = file_sha256(honest.folder / "pickle.safetensors")
    wide = torch.cat([inputs, inputs], 3)
    outside = (inputs + 0.2).clamp(max=1)
    files = {
        "is not inside of": [Artifact("adversarial-inputs", str(tmp_path / "outside.safetensors"), digest, 1)],
        " is not inside": [Artifact("adversarial-inputs", "link.safetensors", digest, 1)],
        "holds no adversarial inputs": [Artifact("adversarial-inputs", "pickle.safetensors", pickled, 1)],
        "are there more than once": [*honest.files, honest.files[0]],
        "is of samples 59 to 119 of 60": [_file(honest.folder, inputs, "59")],
        "is of samples -1 to 59 of 60": [_file(honest.folder, inputs, "-1")],
        "holds inputs [60, 1, 8, 16]": [_file(honest.folder, wide)],
        "robust comes out differently": [_file(honest.folder, outside)],
        "distance comes out differently": [_file(honest.folder, torch.full_like(inputs, torch.nan), "0")],
        "of 30 samples are missing": [_file(honest.folder, inputs[:30])],
    }
    for said, those in files.items():
        verification = honest.told(honest.record, those)
        assert verification.outcome is Outcome.DIFFERS, said
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
    assert check(database, catalog, run_scripts=True).outcome is Outcome.VERIFIED
    refused = check(database, catalog)
    assert refused.outcome is Outcome.UNVERIFIABLE
    assert "--run-scripts" in refused.remarks[0]
    script.write_text(script.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    verification = check(database, catalog, run_scripts=True)
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
