"""Statistical forecasters: the naive ones, with gradient, and those that statsmodels (BSD) fits to each history."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version

NAIVE = {
    "naive": "repeats the last value",
    "seasonal-naive": "repeats the last season: seasonal-naive(season=24, horizon=24)",
    "drift": "the line through the first and the last value",
}
FITTED = {
    "arima": "ARIMA, fitted to each history: arima(order=[1, 0, 1], season=24), a black box",
    "ets": "exponential smoothing, fitted to each history: ets(season=24), a black box (Hyndman et al. 2002)",
    "theta": "the Theta method, fitted to each history: theta(season=24), a black box (Assimakopoulos et al. 2000)",
}
"""Name to summary."""


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Forecasters that need no training."""
    return [
        *(
            ModelSpec(
                name=name,
                factory=f"rbl_statistical.naive_forecasters:{name.replace('-', '_')}",
                summary=summary,
                tasks=("forecasting",),
                version="1",
            )
            for name, summary in NAIVE.items()
        ),
        *(
            ModelSpec(
                name=name,
                factory=f"rbl_statistical.{name}_forecaster:{name}",
                summary=summary,
                tasks=("forecasting",),
                version=wrapper_version("1", "statsmodels"),
                requires=("statsmodels",),
                extra="statsmodels",
            )
            for name, summary in FITTED.items()
        ),
    ]
