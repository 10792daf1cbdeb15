"""Stage 5: results into a database and back (SQLite by default, any SQLAlchemy URL for teams)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_lab.result_store.artifact_files import Artifact
    from robustbench_lab.result_store.cell_summary import CellSummary
    from robustbench_lab.result_store.cell_timing import CellTiming
    from robustbench_lab.result_store.kept_row import KeptRow
    from robustbench_lab.result_store.merging import Merged
    from robustbench_lab.result_store.opening import (
        batches_file,
        checkpoints_folder,
        logs_folder,
        open_source,
        open_store,
        upgrade,
    )
    from robustbench_lab.result_store.run_board import RunBoard, RunNotice
    from robustbench_lab.result_store.store import ResultStore

__all__ = [
    "Artifact",
    "CellSummary",
    "CellTiming",
    "KeptRow",
    "Merged",
    "ResultStore",
    "RunBoard",
    "RunNotice",
    "batches_file",
    "checkpoints_folder",
    "logs_folder",
    "open_source",
    "open_store",
    "upgrade",
]

_MODULES = {
    "Artifact": "artifact_files",
    "CellSummary": "cell_summary",
    "CellTiming": "cell_timing",
    "KeptRow": "kept_row",
    "Merged": "merging",
    "ResultStore": "store",
    "RunBoard": "run_board",
    "RunNotice": "run_board",
    "batches_file": "opening",
    "checkpoints_folder": "opening",
    "logs_folder": "opening",
    "open_source": "opening",
    "open_store": "opening",
    "upgrade": "opening",
}


def __getattr__(name: str) -> Any:
    """Import on use: `quick_rows` needs no SQLAlchemy, which takes most of the time to import."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
