"""Attacks that search for the nearest adversarial input."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = []
