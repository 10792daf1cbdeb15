"""What is wrong with a model is said before any attack runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Access, Bounds, Samples
from robustbench_lab.evaluation.gradient_check import check_gradient
from robustbench_lab.evaluation.preflight import check_model, check_samples, fatal_reason
from robustbench_lab.objectives import Untargeted
from robustbench_lab.plugin_tools.bpda import straight_through
from robustbench_lab.records import Finding, Severity
from robustbench_lab.tasks.classification import Classification

SAMPLES = 60
BOUNDS = Bounds()


@dataclass(frozen=True)
class Data:
    classes: int | None = 3
    revision: str = "1"
    sample_ids: tuple[str, ...] = tuple(str(one) for one in range(SAMPLES))
    bounds: Bounds = field(default_factory=Bounds)
    inputs: Tensor = field(
        default_factory=lambda: torch.rand(SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    )

    def load(self, indices: Sequence[int]) -> Samples:
        inputs = self.inputs[list(indices)]
        return Samples(inputs, net()(inputs).argmax(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval().requires_grad_(False)


def findings(model: nn.Module, data: Data | None = None, *, randomized: bool = False) -> list[Finding]:
    data = data or Data()
    samples = data.load(range(SAMPLES))
    return check_model(model, samples, data, Classification(), 16, randomized=randomized)


class After(nn.Module):
    """A model whose output is changed."""

    def __init__(self, change: object) -> None:
        super().__init__()
        self.net = net()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x))


class Careless(nn.Module):
    """A model that does something else on the way."""

    def __init__(self, act: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.net = net()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        self.act(self, x)
        return self.net(x)


def test_a_model_that_writes_to_its_input_is_named_and_the_data_stay_as_they_were() -> None:
    data = Data()
    samples = data.load(range(SAMPLES))
    before = samples.inputs.clone()
    careless = Careless(lambda _, x: x.sub_(0.5)).eval()
    (found,) = check_model(careless, samples, data, Classification(), 16, randomized=False)
    assert found.code == "changes-its-input"
    assert torch.equal(samples.inputs, before)


def test_a_model_that_goes_to_training_mode_when_it_is_called_is_named() -> None:
    (found,) = findings(Careless(lambda model, _: model.train()).eval())
    assert found.code == "training-mode"


def test_a_sound_model_gives_no_finding() -> None:
    assert findings(net()) == []


@pytest.mark.parametrize(
    ("change", "way"),
    [(lambda x: x * 255, "divide them by 255"), (lambda x: (x - 0.5) / 0.25, "normalise inside the model")],
)
def test_inputs_outside_their_range_are_named_with_the_range_found(
    change: Callable[[Tensor], Tensor], way: str
) -> None:
    data = Data()
    (finding,) = check_samples(Samples(change(data.inputs), None), data.bounds)
    assert finding.severity is Severity.FATAL
    assert "outside 0..1" in finding.message
    assert finding.message.endswith(way)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (torch.zeros(4, 1, 2, 2, dtype=torch.float64), "input-dtype"),
        (torch.zeros(0, 1, 2, 2), "input-shape"),
        (torch.full((4, 1, 2, 2), torch.nan), "input-values"),
    ],
)
def test_other_faults_of_the_data_are_named(inputs: Tensor, code: str) -> None:
    assert [finding.code for finding in check_samples(Samples(inputs, None), Bounds())] == [code]


@pytest.mark.parametrize(
    ("model", "code", "severity"),
    [
        (After(lambda z: z.softmax(1)), "probabilities", Severity.SUSPECT),
        (After(lambda z: z * torch.nan), "nan-logits", Severity.FATAL),
        (After(lambda z: z[:, :1]), "one-class", Severity.FATAL),
        (After(lambda z: z[:, :2]), "class-count", Severity.FATAL),
        (After(lambda z: nn.functional.pad(z, (0, 2), value=-9.0)), "class-count", Severity.SUSPECT),
        (After(lambda z: {"logits": z}), "not-logits", Severity.FATAL),
        (After(lambda z: z + 0.1 * torch.randn_like(z)), "undeclared-randomness", Severity.SUSPECT),
        (After(lambda z: z - 3 * z.mean(0, keepdim=True)), "batch-dependent", Severity.FATAL),
        (After(lambda z: -z), "clean-accuracy-at-chance", Severity.SUSPECT),
        (nn.Linear(7, 3).eval(), "forward-fails", Severity.FATAL),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_of_a_model_is_found(model: nn.Module, code: str, severity: Severity) -> None:
    found = {finding.code: finding.severity for finding in findings(model.eval())}
    assert found.get(code) == severity


def test_declared_randomness_is_no_fault() -> None:
    (finding,) = findings(After(lambda z: z + 0.1 * torch.randn_like(z)).eval(), randomized=True)
    assert finding.severity is Severity.INFO


def test_a_module_that_stays_in_training_mode_is_refused() -> None:
    model = net()
    model[1].train()
    assert "training mode" in (fatal_reason(findings(model)) or "")


def gradient_findings(model: nn.Module, access: Access = Access.GRADIENTS) -> list[Finding]:
    return check_gradient(model, Data().load(range(SAMPLES)), Untargeted(), access, 16)


def test_a_model_without_gradient_is_refused_to_gradient_attacks_only() -> None:
    cut_off = After(lambda z: z.detach())
    assert "no gradient reaches the input" in (fatal_reason(gradient_findings(cut_off)) or "")
    assert gradient_findings(cut_off, Access.DECISIONS) == []
    assert gradient_findings(net()) == []


def test_a_gradient_of_exactly_zero_is_named() -> None:
    (finding,) = gradient_findings(After(lambda z: z.round() + 0 * z))
    assert finding.code == "zero-gradient-at-clean"


class Backwards(torch.autograd.Function):
    """The values pass as they are; their gradient is multiplied."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, z: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return z.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def _checked(model: nn.Module, exact_within: Bounds | None = BOUNDS) -> list[str]:
    samples, found = Data().load(range(SAMPLES)), []
    for size in (1, 3, 8, 16):
        findings = check_gradient(model, samples, Untargeted(), Access.GRADIENTS, size, exact_within=exact_within)
        found.append([finding.code for finding in findings])
    assert found.count(found[0]) == len(found), "the batch size makes no difference"
    return found[0]


def test_a_gradient_that_is_not_that_of_the_loss_is_named_unless_it_is_declared_an_approximation() -> None:
    for factor in (-1, 0.1, 10):
        wrong = After(lambda z, factor=factor: Backwards.apply(z, factor))
        assert _checked(wrong) == ["wrong-gradient"]
        assert _checked(wrong, None) == []
    assert _checked(After(lambda z: Backwards.apply(z, 1))) == []
    assert _checked(After(lambda z: straight_through(z, lambda y: (y > 0).float()))) == ["wrong-gradient"]


def test_a_gradient_of_which_nothing_can_be_told_is_not_named() -> None:
    assert _checked(After(lambda z: Backwards.apply(1e-6 * z, -1))) == []
