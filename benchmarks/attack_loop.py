"""PGD's loop against the bare loop and the peers, in turn on the same model, samples and settings.

    python benchmarks/attack_loop.py --model cifar10_resnet_2b.onnx --data cifar10_test_5k.npz

Three questions. Where no sample breaks (a budget of almost zero): what does our loop cost beside the same number of
bare forward and backward passes? Where some break (a robust model), and where nearly all do (plain models: the bundled
digits-cnn, and mnist_fc_256x4.onnx where it is there): how fast and how strong are we beside the peers, at equal
settings? Times are of the whole attack, random start and last scoring pass included.
Each round runs every contestant once, in turn; medians of the rounds and of the ratios within a round are printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from rbl_onnx.onnx_model import onnx_model
from rbl_reference.digits import Digits
from rbl_reference.digits_cnn import digits_cnn
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.objectives import Untargeted
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import Linf

P = TypeVar("P", bound=AttackProblem)
ALMOST_NOTHING = 1e-6
PAIRS_A_ROUND = 4
"""Of our steps and the bare loop: their difference is smaller than the noise of a shared machine."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Case:
    """What every contestant gets: samples that are right without attack."""

    model: nn.Module
    ours: nn.Module
    """The same, made ready as `rbl run` does."""
    inputs: Tensor
    labels: Tensor
    eps: float
    steps: int
    batch_size: int

    @property
    def step_size(self) -> float:
        return 2.5 * self.eps / self.steps


@dataclass(frozen=True)
class Row:
    """One contestant's figures."""

    name: str
    seconds: float
    ratio: float
    """To the first contestant's time of the same round; median."""
    robust: float | None
    """Share of the case's samples left unbroken."""


def bare_loop(case: Case) -> None:
    """Forward and backward passes of the whole set, and nothing else."""
    for _ in range(case.steps):
        for start in range(0, len(case.inputs), case.batch_size):
            rows = slice(start, start + case.batch_size)
            leaf = case.inputs[rows].clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(case.model(leaf), case.labels[rows], reduction="sum"), leaf)


