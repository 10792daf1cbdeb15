"""`rbl plugins new`: a working attack in one file, and its test."""

from __future__ import annotations

import re
from pathlib import Path

from robustbench_lab.errors import UsageError

ATTACK = '''"""{title}: say here what it does, and where it comes from (paper, equation)."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec


def {function}(problem, *, steps: int = 20):
    """Signed gradient steps. `problem` holds the samples still open; tensors are [samples, ...]."""
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x)
        x, gradient = problem.drop_done(x, gradient)
        if problem.finished:
            return
        x = problem.project(x + 2.5 * problem.eps / steps * problem.steepest(gradient, x))
    problem.submit(x)


@hookimpl
def rbl_attacks():
    return [AttackSpec(name="{name}", factory={function}, threat_models=("linf", "l2", "l1"))]
'''

TEST = '''"""The contract every attack keeps to, on this one: python -m pytest {file}"""

from pathlib import Path

from robustbench_lab.cli.plugin_check import check_plugin
from robustbench_lab.pipeline import open_catalog

PLUGIN = Path(__file__).with_name("{plugin}")


def test_{function}_keeps_to_the_contract():
    checked = check_plugin(open_catalog([str(PLUGIN)]), PLUGIN.name)
    assert [(one.title, one.state, one.remarks) for one in checked] == [("attack '{name}'", "ok", ())]
'''


def write_plugin(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `<name>.py` and `test_<name>.py`; existing files are left alone."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"'{name}' cannot be a plugin's name: use small letters, digits and -, such as my-attack")
    function = name.replace("-", "_")
    plugin, test = folder / f"{function}.py", folder / f"test_{function}.py"
    for file in (plugin, test):
        if file.exists():
            raise UsageError(f"{file} is there already: choose another name, or another folder with --folder")
    fields = {"name": name, "function": function, "title": name, "file": test.name, "plugin": plugin.name}
    plugin.write_text(ATTACK.format(**fields))
    test.write_text(TEST.format(**fields))
    return plugin, test
