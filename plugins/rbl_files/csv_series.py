"""Series from a CSV file, one column each, with a column of times."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from rbl_files.series_columns import Names, series_columns
from rbl_files.series_table import Missing, OnError, Reading, SeriesTable, WindowChoice, windows
from rbl_files.time_steps import TimeRules
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file
from robustbench_lab.plugin_tools.series_windows import OPEN, Parts, SeriesWindows, Split

if TYPE_CHECKING:
    import pandas as pd

Steps = Annotated[int, Field(ge=1)]
SEPARATORS = frozenset(";\t|")
FIRST_LINE = 2
"""Of the values in a file whose first line names the columns: rows in messages are lines of the file."""


def csv_series(
    path: ExistingFile,
    time: str,
    target: Names = None,
    past: Names = None,
    known: Names = None,
    static: Names = None,
    series: str | None = None,
    history: Steps = 336,
    horizon: Steps = 96,
    season: Steps | None = None,
    stride: Steps | None = None,
    split: Split = "test",
    parts: Parts = (0.7, 0.1, 0.2),
    freq: str | None = None,
    time_format: str | None = None,
    missing: Missing = "refuse",
    on_error: OnError = "refuse",
    low: float | None = None,
    high: float | None = None,
) -> SeriesWindows:
    """Windows of the series in the columns `target` (None: every column that is nothing else), forecast together.

    past, known, static: columns of covariates, see `Role`. series: where rows of several series stand below each
    other, the column that names them. season: steps after which the series resemble themselves; None: a day of hours
    or minutes, a week of days, a year of months or quarters, otherwise 1. freq: the time between two steps, as pandas
    writes it (`'1h'`, `'MS'`); None: as between the first two. time_format: as `strftime` writes it. missing: see
    `Missing`; also of rows. on_error: see `OnError`. low, high: what the forecast series can be, such as 0 for what
    is never negative. The others as in `WindowShape`. Raises UsageError, which names the series, the line of the file
    and the way out.
    """
    source = f"csv '{Path(path).name}'"
    rows = _read(existing_file(path, "csv"), source)
    columns = series_columns(
        list(rows.columns), source, time=time, target=target, past=past, known=known, static=static, series=series
    )
    table = SeriesTable(rows, columns, source, lambda row: f"line {row + FIRST_LINE}")
    bounds = Bounds(OPEN.low if low is None else low, OPEN.high if high is None else high)
    reading = Reading(TimeRules(freq, time_format, gaps=missing != "refuse"), missing, on_error, bounds)
    return windows(table, reading, WindowChoice(history, horizon, season, stride, parts, split))


def _read(file: Path, source: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        names = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
        table = pd.read_csv(file, skip_blank_lines=False, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: not a readable CSV file ({str(error).strip()}); write it as UTF-8 text") from error
    if len(names) == 1 and (separators := SEPARATORS & set(names[0])):
        raise UsageError(
            f"{source}: its columns are separated by {min(separators)!r}: write it with commas between them"
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{source}: two columns are called '{twice}': rename one")
    # Rows are counted as lines of the file, so blank ones are kept, but for those at the end.
    filled = (table != "").any(axis=1).to_numpy()
    table = table.iloc[: int(np.flatnonzero(filled)[-1]) + 1 if filled.any() else 0]
    if len(table) < 2:
        raise UsageError(f"{source}: {len(table)} rows below the line of names; a series needs more")
    return table
