"""Whether a process is still there."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from robustbench_lab.hardware.process_mark import ProcessMark


def test_a_process_that_runs_is_not_gone_and_one_that_has_ended_is() -> None:
    assert not ProcessMark.own().is_gone()
    program = (
        "from robustbench_lab.hardware.process_mark import ProcessMark as M\n"
        "m = M.own()\nprint(m.host)\nprint(m.process)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    host, process = done.stdout.splitlines()
    assert ProcessMark(host, process).is_gone()


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    own = ProcessMark.own()
    number = own.process.partition("@")[0]
    assert replace(own, process=f"{number}@1.0").is_gone()
    assert replace(own, process="no number").is_gone()


@pytest.mark.parametrize("host", ["another-machine.example", socket.gethostname() + " another-start 1"])
def test_nothing_is_known_of_other_machines_even_of_those_of_the_same_name(host: str) -> None:
    assert not ProcessMark(host, "1@1.0").is_gone()
