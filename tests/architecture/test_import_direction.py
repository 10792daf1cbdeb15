"""Data flows one way: spec -> plan -> schedule -> evaluate cell -> store -> leaderboard -> report."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "robustbench_lab"
PLUGINS = CORE.parent / "plugins"

STAGES = {
    "experiment_spec": 1,
    "run_plan": 2,
    "cell_here": 3,
    "evaluate_cell": 3,
    "result_store": 3,
    "executors": 4,
    "shared_cells": 4,
    "unit_costs": 4,
    "pass_watch": 5,
    "auto_workers": 5,
    "result_bundle": 5,
    "verification": 5,
    "executor_choice": 5,
    "pending_units": 5,
    "run_heartbeat": 5,
    "scheduler": 5,
    "leaderboard": 6,
    "leaderboard_definition": 6,
    "leaderboard_rows": 6,
    "row_summary": 6,
    "row_summary_json": 6,
    "published_figures": 6,
    "stored_leaderboard": 7,
    "report": 7,
    "pipeline": 8,
    "api": 9,
    "testing": 9,
    "cli": 10,
}
"""A module may import modules of its own or a lower number; one that is not named serves all stages and imports none.
The scheduler drives both the evaluation and the store; neither of the two knows the other."""

MOST_LINES = 500
SIDE_BY_SIDE = {("evaluate_cell", "result_store"), ("result_store", "evaluate_cell")}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "foolbox",
    "art",
    "onnx",
    "sklearn",
    "pandas",
    "matplotlib",
    "sqlalchemy",
    "scipy",
    "ray",
)
ATTACK_LIBRARIES = {"foolbox", "art", "torchattacks", "timm", "torchvision", "onnx", "onnx2torch", "sklearn"}


def _modules() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def _stage(parts: tuple[str, ...]) -> str | None:
    """The stage a module belongs to, by its path below the package."""
    return next((part for part in parts if part in STAGES), None)


def _imports(file: Path) -> set[str]:
    """Every module a file imports when it runs, wherever in the file; those for type checkers only do not count."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(CORE)))
def test_no_stage_imports_a_later_one(file: Path) -> None:
    if file == CORE / "__init__.py":
        pytest.skip("the package offers `evaluate`, the last stage, to users")
    own = _stage(file.relative_to(CORE).with_suffix("").parts)
    imported = {_stage(tuple(name.split("."))) for name in _imports(file) if name.startswith("robustbench_lab.")}
    others = imported - {None, own}
    assert [other for other in others if STAGES[other] > STAGES.get(own, 0) or (own, other) in SIDE_BY_SIDE] == []


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(CORE)))
def test_the_core_knows_no_attack_library(file: Path) -> None:
    assert {name.split(".")[0] for name in _imports(file)} & ATTACK_LIBRARIES == set()


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(CORE)))
def test_the_core_imports_no_first_party_plugin(file: Path) -> None:
    plugins = {folder.name for folder in PLUGINS.iterdir() if folder.is_dir()}
    assert {name.split(".")[0] for name in _imports(file)} & plugins == set()


def test_no_file_has_more_than_500_lines() -> None:
    files = [*_modules(), *(file for folder in PLUGINS.glob("rbl_*") for file in folder.rglob("*.py"))]
    long = {file.name: lines for file in files if (lines := len(file.read_text().splitlines())) > MOST_LINES}
    assert len(files) > len(_modules()) > 100
    assert long == {}


def test_listing_everything_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from robustbench_lab.cli.main import build_app\n"
        "from robustbench_lab.catalog import Catalog\n"
        "from robustbench_lab.catalog.plugin_loading import load_plugins\n"
        "build_app()\n"
        "catalog = Catalog.from_plugins(load_plugins())\n"
        "assert len(catalog.entries('attacks')) > 3\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("words", "spared"),
    [(["--help"], {"rich", "pydantic", "numpy"}), (["list", "attacks"], {"numpy", "sqlalchemy", "pandas"})],
    ids=["help", "list"],
)
def test_quick_commands_import_none_of_what_they_do_not_need(words: list[str], spared: set[str]) -> None:
    code = (
        "import sys\n"
        "from robustbench_lab.cli.main import main\n"
        f"sys.argv = ['rbl', *{words!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"print(*({spared!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.split() == []
