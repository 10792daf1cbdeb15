"""Pictures of a forecaster's windows, and curves over k: what they show is what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from defusedxml.ElementTree import fromstring

from robustbench_lab.api import evaluate
from robustbench_lab.cli.report import report
from robustbench_lab.cli.show import show
from robustbench_lab.cli.stored_results import stored_leaderboard
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.report.cell_model import cell_model
from robustbench_lab.report.cell_pictures import CellPictures, PictureMaker, saved_inputs
from robustbench_lab.report.error_curves import error_curve
from robustbench_lab.report.forecast_windows import chosen_windows, drawn_windows
from robustbench_lab.report.window_drawing import MOST_OTHERS, MOST_SERIES, Window, shown_channels, window_svg
from robustbench_lab.result_store import Artifact, open_store
from robustbench_lab.tasks.forecast_errors import errors
from robustbench_lab.tasks.forecasting import exceeded
from robustbench_lab.testing.example_results import example_leaderboard, example_result
from robustbench_lab.trust.verification import Outcome, verify

L, H = 12, 4
MODEL = """
import torch
from torch import nn
from robustbench_lab.tasks.forecast_output import Quantiles


class Net(nn.Module):
    # The last value and the day before, in equal parts, with what the price will do.
    def forward(self, x):
        middle = (x[:, 11:12, :1] + x[:, 8:12, :1]) / 2 + 0.1 * x[:, 12:, 2:3]
        return Quantiles(torch.stack([middle - 1, middle, middle + 1], 3), (0.1, 0.5, 0.9))


def make_model():
    return Net()
"""

Stored = tuple[Path, CellRecord, list[Artifact]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A result of a user's own model on data with covariates and gaps, with its adversarial inputs."""
    folder = tmp_path_factory.mktemp("stored")
    random = np.random.default_rng(0)
    steps = 300
    frame = pd.DataFrame(
        {
            "day": pd.date_range("2020-01-01", periods=steps).strftime("%Y-%m-%d"),
            "load": 20 + 5 * np.sin(np.arange(steps) * 2 * np.pi / 7) + random.normal(size=steps),
            "wind": random.normal(size=steps),
            "price": random.normal(size=steps),
        }
    )
    frame.loc[[250, 270, 271], "load"] = np.nan
    frame.to_csv(folder / "load.csv", index=False)
    (folder / "my_model.py").write_text(MODEL)
    data = f"path='{folder / 'load.csv'}', time='day', target='load', past='wind', known='price', missing='flag'"
    made = evaluate(
        f"torch(path='{folder / 'my_model.py'}:make_model')",
        f"csv({data}, history={L}, horizon={H})",
        "pgd(steps=5)",
        eps=0.5,
        norm="series",
        tasks=["forecasting"],
        database=folder / "rbl.db",
        save_adversarials=True,
    )
    with open_store(str(folder / "rbl.db")) as store:
        (record,) = made.records
        return store.artifacts_folder, record, store.artifacts(record.cell.cell_id)


def drawn(stored: Stored, count: int = 6) -> CellPictures:
    folder, record, files = stored
    return PictureMaker(open_catalog(), run_scripts=True).of_cell(record, files, folder, count)


def texts(svg: bytes) -> list[str]:
    return ["".join(one.itertext()) for one in fromstring(svg).iter() if one.tag.endswith("}text")]


def outcomes_of(stored: Stored) -> Outcomes:
    assert stored[1].outcomes is not None
    return stored[1].outcomes


# ---------------------------------------------------------------- which windows


def test_windows_are_the_worst_the_median_and_the_least_damaged() -> None:
    rise = np.array([0.5, 3.0, 0.1, 2.0, 1.0], dtype=np.float32)
    clean = np.array([9.0, 0.2, 4.0, 1.0, 2.0], dtype=np.float32)
    held = np.ones(5, dtype=bool)
    outcomes = Outcomes(held, held, clean, {"clean_mase": clean, "robust_mase": clean + rise})
    assert chosen_windows(outcomes, 1) == [1]
    assert chosen_windows(outcomes, 2) == [1, 4]
    assert chosen_windows(outcomes, 3) == [1, 4, 2]
    assert chosen_windows(outcomes, 9) == [1, 3, 4, 0, 2]


