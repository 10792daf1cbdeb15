"""Forward passes over many samples, in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lab.passes.batch_size import out_of_memory
from robustbench_lab.sample_trees import join

Read = Callable[[Any, slice], Any]


def predict_in_batches(model: nn.Module, inputs: Tensor, batch_size: int, read: Read = lambda made, _rows: made) -> Any:
    """What `read(prediction, rows)` makes of each batch, joined: one entry a sample.

    inputs: `[N, ...]`, N > 0. The batch is halved when memory runs out.
    """
    results: list[Any] = []
    start = 0
    while start < len(inputs):
        rows = slice(start, min(start + batch_size, len(inputs)))
        try:
            with torch.inference_mode():
                results.append(read(model(inputs[rows]), rows))
        except (RuntimeError, MemoryError) as error:
            size = rows.stop - rows.start
            if size == 1 or not out_of_memory(error):
                raise
            batch_size = size // 2
            continue
        start = rows.stop
    return join(results)
