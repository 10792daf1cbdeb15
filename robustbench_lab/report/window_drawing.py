"""One window of a forecaster as an SVG file: history, forecast and what came, clean and under attack."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.report.formatting import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, CLEAN, ATTACKED, FRAME = "#1b1f24", "#0072b2", "#d55e00", "#8c959f"
"""The two in between are told apart by the colour-blind, too (Okabe & Ito)."""
MOST_SERIES, MOST_OTHERS = 3, 2
"""Panels of forecast series, and of covariates that the adversary has changed."""
LONGEST = 4
"""Horizons of history that are shown; a longer one would leave the forecast no room."""
NAME_LETTERS = 28
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robustbench-lab",
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FRAME,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FRAME,
    "ytick.color": FRAME,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.size": 10,
}


@dataclass(frozen=True)
class Window:
    """What is drawn of a window, in the data's own units."""

    names: Sequence[str]
    """Of the channels; the C forecast series come first."""
    clean: NDArray[np.float32]
    """`[L, channels]`, or with known covariates `[L + H, channels]`."""
    attacked: NDArray[np.float32]
    history: int
    """L."""
    known: frozenset[int]
    """The channels whose future is known."""
    unit: NDArray[np.float32]
    """`[channels]`: what changes of a channel are compared by."""
    before: NDArray[np.float32]
    """`[H, C, 1]`: the forecast of the clean history; `[H, C, 3]` with the ends of its central 80% interval around."""
    after: NDArray[np.float32]
    truth: NDArray[np.float32]
    """`[H, C]`; NaN where nobody knows."""
    title: str
    time: str
    """Of the first step that is forecast."""


def window_svg(window: Window) -> bytes:
    """A self-contained SVG file: a panel for each forecast series, and for each covariate that was changed.

    Where there are many, those whose forecast, or whose values, changed most.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    series, others = shown_channels(window)
    count = len(series) + len(others)
    with rc_context(SETTINGS), warnings.catch_warnings():
        # Text stays text and is drawn by the viewer, which has the glyphs that matplotlib misses.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(9.0, 1.0 + 2.1 * count), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for panel, channel in zip(panels, (*series, *others), strict=True):
            _draw_inputs(panel, window, channel)
            if channel in series:
                _draw_forecasts(panel, window, channel)
            panel.axvline(-0.5, color=FRAME, linewidth=0.8, linestyle=":")
            panel.set_ylabel(_text(window.names[channel], NAME_LETTERS))
            panel.margins(x=0.01)
        panels[-1].set_xlabel(_axis(window))
        figure.align_ylabels()
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper left", ncols=3, frameon=False)
        panels[0].set_title(_title(window, len(series)), loc="left", fontsize=10)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    # Without the document type, which names a file of the network.
    return file.getvalue()[file.getvalue().index(b"<svg") :]


def shown_channels(window: Window) -> tuple[list[int], list[int]]:
    """The forecast series and the other channels that have a panel, in their order."""
    count = window.truth.shape[1]
    moved = np.abs(window.after - window.before).mean(axis=(0, 2)) / window.unit[:count]
    changed = np.abs(window.attacked - window.clean).mean(axis=0) / window.unit
    series = np.argsort(-moved, kind="stable")[:MOST_SERIES]
    others = count + np.argsort(-changed[count:], kind="stable")[:MOST_OTHERS]
    return sorted(series.tolist()), sorted(one for one in others.tolist() if changed[one] > 0)


def _draw_inputs(panel: Axes, window: Window, channel: int) -> None:
    """The history, of known covariates also their future."""
    first = window.history - _shown_history(window)
    last = len(window.clean) if channel in window.known else window.history
    steps = np.arange(first, last) - window.history
    clean, attacked = window.clean[first:last, channel], window.attacked[first:last, channel]
    panel.plot(steps, clean, color=INK, linewidth=1.2, label="history")
    panel.plot(steps, attacked, color=ATTACKED, linewidth=1.0, label="history under attack")


def _draw_forecasts(panel: Axes, window: Window, channel: int) -> None:
    steps = np.arange(len(window.truth))
    panel.plot(steps, window.truth[:, channel], color=INK, linestyle=":", linewidth=1.8, label="what came")
    both = ((window.before, CLEAN, "-", "forecast"), (window.after, ATTACKED, "--", "forecast under attack"))
    for forecast, color, line, label in both:
        values = forecast[:, channel]
        middle = values[:, values.shape[1] // 2]
        panel.plot(steps, middle, color=color, linestyle=line, linewidth=1.8, label=label)
        if values.shape[1] == 3:
            band = f"80% interval{label.removeprefix('forecast')}"
            panel.fill_between(steps, values[:, 0], values[:, 2], color=color, alpha=0.18, linewidth=0, label=band)


def _title(window: Window, shown: int) -> str:
    count = window.truth.shape[1]
    cut = f" ({shown} of {count} series)" if shown < count else ""
    return _text(window.title, 100) + cut


def _axis(window: Window) -> str:
    shown, history = _shown_history(window), window.history
    cut = f"; the last {shown} of {history} steps of history" if shown < history else ""
    return f"Steps from {_text(window.time, 60)}{cut}"


def _shown_history(window: Window) -> int:
    return min(window.history, LONGEST * len(window.truth))


def _text(text: str, letters: int) -> str:
    return shorten(printable(text), letters)
