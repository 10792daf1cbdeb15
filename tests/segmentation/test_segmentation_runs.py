"""Segmentation by `rbl run`, from Python, in leaderboards, pictures and verification."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_lab import evaluate
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.report.mask_overlays import colours_of
from robustbench_lab.testing.known_segmenters import PixelHalfSpace, pixel_setting
from robustbench_lab.threat_models.norm_balls import Linf

DATA = "scene-masks(scenes=4)"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, forked_rbl: Any) -> Path:
    """A folder in which the bundled networks were attacked, two attacks each."""
    folder = tmp_path_factory.mktemp("segmentation")
    rbl(forked_rbl, folder, "run --task segmentation --attack pgd(steps=2) --attack noise --save-adversarials", DATA)
    return folder


def rbl(forked_rbl: Any, folder: Path, words: str, dataset: str | None = None, expected: int = 0) -> str:
    arguments: Sequence[str] = [*words.split(), *(["--dataset", dataset] if dataset else [])]
    environment: Mapping[str, str] = {}
    done = forked_rbl(arguments, folder, environment)
    assert done.returncode == expected, done.stderr
    return str(done.stdout)


def test_a_run_of_the_task_attacks_the_bundled_networks_and_ranks_them(run_folder: Path, forked_rbl: Any) -> None:
    table = json.loads(rbl(forked_rbl, run_folder, "leaderboard --json"))["tables"][0]
    assert (table["task"], table["sort"]) == ("segmentation", "robust_miou")
    rows = {row["model"]: row["metrics"] for row in table["rows"]}
    assert set(rows) == {"scene-unet", "scene-unet-at"}
    for metrics in rows.values():
        assert metrics["robust_miou"]["value"] < metrics["clean_miou"]["value"]
        assert metrics["robust_pixel_accuracy"]["value"] < metrics["clean_pixel_accuracy"]["value"]


def test_saved_inputs_are_verified_and_drawn_with_the_masks_that_they_get(run_folder: Path, forked_rbl: Any) -> None:
    assert rbl(forked_rbl, run_folder, "verify").count("verified") == 4
    cell = next((run_folder / "rbl-artifacts").rglob("*.safetensors")).parent.name
    rbl(forked_rbl, run_folder, f"show {cell} --pictures drawn")
    files = sorted((run_folder / "drawn").iterdir())
    assert len(files) == 4
    with Image.open(files[0]) as picture:
        assert picture.size == (3 * 320 + 2 * 8, 320 + 2 * 17 + 8)
    rbl(forked_rbl, run_folder, "report -o page")
    assert "tinted by the class" in (run_folder / "page" / "index.html").read_text()


def test_what_runs_without_names_is_no_part_of_segmentation_unless_it_is_asked_for() -> None:
    catalog = open_catalog()
    plans = {
        names: {cell.task for cell in make_plan(ExperimentSpec.from_flags(samples=2, **dict(names)), catalog).cells}
        for names in [(), (("tasks", "segmentation"),), (("datasets", "scene-masks"),), (("models", "scene-unet"),)]
    }
    without, *asked = plans.values()
    assert without == {"classification", "detection", "forecasting"}
    assert asked == [{"segmentation"}] * 3


def test_a_network_at_hand_is_evaluated_on_masks_at_hand() -> None:
    setting = pixel_setting(Linf(eps=0.02))
    masks = setting.targets.long()
    masks[:, 0] = 255
    outcome = evaluate(PixelHalfSpace(), (setting.clean, masks), attacks=["pgd(steps=12)"], eps=0.02, batch_size=5)
    (record,) = outcome.records
    turned = PixelHalfSpace().distances(setting.clean[:, :, 1:], "linf") < 0.02
    assert record.metrics["robust_pixel_accuracy"].value == pytest.approx(1 - float(turned.float().mean()))
    assert record.metrics["clean_miou"].value == 1
    with pytest.raises(UsageError, match=r"integer masks \[N, H, W\]"):
        evaluate(PixelHalfSpace(), (setting.clean, masks[:3]), attacks=["noise"])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (torch.nn.Conv2d(3, 1, 1), "logits [N, K, H, W]"),
        (torch.nn.Conv2d(3, 2, 2, stride=2), "the model's maps are 3x3, the masks 6x6"),
    ],
)
def test_networks_of_another_form_are_named_in_one_line(model: torch.nn.Module, reason: str) -> None:
    setting = pixel_setting(Linf(eps=0.02), samples=4)
    (record,) = evaluate(model, (setting.clean, setting.targets), attacks=["noise"]).records
    assert record.status == "skipped"
    assert reason in str(record.reason)


def test_colours_are_those_of_pascal_voc() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert colours_of(np.array([*known])).tolist() == [list(colour) for colour in known.values()]


@pytest.mark.parametrize("defense", ["jpeg", "bit-depth", "median", "gaussian-noise", "lgs", "sac"])
def test_defenses_for_images_stand_before_segmentation_networks(defense: str) -> None:
    catalog = open_catalog()
    resolved = catalog.resolve("defenses", parse_component(defense), task="segmentation")
    images = torch.rand(2, 3, 16, 16)
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    defended = catalog.build("defenses", resolved, PixelHalfSpace(), task="segmentation")
    assert defended(images).shape == (2, 2, 16, 16)
    flags = {"attacks": ["pgd(steps=2)"], "defenses": [defense]}
    (record,) = evaluate(PixelHalfSpace(), (images, masks), **flags).records  # type: ignore[arg-type]
    assert record.status == "ok", record.reason
