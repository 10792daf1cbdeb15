"""What the columns of a table of series are: the time, what is forecast, covariates."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.observed_series import Channels

Names = str | list[str] | None
"""One column, several, or none named."""


@dataclass(frozen=True)
class SeriesColumns:
    """The columns that are read."""

    time: str
    channels: Channels
    series: str | None = None
    """The column that says which series of a panel a row is of."""


def series_columns(
    columns: Sequence[str],
    source: str,
    *,
    time: str,
    target: Names,
    past: Names,
    known: Names,
    static: Names,
    series: str | None,
) -> SeriesColumns:
    """Who is who among a table's columns. target: None for all that have no other role. Raises UsageError."""
    roles = {"time": [time], "series": _listed(series), "past": _listed(past), "known": _listed(known)}
    roles |= {"static": _listed(static), "target": _listed(target)}
    taken: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if name not in columns:
                raise UsageError(f"{source}: there is no column '{name}'.{did_you_mean(name, columns)}")
            if name in taken:
                raise UsageError(f"{source}: column '{name}' is named in {taken[name]} and in {role}: give it one role")
            taken[name] = role
    if static and series is None:
        raise UsageError(f"{source}: static features tell the series of a panel apart: name its column by series='...'")
    wanted = [one for one in columns if one not in taken] if target is None else roles["target"]
    if not wanted:
        raise UsageError(f"{source}: no column is left to forecast: name one by target='...'")
    channels = Channels(tuple(wanted), tuple(roles["past"]), tuple(roles["known"]), tuple(roles["static"]))
    return SeriesColumns(time, channels, series)


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
