"""Forecasters from ONNX files: `onnx(path=...)` on task forecasting, against the torch module that was exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rbl_onnx.onnx_forecaster import onnx_forecaster
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Quantiles

HISTORY, HORIZON, SERIES = 12, 4, 2
LEVELS = [0.1, 0.5, 0.9]
AXES = {"N": 3, "H": HORIZON, "C": SERIES, "Q": len(LEVELS)}


class Net(nn.Module):
    """Takes and gives any order of axes; all outputs depend on all inputs of a window."""

    def __init__(self, layout: str, output: str) -> None:
        super().__init__()
        self.shape = [AXES[one] for one in output[1:]]
        inputs = HISTORY if layout == "NL" else HISTORY * SERIES
        size = int(torch.tensor(self.shape).prod())
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, size))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x).reshape(-1, *self.shape)
        return made


def exported(folder: Path, layout: str, output: str, batch: bool = True) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    net, file = Net(layout, output).eval(), str(folder / "net.onnx")
    shape = {"NLC": (1, HISTORY, SERIES), "NCL": (1, SERIES, HISTORY), "NL": (1, HISTORY)}[layout]
    torch.onnx.export(
        net,
        (torch.zeros(shape),),
        file,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}} if batch else None,
        opset_version=13,
        dynamo=False,
    )
    return file, net


def windows(channels: int = SERIES) -> Tensor:
    return 10 + torch.randn((3, HISTORY, channels), generator=torch.Generator().manual_seed(1))


def own(net: nn.Module, layout: str, output: str, x: Tensor) -> Tensor:
    """The module's forecast as `[N, H, C]` or `[N, H, C, Q]`."""
    if layout == "NL":
        made = torch.stack([net(x[:, :, one]) for one in range(x.shape[2])], 1)
        output = "NC" + output[1:]
    else:
        made = net(x if layout == "NLC" else x.transpose(1, 2))
    return made.permute([output.index(one) for one in "NHCQ" if one in output])


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize(
    ("layout", "output"),
    [("NLC", "NHC"), ("NCL", "NCH"), ("NL", "NH"), ("NLC", "NHCQ"), ("NCL", "NCQH"), ("NL", "NQH"), ("NL", "NHQ")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_file_gives_what_its_module_gave_in_any_order_of_axes(
    layout: str, output: str, gradient: bool, tmp_path: Path
) -> None:
    file, net = exported(tmp_path, layout, output, batch=output != "NHC")
    levels = LEVELS if "Q" in output else None
    mean, std = ([9.0], [2.0]) if layout == "NL" else ([9.0, 11.0], [2.0, 3.0])
    model = onnx_forecaster(file, layout, output, levels=levels, mean=mean, std=std, gradient=gradient)
    x = windows().requires_grad_()
    made = model(x)
    values = made.values if isinstance(made, Quantiles) else made
    assert isinstance(made, Quantiles) == ("Q" in output)
    centre, spread = torch.tensor(mean), torch.tensor(std)
    wanted = own(net, layout, output, (x - centre) / spread)
    axes = (..., None) if "Q" in output else (...,)
    wanted = wanted * spread[axes] + centre[axes]
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-5)
    assert values.requires_grad is gradient
    if gradient:
        weight = torch.randn(values.shape, generator=torch.Generator().manual_seed(2))
        (found,), (true,) = (torch.autograd.grad((one * weight).sum(), x) for one in (values, wanted))
        torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_network_of_one_series_forecasts_the_first_series(tmp_path: Path) -> None:
    file, net = exported(tmp_path, "NL", "NH")
    made = onnx_forecaster(file, "NL", "NH", series=2)(windows(4))
    torch.testing.assert_close(made, own(net, "NL", "NH", windows(4)[:, :, :2]))


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"layout": "NL", "output": "NHC"}, "either both have C or neither has"),
        ({"output": "NHCQ"}, r"levels=\[...\] and an axis Q go together"),
        ({"levels": [0.5]}, r"levels=\[...\] and an axis Q go together"),
        ({"mean": [0.0, 1.0, 2.0], "std": [1.0, 1.0]}, "mean has 3 entries and std 2: give as many of each"),
        ({"mean": [0.0], "std": [0.0]}, "std must be greater than 0, not 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_setting_that_cannot_be_is_one_line(params: dict[str, Any], problem: str, tmp_path: Path) -> None:
    file, _ = exported(tmp_path, "NLC", "NHC")
    with pytest.raises(UsageError, match=problem):
        onnx_forecaster(file, **params)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_data_and_outputs_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    file, _ = exported(tmp_path, "NLC", "NHC")
    with pytest.raises(UsageError, match=r"its output has shape \[3, 4, 2\], not NHCQ: name its axes"):
        onnx_forecaster(file, output="NHCQ", levels=LEVELS)(windows())
    with pytest.raises(UsageError, match="mean has 2 entries, the data have 3 channels"):
        onnx_forecaster(file, mean=[0.0, 0.0], std=[1.0, 1.0])(windows(3))
    with pytest.raises(UsageError, match="onnxruntime fails on it"):
        onnx_forecaster(file, gradient=False)(windows(3))
