"""Chronos, Chronos-Bolt and Chronos-2: foundation models for series (chronos-forecasting, Apache-2.0)."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Forecasters that need no training on the data."""
    return [
        ModelSpec(
            name="chronos:",
            factory="rbl_chronos.chronos_forecaster:chronos_forecaster",
            summary="Chronos-2, Chronos-Bolt and Chronos from a folder or the hub: chronos:amazon/chronos-bolt-small",
            tasks=("forecasting",),
            version=wrapper_version("1", "chronos-forecasting"),
            requires=("chronos", "transformers"),
            extra="chronos",
            names_folders=True,
        )
    ]
