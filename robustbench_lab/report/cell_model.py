"""The model of a stored cell, loaded again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lab.records import CellRecord

if TYPE_CHECKING:
    from torch import nn

    from robustbench_lab.catalog import Catalog


def cell_model(record: CellRecord, catalog: Catalog, *, run_scripts: bool) -> nn.Module:
    """The cell's model with its defense, on the CPU. Raises OtherHereError where it is another one here."""
    import torch

    from robustbench_lab.evaluation.workbench import Workbench
    from robustbench_lab.planning.cell_here import cell_here

    here = cell_here(record.cell, catalog, run_scripts=run_scripts)
    return Workbench(catalog, torch.device("cpu")).load(here.cell).defended_model
