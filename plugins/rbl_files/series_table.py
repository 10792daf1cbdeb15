"""A table with a row for each time, or for each time of each series of a panel, to the series in it."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbl_files.series_columns import SeriesColumns
from rbl_files.time_steps import RegularTimes, TimeRules, check_freq, regular_times
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.plugin_tools.observed_series import ObservedSeries
from robustbench_lab.plugin_tools.series_windows import (
    OPEN,
    Parts,
    SeriesWindows,
    Split,
    WindowShape,
    check_split,
    cut_series,
)

if TYPE_CHECKING:
    import pandas as pd

Missing = Literal["refuse", "fill", "flag"]
"""What is done about missing values: refused, or filled by the last one before, with a flag channel or without."""
OnError = Literal["refuse", "skip"]
"""What is done about series of a panel with a problem."""
MISSING = ("", "nan", "na", "n/a", "null", "none", "nat", "<na>")
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class SeriesTable:
    """Rows as they were read."""

    rows: "pd.DataFrame"
    """Its index numbers the rows from 0."""
    columns: SeriesColumns
    source: str
    """What messages call it."""
    place: Callable[[int], str]
    """The number of a row to where it stands: `line 17`."""


@dataclass(frozen=True)
class Reading:
    """How a table is read."""

    times: TimeRules
    missing: Missing = "refuse"
    on_error: OnError = "refuse"
    bounds: Bounds = OPEN
    """Of the forecast series."""


@dataclass(frozen=True)
class WindowChoice:
    """Which windows are made of it."""

    history: int
    horizon: int
    season: int | None
    """None: what is usual for steps of this length."""
    stride: int | None
    parts: Parts
    split: Split

    def shape(self, usual_season: int) -> WindowShape:
        """How a series is cut."""
        return WindowShape(self.history, self.horizon, self.season or usual_season, self.stride, self.parts)


def windows(table: SeriesTable, reading: Reading, choice: WindowChoice) -> SeriesWindows:
    """The windows of all series of a table. Raises UsageError that names the series, the row and the way out."""
    panel: list[ObservedSeries] = []
    problems: list[str] = []
    first: tuple[RegularTimes, str] | None = None
    check_split(choice.split, table.source)
    check_freq(reading.times.freq, table.source)
    for name, rows in _members(table):
        source = table.source if table.columns.series is None else f"{table.source}: {table.columns.series} '{name}'"
        try:
            times = regular_times(rows[table.columns.time], reading.times, source, table.place)
            if first is not None:
                _check_step(times, source, *first)
            one = _observed(rows, times, table, reading, name, source)
            cut_series(one, table.columns.channels, choice.shape(times.season), choice.split)
        except UsageError as error:
            if table.columns.series is None:
                raise
            if reading.on_error == "refuse":
                raise UsageError(f"{error} (on_error='skip' leaves such series out)") from error
            problems.append(str(error).removeprefix(f"{table.source}: "))
        else:
            panel.append(one)
            first = first or (times, source)
    if problems:
        text = f"{table.source}: {len(problems)} of {len(problems) + len(panel)} series are left out"
        warnings.warn(f"{text}: {listed(problems)}", stacklevel=2)
    if not panel or first is None:
        raise UsageError(f"{table.source}: no series is left")
    shape, flags = choice.shape(first[0].season), reading.missing == "flag"
    channels = table.columns.channels
    return SeriesWindows(panel, channels, shape, split=choice.split, bounds=reading.bounds, flags=flags)


def _members(table: SeriesTable) -> Iterator[tuple[str, "pd.DataFrame"]]:
    """The rows of each series of the panel, in the order of their first ones; all rows where it is none."""
    column = table.columns.series
    if column is None:
        yield "", table.rows
        return
    names = table.rows[column].astype(str).str.strip()
    if (wrong := (names.isna() | names.str.lower().isin(MISSING)).to_numpy()).any():
        raise UsageError(f"{table.source}: {table.place(int(np.argmax(wrong)))}: column '{column}' names no series")
    for name, rows in table.rows.groupby(names, sort=False):
        yield str(name), rows


def _check_step(times: RegularTimes, source: str, first: RegularTimes, first_source: str) -> None:
    if times.length != first.length:
        raise UsageError(
            f"{source} has a step of {times.length}, {first_source} one of {first.length}: name freq, or give each "
            "frequency a file of its own"
        )


def _observed(
    rows: "pd.DataFrame", times: RegularTimes, table: SeriesTable, reading: Reading, name: str, source: str
) -> ObservedSeries:
    channels = table.columns.channels
    values = np.full((len(times.steps), len(channels.observed)), np.nan)
    for place, column in enumerate(channels.observed):
        bounds = reading.bounds if column in channels.series else OPEN
        column_values = Column(rows[column], source, table.place)
        values[times.rows, place] = column_values.numbers(bounds, gaps=reading.missing != "refuse")
    static = tuple(Column(rows[column], source, table.place).constant() for column in channels.static)
    return ObservedSeries(times.steps, values, static, name, source)


@dataclass(frozen=True)
class Column:
    """One column of one series."""

    values: "pd.Series[Any]"
    source: str
    place: Callable[[int], str]

    def numbers(self, bounds: Bounds, *, gaps: bool) -> NDArray[np.float64]:
        """`[R]`, within the bounds; NaN where a value is missing, if there may be gaps. Raises UsageError."""
        import pandas as pd

        numbers = pd.to_numeric(self.values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if not pd.api.types.is_numeric_dtype(self.values):
            # Before version 3 pandas reads texts to the last digit but one, and the data's identity counts all.
            finite, numbers = np.isfinite(numbers), numbers.copy()
            numbers[finite] = self.values.to_numpy(dtype=object)[finite].astype(np.float64)
        missing = np.zeros(len(numbers), dtype=bool)
        if not np.isfinite(numbers).all():
            texts = self.values.astype(str).str.strip().str.lower()
            numbers = np.where(np.isnan(numbers), texts.map(TRUTH).to_numpy(dtype=np.float64), numbers)
            missing = (texts.isna() | texts.isin(MISSING)).to_numpy()
        if not gaps:
            self._refuse(missing, "the value is missing", "fill it, leave the column out, or take missing='fill'")
        self._refuse(~np.isfinite(numbers) & ~missing, "'{}' is no finite number", "repair it, or leave the column out")
        outside = (numbers < bounds.low) | (numbers > bounds.high)
        span = f"{bounds.low:g}..{bounds.high:g}"
        self._refuse(outside, f"{{}} lies outside {span}", "repair it, or change low and high")
        return numbers

    def constant(self) -> float:
        """The value that all rows have. Raises UsageError."""
        numbers = self.numbers(OPEN, gaps=False)
        self._refuse(numbers != numbers[0], "a static feature changes to {}", "name it in past or known")
        return float(numbers[0])

    def _refuse(self, wrong: NDArray[np.bool_], what: str, way_out: str) -> None:
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        place = self.place(int(self.values.index[row]))
        count = f" ({wrong.sum()} such rows)" if wrong.sum() > 1 else ""
        text = what.format(str(self.values.iloc[row]).strip())
        raise UsageError(f"{self.source}: series '{self.values.name}', {place}: {text}{count}: {way_out}")
