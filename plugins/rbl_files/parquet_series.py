"""Series from Parquet or Arrow files: a row for each time, or a row for each series, as fev and GluonTS keep them."""

from pathlib import Path
from typing import TYPE_CHECKING

from rbl_files.csv_series import Steps
from rbl_files.folded_series import unfolded
from rbl_files.series_columns import Names, SeriesColumns, series_columns
from rbl_files.series_table import Missing, OnError, Reading, SeriesTable, WindowChoice, windows
from rbl_files.shards import ShardsPath, shards
from rbl_files.time_steps import TimeRules
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_windows import OPEN, Parts, SeriesWindows, Split

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_series(
    path: ShardsPath,
    time: str = "timestamp",
    target: Names = "target",
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
    """As `csv_series`, from a Parquet file, or from an Arrow file (`.arrow`) that Hugging Face datasets has saved.

    Where `path` is a folder, from all such files in it, in the order of their names.

    A row for each time is read as a CSV file's. Where the targets are lists, each row is a series of its own (`series`
    names the column of their names; None: they are numbered), and `time` a list as long, or the time of the first
    value; then `freq` must be named. Raises UsageError as `csv_series` does.
    """
    source = f"parquet '{Path(path).name}'"
    file = _joined([_open(one, source) for one in shards(path)], source)
    columns = series_columns(
        file.column_names, source, time=time, target=target, past=past, known=known, static=static, series=series
    )
    table = _table(file, columns, freq, source)
    bounds = Bounds(OPEN.low if low is None else low, OPEN.high if high is None else high)
    reading = Reading(TimeRules(freq, time_format, gaps=missing != "refuse"), missing, on_error, bounds)
    return windows(table, reading, WindowChoice(history, horizon, season, stride, parts, split))


def _open(file: Path, source: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ".arrow":
            with pa.memory_map(str(file)) as stream:
                return pa.ipc.open_stream(stream).read_all()
        return pq.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise UsageError(f"{source}: not a readable Parquet file ({text}); a .arrow file is named so") from error


def _joined(parts: list["pa.Table"], source: str) -> "pa.Table":
    import pyarrow as pa

    try:
        return pa.concat_tables(parts)
    except pa.ArrowException as error:
        text = "its files have other columns or types than the first one: write them alike"
        raise UsageError(f"{source}: {text}") from error


def _table(file: "pa.Table", columns: SeriesColumns, freq: str | None, source: str) -> SeriesTable:
    import pyarrow as pa

    channels = columns.channels
    wanted = [columns.time, *channels.observed, *channels.static, *([columns.series] if columns.series else [])]
    rows = file.select(wanted).to_pandas()
    kind = file.schema.field(channels.series[0]).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return unfolded(rows, columns, freq, source)
    return SeriesTable(rows, columns, source, lambda row: f"row {row} (counted from 0)")
