"""Whether a process is still there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from robustbench_lab.process_mark import ProcessMark


def test_a_process_that_runs_is_not_gone_and_one_that_has_ended_is() -> None:
    assert not ProcessMark.own().is_gone()
    program = "from robustbench_lab.process_mark import ProcessMark as M; m = M.own(); print(m.host); print(m.process)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    host, process = done.stdout.split()
    assert ProcessMark(host, process).is_gone()


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    own = ProcessMark.own()
    number = own.process.partition("@")[0]
    assert replace(own, process=f"{number}@1.0").is_gone()
    assert replace(own, process="no number").is_gone()


def test_nothing_is_known_of_other_machines() -> None:
    assert not ProcessMark("another-machine.example", "1@1.0").is_gone()
