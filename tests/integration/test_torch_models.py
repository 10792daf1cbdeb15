"""A user's own `nn.Module` and weights: `torch(path='script.py:make_model', weights=...)`."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from rbl_files.torch_script import torch_model
from robustbench_lab.api import evaluate
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.normalization import Normalized
from robustbench_lab.plugin_tools.weights import apply_weights, load_state_dict, require_weights
from robustbench_lab.records import Status

SCRIPT = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.linear = nn.Linear(12, classes)

    def forward(self, x):
        return self.linear(x.flatten(1))

def make_model():
    return Net()

def make_text():
    return "no model"

ready = Net()
number = 3
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return str(file)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def tensors(classes: int = 10, seed: int = 0) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        "linear.weight": torch.randn(classes, 12, generator=source),
        "linear.bias": torch.randn(classes, generator=source),
    }


def logits(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1) @ state["linear.weight"].T + state["linear.bias"]


# ---------------------------------------------------------------- the script


@pytest.mark.parametrize("name", ["make_model", "Net", "ready"])
def test_a_function_a_class_or_a_module_gives_the_model(
    script: str, tmp_path: Path, images: torch.Tensor, name: str
) -> None:
    state = tensors()
    save_file(state, tmp_path / "weights.safetensors")
    model = torch_model(f"{script}:{name}", weights=str(tmp_path / "weights.safetensors"))
    assert not model.training
    torch.testing.assert_close(model(images), logits(state, images))


def test_arguments_and_normalisation_are_passed_on(script: str, tmp_path: Path, images: torch.Tensor) -> None:
    state = tensors(classes=4)
    torch.save(state, tmp_path / "weights.pt")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.5]
    model = torch_model(f"{script}:Net", str(tmp_path / "weights.pt"), args={"classes": 4}, mean=mean, std=std)
    by_hand = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(model(images), logits(state, by_hand))


def test_random_initialisation_is_the_same_every_time_and_leaves_the_global_state_alone(
    script: str, images: torch.Tensor
) -> None:
    torch.manual_seed(1)
    first = torch_model(f"{script}:make_model")(images)
    drawn = torch.rand(3)
    second = torch_model(f"{script}:make_model")(images)
    assert torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))


def test_helpers_beside_two_scripts_may_have_the_same_name(tmp_path: Path, images: torch.Tensor) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "rbl_helper.py").write_text(f"CLASSES = {number}")
        (folder / "script.py").write_text(
            "from rbl_helper import CLASSES\n" + SCRIPT + "\ndef make():\n    return Net(CLASSES)"
        )
    before = list(sys.path)
    widths = [torch_model(f"{tmp_path / str(number) / 'script.py'}:make")(images).shape[1] for number in (1, 2)]
    assert widths == [1, 2]
    assert sys.path == before


WRONG_PATHS = {
    "{script}": "not of the form 'script.py:make_model'",
    "{script}:make-model": "not of the form",
    "weights.pth": "weights go in weights=",
    "{script}:mak_model": "Did you mean 'make_model'?",
    "{script}:make_text": "made something of type str, not a torch.nn.Module",
    "{script}:number": "is of type int; name a function or class",
    "{script}x:make_model": "there is no file",
}


@pytest.mark.parametrize("path", WRONG_PATHS)
def test_a_wrong_path_is_refused_in_one_line(script: str, path: str) -> None:
    with pytest.raises(UsageError, match=re.escape(WRONG_PATHS[path])) as caught:
        torch_model(path.format(script=script))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1\nx.missing\n", "line 2: AttributeError"),
        ("x = 1\ny = (\n", "line 2: SyntaxError"),
        ("import rbl_no_such_library\n", "line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit"),
        ("def make_model(depth):\n    return None\n", "TypeError"),
        ("def make_model():\n\n    raise ValueError('two\\nlines')\n", "line 3: ValueError: two lines"),
    ],
)
def test_an_error_in_the_script_is_one_line_with_its_place(tmp_path: Path, body: str, message: str) -> None:
    file = tmp_path / "script.py"
    file.write_text(body)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        torch_model(f"{file}:make_model")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- weights


@settings(max_examples=20, deadline=None)
@given(
    wrapper=st.sampled_from([None, "state_dict", "model_state_dict", "model", "net"]),
    parallel=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_state_dict_is_found_however_a_training_script_wrapped_it(
    tmp_path_factory: pytest.TempPathFactory, wrapper: str | None, parallel: bool, seed: int
) -> None:
    state = tensors(seed=seed)
    stored: dict[str, Any] = {f"module.{name}" if parallel else name: value for name, value in state.items()}
    file = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    torch.save(stored if wrapper is None else {wrapper: stored, "epoch": 3}, file)
    loaded = load_state_dict(str(file))
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_safetensors_and_torch_files_hold_the_same(tmp_path: Path) -> None:
    state = tensors()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    first, second = load_state_dict(str(tmp_path / "a.safetensors")), load_state_dict(str(tmp_path / "a.pt"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def refusal(model: nn.Module, state: Any, file: Path, **options: Any) -> str:
    torch.save(state, file)
    with pytest.raises(UsageError) as caught:
        apply_weights(model, str(file), "the model", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    state = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(9), "2.weight": torch.zeros(1)}
    text = refusal(model, {"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt")
    assert "do not fit the model" in text
    assert "2 missing: 1.weight, 1.bias" in text
    assert "1 unexpected: 2.weight" in text
    assert "1 of another shape: 0.bias [9] for [4]" in text
    assert "its entry 'state_dict', the prefix 'module.' left off" in text


def test_long_lists_are_cut(tmp_path: Path) -> None:
    text = refusal(nn.Sequential(*[nn.Linear(1, 1) for _ in range(10)]), {"x": torch.zeros(1)}, tmp_path / "w.pt")
    assert "20 missing: 0.weight, 0.bias, 1.weight and 17 more" in text


def test_tensors_can_be_loaded_in_order(tmp_path: Path) -> None:
    trained = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    renamed = {f"_layer{index}": value for index, value in enumerate(trained.state_dict().values())}
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    assert "weights_by='order'" in refusal(
        model, {"_" + name: v for name, v in trained.state_dict().items()}, tmp_path / "w.pt"
    )

    without_counter = {name: value for name, value in renamed.items() if value.ndim > 0}
    torch.save(without_counter, tmp_path / "renamed.pt")
    apply_weights(model, str(tmp_path / "renamed.pt"), "the model", by="order")
    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(model.eval()(images), trained.eval()(images))


def test_order_is_checked_by_shape(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    swapped = {"a": torch.zeros(4), "b": torch.zeros(4, 3)}
    assert "in order, a [4] meets weight [4, 3]" in refusal(model, swapped, tmp_path / "w.pt", by="order")
    assert "1 tensors in the file, 2 in the model" in refusal(
        model, {"a": torch.zeros(4)}, tmp_path / "w.pt", by="order"
    )
    save_file({"a": torch.zeros(4, 3), "b": torch.zeros(4)}, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="keeps no order"):
        apply_weights(model, str(tmp_path / "w.safetensors"), "the model", by="order")


class Unwanted:
    """Pickled by the test below; unpickling it must never happen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


