"""AutoAttack: the official parameters, its order, few classes, and what it says about its own number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.ensembles import autoattack as module
from rbl_attacks.ensembles.autoattack import autoattack
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, ThreatModel
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.attack_checkpoint import AttackCheckpoint
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Finding, Severity
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

SHAPE = (2, 4, 6)


class SmallNet(nn.Module):
    """A tanh network on images that are not square. `rounded`: its inputs are, which takes away all gradient."""

    def __init__(self, classes: int, *, rounded: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        size = torch.Size(SHAPE).numel()
        self.first = nn.Parameter(3 * torch.randn(size, 20, generator=generator) / size**0.5, requires_grad=False)
        self.second = nn.Parameter(torch.randn(20, classes, generator=generator), requires_grad=False)
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        seen = (x * 16).round() / 16 if self.rounded else x
        return torch.tanh((seen - 0.5).flatten(1) @ self.first) @ self.second


def setting_of(
    classes: int = 10,
    threat_model: ThreatModel | None = None,
    *,
    samples: int = 12,
    rounded: bool = False,
    eot: int = 1,
) -> ProblemSetting:
    model = SmallNet(classes, rounded=rounded).eval()
    clean = torch.rand(samples, *SHAPE, generator=torch.Generator().manual_seed(0))
    ids = [str(index) for index in range(samples)]
    return ProblemSetting(
        model=model,
        objective=Untargeted(),
        threat_model=threat_model or Linf(eps=0.02),
        clean=clean,
        goal=model(clean).argmax(1),
        open=torch.ones(samples, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "autoattack", ids, torch.device("cpu")),
        batch_size=8,
        eot=eot,
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The attacks that are called, in order, in place of running them."""
    made: list[tuple[str, dict[str, Any]]] = []

    def stand_in(name: str) -> Callable[..., None]:
        return lambda _problem, **params: made.append((name, params))

    for name in ("apgd", "fab", "square"):
        monkeypatch.setattr(module, name, stand_in(name))
    return made


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The attacks make few steps; the number of open samples that each finds."""
    found: list[int] = []

    def short(attack: Callable[..., None], **few: int) -> Callable[..., None]:
        def run(problem: AttackProblem, **params: Any) -> None:
            found.append(problem.open_samples)
            attack(problem, **{**params, **few})

        return run

    for name, few in (("apgd", {"steps": 10}), ("fab", {"steps": 5}), ("square", {"queries": 50})):
        monkeypatch.setattr(module, name, short(getattr(module, name), **few))
    return found


FAB = {"steps": 100, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
FAB_T = ("fab", {**FAB, "restarts": 1, "targets": 9})
SQUARE = ("square", {"queries": 5000, "p_init": 0.8, "restarts": 1, "rescale": False})


def apgd_call(loss: str, *, restarts: int = 1, multi_eps: bool = False, **params: int) -> tuple[str, dict[str, Any]]:
    return "apgd", {"steps": 100, "rho": 0.75, "loss": loss, "restarts": restarts, "multi_eps": multi_eps, **params}


@pytest.mark.parametrize("ball", [Linf(eps=0.02), L2(eps=0.1)])
def test_standard_has_the_official_parameters(ball: ThreatModel, calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of(10, ball)))
    assert calls == [apgd_call("ce"), apgd_call("targeted-dlr", targets=9), FAB_T, SQUARE]


def test_standard_in_l1_has_the_official_parameters(calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of(10, L1(eps=1.0))))
    ce = apgd_call("ce", restarts=5, multi_eps=True)
    assert calls == [ce, apgd_call("targeted-dlr", targets=5, multi_eps=True), FAB_T, SQUARE]


def test_plus_has_the_official_parameters(calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of()), version="plus")
    fab = ("fab", {**FAB, "restarts": 5, "targets": None})
    five = [apgd_call(loss, restarts=5) for loss in ("ce", "dlr")]
    assert calls == [*five, fab, SQUARE, apgd_call("targeted-dlr", targets=9), FAB_T]


def test_rand_has_the_official_parameters(calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of(eot=20)), version="rand")
    assert calls == [apgd_call("ce"), apgd_call("dlr")]


@pytest.mark.parametrize(("version", "eot"), [("rand", 1), ("rand", 10), ("standard", 20), ("plus", 2)])
def test_a_version_that_does_not_fit_the_model_says_what_to_do(version: Any, eot: int) -> None:
    with pytest.raises(SkipCell, match="use"):
        autoattack(AttackProblem(setting_of(eot=eot)), version=version)


def test_a_targeted_objective_is_refused() -> None:
    with pytest.raises(SkipCell, match="untargeted"):
        autoattack(AttackProblem(replace(setting_of(), objective=Targeted())))


def test_a_model_with_one_class_is_refused() -> None:
    with pytest.raises(SkipCell, match="2 classes"):
        autoattack(AttackProblem(setting_of(1)))


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (2, "with 2 classes there is no DLR loss: APGD takes the margin in its place"),
        (3, "with 3 classes there is no targeted DLR loss: APGD takes the margin in its place"),
        (5, "with 5 classes there are only 4 targets, not 9"),
    ],
)
@pytest.mark.parametrize("ball", [Linf(eps=0.02), L2(eps=0.1), L1(eps=0.5)])
def test_few_classes_are_handled_and_said(ball: ThreatModel, classes: int, said: str, shortened: list[int]) -> None:
    problem = AttackProblem(setting_of(classes, ball))
    autoattack(problem)
    assert len(shortened) == 4
    assert merge_findings(problem.notes) == (Finding("few-classes", Severity.INFO, said),)


def test_with_two_classes_the_margin_stands_in_everywhere(calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of(2)), version="plus")
    assert [params["loss"] for name, params in calls if name == "apgd"] == ["ce", "cw", "targeted-cw"]


def test_with_three_classes_only_the_targeted_loss_changes(calls: list[Any]) -> None:
    autoattack(AttackProblem(setting_of(3)), version="plus")
    assert [params["loss"] for name, params in calls if name == "apgd"] == ["ce", "dlr", "targeted-cw"]
    rand = AttackProblem(setting_of(3, eot=20))
    autoattack(rand, version="rand")
    assert merge_findings(rand.notes) == ()


def test_where_nothing_is_left_to_attack_nothing_is_spent(calls: list[Any]) -> None:
    setting = setting_of()
    problem = AttackProblem(replace(setting, open=torch.zeros_like(setting.open)))
    autoattack(problem)
    assert problem.counted_model.forward_passes == 0
    assert calls == []


def test_each_attack_sees_only_what_is_left(shortened: list[int]) -> None:
    problem = AttackProblem(setting_of(10, Linf(eps=0.03), samples=40))
    autoattack(problem)
    assert len(shortened) == 4
    assert shortened[0] == 40
    assert shortened == sorted(shortened, reverse=True)
    assert 0 < problem.open_samples < 40
    assert problem.open_samples == int((~problem.claimed).sum())


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_killed_autoattack_goes_on_after_its_last_attack(tmp_path: Path, share: float, shortened: list[int]) -> None:
    def run(stop_after: float = float("inf"), *, keep: bool = True) -> AttackProblem:
        def progress(_unbroken: int, forward: int, _backward: int) -> None:
            if forward > stop_after:
                raise KeyboardInterrupt

        checkpoint = AttackCheckpoint(tmp_path / "unit.safetensors", "float32") if keep else None
        problem = AttackProblem(setting_of(5, Linf(eps=0.03), samples=40), progress, checkpoint)
        autoattack(problem)
        return problem

    whole = run(keep=False)
    passes = whole.counted_model.forward_passes
    with pytest.raises(KeyboardInterrupt):
        run(share * passes)
    resumed = run()
    assert torch.equal(resumed.candidates, whole.candidates)
    assert torch.equal(resumed.claimed, whole.claimed)
    assert torch.equal(resumed.open_positions, whole.open_positions)
    assert (resumed.notes, resumed.trace.findings()) == (whole.notes, whole.trace.findings())
    assert resumed.counted_model.backward_passes == whole.counted_model.backward_passes
    # The second process asks once more how many classes there are, with one sample.
    assert 0 <= resumed.counted_model.forward_passes - passes <= 1


def test_square_after_useless_gradients_is_said() -> None:
    problem = AttackProblem(setting_of(4, Linf(eps=0.3), samples=6, rounded=True))
    autoattack(problem)
    codes = {finding.code: finding for finding in merge_findings(problem.notes)}
    finding = codes["square-beats-gradient"]
    assert finding.severity is Severity.SUSPECT
    assert finding.value is not None
    assert 0 < finding.value <= int(problem.claimed.sum())


def test_nothing_is_said_of_square_where_the_gradients_did_all() -> None:
    problem = AttackProblem(setting_of(10, Linf(eps=0.5)))
    autoattack(problem)
    assert problem.claimed.all()
    assert merge_findings(problem.notes) == ()
