"""The pictures of a report: of each cell whose adversarial inputs were saved, up to a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lab.records import CellRecord
from robustbench_lab.report.cell_pictures import CellPictures, PictureMaker
from robustbench_lab.result_store import Artifact

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog

MOST_CELLS = 12
"""Each picture adds some hundred kilobytes to the page."""


@dataclass(frozen=True)
class ReportPictures:
    """What a report shows of single samples."""

    cells: tuple[CellPictures, ...] = ()
    left_out: int = 0
    """Cells with saved inputs beyond the limit."""


def report_pictures(
    records: Sequence[CellRecord],
    artifacts: Mapping[str, Sequence[Artifact]],
    folder: Path,
    catalog: Catalog,
    count: int,
    *,
    run_scripts: bool = False,
) -> ReportPictures:
    """Pictures of up to `count` samples of each cell. artifacts: files by cell id, below `folder`. run_scripts: see
    `PictureMaker`.
    """
    saved = [record for record in records if artifacts.get(record.cell.cell_id)]
    maker = PictureMaker(catalog, run_scripts)
    made = (maker.of_cell(record, artifacts[record.cell.cell_id], folder, count) for record in saved[:MOST_CELLS])
    return ReportPictures(tuple(made), len(saved[MOST_CELLS:]))
