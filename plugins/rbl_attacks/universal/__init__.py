"""One perturbation or patch for all inputs."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = []
