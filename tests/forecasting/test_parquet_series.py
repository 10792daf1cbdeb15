"""Series from Parquet and Arrow files: the same windows as from a CSV file, however the rows are folded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rbl_files.csv_series import csv_series
from rbl_files.parquet_series import parquet_series
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_windows import SeriesWindows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CUT = {"history": 24, "horizon": 6}
ROLES: dict[str, Any] = {"series": "id", "known": "price", "static": "size", "missing": "flag"}

Opened = Callable[..., SeriesWindows]


def panel() -> pd.DataFrame:
    """Two series below each other, with gaps."""
    random = np.random.default_rng(0)
    each = []
    for name, steps in (("a", 200), ("b", 160)):
        times = pd.date_range("2020-01-01", periods=steps, freq="1h")
        target = 100 + 10 * np.sin(np.arange(steps) * 2 * np.pi / 24) + random.normal(size=steps)
        target[[20, 21, steps - 9]] = np.nan
        rows = {"id": name, "timestamp": times, "target": target, "price": random.normal(size=steps), "size": steps}
        each.append(pd.DataFrame(rows))
    return pd.concat(each, ignore_index=True)


def folded(frame: pd.DataFrame) -> Any:
    """A row for each series, as fev and Hugging Face datasets keep them."""
    groups = frame.groupby("id", sort=False)
    lists = {name: [one[name].tolist() for _, one in groups] for name in ("timestamp", "target", "price")}
    return pa.table({"id": list(groups.groups), **lists, "size": [one["size"].iloc[0] for _, one in groups]})


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def write(table: Any, **params: Any) -> SeriesWindows:
        pq.write_table(table, tmp_path / "data.parquet")
        return parquet_series(str(tmp_path / "data.parquet"), **{**CUT, **params})

    return write


def same(first: SeriesWindows, second: SeriesWindows) -> bool:
    return first.revision == second.revision and first.sample_ids == second.sample_ids


def test_rows_for_times_rows_for_series_and_a_csv_file_hold_the_same_windows(opened: Opened, tmp_path: Path) -> None:
    frame = panel()
    frame.to_csv(tmp_path / "data.csv", index=False)
    wanted = csv_series(str(tmp_path / "data.csv"), "timestamp", target="target", **CUT, **ROLES)
    assert same(opened(pa.Table.from_pandas(frame), **ROLES), wanted)
    folding = opened(folded(frame), **ROLES)
    assert same(folding, wanted)
    assert torch.equal(folding.load([3, 1]).inputs, wanted.load([3, 1]).inputs)
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, folded(frame).schema) as stream:
        stream.write_table(folded(frame))
    assert same(parquet_series(str(tmp_path / "data.arrow"), **CUT, **ROLES), wanted)


@pytest.mark.parametrize("kind", ["rows for times", "rows for series"])
def test_a_folder_of_parts_is_the_whole(kind: str, opened: Opened, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(panel()) if kind == "rows for times" else folded(panel())
    folder, cut = tmp_path / "parts", table.num_rows // 2
    folder.mkdir()
    for number, part in enumerate((table.slice(0, cut), table.slice(cut))):
        pq.write_table(part, folder / f"train-0000{number}-of-00002.parquet")
    (folder / "README.md").write_text("of no interest")
    assert same(parquet_series(str(folder), **CUT, **ROLES), opened(table, **ROLES))
    pq.write_table(table, folder / "test-00000-of-00001.parquet")
    with pytest.raises(UsageError, match=r"more than the parts of one data set \(test-.*, train-.*\): name one file"):
        parquet_series(str(folder), **CUT, **ROLES)
    for name in ("test-00000-of-00001.parquet", "train-00000-of-00002.parquet"):
        (folder / name).unlink()
    with pytest.raises(UsageError, match="has 1 of 2 parts: add the others"):
        parquet_series(str(folder), **CUT, **ROLES)
    pq.write_table(
        table.rename_columns(["id", "when", *table.column_names[2:]]), folder / "train-00000-of-00002.parquet"
    )
    with pytest.raises(UsageError, match="other columns or types than the first one: write them alike"):
        parquet_series(str(folder), **CUT, **ROLES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no \.parquet and no \.arrow file: name another"):
        parquet_series(str(tmp_path / "empty"), **CUT, **ROLES)


def test_a_first_time_and_a_frequency_are_times_enough(opened: Opened) -> None:
    table = folded(panel())
    first = table.set_column(1, "start", pa.array([one[0] for one in table["timestamp"].to_pylist()]))
    assert same(opened(first, **ROLES, time="start", freq="1h"), opened(table, **ROLES, freq="1h"))
    with pytest.raises(UsageError, match="'start' has one time for each row, that of its first value: name the time"):
        opened(first, **ROLES, time="start")


def test_rows_without_names_are_numbered(opened: Opened) -> None:
    ids = opened(folded(panel()).drop_columns("id"), missing="fill").sample_ids
    assert {one.split("/")[1] for one in ids} == {"0", "1"}


def replaced(name: str, cells: list[Any]) -> Any:
    table = folded(panel())
    return table.set_column(table.column_names.index(name), name, pa.array(cells))


PRICES = folded(panel())["price"].to_pylist()
WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (replaced("price", [PRICES[0], PRICES[1][:5]]), ROLES, r"'price', row 1 .*: 5 values, where the target has 160"),
    (replaced("price", [PRICES[0], None]), ROLES, r"'price', row 1 \(counted from 0\): there is no list of values"),
    (replaced("target", [[[1.0]], [[2.0]]]), ROLES, r"'target', row 0 .*: a list of lists: give each series of it"),
    (
        replaced("price", [["cheap" if n == 7 else "1" for n in range(200)], ["1"] * 160]),
        ROLES,
        r"id 'a': series 'price', row 0, value 7 .*: 'cheap' is no finite number: repair it",
    ),
    (folded(panel()), {"target": "demand"}, "there is no column 'demand'"),
    (folded(panel()), {"series": "id"}, r"id 'a': series 'target', row 0, value 20 .*: the value is missing \(3 such"),
    (pa.Table.from_pandas(panel()), {"series": "id"}, r"id 'a': series 'target', row 20 .*: the value is missing"),
    (replaced("id", ["a", "a"]), ROLES, r"id 'a': row 1, value 0 .*2020-01-01 00:00:00 is earlier than the row before"),
]


@pytest.mark.parametrize(("table", "params", "said"), WRONG, ids=[said[:40] for *_, said in WRONG])
def test_what_is_wrong_is_one_line(opened: Opened, table: Any, params: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        opened(table, **params)
    assert "\n" not in str(raised.value)


def test_what_is_no_parquet_file_is_one_line(tmp_path: Path) -> None:
    for name in ("data.parquet", "data.arrow"):
        (tmp_path / name).write_text("timestamp,target\n")
        with pytest.raises(UsageError, match=f"parquet '{name}': not a readable Parquet file") as raised:
            parquet_series(str(tmp_path / name))
        assert "\n" not in str(raised.value)
