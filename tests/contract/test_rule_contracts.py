"""The contract tests of what results are judged by find the usual mistakes, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds, Estimate, judges_at_once
from robustbench_lab.errors import UsageError
from robustbench_lab.objectives import Untargeted, margin
from robustbench_lab.records import Outcomes
from robustbench_lab.statistics import clopper_pearson
from robustbench_lab.testing.objective_contract import check_objective
from robustbench_lab.testing.result_contracts import check_metric, check_report
from robustbench_lab.testing.threat_model_contract import check_threat_model

# ---------------------------------------------------------------- threat models


@dataclass(frozen=True)
class Darker:
    """Every value falls by at most eps."""

    clean: Tensor
    eps: float
    bounds: Bounds

    def project(self, x: Tensor) -> Tensor:
        return x.clamp((self.clean - self.eps).clamp(min=self.bounds.low), self.clean)

    def random_start(self, rng: Any, draw: str) -> Tensor:
        return self.project(self.clean - self.eps * rng.uniform(tuple(self.clean.shape[1:]), draw))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        return gradient.sign()

    def distance(self, x: Tensor) -> Tensor:
        return (x - self.clean).abs().flatten(1).amax(1)

    def contains(self, x: Tensor) -> Tensor:
        return (x <= self.clean).flatten(1).all(1) & (self.distance(x) <= self.eps * 1.00001)

    def select(self, index: Tensor) -> Darker:
        return replace(self, clean=self.clean[index])


def threat_model(**changes: Any) -> Callable[[float], Any]:
    """Of `Darker` with other methods."""
    region = type("Region", (Darker,), changes)

    class Made:
        norm = "darker"

        def __init__(self, eps: float) -> None:
            self.eps = eps

        def check(self, bounds: Bounds) -> None:
            if not 0 < self.eps <= bounds.width:
                raise UsageError("too much")

        def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Darker:
            return region(clean, self.eps, bounds)

    return Made


def _in_place(self: Darker, x: Tensor) -> Tensor:
    self.clean.mul_(0.9)
    return x.clamp(self.clean - self.eps, self.clean).clamp(min=0)


THREAT_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "allows everything": ({"contains": lambda self, x: x.flatten(1).amax(1) < 9999}, "1000 away"),
    "one answer for all": ({"contains": lambda self, x: bool((x <= self.clean).all())}, "bool for each input"),
    "one distance for all": ({"distance": lambda self, x: (x - self.clean).abs().max()}, "one number for each"),
    "projects nothing": ({"project": lambda self, x: x}, "leaves the bounds 0..1"),
    "leaves the bounds": ({"project": lambda self, x: x.clamp(self.clean - self.eps, self.clean)}, "leaves the bounds"),
    "projects elsewhere": ({"project": lambda self, x: x.clamp(0, 1)}, "contains does not allow"),
    "divides by zero": ({"steepest": lambda self, gradient, x: gradient / gradient.abs()}, "finite numbers"),
    "selects nothing": ({"select": lambda self, index: replace(self, clean=self.clean[: len(index)])}, "select(index)"),
    "lacks a method": ({"select": property(lambda self: self.missing)}, "its region: it lacks select"),
    "overwrites": ({"project": _in_place}, "overwrites the clean inputs"),
}


def test_a_threat_model_that_keeps_to_the_contract_passes() -> None:
    assert check_threat_model(threat_model()) == []


@pytest.mark.parametrize("mistake", THREAT_MODELS)
def test_a_mistake_in_a_threat_model_is_named(mistake: str) -> None:
    changes, said = THREAT_MODELS[mistake]
    assert said in " | ".join(check_threat_model(threat_model(**changes)))


# ---------------------------------------------------------------- objectives

OBJECTIVES: dict[str, tuple[dict[str, Any], str]] = {
    "one loss for all": ({"loss": lambda self, name, made, goal: margin(made, goal).mean()}, "for each sample"),
    "one success for all": ({"succeeded": lambda self, made, goal: (margin(made, goal) > 0).any()}, "for each sample"),
    "success is no bool": ({"succeeded": lambda self, made, goal: margin(made, goal)}, "a bool for each sample"),
    "NaN": ({"loss": lambda self, name, made, goal: margin(made, goal) * torch.nan}, "NaN or infinite"),
    "wrong sign": ({"loss": lambda self, name, made, goal: -margin(made, goal)}, "look at its sign"),
    "clean is success": ({"succeeded": lambda self, made, goal: margin(made, goal) < 99}, "every clean prediction"),
    "no gradient": ({"loss": lambda self, name, made, goal: margin(made.detach(), goal)}, "no gradient"),
    "judged by another rule": (
        {"judged": lambda self, made, goal: (margin(made, goal) > -1, margin(made, goal))},
        "what succeeded and damage do",
    ),
    "damage falls": ({"damage": lambda self, made, goal: -margin(made, goal)}, "damage falls"),
    "by the batch": (
        {"loss": lambda self, name, made, goal: margin(made, goal) - margin(made, goal).mean()},
        "depends on the others",
    ),
}


def test_an_objective_that_keeps_to_the_contract_passes() -> None:
    assert check_objective(Untargeted()) == []


@pytest.mark.parametrize("mistake", OBJECTIVES)
def test_a_mistake_in_an_objective_is_named(mistake: str) -> None:
    changes, said = OBJECTIVES[mistake]
    assert said in " | ".join(check_objective(type("Theirs", (Untargeted,), changes)()))


class Twice(Untargeted):
    """Success and damage at once."""

    def judged(self, made: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().succeeded(made, goal), margin(made, goal)


def test_success_and_damage_are_judged_at_once_unless_a_subclass_says_anew_what_one_of_them_is() -> None:
    assert check_objective(Twice()) == []
    assert judges_at_once(Twice())
    assert judges_at_once(type("Further", (Twice,), {"loss": margin})())
    assert not judges_at_once(Untargeted())
    for changed in ("succeeded", "damage"):
        own = {changed: getattr(Untargeted, changed)}
        assert not judges_at_once(type("Theirs", (Twice,), own)())
        assert judges_at_once(type("Both", (Twice,), {**own, "judged": Twice.judged})())


def test_an_objective_without_what_attacks_ask_for_is_named() -> None:
    assert check_objective(object())[0].startswith("it lacks stop_on_success, eot")  # type: ignore[arg-type]


# ---------------------------------------------------------------- metrics and reports


def test_a_metric_that_no_sample_is_right_for_is_tried_as_well() -> None:
    assert (
        check_metric(lambda outcomes: clopper_pearson(int(outcomes.robust.sum()), len(outcomes)), fraction=True) == []
    )
    (wrong,) = check_metric(lambda outcomes: Estimate(1 / int(outcomes.clean_correct.sum()), 0, 1), fraction=True)
    assert wrong == "with no sample right: ZeroDivisionError: division by zero"


def test_a_metric_that_is_no_share_has_to_say_so() -> None:
    def seconds(_outcomes: Outcomes) -> Estimate:
        return Estimate(7.0, 6.0, 8.0)

    assert check_metric(seconds, fraction=False) == []
    assert check_metric(seconds, fraction=True) == ["it gave 7, which is no share of 1: declare fraction=False"]


def test_a_report_is_tried_with_and_without_results() -> None:
    assert check_report(lambda leaderboard: str(len(leaderboard.tables)), rows_only=True) == []
    (wrong,) = check_report(lambda leaderboard: leaderboard.tables[0].dataset, rows_only=True)
    assert wrong.startswith("with no results: ")
    assert check_report(lambda _: None, rows_only=False) == ["it must return text, not NoneType"]  # type: ignore[arg-type, return-value]
