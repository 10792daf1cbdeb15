"""Series from CSV files: windows, splits and units, and what is wrong with a file in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rbl_files.csv_series import csv_series
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_windows import SeriesWindows
from robustbench_lab.testing.component_contracts import check_dataset

ETT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ETTh1.csv"
MONTH = 30 * 24
ETT_PARTS = (12 * MONTH, 4 * MONTH, 4 * MONTH)

Write = Callable[..., str]


def table(steps: int = 200) -> pd.DataFrame:
    times = pd.date_range("2020-01-01", periods=steps, freq="1h")
    random = np.random.default_rng(0)
    daily = np.sin(np.arange(steps) * 2 * np.pi / 24)
    columns = {"load": 100 + 10 * daily + random.normal(size=steps), "heat": random.normal(size=steps)}
    return pd.DataFrame({"date": times.astype(str), **{name: one.astype(str) for name, one in columns.items()}})


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., SeriesWindows]:
    def write(frame: pd.DataFrame, **params: Any) -> SeriesWindows:
        frame.to_csv(tmp_path / "series.csv", index=False)
        return csv_series(
            **{"path": str(tmp_path / "series.csv"), "time": "date", "history": 24, "horizon": 6, **params}
        )

    return write


def test_windows_are_what_came_before_and_after(opened: Callable[..., SeriesWindows]) -> None:
    frame = table()
    data = opened(frame)
    samples = data.load(range(len(data.sample_ids)))
    assert check_dataset(data) == []
    values = frame[["load", "heat"]].astype(np.float32).to_numpy()
    for row, start in enumerate(samples.targets["start"].tolist()):
        assert torch.equal(samples.inputs[row], torch.from_numpy(values[start - 24 : start]))
        assert torch.equal(samples.targets["future"][row], torch.from_numpy(values[start : start + 6]))
    assert samples.targets["start"].tolist() == list(range(160, 195, 6))
    assert data.sample_ids[0] == "test/2020-01-07T16:00:00"


def test_no_step_of_a_part_is_forecast_by_another_and_no_test_step_is_missed_but_a_rest(
    opened: Callable[..., SeriesWindows],
) -> None:
    forecast = {}
    for split in ("train", "validation", "test"):
        starts = opened(table(), split=split).load(range(2)).targets["start"].tolist()
        data = opened(table(), split=split)
        starts = data.load(range(len(data.sample_ids))).targets["start"].tolist()
        forecast[split] = {start + step for start in starts for step in range(6)}
    assert not forecast["train"] & forecast["validation"]
    assert max(forecast["train"]) < 140 <= min(forecast["validation"]) < 160 <= min(forecast["test"])
    assert len(forecast["test"]) > 40 - 6


def test_units_come_from_the_training_part_alone(opened: Callable[..., SeriesWindows]) -> None:
    frame = table()
    before = opened(frame).load([0]).targets
    frame.loc[150:, "load"] = "1e6"
    after = opened(frame).load([0]).targets
    assert torch.equal(before["unit"], after["unit"])
    assert torch.equal(before["scale"], after["scale"])
    training = frame["load"].astype(float).to_numpy()[:140]
    assert before["unit"][0, 0].item() == pytest.approx(training.std())
    assert before["scale"][0, 0].item() == pytest.approx(np.abs(training[24:] - training[:-24]).mean())


def test_another_value_another_season_and_another_split_are_other_revisions(
    opened: Callable[..., SeriesWindows],
) -> None:
    frame, changed = table(), table()
    changed.loc[3, "heat"] = "0.25"
    revisions = {opened(one, **params).revision for one in (frame, changed) for params in ({}, {"season": 12})}
    assert len({*revisions, opened(frame, split="train").revision}) == 5
    assert opened(frame).revision == opened(frame).revision


def test_a_series_that_cannot_be_negative_declares_it(opened: Callable[..., SeriesWindows]) -> None:
    assert opened(table(), target="load", low=0).bounds.low == 0
    with pytest.raises(UsageError, match=r"series 'heat', line \d+: -.* outside 0..inf .*change low"):
        opened(table(), low=0)


def test_monthly_series_are_of_calendar_steps(opened: Callable[..., SeriesWindows]) -> None:
    frame = table(120)
    frame["date"] = pd.date_range("2000-01-01", periods=120, freq="MS").astype(str)
    assert opened(frame, freq="MS", horizon=3).shape.season == 12
    with pytest.raises(UsageError, match=r"line 4: 2000-03-01 .*for steps of a calendar name freq|not all of one"):
        opened(frame)


def broken(row: int, column: str, value: str) -> pd.DataFrame:
    frame = table()
    frame.loc[row, column] = value
    return frame


def without(*rows: int) -> pd.DataFrame:
    return table().drop(index=list(rows)).reset_index(drop=True)


def hours_then_days() -> pd.DataFrame:
    days = pd.date_range("2020-01-06", periods=99, freq="D")
    return table().assign(date=[*table()["date"][:101], *days.astype(str)])


WRONG = [
    (
        broken(4, "load", "n/a"),
        {},
        "series 'load', line 6: the value is missing: fill it, leave the column out, or take missing='fill'",
    ),
    (
        broken(4, "load", ""),
        {},
        "series 'load', line 6: the value is missing: fill it, leave the column out, or take missing='fill'",
    ),
    (broken(4, "heat", "hot"), {}, "series 'heat', line 6: 'hot' is no finite number: repair it"),
    (broken(4, "heat", "inf"), {}, "series 'heat', line 6: 'inf' is no finite number"),
    (broken(4, "date", "soon"), {}, "line 6: column 'date': 'soon' is no time: write times as .*time_format="),
    (
        broken(4, "date", "2020-01-01 03:00:00"),
        {},
        "line 6: 2020-01-01 03:00:00 stands there twice: keep one .*by series=",
    ),
    (broken(4, "date", "2019-01-01 03:00:00"), {}, "line 6: 2019-01-01 03:00:00 is earlier than the row before: sort"),
    (without(7), {}, "line 9: 2020-01-01 08:00:00 where 2020-01-01 07:00:00 should follow: fill the gap"),
    (broken(4, "date", "2020-01-01 03:30:00"), {}, "line 6: .*the steps are not all of one length; resample"),
    (
        hours_then_days(),
        {"missing": "fill"},
        "200 rows for 2,4\\d\\d steps of .*: name the time between two steps by freq",
    ),
    (table().rename(columns={"heat": "load"}), {}, "two columns are called 'load': rename one"),
    (table().assign(heat="3.5"), {}, "series 'heat' is constant in its training part: leave it out"),
    (table().assign(heat=["1", "2"] * 100), {}, "'heat' repeats itself exactly after 24 steps.*another season"),
    (table(30), {}, "30 steps, of which 21 to train, are too few for windows of 24 and 6"),
    (table(60), {"split": "validation", "horizon": 10}, "the validation part has 6 steps to forecast, too few"),
    (table(), {"time": "dat"}, "there is no column 'dat'. Did you mean 'date'"),
    (table(), {"target": ["load", "heet"]}, "there is no column 'heet'. Did you mean 'heat'"),
    (table(), {"target": ["load", "load"]}, "column 'load' is named in target and in target: give it one role"),
    (table(), {"freq": "often"}, "freq='often' is no time that pandas knows"),
    (table(), {"parts": (150, 50, 50)}, r"parts=\[150, 50, 50\] need 250 steps, the series have 200"),
    (table(), {"horizon": 50}, "the test part has 40 steps to forecast, too few for a horizon of 50"),
    (table().iloc[:1], {}, "1 rows below the line of names"),
]


@pytest.mark.parametrize(("frame", "params", "said"), WRONG, ids=[said[:40] for *_, said in WRONG])
def test_what_is_wrong_with_a_file_is_one_line(
    opened: Callable[..., SeriesWindows], frame: pd.DataFrame, params: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        opened(frame, **params)
    assert "\n" not in str(raised.value)


def test_blank_lines_at_the_end_are_no_values(tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    table().to_csv(file, index=False)
    plain = csv_series(str(file), "date", history=24, horizon=6).revision
    file.write_text(file.read_text() + "\n\n")
    assert csv_series(str(file), "date", history=24, horizon=6).revision == plain


def test_columns_that_are_not_separated_by_commas_are_named(tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    table().to_csv(file, index=False, sep=";")
    with pytest.raises(UsageError, match="its columns are separated by ';': write it with commas"):
        csv_series(str(file), "date", history=24, horizon=6)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'date,load\n"1,2\n'])
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "series.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"csv 'series\.csv': "):
        csv_series(str(file), "date")


@pytest.mark.skipif(not ETT.is_file(), reason="ETTh1.csv is not there")
def test_etths_usual_split_has_the_usual_windows_and_statistics() -> None:
    data = csv_series(str(ETT), "date", parts=ETT_PARTS, stride=1)
    # 4 months of 30 days, less a horizon; histories reach back into the validation part.
    assert len(data.sample_ids) == 4 * MONTH - 96 + 1
    assert data.load([0]).targets["start"].tolist() == [16 * MONTH]
    values = pd.read_csv(ETT).iloc[: 12 * MONTH, 1:].to_numpy()
    assert data.load([0]).targets["unit"][0].numpy() == pytest.approx(values.std(axis=0), rel=1e-5)
    assert data.shape.season == 24
    assert data.load([0]).inputs.shape == (1, 336, 7)
