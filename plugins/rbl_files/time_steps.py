"""The times of a series: sorted, each once, and without gaps."""

from typing import TYPE_CHECKING

import numpy as np

from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

FIRST_LINE = 2
"""Of the values in a file whose first line names the columns: rows in messages are lines of the file."""
DAY_SECONDS = 86_400
YEARS = {"M": 12, "Q": 4}
"""Steps in a year, by the first letter of a calendar step's name (`MS`, `ME`, `QS-JAN`)."""


def regular_times(column: "pd.Series[str]", freq: str | None, source: str) -> tuple[list[str], int]:
    """The times as ISO 8601 texts `[T]`, and the season that is usual for steps of this length.

    freq: the time between two steps, as pandas writes it; None: as between the first two. Raises UsageError.
    """
    import pandas as pd

    times = _parsed(column, source)
    _check_order(column, times, source)
    try:
        step = pd.tseries.frequencies.to_offset(freq) if freq else times[1] - times[0]
    except ValueError as error:
        raise UsageError(
            f"{source}: freq='{freq}' is no time that pandas knows: write '1h', '15min', '1D' or 'MS'"
        ) from error
    expected = pd.date_range(times[0], periods=len(times), freq=step)
    if (wrong := times != expected).any():
        row = int(np.argmax(wrong))
        raise UsageError(_gap(times, expected, row, freq, source))
    return [one.isoformat() for one in times], _season(times, freq)


def _parsed(column: "pd.Series[str]", source: str) -> "pd.DatetimeIndex":
    import pandas as pd

    parsed = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    if (wrong := parsed.isna().to_numpy()).any():
        row = int(np.argmax(wrong))
        text = f"{source}: column '{column.name}', line {row + FIRST_LINE}: '{column.iloc[row]}' is no time"
        raise UsageError(f"{text}: write times as 2016-07-01 13:00:00")
    return pd.DatetimeIndex(parsed).tz_localize(None)


def _check_order(column: "pd.Series[str]", times: "pd.DatetimeIndex", source: str) -> None:
    steps = np.diff(times.to_numpy())
    if not (wrong := steps <= np.timedelta64(0)).any():
        return
    row = int(np.argmax(wrong)) + 1
    place = f"{source}: column '{column.name}', line {row + FIRST_LINE}: {column.iloc[row]}"
    if steps[row - 1] == np.timedelta64(0):
        raise UsageError(f"{place} stands there twice: keep one line for each time (several series: one column each)")
    raise UsageError(f"{place} is earlier than the line above: sort the file by time")


def _gap(times: "pd.DatetimeIndex", expected: "pd.DatetimeIndex", row: int, freq: str | None, source: str) -> str:
    place = f"{source}: line {row + FIRST_LINE}: {times[row]} where {expected[row]} should follow"
    if times[row] > expected[row]:
        return f"{place}: fill the gap, or cut the file there" + ("" if freq else "; for steps of a calendar name freq")
    return f"{place}: the steps are not all of one length; resample the file, or name its freq"


def _season(times: "pd.DatetimeIndex", freq: str | None) -> int:
    if freq and freq[:1] in YEARS:
        return YEARS[freq[0]]
    seconds = (times[1] - times[0]).total_seconds()
    if seconds < DAY_SECONDS and DAY_SECONDS % seconds == 0:
        return int(DAY_SECONDS // seconds)
    return 7 if seconds == DAY_SECONDS else 1
