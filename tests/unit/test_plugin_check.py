"""`rbl plugins check` always says something, whatever the plugin does."""

import textwrap

import pytest

from robustbench_lab import hookimpl
from robustbench_lab.cli.describe import describe
from robustbench_lab.cli.plugin_check import check_plugin
from robustbench_lab.contracts import AttackSpec
from robustbench_lab.errors import PluginError
from robustbench_lab.pipeline import open_catalog

ATTACK = """
    import sys
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import AttackSpec

    def leaves(problem):
        sys.exit(3)

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="leaves", factory=leaves, threat_models=("linf",))]
"""
OBSERVER = """
    from robustbench_lab import hookimpl
    from robustbench_lab.run_observer import RunObserver

    @hookimpl
    def rbl_run_observers():
        return [RunObserver()]
"""
UNKNOWN_TASK = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import AttackSpec

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="mine", factory=lambda problem: None, tasks=("clasification",))]
"""
PASSES = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import Access, AttackSpec

    def guess(problem, *, steps: int = 3):
        x = problem.random_start(0)
        problem.loss_and_gradient(x)

    @hookimpl
    def rbl_attacks():
        passes = lambda params: params["step"]
        return [AttackSpec(name="mine", factory=guess, estimate_passes=passes, access=Access.DECISIONS)]
"""
RETURNS = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import AttackSpec

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="mine", factory=lambda problem: problem.random_start(0))]
"""


TUPLES = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import AttackSpec

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="one", factory=lambda problem: None, threat_models="linf")]
"""


def test_text_where_a_tuple_belongs_is_not_read_letter_by_letter(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(TUPLES))
    with pytest.raises(PluginError, match=r"threat_models of 'one' must be a tuple: \('linf',\)"):
        open_catalog([str(file)])


ACCESS = TUPLES.replace('threat_models="linf"', 'access="scores"')
TWO_MAIN = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import MetricSpec

    @hookimpl
    def rbl_metrics():
        return [MetricSpec(name="theirs", factory=lambda outcomes: None, main=True)]
"""


def test_text_that_only_looks_like_a_member_is_not_taken_for_one(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(ACCESS))
    with pytest.raises(PluginError, match=r"access of 'one' must be one of Access\.GRADIENTS, .*, not 'scores'"):
        open_catalog([str(file)])


def test_no_second_metric_takes_over_what_tables_are_sorted_by(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(TWO_MAIN))
    with pytest.raises(PluginError, match=r"'theirs' of theirs\.py are both the main one of classification"):
        open_catalog([str(file)])


class Versioned:
    @hookimpl
    def rbl_attacks(self):
        return [AttackSpec(name="mine", factory=lambda problem: None, version="\x1b[2J")]


def test_no_text_of_a_plugin_reaches_the_terminal_raw(monkeypatch, capsys):
    catalog = open_catalog(extra=[("theirs", Versioned())])
    monkeypatch.setattr("robustbench_lab.pipeline.open_catalog", lambda _files: catalog)
    describe(["mine"])
    assert capsys.readouterr().out.splitlines()[0] == "mine  (theirs  [2J)"


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        (ATTACK, "wrong", "SystemExit: 3"),
        (OBSERVER, "not checked", "it brings run_observers, and these have no contract tests"),
        (UNKNOWN_TASK, "wrong", "there is no task 'clasification'. Did you mean 'classification'?"),
        (PASSES, "wrong", "estimate_passes: KeyError: 'step'"),
        (PASSES, "wrong", "it declares access to decisions only, and asks for gradients"),
        (RETURNS, "wrong", "the attack returned a Tensor: hand candidates in with problem.submit(x)"),
        ("STEPS = 3\n", "wrong", "decorate rbl_attacks or another one with @hookimpl"),
    ],
    ids=[
        "an attack that exits",
        "nothing that has a contract",
        "an unknown task",
        "passes that cannot be told",
        "gradients that were not declared",
        "candidates that are returned",
        "no hook",
    ],
)
def test_a_plugin_that_cannot_be_checked_is_never_passed_over_in_silence(tmp_path, source, state, said):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(source))
    (checked,) = check_plugin(open_catalog([str(file)]), "theirs.py")
    assert checked.state == state
    assert said in " ".join(checked.remarks)


MIXES = """
    import torch
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import AttackSpec

    def mixes(problem):
        x = problem.random_start(0)
        _, gradient = problem.loss_and_gradient(x)
        signs = {signs}
        problem.submit(problem.project(x + 0.1 * signs))

    @hookimpl
    def rbl_attacks():
        return [AttackSpec(name="mixes", factory=mixes)]
"""


@pytest.mark.parametrize(
    ("signs", "said"),
    [
        ("torch.ones(x.shape)", "on the same device"),
        ("torch.from_numpy(gradient.numpy()).sign()", "to numpy"),
        ("torch.ones(x.shape, device=x.device)", None),
        ("torch.from_numpy(gradient.cpu().numpy()).sign().to(x.device)", None),
    ],
)
def test_an_attack_that_works_on_the_cpu_only_is_found_without_a_gpu(tmp_path, signs, said):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(MIXES).format(signs=signs))
    (found,) = check_plugin(open_catalog([str(file)]), "theirs.py")
    if said is None:
        assert (found.state, found.remarks) == ("ok", ())
    else:
        assert found.state == "wrong"
        (remark,) = [one for one in found.remarks if one.startswith("in linf:")]
        assert "on a GPU it stops with" in remark
        assert said in remark
