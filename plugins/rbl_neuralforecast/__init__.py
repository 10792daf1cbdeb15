"""Forecasters of Nixtla's neuralforecast (Apache-2.0)."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Checkpoints that the library has saved."""
    return [
        ModelSpec(
            name="neuralforecast:",
            factory="rbl_neuralforecast.neuralforecast_forecaster:neuralforecast_forecaster",
            summary="NHITS, NBEATS, PatchTST and others: neuralforecast:NHITS(path='models/NHITS_0.safetensors')",
            tasks=("forecasting",),
            version=wrapper_version("1", "neuralforecast"),
            requires=("neuralforecast",),
            extra="neuralforecast",
        )
    ]
