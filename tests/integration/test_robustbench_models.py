"""RobustBench's models: `robustbench:<name>(weights=...)`, beside what its own loader makes of the same files.

Published weights cannot be had here, so files are written in the form that the zoo's have, with random tensors in them.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

pytest.importorskip("geotorch", reason='needs pip install "robustbench-lab[robustbench]"')
if not [*distributions(name="robustbench")]:  # torchattacks brings an old copy of the package
    pytest.skip("needs robustbench: pip install --no-deps -r tests/no-deps.txt", allow_module_level=True)

import robustbench_lab
from rbl_robustbench.robustbench_model import robustbench_model
from rbl_robustbench.zoo import zoo_entry
from robustbench_lab.contracts import PublishedSubject
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog

SMALL = "Hendrycks2020AugMix_WRN"
CORRUPTIONS: Any = {"threat_model": "corruptions"}

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Form:
    """How the zoo keeps a model's weights."""

    name: str
    entry: Mapping[str, Any]
    files: Callable[[Tensors], Any]
    """Tensors of the net to what its file holds."""
    side: int = 32

    def __str__(self) -> str:
        return self.name


def flat(tensors: Tensors) -> Any:
    return dict(tensors)


def parallel(tensors: Tensors) -> Any:
    return {"state_dict": {f"module.{name}": one for name, one in tensors.items()}, "epoch": 200}


def last_and_best(tensors: Tensors) -> Any:
    return {"last": flat(tensors), "best": {name: torch.zeros_like(one) for name, one in tensors.items()}}


def without_constants(tensors: Tensors) -> Any:
    return {name: one for name, one in tensors.items() if name not in ("mu", "sigma")}


def last_without_constants(tensors: Tensors) -> Any:
    return last_and_best(without_constants(tensors))


def with_scores(tensors: Tensors) -> Any:
    return without_constants(tensors) | {"conv1.scores": torch.zeros(3)}


def behind_normalisation(tensors: Tensors) -> Any:
    return {name.removeprefix("model."): one for name, one in tensors.items() if name.startswith("model.")}


FORMS = [
    Form(SMALL, CORRUPTIONS, without_constants),
    Form("Andriushchenko2020Understanding", {}, last_and_best),
    Form("Carmon2019Unlabeled", {}, parallel),
    Form("Rebuffi2021Fixing_R18_ddpm", {}, flat),
    Form("Gowal2020Uncovering_28_10_extra", {}, flat),
    Form("Dai2021Parameterizing", {}, parallel),
    Form("Ding2020MMA", {}, flat),
    Form("Engstrom2019Robustness", {}, without_constants),
    Form("Huang2021Exploring", {}, parallel),
    Form("Hendrycks2020AugMix_ResNeXt", CORRUPTIONS, without_constants),
    Form("Kireev2021Effectiveness_RLAT", CORRUPTIONS, last_without_constants),
    Form("Diffenderfer2021Winning_Binary", CORRUPTIONS, with_scores),
    Form("Modas2021PRIMEResNet18", CORRUPTIONS, flat),
    Form("Augustin2020Adversarial", {"threat_model": "L2"}, without_constants),
    Form("Rice2020Overfitting", {"dataset": "cifar100"}, without_constants),
    Form("Salman2020Do_R18", {"dataset": "imagenet"}, behind_normalisation, 224),
    Form("Singh2023Revisiting_ConvNeXt-T-ConvStem", {"dataset": "imagenet"}, parallel, 224),
    Form("Singh2023Revisiting_ViT-S-ConvStem", {"dataset": "imagenet"}, behind_normalisation, 224),
]
QUICK = FORMS[:2]


def images(side: int = 32, count: int = 2) -> Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(0))


def trained(net: nn.Module) -> Tensors:
    """Tensors as if it were: nothing but the constants of the normalisation is what an untrained net has."""
    random = torch.Generator().manual_seed(1)
    return {
        name: one * (0.9 + 0.2 * torch.rand(one.shape, generator=random)) if is_learnt(name, one) else one
        for name, one in net.state_dict().items()
    }


def is_learnt(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and name not in ("mu", "sigma") and not name.startswith("normalize.")


@pytest.fixture(scope="module")
def their_loader() -> Iterator[Callable[..., nn.Module]]:
    """RobustBench's own, which takes a file that is there already; its download library is not needed for that."""
    spec = find_spec("robustbench")
    assert spec is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "robustbench", module_from_spec(spec))
        patch.setitem(sys.modules, "gdown", ModuleType("gdown"))
        from robustbench.utils import load_model

        yield load_model


def marked(form: Form) -> Any:
    return form if form in QUICK else pytest.param(form, marks=pytest.mark.slow)


