"""What a container may use, read from folders like those of Linux's control groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from robustbench_lab.hardware import container_limits
from robustbench_lab.hardware.container_limits import cpu_quota, free_memory

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of groups; the process is in `0::/`, and 64 GiB of memory are free."""
    root = tmp_path / "groups"
    root.mkdir()
    monkeypatch.setattr(container_limits, "GROUPS", root)
    monkeypatch.setattr(container_limits, "OWN_GROUPS", write(tmp_path / "own", "0::/\n"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    return root


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_without_groups_there_is_no_limit(groups: Path) -> None:
    assert cpu_quota() is None
    assert free_memory() == 64 * GIB
    groups.rmdir()
    (groups.parent / "own").unlink()
    assert cpu_quota() is None


@pytest.mark.parametrize(
    ("text", "quota"),
    [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", None), ("nonsense", None)],
)
def test_version_2_of_the_groups(groups: Path, text: str, quota: int | None) -> None:
    write(groups / "cpu.max", text + "\n")
    assert cpu_quota() == quota


@pytest.mark.parametrize(("us", "quota"), [(250000, 3), (-1, None)])
def test_version_1_of_the_groups(groups: Path, us: int, quota: int | None) -> None:
    write(groups / "cpu" / "cpu.cfs_quota_us", f"{us}\n")
    write(groups / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota() == quota


def test_the_tightest_limit_on_the_way_up_counts(groups: Path) -> None:
    container_limits.OWN_GROUPS.write_text("0::/user.slice/job.scope\n")
    write(groups / "user.slice" / "cpu.max", "400000 100000")
    write(groups / "user.slice" / "job.scope" / "cpu.max", "max 100000")
    assert cpu_quota() == 4
    write(groups / "user.slice" / "job.scope" / "cpu.max", "100000 100000")
    assert cpu_quota() == 1


def test_memory_is_what_the_limit_leaves_and_idle_copies_of_files_count_as_free(groups: Path) -> None:
    container_limits.OWN_GROUPS.write_text("4:memory:/job\n1:cpu,cpuacct:/\n")
    group = groups / "memory" / "job"
    write(group / "memory.limit_in_bytes", str(8 * GIB))
    write(group / "memory.usage_in_bytes", str(5 * GIB))
    write(group / "memory.stat", f"cache {2 * GIB}\ninactive_file {1 * GIB}\n")
    assert free_memory() == 4 * GIB
    write(groups / "memory.max", "max")
    write(groups / "memory" / "memory.limit_in_bytes", str(1 << 62))
    write(groups / "memory" / "memory.usage_in_bytes", "0")
    write(groups / "memory" / "memory.stat", "inactive_file 0")
    assert free_memory() == 4 * GIB
