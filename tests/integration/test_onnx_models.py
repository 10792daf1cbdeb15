"""Networks from ONNX files: `onnx(path=...)`, against the reference evaluator of the onnx package."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from rbl_files.npz_dataset import npz_dataset
from rbl_onnx.batching import ConstantReshape, OneByOne, Vectorised
from rbl_onnx.onnx_model import onnx_model
from robustbench_lab.errors import UsageError

CIFAR10 = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
OVAL21 = {"mean": [0.485, 0.456, 0.406], "std": [0.225, 0.225, 0.225]}
WIDTH = 4


def weights(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    takes: list[Any],
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
) -> str:
    """A network from input `x` of shape `takes` to output `y`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    file = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), file)
    return str(file)


def smooth_net(folder: Path, batch: int | str = 1) -> str:
    """Conv, Tanh, Gemm on 2 x 4 x 4 images, exported for one batch size."""
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["conv"], ["tanh"]),
        helper.make_node("Flatten", ["tanh"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    constants = {"kernel": weights(3, 2, 3, 3, seed=0), "w": weights(48, 5, seed=1)}
    return save(folder, nodes, constants, [batch, 2, 4, 4])


def reference(path: str, inputs: torch.Tensor) -> np.ndarray:
    """What onnx itself makes of each sample alone."""
    evaluator = ReferenceEvaluator(path)
    name = evaluator.input_names[0]
    return np.concatenate([evaluator.run(None, {name: row[None].numpy()})[0] for row in inputs])


def images(count: int, *shape: int) -> torch.Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- outputs and gradients


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_batch_gives_what_the_reference_gives_each_sample(tmp_path: Path, batch: int | str) -> None:
    path = smooth_net(tmp_path, batch)
    model = onnx_model(path)
    x = images(7, 2, 4, 4)
    np.testing.assert_allclose(model(x).detach().numpy(), reference(path, x), rtol=1e-5, atol=1e-5)
    assert not model.training


def test_the_gradient_is_the_slope_of_the_reference(tmp_path: Path) -> None:
    path = smooth_net(tmp_path)
    x = images(3, 2, 4, 4)
    leaf = x.clone().requires_grad_()
    towards = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    (gradient,) = torch.autograd.grad((onnx_model(path)(leaf) @ towards).sum(), leaf)

    step = 1e-2
    for seed in range(5):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        ahead, behind = (reference(path, x + sign * step * direction) @ towards.numpy() for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        analytic = (gradient * direction).flatten(1).sum(1).numpy()
        np.testing.assert_allclose(slope, analytic, rtol=5e-3, atol=5e-3)


def test_normalisation_is_inside(tmp_path: Path) -> None:
    path = smooth_net(tmp_path)
    x = images(2, 2, 4, 4)
    normalised = (x - torch.tensor([0.4, 0.6]).view(2, 1, 1)) / torch.tensor([0.2, 0.5]).view(2, 1, 1)
    made = onnx_model(path, mean=[0.4, 0.6], std=[0.2, 0.5])(x)
    np.testing.assert_allclose(made.detach().numpy(), reference(path, normalised), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- exported for a batch of 1


def reshaping_net(folder: Path, shape: list[int], *, as_node: bool) -> str:
    """Reshapes to a constant `shape`, held by an initializer or by a Constant node."""
    target = np.array(shape, dtype=np.int64)
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["tanh"]),
        helper.make_node("MatMul", ["tanh", "w"], ["y"]),
    ]
    constants = {"w": weights(2 * WIDTH, 3, seed=0)}
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(target)))
    else:
        constants["shape"] = target
    return save(folder, nodes, constants, [1, 2, WIDTH])


