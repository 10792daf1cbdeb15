"""What there is is documented: hooks, the attack problem, finding codes, settings, exit codes, loaders, commands."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from referencing import Registry, Resource

from robustbench_lab import hookspecs, records
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog, Entry
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking.leaderboard_definition import LeaderboardDefinition
from robustbench_lab.ranking.leaderboard_rows import FLAG_MEANINGS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("rbl_"))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """Headings of a level to what stands below each, up to the next heading of that level or above."""
    found: dict[str, str] = {}
    title, fenced = "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(rf"(#{{1,{level}}}) (.+)", line)
        if heading:
            title = heading[2] if len(heading[1]) == level else ""
        elif title:
            found[title] = found.get(title, "") + line
    return found


def first_cells(text: str) -> list[str]:
    """What stands in backticks in the first column of a text's tables."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


# ---------------------------------------------------------------- hooks and the attack problem


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hookspec_has_a_docstring(hook: str) -> None:
    assert (getattr(hookspecs, hook).__doc__ or "").strip()


def test_every_hook_has_its_section_and_nothing_else_has_one() -> None:
    assert sorted(title.strip("`") for title in sections(page("writing-plugins.md"), 3)) == HOOKS


def examples_of(hook: str) -> dict[str, str]:
    section = sections(page("writing-plugins.md"), 3)[f"`{hook}`"]
    return dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```', section, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_of_a_hook_loads_and_implements_it(hook: str, tmp_path: Path) -> None:
    examples = examples_of(hook)
    for name, body in examples.items():
        (tmp_path / name).write_text(body)
    plugins = open_catalog([str(tmp_path / name) for name in examples]).plugins
    hooks = [one.hooks for one in plugins if one.name in examples]
    assert hooks
    assert all(hook in implemented for implemented in hooks)


def test_the_example_of_a_command_is_a_command_once_it_is_installed(tmp_path: Path) -> None:
    ((name, body),) = examples_of("rbl_commands").items()
    (tmp_path / name).write_text(body)
    installed = tmp_path / "example-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[robustbench_lab]\nexample = {Path(name).stem}\n")
    rbl = Path(sys.executable).with_name("rbl")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([rbl, "cell-ids", "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Print the ids of all stored cells." in done.stdout


def test_all_that_an_attack_can_ask_for_is_documented() -> None:
    there = {name for name in vars(AttackProblem) if not name.startswith("_")} | {"trace"}
    shown = set(re.findall(r"`problem\.(\w+)", page("writing-plugins.md")))
    assert shown == there


# ---------------------------------------------------------------- findings and flags


def test_every_code_of_the_source_is_documented_and_no_other_is() -> None:
    results = page("reading-results.md")
    documented = {code for title in FINDING_TABLES for code in first_cells(sections(results, 3)[title])}
    assert documented == codes_in_source()


FINDING_TABLES = ("Preflight", "During the attack", "After the attack", "Flags of a row")


