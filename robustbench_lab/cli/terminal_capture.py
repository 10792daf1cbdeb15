"""Keeps the terminal to one writer: what anybody else writes to stdout or stderr is handed over line by line.

Below Python, so that it covers libraries written in C and the processes of a run's workers as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

STREAMS = (1, 2)
CHUNK = 1 << 16
END = b"\x00rbl-end\x00"
"""Nobody else writes this to a terminal. A process that a plugin left behind may hold the pipe open, so that its end
cannot be told otherwise."""


class TerminalCapture:
    """From `start` to `stop`, what is written to the terminal goes to `show`, a line at a time, in a thread.

    Streams that are no terminals are left alone. Of a line that was overwritten, as progress bars do, only the
    last state is shown.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._saved: dict[int, int] = {}
        self._thread = Thread(target=self._pass_on, name="terminal capture", daemon=True)

    def start(self) -> None:
        """Take the terminal."""
        _flush()
        self._read_end, self._write_end = os.pipe()
        self._saved = {stream: os.dup(stream) for stream in STREAMS if os.isatty(stream)}
        for stream in self._saved:
            os.dup2(self._write_end, stream)
        self._thread.start()

    def stop(self) -> None:
        """Give it back, after everything written until now was shown."""
        _flush()
        for stream, saved in self._saved.items():
            os.dup2(saved, stream)
            os.close(saved)
        os.write(self._write_end, END)
        self._thread.join()
        os.close(self._write_end)
        os.close(self._read_end)

    def _pass_on(self) -> None:
        pending, end = b"", b""
        while not end:
            written, end, _ = (pending + os.read(self._read_end, CHUNK)).partition(END)
            *lines, pending = written.split(b"\n")
            for line in lines:
                self._say(line)
            pending = _last_state(pending)
        if pending:
            self._say(pending)

    def _say(self, line: bytes) -> None:
        # Where the terminal has gone, those who write must not be held up by a pipe that nobody reads.
        with suppress(OSError):
            self._show(_last_state(line).rstrip(b"\r").decode(errors="replace"))


def _last_state(line: bytes) -> bytes:
    """What stands after the last return to the line's beginning, but for one at its very end."""
    return line[line.rfind(b"\r", 0, max(len(line) - 1, 0)) + 1 :]


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
