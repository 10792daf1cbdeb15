"""Fewer commits for a busy run: what comes soon after a commit waits, and is committed together with what follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock, Timer
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from robustbench_lab.errors import StoreError
from robustbench_lab.result_store.transactions import Transactions

BATCH_SECONDS = 0.5
"""How long something waits at most, and how long no commit may have been for something to be committed at once."""
BATCH_RECORDS = 200
"""How many wait at most."""
RETRY_SECONDS = 5.0
"""Until what could not be committed is tried again, where nothing else is written meanwhile."""


@dataclass(frozen=True)
class Pending:
    """Something to write."""

    write: Callable[[Connection], Any]
    """What it returns is handed to `then`."""
    then: Callable[[Any], None]
    """Called once it is committed."""


class CommitBatches:
    """Writes in the order they are added. May be used from several threads.

    What cannot be committed, on a full disk for example, is kept and tried again with the next; only what the database
    refuses for its contents is dropped, alone, with a StoreError.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._pending: list[Pending] = []
        self._turn = RLock()
        self._last_commit = -BATCH_SECONDS
        self._timer: Timer | None = None
        self._failure: StoreError | None = None
        """Of the timer, for whoever calls next."""

    def add(self, pending: Pending) -> None:
        """Commit it at once where the last commit is long ago; otherwise soon. Raises StoreError."""
        with self._turn:
            self._pending.append(pending)
            wait = self._last_commit + BATCH_SECONDS - time.monotonic()
            if wait <= 0 or len(self._pending) >= BATCH_RECORDS or self._failure:
                self.flush()
            else:
                self._flush_in(wait)

    def when_committed(self, action: Callable[[], None]) -> None:
        """Call `action` once all that was added is committed: now, where it is."""
        with self._turn:
            if self._pending:
                self._pending.append(Pending(lambda _: None, lambda _: action()))
            else:
                action()

    def flush(self) -> None:
        """Commit all that waits. Raises StoreError."""
        with self._turn:
            self._stop_timer()
            self._commit()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def _commit(self) -> None:
        batch = self._pending
        if not batch:
            return
        try:
            done = self._transactions.write(lambda connection: [one.write(connection) for one in batch])
        except StoreError as error:
            if not _refused(error):
                raise
            self._commit_one_by_one()
            return
        self._pending = []
        self._last_commit = time.monotonic()
        for one, result in zip(batch, done, strict=True):
            one.then(result)

    def _commit_one_by_one(self) -> None:
        """The database refuses something: commit the others, then say so."""
        refused: StoreError | None = None
        while self._pending:
            one = self._pending[0]
            try:
                result = self._transactions.write(one.write)
            except StoreError as error:
                if not _refused(error):
                    raise
                refused = refused or error
                del self._pending[0]
            else:
                del self._pending[0]
                one.then(result)
        self._last_commit = time.monotonic()
        if refused is not None:
            raise refused

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = Timer(seconds, self._flush_from_timer)
            self._timer.daemon = True
            self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_from_timer(self) -> None:
        with self._turn:
            try:
                self.flush()
            except StoreError as error:
                if self._pending:  # nothing is lost: the next to call meets the same, if it lasts
                    self._flush_in(RETRY_SECONDS)
                else:
                    self._failure = error


def _refused(error: StoreError) -> bool:
    """Whether it is for what was to be written, rather than for the state of the database or the disk."""
    return isinstance(error.__cause__, (IntegrityError, DataError, OverflowError))
