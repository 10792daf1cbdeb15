"""Gradient attacks whose results carry over to models that they never saw."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = []
