"""What each objective does to the bundled plain detector at linf 8/255 with 20 steps of PGD, through the whole lab.

The figures are those that the project promises; benchmarks/README.md has what 100 scenes give.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from robustbench_lab import evaluate
from robustbench_lab.contracts import Estimate

SCENES = 16
OBJECTIVES = ("untargeted", "vanish", "fabricate", "mislabel", "latency")
Metrics = Mapping[str, Estimate]


@pytest.fixture(scope="module")
def under_pgd() -> dict[str, Metrics]:
    """By objective."""
    records = evaluate(
        "scene-fcos", f"digit-scenes(scenes={SCENES})", "pgd(steps=20)", eps=8 / 255, objectives=OBJECTIVES
    ).records
    return {record.cell.objective.name: record.metrics for record in records}


def test_untargeted_halves_map50(under_pgd: dict[str, Metrics]) -> None:
    metrics = under_pgd["untargeted"]
    assert metrics["clean_map50"].value > 0.8
    assert metrics["robust_map50"].value <= metrics["clean_map50"].value / 2


def test_vanish_removes_at_least_60_percent_of_the_objects(under_pgd: dict[str, Metrics]) -> None:
    assert under_pgd["vanish"]["vanished_rate"].value >= 0.6
    assert under_pgd["vanish"]["vanished_rate"].low >= 0.6


def test_mislabel_turns_at_least_half_of_the_objects(under_pgd: dict[str, Metrics]) -> None:
    assert under_pgd["mislabel"]["mislabelled_rate"].low >= 0.5


def test_fabricate_adds_at_least_10_false_positives_an_image(under_pgd: dict[str, Metrics]) -> None:
    noise = evaluate("scene-fcos", f"digit-scenes(scenes={SCENES})", "noise", eps=8 / 255, objectives=["fabricate"])
    (record,) = noise.records
    assert record.metrics["false_positives"].value < 2
    assert under_pgd["fabricate"]["false_positives"].value >= 10 + record.metrics["false_positives"].value
    assert record.metrics["robust_map50"].value > record.metrics["clean_map50"].value - 0.03


def test_latency_gives_suppression_at_least_5_times_as_much(under_pgd: dict[str, Metrics]) -> None:
    metrics = under_pgd["latency"]
    assert metrics["nms_candidates"].value >= 5 * metrics["clean_nms_candidates"].value
    for other in ("untargeted", "vanish", "fabricate", "mislabel"):
        assert metrics["nms_candidates"].value > under_pgd[other]["nms_candidates"].value
        assert metrics["clean_nms_candidates"] == under_pgd[other]["clean_nms_candidates"]
