"""Fast gradient sign method (Goodfellow, Shlens & Szegedy 2015, https://arxiv.org/abs/1412.6572), in any norm."""

from robustbench_lab.attack_problem import AttackProblem


def fgsm(problem: AttackProblem, *, random_start: bool = False, loss: str | None = None) -> None:
    """One step of the whole budget along the steepest direction.

    random_start: begin at a random point of the region (Wong et al. 2020) and not at the clean input.
    loss: one of the objective's losses; None: its usual one.
    """
    start = problem.random_start() if random_start else problem.clean.clone()
    (x,) = problem.drop_done(problem.ascend(start, problem.eps, loss))
    if not problem.finished:
        problem.submit(x)
