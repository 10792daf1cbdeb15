"""Tables with a row for each series, whose cells are lists: to a row for each time."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rbl_files.series_columns import SeriesColumns
from rbl_files.series_table import SeriesTable
from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SERIES = "series"
"""The column that names series by their rows, where no other does."""


def unfolded(rows: "pd.DataFrame", columns: SeriesColumns, freq: str | None, source: str) -> SeriesTable:
    """The same series, each value in a row of its own. Raises UsageError that names the row and the column.

    rows: one for each series, with arrays for what changes in time. The time is an array, too, or that of the first
    value, from which on there is a value every `freq`.
    """
    import pandas as pd

    lengths = np.array([_length(cell) for cell in rows[columns.channels.series[0]]])
    if columns.series is None:
        columns, rows = SeriesColumns(columns.time, columns.channels, SERIES), rows.assign(**{SERIES: range(len(rows))})
    flat: dict[str, Any] = {name: _flat(rows[name], lengths, source) for name in columns.channels.observed}
    for name in (*columns.channels.static, columns.series):
        flat[str(name)] = np.repeat(rows[name].to_numpy(), lengths)
    if isinstance(rows[columns.time].iloc[0], np.ndarray):
        flat[columns.time] = _flat(rows[columns.time], lengths, source)
    else:
        flat[columns.time] = _counted(rows[columns.time], lengths, freq, source)
    return SeriesTable(pd.DataFrame(flat), columns, source, _place(lengths))


def _length(cell: Any) -> int:
    return len(cell) if isinstance(cell, np.ndarray) else 0


def _flat(column: "pd.Series[Any]", lengths: NDArray[np.int64], source: str) -> NDArray[Any]:
    """The values of all rows one after another."""
    for row, (cell, length) in enumerate(zip(column, lengths.tolist(), strict=True)):
        place = f"{source}: column '{column.name}', row {row} (counted from 0)"
        if not isinstance(cell, np.ndarray) or not len(cell):
            raise UsageError(f"{place}: there is no list of values: leave the row out")
        if isinstance(cell[0], np.ndarray):
            raise UsageError(f"{place}: a list of lists: give each series of it a column of its own")
        if len(cell) != length:
            raise UsageError(f"{place}: {len(cell)} values, where the target has {length}: repair the row")
    return np.concatenate(column.to_list())


def _counted(column: "pd.Series[Any]", lengths: NDArray[np.int64], freq: str | None, source: str) -> NDArray[Any]:
    """The times of values that follow each other from the column's times on."""
    import pandas as pd

    if freq is None:
        text = f"{source}: column '{column.name}' has one time for each row, that of its first value"
        raise UsageError(f"{text}: name the time between two steps, such as freq='1h'")
    try:
        starts = pd.to_datetime(column.astype(str), utc=True, format="ISO8601").dt.tz_localize(None)
        every = [pd.date_range(start, periods=n, freq=freq) for start, n in zip(starts, lengths.tolist(), strict=True)]
    except ValueError as error:
        raise UsageError(f"{source}: column '{column.name}' and freq='{freq}' make no times: {error}") from error
    return np.concatenate([one.to_numpy() for one in every])


def _place(lengths: NDArray[np.int64]) -> Callable[[int], str]:
    ends = np.cumsum(lengths)

    def place(number: int) -> str:
        row = int(np.searchsorted(ends, number, side="right"))
        return f"row {row}, value {number - int(ends[row] - lengths[row])} (counted from 0)"

    return place