@pytest.mark.parametrize("form", [marked(form) for form in FORMS], ids=str)
def test_a_file_of_the_zoo_gives_the_logits_that_robustbench_gives(
    form: Form, tmp_path: Path, their_loader: Callable[..., nn.Module]
) -> None:
    data, threat = form.entry.get("dataset", "cifar10"), form.entry.get("threat_model", "Linf")
    net = zoo_entry(form.name, data, threat, "test").build()
    folder = tmp_path / data / threat
    folder.mkdir(parents=True)
    file = folder / f"{form.name}.pt"
    torch.save(form.files(trained(net)), file)
    theirs = their_loader(form.name, model_dir=tmp_path, dataset=data, threat_model=threat)
    ours = robustbench_model(form.name, weights=str(file), **form.entry)
    x = images(form.side)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
        assert not torch.allclose(ours(x), net.eval()(x), rtol=1e-3)
    assert not any(module.training for module in ours.modules())
    is_evaluated(form, file, tmp_path)


def is_evaluated(form: Form, file: Path, folder: Path) -> None:
    """The whole way of `rbl run`, preflight included."""
    params = "".join(f", {name}={value!r}" for name, value in form.entry.items())
    result = robustbench_lab.evaluate(
        f"robustbench:{form.name}(weights={str(file)!r}{params})",
        (images(form.side).numpy(), np.array([0, 1])),
        attacks=["fgsm"],
        norm="linf",
        eps="8/255",
        devices=["cpu"],
        database=str(folder / "results.db"),
    )
    (record,) = result.records
    assert (record.status, record.reason) == ("ok", None)


@pytest.mark.slow
def test_an_ensemble_has_a_file_for_each_member_and_gives_logits(
    tmp_path: Path, their_loader: Callable[..., nn.Module]
) -> None:
    name = "Chen2020Adversarial"
    net: Any = zoo_entry(name, "cifar10", "Linf", "test").build()
    folder = tmp_path / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    files = [str(folder / f"{name}.pt_m{place}.pt") for place in range(3)]
    for member, file in zip(net.models, files, strict=True):
        torch.save(parallel(trained(member)), file)
    theirs = their_loader(name, model_dir=tmp_path, dataset="cifar10", threat_model="Linf")
    ours = robustbench_model(name, weights=files)
    with torch.no_grad():
        torch.testing.assert_close(ours(images()).softmax(1), theirs(images()), rtol=1e-6, atol=1e-6)
        assert (ours(images()) <= 0).all()
    with pytest.raises(UsageError, match=re.escape("its weights are 3 file(s)")):
        robustbench_model(name, weights=files[0])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["cifar10", "imagenet"])
def test_what_robustbench_leaves_to_timm_takes_timms_files(data: Any, tmp_path: Path) -> None:
    entry = zoo_entry("Debenedetti2022Light_XCiT-S12", data, "Linf", "test")
    net: Any = entry.build()
    behind = data == "cifar10"
    tensors = trained(net)
    file = tmp_path / "xcit.pth.tar"
    torch.save({"model": behind_normalisation(tensors) if behind else tensors}, file)
    net.load_state_dict(tensors)
    ours = robustbench_model(entry.name, dataset=data, weights=str(file))
    x = images(32 if behind else 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net.eval()(x), rtol=1e-6, atol=1e-6)
    assert entry.addresses[0].startswith("https://github.com/RobustBench/")


def test_safetensors_hold_the_same_weights(tmp_path: Path) -> None:
    tensors = trained(zoo_entry(SMALL, "cifar10", "corruptions", "test").build())
    torch.save(flat(tensors), tmp_path / "w.pt")
    save_file(flat(tensors), tmp_path / "w.safetensors")
    one, other = (
        robustbench_model(SMALL, weights=str(tmp_path / file), **CORRUPTIONS) for file in ("w.pt", "w.safetensors")
    )
    assert torch.equal(one(images()), other(images()))


# ---------------------------------------------------------------- what is refused


def wrong_shape(tensors: Tensors) -> Any:
    return {**tensors, "fc.weight": torch.zeros(100, 128)}


def wrong_name(tensors: Tensors) -> Any:
    return {f"backbone.{name}": one for name, one in tensors.items()}


def deeper(tensors: Tensors) -> Any:
    return {**tensors, "block1.layer.6.conv1.weight": torch.zeros(32, 32, 3, 3)}


