"""Every contestant of benchmarks/attacks.py as a function of a case to adversarial inputs `[N, ...]`."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from cases import Case
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import Component, parse_component
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.contracts import Bounds
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import ResolvedComponent
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.patch import Patch

Contestant = Callable[[Case], Tensor]
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
ORDERS = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}


@cache
def catalog() -> Catalog:
    return Catalog.from_plugins(load_plugins())


def ours(text: str) -> Contestant:
    """One of our attacks, as `rbl run --attack` takes it."""
    return partial(_run_ours, text)


@cache
def _planned(text: str, norm: str, eps: float) -> tuple[ResolvedComponent, ResolvedComponent]:
    """An attack and a threat model with all their settings: once for a plan, as in `rbl run`."""
    threat_model = Component(norm, {"eps": eps})
    return catalog().resolve("attacks", parse_component(text)), catalog().resolve("threat_models", threat_model)


def _run_ours(text: str, case: Case) -> Tensor:
    attack, threat_model = _planned(text, case.norm, case.eps)
    problem = AttackProblem(
        ProblemSetting(
            model=_ready(case),
            objective=Untargeted(),
            threat_model=catalog().build("threat_models", threat_model),
            clean=case.inputs,
            goal=case.labels,
            open=torch.ones(len(case.inputs), dtype=torch.bool, device=case.device),
            bounds=Bounds(),
            rng=SampleRng.for_samples(0, attack.name, [str(n) for n in range(len(case.inputs))], case.device),
            batch_size=case.batch_size,
            minimum_norm=catalog().find("attacks", attack.name).spec.minimum_norm,
        )
    )
    catalog().build("attacks", attack, problem)
    case.model.forward_passes += problem.counted_model.forward_passes
    case.model.backward_passes += problem.counted_model.backward_passes
    return problem.candidates


@cache
def _ready(case: Case) -> nn.Module:
    """Once for all attacks on a model, as in `rbl run`."""
    return ready(copy.deepcopy(case.model.model), case.device)


def official_autoattack(version: str = "standard") -> Contestant:
    """The official code, as `pyautoattack` ships it."""

    def run(case: Case) -> Tensor:
        from pyautoattack import AutoAttack

        attack = AutoAttack(
            case.model, norm=NORMS[case.norm], eps=case.eps, seed=0, version=version, device=case.device
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Tensor
            made, _ = attack.run_standard_evaluation(case.inputs, case.labels, batch_size=case.batch_size)
        return made

    return run


def torchattacks(name: str, **params: Any) -> Contestant:
    """An attack of torchattacks; `eps` is the case's where the attack has one."""

    def run(case: Case) -> Tensor:
        import torchattacks as library

        attack = getattr(library, name)(case.model, **params)
        if hasattr(attack, "eps"):
            attack.eps = case.eps
        return torch.cat([attack(x, y).detach() for x, y in _batches(case)])

    return run


def foolbox(name: str, *, minimum_norm: bool = False, budget: bool = True, **params: Any) -> Contestant:
    """An attack of Foolbox. budget: whether it takes one."""

    def run(case: Case) -> Tensor:
        import foolbox as library

        model = library.PyTorchModel(case.model, bounds=(0, 1), device=case.device)
        attack = getattr(library.attacks, name)(**params)
        given = {"epsilons": None if minimum_norm else case.eps} if budget else {}
        return torch.cat([attack(model, x, y, **given)[0].detach() for x, y in _batches(case)])

    return run


def adv_lib(name: str, *, norm: bool = False, budget: bool = False, **params: Any) -> Contestant:
    """An attack of adv-lib. norm: whether it takes one. budget: whether it takes one, and finds not the nearest."""

    def run(case: Case) -> Tensor:
        # It imports visdom, for curves that nobody asks for here, and which today's setuptools cannot build.
        sys.modules.setdefault("visdom", ModuleType("visdom"))
        from adv_lib import attacks as library

        given = {"norm": ORDERS[case.norm]} if norm else {}
        given |= {"eps": case.eps} if budget else {}
        attack = getattr(library, name)
        return torch.cat([attack(case.model, x, y, **given, **params).detach() for x, y in _batches(case)])

    return run


def cleverhans_spsa(**params: Any) -> Contestant:
    """CleverHans' SPSA, which takes one sample at a time."""

    def run(case: Case) -> Tensor:
        from cleverhans.torch.attacks.spsa import spsa

        limits = {"eps": case.eps, "norm": ORDERS[case.norm], "clip_min": 0.0, "clip_max": 1.0}
        return spsa(case.model, case.inputs.clone(), y=case.labels, **limits, **params, sanity_checks=False).detach()

    return run


def art(
    name: str, *, budget: bool = True, labels: bool = True, probabilities: bool = False, **params: Any
) -> Contestant:
    """An evasion attack of ART.

    budget: whether it has one. labels: whether it is untargeted. probabilities: whether the model must report these.
    """

    def run(case: Case) -> Tensor:
        from art.attacks import evasion

        wrapped, classes = _art_classifier(case, probabilities=probabilities)
        eps = {"eps": case.eps} if budget else {}
        # Its own default is one sample at a time for some attacks, 32 for others.
        attack = getattr(evasion, name)(wrapped, **eps, **{"batch_size": case.batch_size, **params})
        attack.verbose = False
        made = attack.generate(
            case.inputs.cpu().numpy(), nn.functional.one_hot(case.labels, classes).cpu().numpy() if labels else None
        )
        return torch.from_numpy(np.asarray(made)).float().to(case.device)

    return run


def art_patch(**params: Any) -> Contestant:
    """ART's patch, trained at the angles and sizes of ours, and shown as ours is: upright, at a random place."""

    def run(case: Case) -> Tensor:
        from art.attacks.evasion import AdversarialPatchPyTorch

        wrapped, classes = _art_classifier(case)
        channels, height, width = case.inputs.shape[1:]
        side = Patch(case.eps).side(height, width)
        attack = AdversarialPatchPyTorch(
            wrapped,
            rotation_max=20.0,
            scale_min=0.8 * side / height,
            scale_max=side / height,
            patch_shape=(channels, side, side),
            patch_type="square",
            targeted=False,
            verbose=False,
            **params,
        )
        labels = nn.functional.one_hot(case.labels, classes)
        patch, _ = attack.generate(case.inputs.cpu().numpy(), labels.cpu().numpy())
        made, random = case.inputs.clone(), torch.Generator().manual_seed(0)
        for image in made:
            top, left = (int(torch.randint(size - side + 1, (1,), generator=random)) for size in (height, width))
            image[:, top : top + side, left : left + side] = torch.from_numpy(patch)
        return made

    return run


def _art_classifier(case: Case, *, probabilities: bool = False) -> tuple[Any, int]:
    """The case's model as ART takes it, and the number of its classes."""
    from art.estimators.classification import PyTorchClassifier

    with torch.inference_mode():
        classes = case.model.model(case.inputs[:1]).shape[1]
    model = nn.Sequential(_Float32(case.model), *([nn.Softmax(1)] if probabilities else []))
    kind = "gpu" if case.inputs.is_cuda else "cpu"
    shape = tuple(case.inputs.shape[1:])
    wrapped = PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type=kind)
    return wrapped, classes


class _Float32(nn.Module):
    """Some of ART's attacks hand in doubles."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.float())
        return logits


def _batches(case: Case) -> Any:
    return zip(case.inputs.split(case.batch_size), case.labels.split(case.batch_size), strict=True)
