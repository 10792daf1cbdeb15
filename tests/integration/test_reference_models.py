import json
from dataclasses import asdict
from importlib.resources import files
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rbl_reference
from rbl_reference.digits import Digits
from rbl_reference.digits_cnn import digits_cnn, digits_cnn_at
from rbl_reference.train_digits import RECIPES, robust_accuracy, train
from robustbench_lab.contracts import ModelSpec

EPS = rbl_reference.DIGITS_EPS
BUNDLED = {"digits-cnn": digits_cnn, "digits-cnn-at": digits_cnn_at}


@pytest.fixture(scope="module")
def samples() -> tuple[Tensor, Tensor]:
    loaded = Digits().load(range(450))
    return loaded.inputs, loaded.targets


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        predicted: Tensor = model(x).argmax(dim=1)
    return (predicted == y).float().mean().item()


def accuracy_under_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float = EPS, steps: int = 40) -> float:
    """Madry et al. 2018, one restart, written again here so that it shares nothing with the recipe's."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    delta = noise * eps
    for _ in range(steps):
        leaf = (x + delta).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y, reduction="sum"), leaf)
        delta = (leaf.detach() + 2.5 * eps / steps * gradient.sign() - x).clamp(-eps, eps)
    return accuracy(model, (x + delta).clamp(0, 1), y)


def test_both_models_classify_at_least_98_percent_of_the_clean_test_images(samples: tuple[Tensor, Tensor]) -> None:
    assert accuracy(digits_cnn(), *samples) >= 0.98
    assert accuracy(digits_cnn_at(), *samples) >= 0.98


def test_at_the_default_budget_the_plain_model_falls_and_the_adversarially_trained_one_holds(
    samples: tuple[Tensor, Tensor],
) -> None:
    assert accuracy_under_pgd(digits_cnn(), *samples) <= 0.25
    assert accuracy_under_pgd(digits_cnn_at(), *samples) >= 0.80


def test_neither_model_hides_its_gradient_so_half_the_range_as_budget_breaks_nearly_everything(
    samples: tuple[Tensor, Tensor],
) -> None:
    assert accuracy_under_pgd(digits_cnn(), *samples, eps=0.5) <= 0.02
    assert accuracy_under_pgd(digits_cnn_at(), *samples, eps=0.5) <= 0.02


@pytest.mark.parametrize(
    "spec", [one for one in rbl_reference.rbl_models() if one.name in BUNDLED], ids=lambda spec: spec.name
)
def test_a_model_spec_names_its_factory_and_files_that_ship(spec: ModelSpec) -> None:
    assert resolve_name(str(spec.factory)) is BUNDLED[spec.name]
    for name in spec.files:
        package, _, path = name.partition(":")
        assert (files(package) / path).is_file()
    (dataset,) = (one for one in rbl_reference.rbl_datasets() if one.name == "digits")
    assert spec.reference_dataset == dataset.name
    assert spec.fits == (dataset.family,)


def recorded(name: str) -> dict[str, Any]:
    with safe_open(files("rbl_reference") / "weights" / f"{name}.safetensors", framework="pt") as weights:
        description: dict[str, Any] = json.loads(weights.metadata()["recipe"])
    return description


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_carry_the_recipe_as_it_is_and_a_clean_accuracy_measured_again(
    name: str, samples: tuple[Tensor, Tensor]
) -> None:
    recipe = asdict(RECIPES[name])
    assert {key: recorded(name)[key] for key in recipe} == recipe
    assert recorded(name)["clean_accuracy"] == pytest.approx(accuracy(BUNDLED[name](), *samples), abs=1 / 450)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_carry_a_robust_accuracy_measured_again(name: str, samples: tuple[Tensor, Tensor]) -> None:
    measured = robust_accuracy(BUNDLED[name](), *samples, eps=EPS)
    assert recorded(name)["robust_accuracy"] == pytest.approx(measured, abs=3 / 450)


# The weights themselves come out bit by bit the same only on one CPU type and torch build: kernels add in another
# order elsewhere, and training carries the last bits on. So what is asked for is the same behaviour: the accuracy to
# within a point, and the same class for 98% of the images.
def assert_same_behaviour(trained: nn.Module, bundled: nn.Module, x: Tensor, y: Tensor) -> None:
    assert accuracy(trained, x, y) == pytest.approx(accuracy(bundled, x, y), abs=0.01)
    assert accuracy(trained, x, bundled(x).argmax(dim=1)) >= 0.98


def test_the_recipe_still_gives_the_plain_model(samples: tuple[Tensor, Tensor]) -> None:
    assert_same_behaviour(train(RECIPES["digits-cnn"]), digits_cnn(), *samples)


def test_the_recipe_gives_the_same_weights_every_time_and_leaves_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    first = train(RECIPES["digits-cnn"]).state_dict()
    second = train(RECIPES["digits-cnn"]).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_the_recipe_still_gives_the_adversarially_trained_model(samples: tuple[Tensor, Tensor]) -> None:
    trained = train(RECIPES["digits-cnn-at"])
    assert_same_behaviour(trained, digits_cnn_at(), *samples)
    assert accuracy_under_pgd(trained, *samples) >= 0.80
