"""What the attack problem (`attack_problem.py`) is made of."""
