"""Stage 5: results into a database and back (SQLite by default, any SQLAlchemy URL for teams)."""

from robustbench_lab.result_store.artifact_files import Artifact
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.cell_timing import CellTiming
from robustbench_lab.result_store.kept_rows import KeptRow
from robustbench_lab.result_store.merging import Merged
from robustbench_lab.result_store.opening import checkpoints_folder, logs_folder, open_store, upgrade
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
    "checkpoints_folder",
    "logs_folder",
    "open_store",
    "upgrade",
]
