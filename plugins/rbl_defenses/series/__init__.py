"""Defenses of forecasters: filters of the history, and randomized smoothing."""

from robustbench_lab.contracts import DefenseSpec

FORECASTING = ("forecasting",)

SPECS = [
    DefenseSpec(
        name="median-filter",
        factory="rbl_defenses.series.median_filter:median_filter",
        summary="the median of some steps about each one",
        tasks=FORECASTING,
        version="1",
    ),
    DefenseSpec(
        name="moving-average",
        factory="rbl_defenses.series.moving_average:moving_average",
        summary="the mean of some steps about each one",
        tasks=FORECASTING,
        version="1",
    ),
    DefenseSpec(
        name="kalman",
        factory="rbl_defenses.series.kalman:kalman",
        summary="the level that a local level model finds behind the history (Kalman smoother)",
        tasks=FORECASTING,
        version="1",
    ),
    DefenseSpec(
        name="clip-outliers",
        factory="rbl_defenses.series.clip_outliers:clip_outliers",
        summary="cuts off what is far from the median of the steps about it (Hampel 1974)",
        tasks=FORECASTING,
        version="1",
    ),
    DefenseSpec(
        name="smoothing",
        factory="rbl_defenses.series.smoothing:smoothing",
        summary="the median forecast of noisy histories, with a guarantee (Chiang et al. 2020)",
        tasks=FORECASTING,
        randomized=True,
        version="1",
    ),
]