def test_what_is_drawn_is_what_was_measured(stored: Stored) -> None:
    """The errors of the forecasts in the pictures are those in the database."""
    outcomes = outcomes_of(stored)
    positions = chosen_windows(outcomes, 5)
    for window, position in zip(windows_of(stored, positions), positions, strict=True):
        targets = targets_of(stored, [position])
        for forecast, when in ((window.before, "clean"), (window.after, "robust")):
            mase = errors(torch.from_numpy(forecast[None, :, :, 1]), targets)["mase"]
            assert mase.item() == pytest.approx(float(outcomes.columns[f"{when}_mase"][position]), rel=1e-4)
        assert np.array_equal(window.truth, targets["future"][0].numpy(), equal_nan=True)
        assert (window.history, window.known) == (L, frozenset({2}))
        assert f"MASE {outcomes.columns['clean_mase'][position]:.3g}, under attack" in window.title


def windows_of(stored: Stored, positions: list[int]) -> list[Window]:
    folder, record, files = stored
    saved = dict(saved_inputs(files, folder, positions))
    attacked = np.stack([saved[position] for position in positions])
    catalog = open_catalog()
    dataset = catalog.build("datasets", record.cell.dataset, task="forecasting")
    model = cell_model(record, catalog, run_scripts=True)
    return drawn_windows(record, outcomes_of(stored), dataset, model, positions, attacked)


def targets_of(stored: Stored, positions: list[int]) -> dict[str, torch.Tensor]:
    dataset = open_catalog().build("datasets", stored[1].cell.dataset, task="forecasting")
    targets: dict[str, torch.Tensor] = dataset.load(positions).targets
    return targets


# ---------------------------------------------------------------- what a picture holds


def test_a_picture_names_its_lines_its_axes_and_its_time(stored: Stored) -> None:
    made = drawn(stored, 3)
    assert made.remark is None
    assert [one.media_type for one in made.pictures] == ["image/svg+xml"] * 3
    first = texts(made.pictures[0].content)
    labels = {"history", "history under attack", "what came", "forecast", "forecast under attack", "80% interval"}
    assert labels <= set(first)
    assert {"load", "price"} <= set(first)
    (time,) = [one for one in first if one.startswith("Steps from 2020-")]
    assert time.removeprefix("Steps from ") in made.pictures[0].caption
    assert made.pictures[0].caption in first


def test_a_picture_needs_nothing_beyond_itself(stored: Stored) -> None:
    for picture in drawn(stored, 2).pictures:
        assert picture.content.startswith(b"<svg")
        addresses = set(re.findall(rb"https?://[^\"]+", picture.content))
        assert addresses <= {b"http://www.w3.org/2000/svg", b"http://www.w3.org/1999/xlink"}
        assert not any(one.tag.endswith(("script", "image")) for one in fromstring(picture.content).iter())


def window(channels: int = 1, series: int = 1, names: list[str] | None = None, bands: int = 1) -> Window:
    random = np.random.default_rng(0)
    clean = random.normal(size=(L, channels)).astype(np.float32)
    forecast = np.zeros((H, series, bands), dtype=np.float32)
    return Window(
        names=names or [f"channel {one}" for one in range(channels)],
        clean=clean,
        attacked=clean.copy(),
        history=L,
        known=frozenset(),
        unit=np.ones(channels, dtype=np.float32),
        before=forecast,
        after=forecast.copy(),
        truth=np.full((H, series), np.nan, dtype=np.float32),
        title="title",
        time="now",
    )


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "a\nb\x00", "$\\frac$"]
)
def test_any_name_can_be_drawn_and_stays_text(name: str) -> None:
    svg = window_svg(replace(window(names=[name]), title=name, time=name))
    assert {one.tag.rpartition("}")[2] for one in fromstring(svg).iter()} <= {
        "svg", "g", "path", "text", "defs", "style", "use", "clipPath", "rect", "title", "desc",
    }  # fmt: skip
    assert "".join(letter if letter.isprintable() else " " for letter in name) in texts(svg)


