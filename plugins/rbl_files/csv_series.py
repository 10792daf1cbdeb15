"""Series from a CSV file, one column each, with a column of times."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rbl_files.time_steps import FIRST_LINE, regular_times
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file
from robustbench_lab.plugin_tools.series_windows import OPEN, Parts, SeriesWindows, Split, WindowShape

if TYPE_CHECKING:
    import pandas as pd

Steps = Annotated[int, Field(ge=1)]


def csv_series(
    path: ExistingFile,
    time: str,
    target: str | list[str] | None = None,
    history: Steps = 336,
    horizon: Steps = 96,
    season: Steps | None = None,
    stride: Steps | None = None,
    split: Split = "test",
    parts: Parts = (0.7, 0.1, 0.2),
    freq: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> SeriesWindows:
    """Windows of the series in the columns `target` (None: every column but `time`), all forecast together.

    season: steps after which the series resemble themselves; None: a day of hours or minutes, a week of days, a year of
    months or quarters, otherwise 1. freq: the time between two steps, as pandas writes it (`'1h'`, `'MS'`); None: as
    between the first two. low, high: what values can be, such as 0 for what is never negative. The others as in
    `WindowShape`. Raises UsageError, which names the series, the line of the file and the way out.
    """
    source = f"csv '{Path(path).name}'"
    table = _read(existing_file(path, "csv"), source)
    names = _names(list(table.columns), time, target, source)
    times, usual_season = regular_times(table[time], freq, source)
    bounds = Bounds(OPEN.low if low is None else low, OPEN.high if high is None else high)
    values = np.stack([_numbers(table[name], bounds, source) for name in names], axis=1)
    shape = WindowShape(history, horizon, season or usual_season, stride, parts)
    return SeriesWindows(values, times, names, shape, source=source, split=split, bounds=bounds)


def _read(file: Path, source: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(file, skip_blank_lines=False, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: not a readable CSV file ({str(error).strip()}); write it as UTF-8 text") from error
    # Rows are counted as lines of the file, so blank ones are kept, but for those at the end.
    filled = (table != "").any(axis=1).to_numpy()
    table = table.iloc[: int(np.flatnonzero(filled)[-1]) + 1 if filled.any() else 0]
    if len(table) < 2:
        raise UsageError(f"{source}: {len(table)} rows below the line of names; a series needs more")
    return table


def _names(columns: list[str], time: str, target: str | list[str] | None, source: str) -> list[str]:
    wanted = [one for one in columns if one != time] if target is None else target
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in (time, *names):
        if name not in columns:
            raise UsageError(f"{source}: there is no column '{name}'.{did_you_mean(name, columns)}")
    if not names or time in names or len(set(names)) < len(names):
        raise UsageError(f"{source}: target={names}: name columns other than the time '{time}', each once")
    return names


def _numbers(column: "pd.Series[str]", bounds: Bounds, source: str) -> NDArray[np.float64]:
    """A series' values `[T]`, all of them finite and within the bounds."""
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) | (values < bounds.low) | (values > bounds.high)
    if not wrong.any():
        return values
    row = int(np.argmax(wrong))
    text, place = column.iloc[row].strip(), f"{source}: series '{column.name}', line {row + FIRST_LINE}"
    count = f" ({wrong.sum()} such lines)" if wrong.sum() > 1 else ""
    if not text or text.lower() in ("nan", "na", "null", "none", "n/a"):
        raise UsageError(f"{place}: the value is missing{count}: fill it, or leave the series out of target")
    if not np.isfinite(values[row]):
        raise UsageError(f"{place}: '{text}' is no finite number{count}: repair it, or leave the series out of target")
    span = f"{bounds.low:g}..{bounds.high:g}"
    raise UsageError(f"{place}: {values[row]:g} lies outside {span}{count}: repair it, or change low and high")
