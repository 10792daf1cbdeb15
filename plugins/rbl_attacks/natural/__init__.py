"""Changes that happen without an adversary: rotations, shifts, weather, noise, compression."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = []
