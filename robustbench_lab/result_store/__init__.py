"""Stage 5: results into a database and back (SQLite by default, any SQLAlchemy URL for teams)."""

from robustbench_lab.result_store.artifact_files import Artifact
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.opening import checkpoints_folder, open_store, upgrade
from robustbench_lab.result_store.store import ResultStore

__all__ = ["Artifact", "CellSummary", "ResultStore", "checkpoints_folder", "open_store", "upgrade"]
