"""Windows of a forecaster's cell for pictures: which ones, and the model's forecasts before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.report.formatting import printable
from robustbench_lab.report.window_drawing import Window
from robustbench_lab.tasks.forecasting import Role

if TYPE_CHECKING:
    from torch import nn

    from robustbench_lab.contracts import Dataset

LEGEND = (
    "Windows by what the attack adds to their error (MASE), the largest rise first; of three or more the last has the "
    "smallest, and the others lie at equal distances between. Forecasts are made again by the stored model; bands are "
    "the central 80% of those that forecast distributions. Covariates whose future is known are drawn with it."
)
INTERVAL = (0.1, 0.5, 0.9)


def chosen_windows(outcomes: Outcomes, count: int) -> list[int]:
    """Positions of windows in the cell: by the rise of their error, the first, the last, and others between them.

    One is the worst; two are the worst and the median.
    """
    rise = outcomes.columns["robust_mase"] - outcomes.columns["clean_mase"]
    order = np.argsort(-np.nan_to_num(rise, nan=-np.inf), kind="stable")
    ranks = np.linspace(0, len(order) - 1, max(count, 3)).round().astype(int)[:count]
    return [int(order[rank]) for rank in dict.fromkeys(ranks.tolist())]


def drawn_windows(
    record: CellRecord,
    outcomes: Outcomes,
    dataset: Dataset,
    model: nn.Module,
    positions: Sequence[int],
    attacked: NDArray[np.float32],
) -> list[Window]:
    """What pictures of these windows show. attacked: their saved inputs `[n, steps, channels]`."""
    import torch

    samples = dataset.load([record.cell.samples.indices[position] for position in positions])
    clean, targets = samples.inputs, samples.targets
    if attacked.shape != clean.shape:
        raise ValueError("the saved inputs are of another shape than the clean ones")
    future = targets["future"].numpy()
    before, after = (_forecast(model, one, record.cell.cell_id) for one in (clean, torch.from_numpy(attacked)))
    channels = clean.shape[2]
    roles = targets["roles"][0].tolist() if "roles" in targets else [0] * channels
    known = frozenset(channel for channel, role in enumerate(roles) if role == Role.KNOWN)
    unit = targets.get("input_unit", targets["unit"].reshape(len(clean), -1).expand(-1, channels)).numpy()
    names = tuple(getattr(dataset, "channel_names", ()))
    if len(names) != channels:
        names = tuple(f"channel {one}" for one in range(channels))
    return [
        Window(
            names=names,
            clean=clean[place].numpy(),
            attacked=attacked[place],
            history=clean.shape[1] - (future.shape[1] if known else 0),
            known=known,
            unit=unit[place],
            before=before[place],
            after=after[place],
            truth=future[place],
            title=described(record, outcomes, position),
            time=record.cell.samples.sample_ids[position].split("/")[-1],
        )
        for place, position in enumerate(positions)
    ]


def described(record: CellRecord, outcomes: Outcomes, position: int) -> str:
    """The window's name, and its errors as they are stored."""
    before, after = (float(outcomes.columns[f"{when}_mase"][position]) for when in ("clean", "robust"))
    return f"{printable(record.cell.samples.sample_ids[position])}: MASE {before:.3g}, under attack {after:.3g}"


def _forecast(model: nn.Module, inputs: Any, seed: str) -> NDArray[np.float32]:
    """`[n, H, C, 1]`, or with the interval's ends around, `[n, H, C, 3]`."""
    import torch

    from robustbench_lab.global_randomness import seeded
    from robustbench_lab.tasks.forecast_output import is_point

    with torch.inference_mode(), seeded(seed, "pictures"):
        made = model(inputs)
    values: NDArray[np.float32] = (made[..., None] if is_point(made) else made.at(INTERVAL)).float().numpy()
    return values
