"""Forecasters of GluonTS (Apache-2.0)."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """PyTorch predictors that the library has saved."""
    return [
        ModelSpec(
            name="gluonts:",
            factory="rbl_gluonts.gluonts_forecaster:gluonts_forecaster",
            summary="DeepAR, PatchTST, TFT and others from a folder of predictor.serialize: gluonts:FOLDER",
            tasks=("forecasting",),
            version=wrapper_version("1", "gluonts"),
            requires=("gluonts", "lightning"),
            extra="gluonts",
            names_folders=True,
        )
    ]
