"""A forecaster behind a change of what was measured: some channels, at the steps that lie in the past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Forecast, point

Channels = Sequence[Annotated[int, Field(ge=0)]]
Ahead = Annotated[int, Field(ge=0)]


class Measured:
    """Which values of inputs `[N, L, C]` a defense changes. Its model knows neither units nor roles of channels."""

    def __init__(self, channels: Channels | None, ahead: int) -> None:
        """channels: their numbers; None: all. ahead: steps at the end that hold what is known of the future."""
        self.channels = None if channels is None else list(channels)
        self.ahead = ahead

    def changed(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Inputs with `change` made to histories `[N, L, C]` of the channels."""
        if self.channels is None and not self.ahead:
            return change(x)
        past = slice(0, x.shape[1] - self.ahead)
        if self.channels is None:
            made = x.clone()
            made[:, past] = change(x[:, past])
            return made
        if beyond := [one for one in self.channels if one >= x.shape[2]]:
            raise UsageError(f"defense: channels={beyond}: the data have {x.shape[2]} channels, numbered from 0")
        made = x.clone()
        made[:, past, self.channels] = change(x[:, past, self.channels])
        return made

    def check(self, x: Tensor, forecast: Forecast) -> None:
        """Raise UsageError where there are covariates and nobody has said which channels the defense is for."""
        series = point(forecast).shape[2]
        if self.channels is None and x.shape[2] != series:
            raise UsageError(
                f"defense: the data have {x.shape[2]} channels, the model forecasts {series}: give channels=[...], "
                "those that were measured, and where the future of covariates is known, ahead= its steps"
            )


class Filtered(nn.Module):
    """`model(change(x))`."""

    def __init__(self, model: nn.Module, measured: Measured, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.measured = measured
        self.change = change

    def forward(self, x: Tensor) -> Any:
        """Inputs `[N, L, C]` in the data's own units to the model's forecast."""
        forecast = self.model(self.measured.changed(x, self.change))
        self.measured.check(x, forecast)
        return forecast
