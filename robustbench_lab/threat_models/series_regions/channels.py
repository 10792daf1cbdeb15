"""What is known of the channels of a window: their units, what they are, and where its history ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.forecasting import Role

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds

Of = Literal["all", "series", "covariates"]
ROLES: dict[str, tuple[Role, ...]] = {
    "all": (Role.SERIES, Role.PAST, Role.KNOWN),
    "series": (Role.SERIES,),
    "covariates": (Role.PAST, Role.KNOWN),
}


def spread(name: str, clean: Tensor, targets: Any) -> Tensor:
    """The standard deviation of each channel's training part, `[N, 1, C]`, or `[N, 1, 1]` where all have the same.

    name: of the threat model that asks. Raises SkipCell where the targets are not those of task `forecasting`.
    """
    if not isinstance(targets, dict) or "unit" not in targets:
        raise SkipCell(f"{name} needs the standard deviation of each series: it is for forecasting datasets")
    unit: Tensor = targets["input_unit" if "input_unit" in targets else "unit"]
    return unit.to(clean.dtype).reshape(len(clean), *(1,) * (clean.ndim - 2), -1)


def limits(clean: Tensor, bounds: Bounds, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each channel, `[N, 1, C]`, or `[N, 1, 1]` where all have the same.

    Where the data have covariates, `input_low` and `input_high` of the targets bind the series only.
    """
    shape = (len(clean), *(1,) * (clean.ndim - 2), -1)
    low, high = (
        targets[name].to(clean.dtype) if name in targets else clean.new_full((len(clean), 1), bound)
        for name, bound in (("input_low", bounds.low), ("input_high", bounds.high))
    )
    return low.reshape(shape), high.reshape(shape)


def chosen(name: str, of: Of, targets: dict[str, Tensor], roles: tuple[Role, ...]) -> Tensor | None:
    """The channels with one of some roles, bool `[N, 1, C]`; None where there are series only. Raises SkipCell."""
    if "roles" not in targets:
        if of == "covariates":
            raise SkipCell(f"{name}(of='covariates'): the data have no covariates")
        return None
    known = targets["roles"]
    picked = known == roles[0]
    for role in roles[1:]:
        picked = picked | (known == role)
    return picked[:, None]


def history_steps(clean: Tensor, targets: dict[str, Tensor]) -> int:
    """How many of the steps of `[N, L, C]` lie in the past; known covariates have a future that comes after them."""
    if "roles" not in targets or not bool((targets["roles"] == Role.KNOWN).any()):
        return clean.shape[1]
    return clean.shape[1] - targets["future"].shape[1]
