"""A forecaster of GluonTS from a folder of the library: JSON and tensors, nothing is executed."""

from __future__ import annotations

from gluonts.torch.model.deepar import DeepARModel
from gluonts.torch.model.wavenet import WaveNet
from torch import nn

from rbl_gluonts.distribution_forecaster import DistributionForecaster
from rbl_gluonts.saved_predictor import read_predictor
from rbl_gluonts.scaling import scale_each_alone
from rbl_gluonts.step_by_step import StepByStep
from rbl_gluonts.wavenet import BinnedPaths
from rbl_gluonts.window_inputs import ChannelRoles, WindowInputs
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels, chosen_horizon


def gluonts_forecaster(
    name: str,
    *,
    horizon: Count | None = None,
    series: Count | None = None,
    known: Known = (),
    past: Known = (),
    static: Known = (),
    categories: Known = (),
    observed: Known = (),
    paths: Count | None = None,
    score: bool = False,
) -> nn.Module:
    """The predictor of the folder `name`, as `predictor.serialize` writes it.

    horizon: steps of the forecast; None: all. series, known: see `SeriesChannels`; known: the features of each step,
    the calendar's before those of the data. past, static, categories, observed: see `ChannelRoles`. paths: how many are
    drawn from a distribution; None: as it was saved. score: give log-probabilities of DeepAR's paths. Raises
    UsageError.
    """
    source = f"gluonts:{name}"
    saved = read_predictor(name, source)
    steps = chosen_horizon(horizon, saved.horizon, source)
    if known and steps < saved.horizon:
        text = f"its features reach {saved.horizon} steps ahead"
        raise UsageError(
            f"{source}: horizon={steps}: {text}: leave horizon out, and give the dataset horizon={saved.horizon}"
        )
    channels = SeriesChannels(source, series, tuple(known))
    roles = ChannelRoles(tuple(past), tuple(static), tuple(categories), tuple(observed))
    scale_each_alone(saved.net)
    inputs = WindowInputs(saved, channels, roles)
    count = paths or saved.paths
    if isinstance(saved.net, WaveNet):
        return BinnedPaths(saved, inputs, steps, count).eval()
    if isinstance(saved.net, DeepARModel):
        return StepByStep(saved, inputs, steps, count, score=score).eval()
    return DistributionForecaster(saved, inputs, steps, count).eval()