@pytest.mark.parametrize("kind", ["module", "code", "torchscript", "text", "empty", "cut", "number", "entries"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_file_that_is_no_state_dict_says_what_to_do(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.pth"
    model = nn.Linear(3, 4)
    if kind == "torchscript":
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3)), str(file))
    elif kind in {"text", "empty"}:
        file.write_bytes(b"weights" if kind == "text" else b"")
    else:
        stored = {"module": model, "code": Unwanted(), "cut": model.state_dict(), "number": 3, "entries": {"epoch": 3}}
        torch.save(stored[kind], file)
        if kind == "cut":
            file.write_bytes(file.read_bytes()[:700])
    messages = {
        "module": "pickles Python objects",
        "code": "pickles Python objects",
        "torchscript": "TorchScript archive",
        "number": "holds something of type int",
        "entries": "entries that are no tensors (epoch)",
    }
    with pytest.raises(UsageError, match=re.escape(messages.get(kind, "not a file that torch.save wrote"))) as caught:
        load_state_dict(str(file))
    assert "\n" not in str(caught.value)
    assert "state_dict" in str(caught.value)
    assert capsys.readouterr().out == ""


def test_damaged_safetensors_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"not a readable \.safetensors file") as caught:
        load_state_dict(str(file))
    assert "\n" not in str(caught.value)


def test_the_source_of_weights_is_named_exactly_once() -> None:
    for pretrained, random_weights, weights in [(True, False, None), (False, True, None), (False, False, "a.pt")]:
        require_weights("net", weights=weights, pretrained=pretrained, random_weights=random_weights)
    with pytest.raises(UsageError, match="net has no weights"):
        require_weights("net", weights=None, pretrained=False, random_weights=False)
    with pytest.raises(UsageError, match="exclude each other"):
        require_weights("net", weights="a.pt", pretrained=True, random_weights=False)


# ---------------------------------------------------------------- normalisation


@settings(max_examples=25, deadline=None)
@given(data=st.data(), channels=st.integers(1, 4))
def test_normalisation_is_by_channel(data: st.DataObject, channels: int) -> None:
    mean = data.draw(st.lists(st.floats(0, 1, width=32), min_size=channels, max_size=channels))
    std = data.draw(st.lists(st.floats(0.125, 1, width=32), min_size=channels, max_size=channels))
    images = torch.rand(2, channels, 3, 4, generator=torch.Generator().manual_seed(0))
    normalised = Normalized(nn.Identity(), mean, std)(images)
    for channel in range(channels):
        assert torch.equal(normalised[:, channel], (images[:, channel] - mean[channel]) / std[channel])


def test_normalisation_that_does_not_fit_is_refused(script: str, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="mean has 3 entries and std 1"):
        Normalized(nn.Identity(), [0.5] * 3, [0.5])
    with pytest.raises(UsageError, match="std must be greater than 0"):
        Normalized(nn.Identity(), [0.5], [0.0])
    with pytest.raises(UsageError, match="std is missing"):
        torch_model(f"{script}:Net", mean=[0.5])
    with pytest.raises(UsageError, match=r"for images of 3 channels; these inputs have shape \[1, 2, 2\]"):
        Normalized(nn.Identity(), [0.5] * 3, [0.5] * 3)(images[:, :1])


# ---------------------------------------------------------------- forecasters

FORECASTER = """
import torch
from torch import nn
from robustbench_lab.tasks.forecast_output import Quantiles

class Yesterday(nn.Module):
    def forward(self, history):
        day = history[:, -24:]
        return Quantiles(torch.stack([0.9 * day, day, 1.1 * day], 3), (0.1, 0.5, 0.9))
"""


def test_a_module_of_ones_own_can_be_a_forecaster(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FORECASTER)
    model = f"torch(path='{tmp_path}/script.py:Yesterday')"
    (record,) = evaluate(model, "victoria-demand", attacks="pgd(steps=2)", samples=2).records
    assert record.status is Status.OK, record.reason
    assert 0 < record.metrics["clean_mase"].value < record.metrics["robust_mase"].value
    assert record.metrics["clean_width"].value > 0