def class_token_net(folder: Path) -> str:
    """Puts a constant token `[1, 1, W]` before the rows, as a vision transformer exported for a batch of 1."""
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["rows"], axis=1),
        helper.make_node("Softmax", ["rows"], ["attention"], axis=2),
        helper.make_node("ReduceMean", ["attention"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"]),
    ]
    return save(folder, nodes, {"token": weights(1, 1, WIDTH, seed=0), "w": weights(WIDTH, 3, seed=1)}, [1, 2, WIDTH])


def data_dependent_net(folder: Path) -> str:
    """Picks the positive entries of one row (here all of them): a shape that depends on the data."""
    nodes = [
        helper.make_node("Reshape", ["x", "row"], ["flat"]),
        helper.make_node("Exp", ["flat"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["found"]),
        helper.make_node("Reshape", ["found", "row"], ["index"]),
        helper.make_node("Gather", ["positive", "index"], ["picked"], axis=0),
        helper.make_node("Reshape", ["picked", "batch"], ["again"]),
        helper.make_node("MatMul", ["again", "w"], ["y"]),
    ]
    shapes = {"row": np.array([2 * WIDTH]), "batch": np.array([1, 2 * WIDTH])}
    return save(folder, nodes, {**shapes, "w": weights(2 * WIDTH, 3, seed=0)}, [1, 2, WIDTH])


def holds(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def slope(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Gradient of the squared outputs."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).square().sum(), leaf)
    return gradient


@pytest.mark.parametrize("as_node", [True, False])
@pytest.mark.parametrize("shape", [[1, -1], [1, 2 * WIDTH], [-1, 2 * WIDTH], [0, -1]])
def test_a_reshape_to_a_batch_of_1_takes_any_batch(
    tmp_path: Path, shape: list[int], as_node: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = reshaping_net(tmp_path, shape, as_node=as_node)
    model = onnx_model(path)
    x = images(6, 2, WIDTH)
    np.testing.assert_allclose(model(x).detach().numpy(), reference(path, x), rtol=1e-5, atol=1e-5)
    assert holds(model, ConstantReshape)  # the shape is known to Python: no wait for the device
    assert not caplog.records


@pytest.mark.parametrize(("make", "form"), [(class_token_net, Vectorised), (data_dependent_net, OneByOne)])
def test_what_cannot_be_batched_runs_sample_by_sample_and_says_so(
    tmp_path: Path, make: Any, form: type[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    path = make(tmp_path)
    with caplog.at_level(logging.WARNING):
        model = onnx_model(path)
    assert holds(model, form)
    assert ["batch of 1" in record.getMessage() for record in caplog.records] == [True]

    x = images(5, 2, WIDTH)
    with torch.inference_mode():
        np.testing.assert_allclose(model(x).numpy(), reference(path, x), rtol=1e-5, atol=1e-5)
    together = slope(model, x)
    torch.testing.assert_close(together, torch.cat([slope(model, row) for row in x.split(1)]))
    assert bool(together.flatten(1).any(1).all())


def test_a_batch_that_mixes_samples_is_found_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["over_batch"], axis=0),
        helper.make_node("Sub", ["x", "over_batch"], ["difference"]),
        helper.make_node("Flatten", ["difference"], ["y"], axis=1),
    ]
    path = save(tmp_path, nodes, {}, [1, 2, WIDTH])
    x = images(4, 2, WIDTH)
    np.testing.assert_allclose(onnx_model(path)(x).numpy(), reference(path, x), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the form of the input


def test_images_are_reshaped_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = reshaping_net(tmp_path, [1, -1], as_node=False)
    x = images(3, 1, WIDTH, 2)
    with pytest.raises(UsageError, match=r"takes 2x4 a sample, the data gives 1x4x2: add layout="):
        onnx_model(path)(x)
    flat = images(3, 1, 1, 2 * WIDTH)
    with pytest.raises(UsageError, match=r"add input_shape=\[2, 4\]"):
        onnx_model(path)(flat)
    made = onnx_model(path, input_shape=[2, WIDTH])(flat)
    np.testing.assert_allclose(made.detach().numpy(), reference(path, flat.reshape(3, 2, WIDTH)), rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="takes 2x4 a sample, the data gives 3x4x4: name the dataset"):
        onnx_model(path)(images(1, 3, 4, 4))


def test_a_network_with_channels_last_gets_its_layout(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["conv"], kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["conv"], ["y"], axis=1),
    ]
    path = save(tmp_path, nodes, {"kernel": weights(2, 3, 3, 3, seed=0)}, [1, 5, 4, 3])
    x = images(2, 3, 5, 4)
    wanted = reference(path, x.permute(0, 2, 3, 1))
    made = onnx_model(path, layout="NHWC")(x)
    np.testing.assert_allclose(made.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    for options in ({}, {"input_shape": [5, 4, 3]}):  # a reshape would scramble the image
        with pytest.raises(UsageError, match="add layout='NHWC'"):
            onnx_model(path, **options)(x)


def test_an_input_shape_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not run on an input of shape 1x7") as caught:
        onnx_model(smooth_net(tmp_path), input_shape=[7])
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- files that cannot be used


def refusal(path: str) -> str:
    with pytest.raises(UsageError) as caught:
        onnx_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path in text
    return text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    smooth_net(tmp_path)
    assert "Did you mean 'net.onnx'?" in refusal(str(tmp_path / "nett.onnx"))


@pytest.mark.parametrize("contents", [b"", b"not a network", b"\x00\xff" * 50])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(contents)
    assert "ONNX" in refusal(str(tmp_path / "net.onnx"))


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    assert "not a valid ONNX model" in refusal(
        save(tmp_path, [helper.make_node("Relu", ["absent"], ["y"])], {}, [1, 2])
    )


def test_an_operator_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Det", ["x"], ["y"])]
    text = refusal(save(tmp_path, nodes, {}, [1, 3, 3]))
    assert "Det" in text
    assert "export it with torch.onnx.export" in text


def test_external_weights_are_refused(tmp_path: Path) -> None:
    path = smooth_net(tmp_path)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "make it one file" in refusal(path)


def test_more_than_one_output_is_refused(tmp_path: Path) -> None:
    path = smooth_net(tmp_path)
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("tanh", TensorProto.FLOAT, [None] * 4))
    onnx.save(proto, path)
    assert "outputs y, tanh; cut out one of each" in refusal(path)


def test_other_types_than_float32_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    assert "takes float16 inputs" in refusal(save(tmp_path, nodes, {}, [1, 3], kind=TensorProto.FLOAT16))


# ---------------------------------------------------------------- published networks


def clean_accuracy(model: nn.Module, data: Path, count: int) -> float:
    samples = npz_dataset(str(data)).load(range(count))
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(1) for batch in samples.inputs.split(250)])
    return float((predicted == samples.targets).float().mean())


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("cifar10_resnet_2b", "cifar10_test_5k", CIFAR10),
        ("cifar10_base_kw", "cifar10_test_5k", OVAL21),
        ("cifar10_wide_kw", "cifar10_test_5k", OVAL21),
        ("mnist_fc_256x4", "mnist_test_10k", {"input_shape": [784, 1]}),
    ],
)
def test_published_networks_agree_with_the_reference(
    shared_folder: Path, name: str, data: str, options: dict[str, Any]
) -> None:
    path = str(shared_folder / "models" / f"{name}.onnx")
    x = npz_dataset(str(shared_folder / "data" / f"{data}.npz")).load(range(8)).inputs
    made = onnx_model(path, **options)(x).detach().numpy()
    if "mean" in options:
        x = (x - torch.tensor(options["mean"]).view(3, 1, 1)) / torch.tensor(options["std"]).view(3, 1, 1)
    wanted = reference(path, x.reshape(len(x), *options.get("input_shape", x.shape[1:])))
    np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-4)


def test_the_published_cifar10_network_has_its_published_clean_accuracy(shared_folder: Path) -> None:
    """69.25% on the whole test set; these images come from a JPEG re-encoding, which costs about a point."""
    model = onnx_model(str(shared_folder / "models" / "cifar10_resnet_2b.onnx"), **CIFAR10)
    accuracy = clean_accuracy(model, shared_folder / "data" / "cifar10_test_5k.npz", 1000)
    assert accuracy == pytest.approx(0.685, abs=0.01)


def test_the_published_mnist_network_has_its_published_clean_accuracy(shared_folder: Path) -> None:
    model = onnx_model(str(shared_folder / "models" / "mnist_fc_256x4.onnx"), input_shape=[784, 1])
    accuracy = clean_accuracy(model, shared_folder / "data" / "mnist_test_10k.npz", 10_000)
    assert accuracy == pytest.approx(0.98, abs=0.005)
