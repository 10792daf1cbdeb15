"""How a Foolbox attack is run on an attack problem."""

from typing import Any

import foolbox
import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.records import Finding, Severity


def run(problem: AttackProblem, attack: foolbox.attacks.base.Attack) -> None:
    """Run a Foolbox attack batch by batch, and hand its results to the audit.

    At the problem's budget; a minimum-norm attack without one.
    """
    budget = None if problem.minimum_norm else problem.eps
    made = []
    for rows in _batches(problem, problem.batch_size):
        raw, _clipped, _success = attack(
            foolbox_model(problem), problem.clean[rows], _criterion(problem, rows), epsilons=budget
        )
        made.append(raw.detach())
    problem.submit(torch.cat(made))


def run_from_noise(problem: AttackProblem, attack: foolbox.attacks.base.MinimizationAttack, batch_size: int) -> None:
    """Run an attack that needs adversarial starting points, from Foolbox's blended noise.

    Foolbox stops with an error for the whole batch where one sample has no such point; here that one stays unbroken.
    """
    model = foolbox_model(problem)
    start_attack = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50)
    made, lost = [], 0
    for rows in _batches(problem, batch_size):
        clean, criterion = problem.clean[rows], _criterion(problem, rows)
        start: Tensor = start_attack.run(model, clean, criterion)
        with torch.no_grad():
            usable = criterion(start, model(start)).nonzero().squeeze(1)
        lost += len(clean) - len(usable)
        if len(usable) > 0:
            index = torch.arange(len(problem.clean), device=clean.device)[rows][usable]
            raw = attack.run(model, clean[usable], _criterion(problem, index), starting_points=start[usable])
            start[usable] = raw.detach()
        made.append(start)
    if lost:
        text = "Foolbox found no adversarial noise to start from"
        problem.note(Finding("no-starting-point", Severity.SUSPECT, text, float(lost)))
    problem.submit(torch.cat(made))


def foolbox_model(problem: AttackProblem) -> foolbox.PyTorchModel:
    """The counted model for Foolbox."""
    bounds = (problem.bounds.low, problem.bounds.high)
    return foolbox.PyTorchModel(problem.counted_model, bounds=bounds, device=problem.clean.device)


def untargeted_only(problem: AttackProblem, name: str) -> None:
    """Raise SkipCell where the objective is another one."""
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell(f"{name} knows the objective untargeted only")


def _batches(problem: AttackProblem, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, problem.open_samples, size)]


def _criterion(problem: AttackProblem, rows: slice | Tensor) -> Any:
    goal = problem.goal[rows]
    if isinstance(problem.objective, Untargeted):
        return foolbox.criteria.Misclassification(goal)
    if isinstance(problem.objective, Targeted):
        return foolbox.criteria.TargetedMisclassification(goal)
    raise SkipCell("foolbox's attacks know the objectives untargeted and targeted only")
