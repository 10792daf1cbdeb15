"""Tells the database every few seconds what a run does, and asks it what is wanted of the run. In a thread of its own.

It never stops a run: where the database refuses, it tries again next time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Event, Thread

from robustbench_lab.errors import StoreError
from robustbench_lab.result_store import RunBoard
from robustbench_lab.tracking.run_tracker import RunTracker

BEAT_SECONDS = 2.0


class Heartbeat:
    """`with Heartbeat(...):` around the evaluation of a run."""

    def __init__(
        self, board: RunBoard, run_id: str, tracker: RunTracker, cancel: Callable[[str | None], int | None]
    ) -> None:
        """cancel: see `Schedule.cancel`."""
        self._board = board
        self._run_id = run_id
        self._tracker = tracker
        self._cancel = cancel
        self._over = Event()
        self._thread = Thread(target=self._beat_until_over, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._beat()

    def _beat_until_over(self) -> None:
        while not self._over.is_set():
            self._beat()
            self._over.wait(BEAT_SECONDS)

    def _beat(self) -> None:
        try:
            for request in self._board.cancellations(self._run_id):
                cells = self._cancel(request.cell)
                if cells is not None:
                    self._board.answer(request, cells)
            self._board.beat(self._run_id, socket.gethostname(), self._tracker.state().document())
        except StoreError:
            return  # locked or full: the run itself says so, should it need the database
