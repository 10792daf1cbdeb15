"""Fast gradient sign method (Goodfellow, Shlens & Szegedy 2015, https://arxiv.org/abs/1412.6572), in any norm."""

from robustbench_lab.attack_problem import AttackProblem


def fgsm(problem: AttackProblem, *, random_start: bool = False, loss: str | None = None) -> None:
    """One step of the whole budget along the steepest direction.

    random_start: begin at a random point of the region (Wong et al. 2020) and not at the clean input.
    loss: one of the objective's losses; None: its usual one.
    """
    x = problem.random_start() if random_start else problem.clean
    _, gradient = problem.loss_and_gradient(x, loss)
    x, gradient = problem.drop_done(x, gradient)
    if not problem.finished:
        problem.submit(problem.project(x + problem.eps * problem.steepest(gradient, x)))