def codes_in_source() -> set[str]:
    codes = set(FLAG_MEANINGS)
    for folder in ("robustbench_lab", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            if "testing" not in file.parts:
                codes |= set(codes_in(ast.parse(file.read_text(encoding="utf-8"))))
    return codes


def codes_in(module: ast.Module) -> Iterator[str]:
    """Codes of the findings a module makes: the first argument of `Finding`, or of a function that passes it on.

    Where it is a variable that is no parameter, every text of the function that looks like a code is taken for one.
    """
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    makers = {"Finding", *(one.name for one in functions if passes_on_its_code(one))}
    for function in functions:
        for call in [node for node in ast.walk(function) if is_call_of(node, makers)]:
            code = call.args[0]
            if isinstance(code, ast.Constant):
                yield str(code.value)
            elif isinstance(code, ast.Name) and code.id.isupper():
                yield getattr(records, code.id)
            elif isinstance(code, ast.Name) and code.id not in parameters(function):
                texts = (one.value for one in ast.walk(function) if isinstance(one, ast.Constant))
                yield from (one for one in texts if isinstance(one, str) and re.fullmatch(r"[a-z]+(-[a-z]+)+", one))


def passes_on_its_code(function: ast.FunctionDef) -> bool:
    calls = [node for node in ast.walk(function) if is_call_of(node, {"Finding"})]
    return any(isinstance(call.args[0], ast.Name) and call.args[0].id in parameters(function) for call in calls)


def parameters(function: ast.FunctionDef) -> set[str]:
    return {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}


def is_call_of(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and bool(node.args)


def test_the_reader_of_the_source_finds_codes_written_in_any_of_the_usual_ways() -> None:
    source = (
        "def _fatal(code, text):\n    return Finding(code, FATAL, text)\n"
        "def a():\n    return _fatal('one-way', 'some text')\n"
        "def b():\n    return [Finding('plain', INFO, 'some text')]\n"
        "def c():\n    for code in ('third-way', 'fourth-way'):\n        yield Finding(code, INFO, 'not-a code')\n"
    )
    assert set(codes_in(ast.parse(source))) == {"one-way", "plain", "third-way", "fourth-way"}


def test_the_keys_of_a_leaderboard_definition_are_documented() -> None:
    section = sections(page("reading-results.md"), 2)["A leaderboard with rules of its own"]
    assert set(first_cells(section)) == {field.name for field in fields(LeaderboardDefinition)}


# ---------------------------------------------------------------- settings, exit codes, loaders


def test_every_setting_of_an_experiment_is_documented() -> None:
    assert set(first_cells(sections(page("experiments.md"), 2)["A file"])) == set(ExperimentSpec.model_fields)


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", sections(page("experiments.md"), 2)["Exit codes"], re.MULTILINE)
    assert {name: int(value) for value, name in rows} == {one.name: one.value for one in ExitCode}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def loader_title(catalog: Catalog, entry: Entry) -> str:
    """Its name, and its task where an earlier one for another task has the same name."""
    first = next(one for one in catalog.entries(entry.kind.name) if one.spec.name == entry.spec.name)
    return f"`{entry.spec.name}`" + ("" if entry is first else f" for {entry.spec.tasks[0]}")


def loader_parameters(catalog: Catalog, entry: Entry) -> set[str]:
    name, task = entry.spec.name + "x" * entry.is_family, next(iter(entry.spec.tasks), None)
    return {one.name for one in catalog.parameters(entry.kind.name, name, task)}


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_every_loader_is_documented_with_all_its_parameters(catalog: Catalog, kind: str) -> None:
    shown = sections(sections(page("your-own-model.md"), 2)[kind.capitalize()], 3)
    documented = {title: set(first_cells(text)) for title, text in shown.items() if "`" in title}
    entries = catalog.entries(kind)
    absent = [f"`{entry.spec.name}`" for entry in entries if entry.problem]
    there = {loader_title(catalog, entry): loader_parameters(catalog, entry) for entry in entries if not entry.problem}
    documented = {title: names for title, names in documented.items() if title not in absent}
    assert documented == {name: parameters for name, parameters in there.items() if parameters}


@pytest.mark.parametrize("kind", ["attacks", "defenses", "objectives", "threat_models"])
def test_what_an_experiment_combines_is_listed(catalog: Catalog, kind: str) -> None:
    section = sections(page("experiments.md"), 2)[kind.replace("_", " ").capitalize()]
    assert set(first_cells(section)) == {entry.spec.name for entry in catalog.entries(kind)}


# ---------------------------------------------------------------- machine-readable output and the command line


def test_the_documents_shown_follow_their_schemas() -> None:
    from jsonschema import Draft202012Validator

    shown = re.findall(r'^```json schema="(\w+)"\n(.*?)^```', page("machine-readable.md"), re.MULTILINE | re.DOTALL)
    assert shown
    for name, document in shown:
        schema = json.loads(page(f"schemas/{name}.schema.json"))
        Draft202012Validator(schema, registry=schemas()).validate(json.loads(document))


def schemas() -> Registry[Any]:
    """All of them by their file names, since they refer to each other."""
    contents = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in (DOCS / "schemas").glob("*.json")}
    return Registry().with_resources((name, Resource.from_contents(one)) for name, one in contents.items())


def test_the_page_of_commands_is_not_stale() -> None:
    script = DOCS / "generate_command_line.py"
    spec = importlib.util.spec_from_file_location("generate_command_line", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page("command-line.md") == module.render(), f"run python {script.relative_to(ROOT)}"