class TimedProblem(AttackProblem):
    """Notes when the steps begin and when they are over: the random start and the last scoring pass left out."""

    began = ended = 0.0

    def loss_and_gradient(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        self.began = self.began or time.perf_counter()
        return super().loss_and_gradient(*args, **options)

    def submit(self, x: Tensor) -> None:
        self.ended = time.perf_counter()
        super().submit(x)


def steps_ratio(case: Case, pairs: int) -> float:
    """Median ratio of our steps alone to the bare loop, in pairs; who goes first alternates."""
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            ours, bare = _our_steps(case), _bare_steps(case)
        else:
            bare, ours = _bare_steps(case), _our_steps(case)
        ratios.append(ours / bare)
    return statistics.median(ratios)


def _bare_steps(case: Case) -> float:
    began = time.perf_counter()
    bare_loop(case)
    return time.perf_counter() - began


def _our_steps(case: Case) -> float:
    problem = our_problem(case, TimedProblem)
    pgd(problem, steps=case.steps, step_size=case.step_size)
    return problem.ended - problem.began


def ours(case: Case) -> Tensor:
    problem = our_problem(case, AttackProblem)
    pgd(problem, steps=case.steps, step_size=case.step_size)
    return problem.candidates


def our_problem(case: Case, kind: type[P]) -> P:
    ids = [str(index) for index in range(len(case.inputs))]
    return kind(
        ProblemSetting(
            model=case.ours,
            objective=Untargeted(),
            threat_model=Linf(eps=case.eps),
            clean=case.inputs,
            goal=case.labels,
            open=torch.ones(len(case.inputs), dtype=torch.bool),
            bounds=Bounds(),
            rng=SampleRng.for_samples(0, "pgd", ids, case.inputs.device),
            batch_size=case.batch_size,
        )
    )


def foolbox(case: Case) -> Tensor:
    import foolbox

    model = foolbox.PyTorchModel(case.model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=case.steps, abs_stepsize=case.step_size)
    batches = zip(case.inputs.split(case.batch_size), case.labels.split(case.batch_size), strict=True)
    return torch.cat([attack(model, x, y, epsilons=case.eps)[0] for x, y in batches])


def torchattacks(case: Case) -> Tensor:
    import torchattacks as library

    attack = library.PGD(case.model, eps=case.eps, alpha=case.step_size, steps=case.steps)
    batches = zip(case.inputs.split(case.batch_size), case.labels.split(case.batch_size), strict=True)
    return torch.cat([attack(x, y) for x, y in batches])


def art(case: Case) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(case.inputs.shape[1:])
    wrapped = PyTorchClassifier(case.model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescent(
        wrapped,
        eps=case.eps,
        eps_step=case.step_size,
        max_iter=case.steps,
        num_random_init=1,
        batch_size=case.batch_size,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(case.inputs.numpy(), case.labels.numpy()))


CONTESTANTS: dict[str, Callable[[Case], Tensor]] = {
    "robustbench-lab": ours,
    "torchattacks": torchattacks,
    "foolbox": foolbox,
    "ART": art,
}


def compete(case: Case, contestants: dict[str, Callable[[Case], Tensor | None]], rounds: int) -> list[Row]:
    """Every contestant once a round, in turn; ratios are to the first of the round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    made: dict[str, Tensor | None] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            made[name] = run(case)
            times[name].append(time.perf_counter() - began)
    first = next(iter(times.values()))
    rows = []
    for name, taken in times.items():
        ratios = [one / base for one, base in zip(taken, first, strict=True)]
        rows.append(Row(name, statistics.median(taken), statistics.median(ratios), _robust(case, made[name])))
    return rows


def _robust(case: Case, adversarial: Tensor | None) -> float | None:
    if adversarial is None:
        return None
    inside = (adversarial - case.inputs).abs().flatten(1).amax(1) <= case.eps * (1 + 1e-5) + 1e-6
    decided = predict_in_batches(case.model, adversarial.float(), case.batch_size).argmax(1)
    return float(((decided == case.labels) | ~inside).float().mean())


def load(arguments: argparse.Namespace, eps: float) -> Case:
    """The named model, on the first samples that it gets right."""
    mean, std = json.loads(arguments.mean), json.loads(arguments.std)
    model = onnx_model(path=str(arguments.model), mean=mean, std=std)
    with np.load(arguments.data) as data:
        inputs = torch.from_numpy(data["images"][: arguments.samples]).permute(0, 3, 1, 2).float().div(255).contiguous()
        labels = torch.from_numpy(data["labels"][: arguments.samples]).long()
    return right_ones(model, inputs, labels, eps, arguments.steps, arguments.batch_size)


def plain_cases(steps: int, batch_size: int) -> dict[str, Case]:
    """Plainly trained models at budgets that break nearly every sample."""
    digits = Digits()
    samples = digits.load(range(len(digits.sample_ids)))
    cases = {"digits-cnn, eps 0.2": right_ones(digits_cnn(), samples.inputs, samples.targets, 0.2, steps, batch_size)}
    model, data = SHARED / "models/mnist_fc_256x4.onnx", SHARED / "data/mnist_test_10k.npz"
    if model.is_file() and data.is_file():
        net = onnx_model(path=str(model), input_shape=[784, 1])
        with np.load(data) as arrays:
            inputs = torch.from_numpy(arrays["images"][:2000, None]).float().div(255)
            labels = torch.from_numpy(arrays["labels"][:2000]).long()
        cases["mnist_fc_256x4, eps 0.3"] = right_ones(net, inputs, labels, 0.3, steps, batch_size)
    return cases


def right_ones(model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, steps: int, batch_size: int) -> Case:
    """The case of the samples that a model gets right."""
    model = model.eval().requires_grad_(False)
    right = predict_in_batches(model, inputs, 256).argmax(1) == labels
    return Case(
        model,
        ready(copy.deepcopy(model), torch.device("cpu")),
        inputs[right].contiguous(),
        labels[right],
        eps,
        steps,
        batch_size,
    )


def show(title: str, case: Case, rows: list[Row]) -> None:
    """One table."""
    print(f"\n{title}: {len(case.inputs)} samples, {case.steps} steps, batches of {case.batch_size}")
    for row in rows:
        robust = "" if row.robust is None else f"   unbroken {row.robust:.4f}"
        print(f"  {row.name:16} {row.seconds:7.3f} s   {row.ratio:5.2f} x{robust}")


def settings(arguments: list[str] | None = None) -> argparse.Namespace:
    """Of the command line, or of the arguments given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models/cifar10_resnet_2b.onnx")
    parser.add_argument("--data", type=Path, default=SHARED / "data/cifar10_test_5k.npz")
    parser.add_argument("--mean", default="[0.4914, 0.4822, 0.4465]")
    parser.add_argument("--std", default="[0.2471, 0.2435, 0.2616]")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eps", type=float, default=2 / 255)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    asked = parser.parse_args(arguments)
    if not (asked.model.is_file() and asked.data.is_file()):
        parser.error(f"{asked.model} or {asked.data} is not there: name an ONNX model and an .npz of images")
    return asked


def main() -> None:
    arguments = settings()
    keep_freed_memory()  # as `rbl run` does; the bare loop and the peers gain as much
    cases = {
        "no sample breaks": load(arguments, ALMOST_NOTHING),
        f"{arguments.model.stem}, eps {arguments.eps:.4f}": load(arguments, arguments.eps),
        **plain_cases(arguments.steps, arguments.batch_size),
    }
    figures: dict[str, Any] = {}
    for title, case in cases.items():
        bare: dict[str, Callable[[Case], Tensor | None]] = {"bare loop": bare_loop}
        rows = compete(case, (bare if case.eps == ALMOST_NOTHING else {}) | CONTESTANTS, arguments.rounds)
        figures[title] = [asdict(row) for row in rows]
        show(title, case, rows)
        if case.eps == ALMOST_NOTHING:
            alone = steps_ratio(case, PAIRS_A_ROUND * arguments.rounds)
            print(f"  our steps alone, in pairs with the bare loop: {alone:.3f} x")
            figures["steps alone, to the bare loop"] = alone
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
