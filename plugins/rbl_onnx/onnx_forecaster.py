"""Forecasters from ONNX files, with gradients through onnx2torch, or as black boxes by onnxruntime."""

from typing import Annotated, Any, Self

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from rbl_onnx.inference import session
from rbl_onnx.onnx_model import differentiable
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file
from robustbench_lab.plugin_tools.series_channels import Count, SeriesChannels
from robustbench_lab.tasks.forecast_output import Forecast, Quantiles


def _history_layout(layout: str) -> str:
    if layout not in ("NLC", "NCL", "NL"):
        raise ValueError("give 'NLC', 'NCL', or 'NL' for a network of one series at a time")
    return layout


def _forecast_layout(output: str) -> str:
    if output[:1] != "N" or sorted(output) not in ([*"HN"], [*"HNQ"], [*"CHN"], [*"CHNQ"]):
        raise ValueError("give the order of N, H (steps), C (series; not with layout='NL') and Q (quantiles): 'NHC'")
    return output


def onnx_forecaster(
    path: ExistingFile,
    layout: Annotated[str, AfterValidator(_history_layout)] = "NLC",
    output: Annotated[str, AfterValidator(_forecast_layout)] = "NHC",
    levels: list[float] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    series: Count | None = None,
    gradient: bool = True,
) -> nn.Module:
    """The forecaster of an ONNX file: one float32 input of histories, one output.

    layout, output: the order of axes of input and output: N windows, L steps of history, H of the forecast, C series, Q
    quantiles, of these levels. mean, std: the network takes and gives `(x - mean) / std`, one number for each channel
    or one for all. series: how many of the first channels are forecast; None: all. gradient: whether onnx2torch runs
    it, or onnxruntime as a black box. Windows with known covariates are given as they are. Raises UsageError.
    """
    source = f"onnx '{path}'"
    if ("C" in output) == (layout == "NL"):
        raise UsageError(f"{source}: layout='{layout}' and output='{output}': either both have C or neither has")
    if ("Q" in output) != (levels is not None):
        raise UsageError(f"{source}: output='{output}': levels=[...] and an axis Q go together")
    net = differentiable(path, source)[0] if gradient else BlackBox(path, source)
    units = _Units(mean, std, source)
    return OnnxForecaster(net, layout, output, units, SeriesChannels(source, series), levels).eval()


class _Units(nn.Module):
    """From the data's units to the network's and back."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float] | None, std: list[float] | None, source: str) -> None:
        super().__init__()
        centre, spread = mean or [0.0], std or [1.0]
        if len(centre) != len(spread) and 1 not in (len(centre), len(spread)):
            raise UsageError(f"{source}: mean has {len(centre)} entries and std {len(spread)}: give as many of each")
        if min(spread) <= 0:
            raise UsageError(f"{source}: std must be greater than 0, not {min(spread):g}")
        self.source = source
        self.register_buffer("mean", torch.tensor(centre), persistent=False)
        self.register_buffer("std", torch.tensor(spread), persistent=False)

    def to_network(self, x: Tensor) -> Tensor:
        """`[N, L, channels]`."""
        for name, one in (("mean", self.mean), ("std", self.std)):
            if len(one) not in (1, x.shape[2]):
                raise UsageError(f"{self.source}: {name} has {len(one)} entries, the data have {x.shape[2]} channels")
        return (x - self.mean) / self.std

    def to_data(self, forecast: Tensor) -> Tensor:
        """`[N, H, C, Q]`, of the first C channels."""
        count = forecast.shape[2]
        mean, std = (one if len(one) == 1 else one[:count] for one in (self.mean, self.std))
        return forecast * std[:, None] + mean[:, None]


class OnnxForecaster(nn.Module):
    """Windows `[N, L, channels]` to points `[N, H, C]`, or `Quantiles` of the same."""

    def __init__(
        self,
        net: nn.Module,
        layout: str,
        output: str,
        units: _Units,
        channels: SeriesChannels,
        levels: list[float] | None,
    ) -> None:
        super().__init__()
        self.net = net
        self.layout = layout
        self.output = output
        self.units = units
        self.channels = channels
        self.levels = None if levels is None else tuple(levels)

    def forward(self, inputs: Tensor) -> Forecast:
        """UsageError where the output has other axes than it should."""
        x = self.units.to_network(inputs)
        if self.layout == "NL":
            history = self.channels.forecast_series(x)
            made = torch.unflatten(self._run(history.transpose(1, 2).flatten(0, 1)), 0, (len(x), -1))
            axes = "NC" + self.output[1:]
        else:
            made, axes = self._run(x if self.layout == "NLC" else x.transpose(1, 2)), self.output
        if "Q" not in axes:
            made, axes = made.unsqueeze(-1), axes + "Q"
        forecast = self.units.to_data(made.permute([axes.index(one) for one in "NHCQ"])[:, :, : self.channels.series])
        return forecast.squeeze(3) if self.levels is None else Quantiles(forecast, self.levels)

    def _run(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x)
        if made.ndim != len(self.output):
            shape = list(made.shape)
            raise UsageError(f"{self.channels.source}: its output has shape {shape}, not {self.output}: name its axes")
        return made


class BlackBox(nn.Module):
    """A file as onnxruntime runs it, without gradient."""

    def __init__(self, path: str, source: str) -> None:
        super().__init__()
        self.source = source
        self.session = session(str(existing_file(path, "onnx")), source)
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise UsageError(f"{source}: takes {[one.name for one in inputs]}; one input of float32 numbers is needed")
        self.input = inputs[0].name
        self.batch = inputs[0].shape[0]

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # it has no state

    def forward(self, x: Tensor) -> Tensor:
        """In batches of the size that it was exported for."""
        size = self.batch if isinstance(self.batch, int) else len(x)
        if len(x) % size:
            raise UsageError(f"{self.source}: takes {size} windows at once; export it for one, or for any number")
        given = torch.split(x.detach().to("cpu", torch.float32), size)
        try:
            made = [torch.from_numpy(self.session.run(None, {self.input: one.numpy()})[0]) for one in given]
        except Exception as error:  # a history that does not fit
            raise UsageError(f"{self.source}: onnxruntime fails on it ({describe_error(error)})") from error
        return torch.cat(made).to(x.device)
