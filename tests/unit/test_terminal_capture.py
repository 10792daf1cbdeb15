"""One writer to the terminal: what others write comes out line by line, in order, and nothing is lost."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from robustbench_lab.cli.terminal_capture import TerminalCapture


@contextmanager
def stderr_is_a_terminal() -> Iterator[int]:
    """The terminal's other end."""
    reader, writer = pty.openpty()
    saved = os.dup(2)
    os.dup2(writer, 2)
    try:
        yield reader
    finally:
        os.dup2(saved, 2)
        for stream in (saved, writer, reader):
            os.close(stream)


def captured(*written: bytes) -> list[str]:
    lines: list[str] = []
    with stderr_is_a_terminal():
        capture = TerminalCapture(lines.append)
        capture.start()
        for part in written:
            os.write(2, part)
        capture.stop()
    return lines


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\ntw", b"o"], ["one", "two"]),
        ([b"windows\r\n"], ["windows"]),
        ([b"\r 10%\r 50%", b"\r100%\n", b"done\n"], ["100%", "done"]),
        ([b" 10%\r 50%\r"], [" 50%"]),
        (["naïve ".encode(), "ö".encode()[:1], "ö".encode()[1:], b"\n"], ["naïve ö"]),
        ([b"\xff\n"], ["�"]),
        ([b"a\n\nb\n"], ["a", "", "b"]),
        ([], []),
    ],
)
def test_lines_are_put_together_and_of_progress_bars_the_last_state_is_shown(
    written: list[bytes], shown: list[str]
) -> None:
    assert captured(*written) == shown


def test_much_output_of_another_process_arrives_in_order() -> None:
    lines: list[str] = []
    with stderr_is_a_terminal():
        capture = TerminalCapture(lines.append)
        capture.start()
        code = "import sys\nfor n in range(20000): print(f'line {n}', file=sys.stderr)"
        subprocess.run([sys.executable, "-c", code], check=True)
        capture.stop()
    assert lines == [f"line {number}" for number in range(20000)]


def test_the_terminal_is_given_back_even_where_another_process_still_holds_the_capture() -> None:
    lines: list[str] = []
    with stderr_is_a_terminal() as reader:
        capture = TerminalCapture(lines.append)
        capture.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as left_behind:
            capture.stop()
            os.write(2, b"to the terminal\n")
            assert os.read(reader, 100) == b"to the terminal\r\n"
            left_behind.communicate(b"\n")
    assert lines == []


def test_streams_that_are_no_terminals_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    capture = TerminalCapture(lines.append)
    capture.start()
    os.write(2, b"to a file\n")
    capture.stop()
    assert capfd.readouterr().err == "to a file\n"
    assert lines == []


def test_nobody_is_held_up_where_the_terminal_has_gone() -> None:
    def gone(line: str) -> None:
        raise OSError(5, "Input/output error")

    with stderr_is_a_terminal():
        capture = TerminalCapture(gone)
        capture.start()
        for _ in range(100):
            os.write(2, b"x" * 10_000 + b"\n")
        capture.stop()
