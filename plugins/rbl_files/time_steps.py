"""The times of a series: sorted, each once, and as far apart as the next, with or without gaps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

DAY_SECONDS = 86_400
YEARS = {"M": 12, "Q": 4}
"""Steps in a year, by the first letter of a calendar step's name (`MS`, `ME`, `QS-JAN`)."""
MOST_GAPS = 20
"""Steps for each row, above which rows and steps do not belong together."""
MOST_UNNAMED = 2
"""The same where the first two rows alone say how long a step is: hours followed by days are not filled up."""


@dataclass(frozen=True)
class TimeRules:
    """How times are read."""

    freq: str | None = None
    """The time between two steps, as pandas writes it; None: as between the first two."""
    time_format: str | None = None
    """As `strftime` writes it; None: ISO 8601."""
    gaps: bool = False
    """Whether steps may be missing."""


@dataclass(frozen=True)
class RegularTimes:
    """Steps of one length, and where the rows lie among them."""

    steps: tuple[str, ...]
    """ISO 8601, `[T]`."""
    rows: NDArray[np.int64]
    """The step of each row, `[R]`; R is below T where there are gaps."""
    season: int
    """What is usual for steps of this length."""
    length: str
    """Of a step, to compare and to print."""


def regular_times(column: "pd.Series[Any]", rules: TimeRules, source: str, place: Callable[[int], str]) -> RegularTimes:
    """The times of one series, with a freq that `check_freq` lets pass. Raises UsageError.

    column: one row each; its index numbers the rows in their file, which `place` names.
    """
    import pandas as pd

    def where(row: int) -> str:
        return f"{source}: {place(int(column.index[row]))}"

    if len(column) < 2:
        raise UsageError(f"{source}: {len(column)} rows with values; a series needs more")
    times = _parsed(column, rules, where)
    _check_order(column, times, where)
    step = pd.tseries.frequencies.to_offset(rules.freq) if rules.freq else times[1] - times[0]
    most = MOST_GAPS if rules.freq else MOST_UNNAMED
    count = _steps_between(times, step, most * len(times), source) if rules.gaps else len(times)
    expected = pd.date_range(times[0], periods=count, freq=step)
    rows = expected.get_indexer(times) if rules.gaps else np.arange(count)
    wrong = rows < 0 if rules.gaps else np.asarray(times != expected)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UsageError(f"{where(row)}: {_gap(times, expected, row, rules)}")
    expected = expected[: int(rows[-1]) + 1]
    return RegularTimes(_iso8601(expected), rows, _season(times, rules.freq), str(step))


def _iso8601(times: "pd.DatetimeIndex") -> tuple[str, ...]:
    values = times.to_numpy()
    unit: Literal["s", "us"] = "s" if (values == values.astype("datetime64[s]")).all() else "us"
    return tuple(np.datetime_as_string(values, unit=unit).tolist())


def _parsed(column: "pd.Series[Any]", rules: TimeRules, where: Callable[[int], str]) -> "pd.DatetimeIndex":
    import pandas as pd

    texts = column if pd.api.types.is_datetime64_any_dtype(column) else column.astype(str)
    try:
        parsed = pd.to_datetime(texts, errors="coerce", utc=True, format=rules.time_format or "ISO8601")
    except ValueError as error:
        raise UsageError(
            f"time_format='{rules.time_format}' cannot be read ({error}): write it as '%d.%m.%Y %H:%M'"
        ) from error
    if (wrong := parsed.isna().to_numpy()).any():
        row = int(np.argmax(wrong))
        text = f"{where(row)}: column '{column.name}': '{column.iloc[row]}' is no time"
        way = f"of time_format='{rules.time_format}'" if rules.time_format else "as 2016-07-01 13:00:00"
        raise UsageError(f"{text}: write times {way}, or name their format, such as time_format='%d.%m.%Y %H:%M'")
    return pd.DatetimeIndex(parsed).tz_localize(None)


def _check_order(column: "pd.Series[Any]", times: "pd.DatetimeIndex", where: Callable[[int], str]) -> None:
    steps = np.diff(times.to_numpy())
    if not (wrong := steps <= np.timedelta64(0)).any():
        return
    row = int(np.argmax(wrong)) + 1
    at = f"{where(row)}: {column.iloc[row]}"
    if steps[row - 1] == np.timedelta64(0):
        raise UsageError(
            f"{at} stands there twice: keep one row for each time (series below each other: name their column by "
            "series='...')"
        )
    raise UsageError(f"{at} is earlier than the row before: sort the rows by time")


def check_freq(freq: str | None, source: str) -> None:
    """Raise UsageError where it is no time between two steps."""
    import pandas as pd

    try:
        pd.tseries.frequencies.to_offset(freq)
    except ValueError as error:
        raise UsageError(
            f"{source}: freq='{freq}' is no time that pandas knows: write '1h', '15min', '1D' or 'MS'"
        ) from error


def _steps_between(times: "pd.DatetimeIndex", step: "pd.Timedelta | pd.DateOffset", most: int, source: str) -> int:
    """How many steps reach from the first time to the last one. Raises UsageError where there are more than `most`."""
    import pandas as pd

    try:
        count = int((times[-1] - times[0]) / pd.Timedelta(step)) + 1
    except ValueError:  # steps of a calendar are not all of one length
        count = len(pd.date_range(times[0], times[-1], freq=step))
    if count > most:
        raise UsageError(
            f"{source}: {len(times)} rows for {count:,} steps of {step}: name the time between two steps by freq"
        )
    return count


def _gap(times: "pd.DatetimeIndex", expected: "pd.DatetimeIndex", row: int, rules: TimeRules) -> str:
    if rules.gaps:
        return f"{times[row]} lies between two steps of the series; resample the file, or name its freq"
    text = f"{times[row]} where {expected[row]} should follow"
    if times[row] > expected[row]:
        ways = "fill the gap, cut the file there, or take missing='fill'"
        return f"{text}: {ways}" + ("" if rules.freq else "; for steps of a calendar name freq")
    return f"{text}: the steps are not all of one length; resample the file, or name its freq"


def _season(times: "pd.DatetimeIndex", freq: str | None) -> int:
    if freq and freq[:1] in YEARS:
        return YEARS[freq[0]]
    seconds = (times[1] - times[0]).total_seconds()
    if seconds < DAY_SECONDS and DAY_SECONDS % seconds == 0:
        return int(DAY_SECONDS // seconds)
    return 7 if seconds == DAY_SECONDS else 1