def test_of_many_channels_those_are_shown_that_changed_most() -> None:
    one = window(channels=12, series=8)
    one.after[:, [5, 2, 7]] = [[[3.0], [2.0], [1.0]]]
    one.attacked[:, [9, 11]] += 1.0
    assert shown_channels(one) == ([2, 5, 7], [9, 11])
    assert len(shown_channels(one)[0]) == MOST_SERIES
    one.attacked[:, 8:] += 1.0
    assert shown_channels(one)[1] == [9, 11]
    assert len(shown_channels(one)[1]) == MOST_OTHERS
    assert "title (3 of 8 series)" in texts(window_svg(one))


# ---------------------------------------------------------------- why there are none, commands, page


def test_another_model_under_the_same_name_is_not_drawn(stored: Stored) -> None:
    folder, record, files = stored
    other = replace(record.cell.model, identity="0" * 64)
    made = drawn((folder, replace(record, cell=replace(record.cell, model=other)), files))
    assert made.pictures == ()
    assert "the forecasts cannot be made again here" in (made.remark or "")
    assert "is not the same here" in (made.remark or "")


def test_show_and_the_report_hold_the_windows(stored: Stored, tmp_path: Path) -> None:
    folder, record, _ = stored
    database = str(next(folder.parent.glob("*.db")))
    show(record.cell.cell_id, pictures=tmp_path / "pictures", run_scripts=True, db=database)
    files = sorted(one.name for one in (tmp_path / "pictures").iterdir())
    assert len(files) == 6
    assert all(re.fullmatch(rf"{record.cell.cell_id}-\d{{5}}\.svg", name) for name in files)
    report(out=tmp_path / "report", run_scripts=True, db=database)
    text = (tmp_path / "report" / "index.html").read_text()
    assert text.count('src="data:image/svg+xml;base64,') == 3
    assert "more than k times what it is without attack" in text


def test_no_program_that_a_database_names_is_run_for_a_picture(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record, files = stored
    monkeypatch.setattr("rbl_files.torch_script._run", lambda script: pytest.fail(f"{script} is run"))
    made = PictureMaker(open_catalog()).of_cell(record, files, folder, 1)
    assert "read it, then give --run-scripts" in (made.remark or "")


def test_a_result_with_metrics_that_nobody_knows_is_verified(stored: Stored) -> None:
    """Points have no coverage; what is not known is the same when it is computed again."""
    folder, record, files = stored
    catalog = open_catalog()
    metrics = {one.name: one.function for one in task_metrics(catalog, {"forecasting"})["forecasting"]}
    unknown = {name: replace(one, value=float("nan")) for name, one in record.metrics.items() if name == "clean_wql"}
    metrics["clean_wql"] = lambda outcomes: replace(record.metrics["clean_wql"], value=float("nan"))
    bench = Workbench(catalog, torch.device("cpu"))
    half_known = replace(record, metrics=record.metrics | unknown)
    told = verify(half_known, files, folder, bench, metrics, run_scripts=True)
    assert told.outcome is Outcome.VERIFIED, told.remarks


# ---------------------------------------------------------------- curves over k


def test_shares_over_k_are_counts_and_fall(stored: Stored) -> None:
    outcomes = outcomes_of(stored)
    times = [1.0, 1.5, 2.0, 5.0, 1e6]
    found = exceeded(outcomes, times)
    rise = outcomes.columns["robust_mase"] / outcomes.columns["clean_mase"]
    assert [one.value for one in found] == [float((rise > k).mean()) for k in times]
    assert all(one.low <= one.value <= one.high for one in found)
    broken = next(one for name, one in stored[1].metrics.items() if name == "broken_rate")
    assert found[2] == broken


def test_the_curve_is_drawn_for_forecasters_only(stored: Stored) -> None:
    (plain,) = example_leaderboard([example_result([True, False])]).tables
    assert error_curve(plain, "a") is None
    for table in tables(stored):
        svg = error_curve(table, "errors") or ""
        rows = list(texts(f'<svg xmlns="http://www.w3.org/2000/svg">{svg}</svg>'.encode()))
        assert "Windows with k times the clean error (%)" in "".join(rows)
        share = exceeded(outcomes_of(stored), [2.0])[0].value
        assert f"{100 * share:.1f}% at 2" in svg


def tables(stored: Stored) -> Iterator[Any]:
    database = str(next(stored[0].parent.glob("*.db")))
    yield from stored_leaderboard(open_catalog(), database, definition=None, tasks=[]).tables
