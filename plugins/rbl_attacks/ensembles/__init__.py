"""Several attacks in turn, as one evaluation."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = []
