"""What every test needs: one thread a worker, and a folder of its own to run in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test may ask a hub for anything: it would hang where there is no network, and differ where there is.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Several test processes with spinning OpenMP threads starve each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real data and published models that are too large for the repository; named by RBL_SHARED, or beside it."""
    folder = Path(os.environ.get("RBL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"the shared models and data are not at {folder}: set RBL_SHARED to their folder")
    return folder