def lacking(tensors: Tensors) -> Any:
    return {name: one for name, one in tensors.items() if name != "bn1.running_var"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (wrong_shape, r"1 of another shape: fc.weight \[100, 128\] for \[10, 128\]"),
        (wrong_name, r"\d+ missing: conv1.weight"),
        (deeper, "1 unexpected: block1.layer.6.conv1.weight"),
        (lacking, "1 missing: bn1.running_var"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(files: Callable[[Tensors], Any], message: str, tmp_path: Path) -> None:
    net = zoo_entry(SMALL, "cifar10", "corruptions", "test").build()
    torch.save(files(net.state_dict()), tmp_path / "w.pt")
    with pytest.raises(UsageError, match=rf"do not fit robustbench:{SMALL}: .*{message}") as caught:
        robustbench_model(SMALL, weights=str(tmp_path / "w.pt"), **CORRUPTIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("Carmon2019Unlabelled", {}, "Did you mean 'Carmon2019Unlabeled'?"),
        (SMALL, {}, "not for dataset='cifar10' and threat_model='Linf', but for dataset='cifar10', threat_model='corr"),
        ("Carmon2019Unlabeled", {"threat_model": "L2"}, "but for dataset='cifar10', threat_model='Linf'"),
        ("Carmon2019Unlabeled", {}, "download https://drive.google.com/uc?id=15tUx-gkZMYx7BfEOw1GY5OKC-jECIsPQ and"),
        ("Standard_R50", {"dataset": "imagenet"}, "torchvision:resnet50(pretrained=True)"),
        ("Bai2023Improving_edm", {"random_weights": True}, "RobustBench's own loader only"),
    ],
)
def test_what_cannot_be_had_is_one_line(name: str, params: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        robustbench_model(name, **params)
    assert "\n" not in str(caught.value)


def test_random_weights_are_used_only_when_asked_for_and_are_the_same_every_time() -> None:
    first, second = (robustbench_model(SMALL, random_weights=True, **CORRUPTIONS) for _ in range(2))
    assert torch.equal(first(images()), second(images()))


def test_the_weights_are_part_of_the_identity_and_their_place_is_not(tmp_path: Path) -> None:
    from robustbench_lab.catalog.component_syntax import parse_component

    for name, contents in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).write_bytes(contents)
    catalog = open_catalog()
    model = "robustbench:Carmon2019Unlabeled"
    one, same, other, files = (
        catalog.resolve("models", parse_component(f"{model}(weights={text})")).identity
        for text in (*(repr(str(tmp_path / name)) for name in ("one", "same", "other")), [str(tmp_path / "one")])
    )
    assert one == same
    assert len({one, other, files}) == 3


# ---------------------------------------------------------------- published figures


def figures(model: str, dataset: str, norm: str = "linf", eps: float = 8 / 255, objective: str = "untargeted") -> Any:
    (spec,) = (entry.spec for entry in open_catalog().entries("models") if entry.spec.name == "robustbench:")
    from rbl_robustbench.published import published

    assert spec.published == "rbl_robustbench.published:published"
    found = published(PublishedSubject(f"robustbench:{model}", dataset, objective, norm, eps))
    return found and (*found.metrics.values(), found.source)


CARMON = "Carmon2019Unlabeled(weights='carmon.pt')"
CARMON_SAYS = (0.8969, 0.5953, "RobustBench, https://arxiv.org/abs/1905.13736")


@pytest.mark.parametrize(
    ("model", "dataset", "budget", "expected"),
    [
        (CARMON, "torchvision:CIFAR10", {}, CARMON_SAYS),
        (CARMON, "npz(path='/data/cifar10_test.npz')", {}, CARMON_SAYS),
        (CARMON, "torchvision:CIFAR10(download=True)", {}, CARMON_SAYS),
        (CARMON, "torchvision:CIFAR10(split='train')", {}, None),
        (CARMON, "torchvision:CIFAR100", {}, None),
        (CARMON, "npz(path='/data/cifar100.npz')", {}, None),
        (CARMON, "npz(path='/data/cifar10_train.npz')", {}, None),
        (CARMON, "npz(path='/data/CIFAR-10-C/fog.npz')", {}, None),
        (CARMON, "torchvision:CIFAR10", {"eps": 4 / 255}, None),
        (CARMON, "torchvision:CIFAR10", {"norm": "l2", "eps": 0.5}, None),
        (CARMON, "torchvision:CIFAR10", {"objective": "targeted"}, None),
        ("Carmon2019Unlabeled(random_weights=True)", "torchvision:CIFAR10", {}, None),
        (
            "Rice2020Overfitting(threat_model='L2', weights='rice.pt')",
            "torchvision:CIFAR10",
            {"norm": "l2", "eps": 0.5},
            (0.8867, 0.6768, "RobustBench, https://arxiv.org/abs/2002.11569"),
        ),
        (
            "Salman2020Do_R50(dataset='imagenet', weights='r50.pt')",
            "image-folder(crop=224, path='/data/imagenet/val', size=256)",
            {"eps": 4 / 255},
            (0.6402, 0.3496, "RobustBench, https://arxiv.org/abs/2007.08489"),
        ),
    ],
)
def test_published_figures_are_those_of_the_same_data_and_budget(
    model: str, dataset: str, budget: Any, expected: Any
) -> None:
    assert figures(model, dataset, **budget) == expected


def test_nearly_every_model_of_the_tables_is_in_the_zoo_and_the_other_way_round() -> None:
    from rbl_robustbench.published import _tables
    from rbl_robustbench.zoo import _zoo

    stated = set(_tables())
    there = {(data, kind, name) for data, kinds in _zoo().items() for kind, ones in kinds.items() for name in ones}
    there = {one for one in there if one[1] != "corruptions"}
    assert len(stated & there) >= 0.95 * max(len(stated), len(there))
    assert all(0 <= one.metrics["robust_accuracy"] < one.metrics["clean_accuracy"] < 1 for _, one in _tables().values())
