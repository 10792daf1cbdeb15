"""`rbl plugins check` always says something, whatever the plugin does."""

import textwrap

import pytest

from robustbench_lab.cli.plugin_check import check_plugin
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
REPORT = """
    from robustbench_lab import hookimpl
    from robustbench_lab.contracts import ReportSpec

    @hookimpl
    def rbl_reports():
        return [ReportSpec(name="short", factory=lambda leaderboard: "")]
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


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        (ATTACK, "wrong", "SystemExit: 3"),
        (REPORT, "not checked", "it brings reports; contract tests are for attacks, models, datasets, defenses"),
        ("STEPS = 3\n", "wrong", "decorate rbl_attacks or another one with @hookimpl"),
    ],
    ids=["an attack that exits", "nothing that has a contract", "no hook"],
)
def test_a_plugin_that_cannot_be_checked_is_never_passed_over_in_silence(tmp_path, source, state, said):
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(source))
    (checked,) = check_plugin(open_catalog([str(file)]), "theirs.py")
    assert checked.state == state
    assert said in " ".join(checked.remarks)
