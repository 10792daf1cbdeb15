"""Samples that a threat model lets nobody change are counted by themselves, however a cell is cut."""

import pytest
import torch

from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.diagnostics.out_of_reach import out_of_reach_finding
from robustbench_lab.records import Severity


@pytest.mark.parametrize(
    ("within_reach", "expected"),
    [(0, [(Severity.FATAL, 8)]), (1, [(Severity.INFO, 7)]), (6, [(Severity.INFO, 2)]), (8, [])],
)
@pytest.mark.parametrize("cut", [[slice(0, 10)], [slice(0, 3), slice(3, 10)]])
def test_all_samples_out_of_reach_are_fatal_and_some_are_told(
    within_reach: int, expected: list[tuple[Severity, float]], cut: list[slice]
) -> None:
    position = torch.arange(10)
    worth = position < 8
    attacked = position < within_reach
    merged = merge_findings(out_of_reach_finding(worth[part], attacked[part]) for part in cut)
    assert [(one.severity, one.value) for one in merged] == expected
