"""Covariates, missing values and panels: what inputs and targets hold, what may be attacked, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rbl_files.csv_series import csv_series
from rbl_reference.victoria_demand import VictoriaDemand
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.observed_series import Channels, ObservedSeries, filled
from robustbench_lab.plugin_tools.series_windows import SeriesWindows, WindowShape
from robustbench_lab.testing.component_contracts import check_dataset
from robustbench_lab.threat_models.series import Series

L, H = 24, 6
SHOPS = ("north", "south")

Opened = Callable[..., SeriesWindows]


def table(steps: int = 200, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    daily = np.sin(np.arange(steps) * 2 * np.pi / 24)
    return pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=steps, freq="1h").astype(str),
            "load": 100 + 10 * daily + random.normal(size=steps),
            "wind": random.normal(size=steps),
            "price": random.normal(size=steps),
            "holiday": random.integers(2, size=steps) == 1,
        }
    ).astype(str)


def panel(steps: tuple[int, ...] = (200, 160)) -> pd.DataFrame:
    """Shops below each other, rows of one among those of the other."""
    each = [table(n, seed).assign(shop=SHOPS[seed], size=str(10.5 + seed)) for seed, n in enumerate(steps)]
    return pd.concat(each).sort_values(["date", "shop"]).reset_index(drop=True)


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def write(frame: pd.DataFrame, **params: Any) -> SeriesWindows:
        frame.to_csv(tmp_path / "data.csv", index=False)
        return csv_series(**{"path": str(tmp_path / "data.csv"), "time": "date", "history": L, "horizon": H, **params})

    return write


def loaded(data: SeriesWindows) -> Any:
    return data.load(range(len(data.sample_ids)))


# ---------------------------------------------------------------- covariates


def test_channels_are_series_then_past_then_known_covariates_whose_future_alone_is_shown(opened: Opened) -> None:
    frame = table()
    data = opened(frame, past="wind", known=["price", "holiday"])
    samples = loaded(data)
    assert check_dataset(data) == []
    assert data.channel_names == ("load", "wind", "price", "holiday")
    assert samples.targets["roles"].tolist() == [[0, 1, 2, 2]] * len(samples.inputs)
    values = frame[["load", "wind", "price"]].astype(np.float32).assign(holiday=(frame["holiday"] == "True") * 1.0)
    wanted = torch.from_numpy(values.to_numpy(np.float32))
    for row, start in enumerate(samples.targets["start"].tolist()):
        inputs = samples.inputs[row]
        assert torch.equal(inputs[:L], wanted[start - L : start])
        assert torch.equal(inputs[L:, 2:], wanted[start : start + H, 2:])
        assert not inputs[L:, :2].any()
        assert torch.equal(samples.targets["future"][row], wanted[start : start + H, :1])
    assert samples.attackable[:, :L].all()
    assert samples.attackable[:, L:, 2:].all()
    assert not samples.attackable[:, L:, :2].any()


def test_past_covariates_add_no_steps_and_every_value_may_change(opened: Opened) -> None:
    samples = loaded(opened(table(), target="load", past=["wind", "price"]))
    assert samples.inputs.shape[1:] == (L, 3)
    assert samples.attackable is None
    assert set(samples.targets) == {"future", "scale", "unit", "start", "roles", "input_unit"}


def test_each_channel_has_the_unit_of_its_own_training_part(opened: Opened) -> None:
    frame = table()
    targets = loaded(opened(frame, past="wind", known=["price", "holiday"])).targets
    training = frame[["load", "wind", "price"]].iloc[:140].astype(float).to_numpy().std(axis=0)
    assert targets["input_unit"][0, :3].numpy() == pytest.approx(training, rel=1e-5)
    assert torch.equal(targets["unit"], targets["input_unit"][:, :1])


def test_a_covariate_that_never_varies_cannot_be_attacked(opened: Opened) -> None:
    frame = table()
    frame.loc[:139, "holiday"] = "False"
    samples = loaded(opened(frame, past="wind", known=["price", "holiday"]))
    assert not samples.attackable[..., 3].any()
    assert samples.targets["input_unit"][0, 3] == 1


def test_victorias_demand_comes_with_the_weather_of_the_same_hours() -> None:
    plain, weather = loaded(VictoriaDemand()), loaded(VictoriaDemand(weather=True))
    week, known = weather.inputs.split([168, 24], dim=1)
    assert torch.equal(week[..., :1], plain.inputs)
    assert torch.equal(weather.targets["future"], plain.targets["future"])
    assert not known[..., 0].any()
    # What is known of a day is what stands in the history of the next.
    assert torch.equal(known[:-1, :, 1:], week[1:, -24:, 1:])
    assert weather.inputs[..., 1].mean().item() == pytest.approx(15, abs=1)  # °C in Melbourne
    assert weather.inputs[..., 2].unique().tolist() == [0, 1]


# ---------------------------------------------------------------- missing values


@given(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=1, max_size=30).filter(lambda one: any(one)))
def test_a_missing_value_is_the_last_one_before_and_at_the_beginning_the_first_after(cells: list[float | None]) -> None:
    column = np.array([np.nan if one is None else one for one in cells])
    wanted = pd.Series(column).ffill().bfill().to_numpy()
    assert np.array_equal(filled(column[:, None])[:, 0], wanted)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 119), max_size=60), st.integers(0, 2**31), st.booleans())
def test_what_was_not_observed_is_neither_attackable_nor_judged_and_changes_nothing_else(
    rows: set[int], seed: int, flags: bool
) -> None:
    """Values that are not there cannot matter: whatever stood in their place, the windows are those of the rest."""
    whole = np.random.default_rng(seed).normal(size=(120, 2))
    holes = whole.copy()
    holes[sorted(rows), 0] = np.nan
    shape, times = WindowShape(8, 3, 4), [f"{step:03d}" for step in range(120)]
    channels = Channels(("load",), known=("price",))
    if np.isnan(holes[:84, 0]).mean() > 0.5:
        return
    made = SeriesWindows([ObservedSeries(times, holes)], channels, shape, flags=flags)
    full = SeriesWindows([ObservedSeries(times, whole)], channels, shape)
    samples, complete = loaded(made), loaded(full)
    kept = [full.sample_ids.index(one) for one in made.sample_ids]
    dropped = set(range(len(full.sample_ids))) - set(kept)
    seen = torch.from_numpy(np.isfinite(holes[:, 0]))
    for place, row in enumerate(kept):
        start = int(samples.targets["start"][place])
        before, after = seen[start - 8 : start], seen[start : start + 3]
        assert after.any()
        assert torch.equal(samples.targets["future"][place, :, 0].isnan(), ~after)
        assert torch.equal(samples.attackable[place, :8, 0], before)
        assert torch.equal(samples.inputs[place, :8, 0][before], complete.inputs[row, :8, 0][before])
        assert torch.equal(samples.inputs[place, :, 1], complete.inputs[row, :, 1])
        if flags and rows:
            assert torch.equal(samples.inputs[place, :8, 2].bool(), before)
            assert not samples.inputs[place, 8:, 2].any()
            assert not samples.attackable[place, :, 2].any()
    for row in dropped:
        start = int(complete.targets["start"][row])
        assert not seen[start : start + 3].any()
    assert samples.inputs.isfinite().all()
    assert samples.inputs.shape[2] == 2 + (flags and bool(rows))


def test_units_are_those_of_the_values_that_were_observed(opened: Opened) -> None:
    frame = table()
    frame.loc[10:29, "load"] = ""
    frame.loc[90, "load"] = "NaN"
    targets = loaded(opened(frame, target="load", missing="fill")).targets
    training = pd.to_numeric(frame["load"].iloc[:140], errors="coerce")
    assert targets["unit"][0, 0].item() == pytest.approx(training.std(ddof=0), rel=1e-5)
    assert targets["scale"][0, 0].item() == pytest.approx((training - training.shift(24)).abs().mean(), rel=1e-5)


def test_rows_that_are_not_there_are_missing_values(opened: Opened) -> None:
    frame = table()
    blank = frame.copy()
    blank.loc[[50, 51, 170], ["load", "wind", "price", "holiday"]] = ""
    for missing in ("fill", "flag"):
        short = opened(frame.drop(index=[50, 51, 170]), missing=missing, known="price")
        assert short.sample_ids == (there := opened(blank, missing=missing, known="price")).sample_ids
        assert torch.equal(loaded(short).inputs, loaded(there).inputs)
    assert short.channel_names == (
        "load",
        "wind",
        "holiday",
        "price",
        *(f"{name} seen" for name in ("load", "wind", "holiday", "price")),
    )


# ---------------------------------------------------------------- panels


def test_each_series_of_a_panel_has_the_windows_units_and_scales_it_has_alone(opened: Opened) -> None:
    frame = panel()
    data = opened(frame, series="shop", target="load", past="wind", known="price")
    samples = loaded(data)
    assert check_dataset(data) == []
    for block, shop in enumerate(SHOPS):
        alone = opened(frame[frame["shop"] == shop], target="load", past="wind", known="price")
        single = loaded(alone)
        here = samples.targets["block"] == block
        assert torch.equal(samples.inputs[here], single.inputs)
        for name, wanted in single.targets.items():
            assert torch.equal(samples.targets[name][here], wanted), name
        ids = [one for one, mine in zip(data.sample_ids, here.tolist(), strict=True) if mine]
        assert ids == [one.replace("test/", f"test/{shop}/") for one in alone.sample_ids]


def test_static_features_are_channels_that_nobody_can_change(opened: Opened) -> None:
    samples = loaded(opened(panel(), series="shop", target="load", known="price", static="size"))
    assert samples.targets["roles"][0].tolist() == [0, 2, 3]
    assert torch.equal(samples.inputs[..., 2], (10.5 + samples.targets["block"])[:, None].expand(-1, L + H))
    assert not samples.attackable[..., 2].any()
    assert (samples.targets["input_unit"][:, 2] == 1).all()


def test_windows_can_be_loaded_in_any_order(opened: Opened) -> None:
    data = opened(panel(), series="shop", static="size", past="wind", missing="flag")
    everything, few = loaded(data), data.load([9, 0, 3])
    assert torch.equal(few.inputs, everything.inputs[[9, 0, 3]])
    assert all(torch.equal(few.targets[name], one[[9, 0, 3]]) for name, one in everything.targets.items())


def test_series_of_a_panel_with_a_problem_are_left_out_on_request(opened: Opened) -> None:
    frame = panel()
    frame.loc[frame["shop"] == "south", "load"] = "7"
    with pytest.raises(UsageError, match=r"shop 'south': series 'load' is constant .*on_error='skip' leaves such"):
        opened(frame, series="shop", target="load")
    with pytest.warns(UserWarning, match=r"1 of 2 series are left out: shop 'south': series 'load' is constant"):
        data = opened(frame, series="shop", target="load", on_error="skip")
    assert {one.split("/")[1] for one in data.sample_ids} == {"north"}
    frame["load"] = "7"
    with pytest.warns(UserWarning, match="2 of 2"), pytest.raises(UsageError, match="no series is left"):
        opened(frame, series="shop", target="load", on_error="skip")


@pytest.mark.parametrize("freq", ["1D", "W", "MS", "QS", "15min", "2h"])
def test_gaps_are_found_in_steps_of_any_length(opened: Opened, freq: str) -> None:
    frame = table(160)
    frame["date"] = pd.date_range("2000-01-01", periods=160, freq=freq).astype(str)
    whole = opened(frame, freq=freq, season=4, horizon=3, target="load")
    gaps = opened(frame.drop(index=[70, 71, 140]), freq=freq, season=4, horizon=3, target="load", missing="fill")
    assert gaps.sample_ids == whole.sample_ids
    assert loaded(gaps).targets["future"].isnan().sum() == 1


@pytest.mark.parametrize("params", [{"freq": "often"}, {"split": "exam"}, {"past": "lod"}])
def test_what_is_wrong_with_all_series_is_no_fault_of_one(opened: Opened, params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(params.values()))) as raised:
        opened(panel(), series="shop", target="load", on_error="skip", **params)
    assert "on_error" not in str(raised.value)
    assert "shop" not in str(raised.value)


def test_series_are_compared_with_the_first_that_is_kept(opened: Opened) -> None:
    frame = panel((200, 200))
    few = frame["shop"].eq("north") & frame["date"].str[11:13].astype(int).mod(2).eq(1)
    frame = frame[~few].assign(load=lambda one: one["load"].where(one["shop"] == "south", "7"))
    with pytest.warns(UserWarning, match="1 of 2 series are left out: shop 'north': series 'load' is constant"):
        data = opened(frame, series="shop", target="load", on_error="skip", history=8)
    assert {one.split("/")[1] for one in data.sample_ids} == {"south"}


# ---------------------------------------------------------------- what is wrong, in one line


def changed(frame: pd.DataFrame, row: int, column: str, value: str) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[row, column] = value
    return frame


def halved() -> pd.DataFrame:
    """The second shop has a row for every other hour."""
    frame = panel((200, 200))
    return frame[(frame["shop"] == "north") | (frame["date"].str[11:13].astype(int) % 2 == 0)]


COVARIATES = {"past": "wind", "known": ["price"]}
PANEL: dict[str, Any] = {"series": "shop", "target": "load", "static": "size"}
WRONG: list[tuple[pd.DataFrame, dict[str, Any], str]] = [
    (table(), {"past": "wind", "known": "wind"}, "column 'wind' is named in past and in known: give it one role"),
    (table(), {"target": "load", "past": "load"}, "column 'load' is named in past and in target"),
    (table(), {"past": "date"}, "column 'date' is named in time and in past"),
    (table(), {"known": ["pric"]}, "there is no column 'pric'. Did you mean 'price'"),
    (table(), {"past": ["load", "wind", "price", "holiday"]}, "no column is left to forecast: name one by target="),
    (table(), {"static": "wind"}, "static features tell the series of a panel apart: name its column by series="),
    (changed(table(), 4, "wind", ""), COVARIATES, "series 'wind', line 6: the value is missing: fill it, leave"),
    (changed(table(), 4, "price", "high"), COVARIATES, "series 'price', line 6: 'high' is no finite number: repair"),
    (changed(table(), 4, "load", "inf"), {"missing": "fill"}, "series 'load', line 6: 'inf' is no finite number"),
    (changed(table(), 4, "load", "-5"), {"low": 0, **COVARIATES}, "line 6: -5 lies outside 0..inf: repair it, or cha"),
    (table().assign(load=""), {"missing": "fill"}, "series 'load' has no value in its training part: leave it out"),
    (
        table().assign(load=lambda one: one["load"].where(one.index < 160, "")),
        {"missing": "fill", "target": "load"},
        "the test part has no value to forecast: choose other parts or columns",
    ),
    (
        changed(table(), 4, "date", "2020-01-01 04:30:00"),
        {"missing": "fill"},
        "line 6: 2020-01-01 04:30:00 lies between two steps of the series; resample the file, or name its freq",
    ),
    (
        changed(table(), 1, "date", "2020-01-01 00:00:01"),
        {"missing": "fill"},
        "200 rows for .* steps of .*: name the time between two steps by freq",
    ),
    (panel(), {"target": "load"}, "line 3: 2020-01-01 00:00:00 stands there twice: .*name their column by series="),
    (changed(panel(), 6, "size", "11"), PANEL, "shop 'north': series 'size', line 8: a static feature changes to 11"),
    (changed(panel(), 6, "shop", " "), PANEL, "line 8: column 'shop' names no series"),
    (changed(panel(), 6, "load", "n/a"), PANEL, r"shop 'north': series 'load', line 8: the value is missing"),
    (panel((200, 40)), PANEL, "shop 'south': 40 steps, of which 28 to train, are too few for windows of 24 and 6"),
    (panel((200, 1)), PANEL, "shop 'south': 1 rows with values; a series needs more"),
    (halved(), PANEL, r"shop 'south' has a step of .* 02:00:00, .*shop 'north' one of .* 01:00:00: name freq, or give"),
    (panel().iloc[::-1], PANEL, "shop 'north': line 3: .* is earlier than the row before: sort the rows by time"),
]


@pytest.mark.parametrize(("frame", "params", "said"), WRONG, ids=[said[:40] for *_, said in WRONG])
def test_what_is_wrong_is_one_line(opened: Opened, frame: pd.DataFrame, params: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        opened(frame, **params)
    assert "\n" not in str(raised.value)


def test_times_may_be_written_in_another_way(opened: Opened) -> None:
    frame = table()
    plain = opened(frame)
    frame["date"] = pd.to_datetime(frame["date"]).dt.strftime("%d.%m.%Y %H.%M")
    with pytest.raises(UsageError, match=r"line 2: column 'date': '01.01.2020 00.00' is no time: .*time_format="):
        opened(frame)
    with pytest.raises(UsageError, match=r"'01.01.2020 00.00' is no time: write times of time_format='%Y'"):
        opened(frame, time_format="%Y")
    with pytest.raises(UsageError, match=r"time_format='%Q' cannot be read .*write it as"):
        opened(frame, time_format="%Q")
    assert opened(frame, time_format="%d.%m.%Y %H.%M").revision == plain.revision


# ---------------------------------------------------------------- what an adversary may do


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_series_keep_to_their_bounds_and_covariates_to_none(opened: Opened, norm: Any) -> None:
    frame = table()
    frame["load"] = (frame["load"].astype(float) - frame["load"].astype(float).min()).astype(str)
    data = opened(frame, target="load", past=["wind", "price"], low=0)
    samples = loaded(data)
    assert data.bounds.low == -np.inf
    assert (samples.inputs[..., 1] < 0).any()
    region = Series(30.0, norm=norm).around(samples.inputs, data.bounds, samples.targets)
    for part, rows in ((region, slice(None)), (region.select(torch.tensor([4, 2])), [4, 2])):
        far = samples.inputs[rows] - 30 * samples.targets["input_unit"][rows, None]
        assert not part.contains(far).any()
        nearest = part.project(far.clone())
        assert part.contains(nearest).all()
        assert nearest[..., 0].min() == 0
        assert (nearest[..., 1] < samples.inputs[rows][..., 1]).all()
