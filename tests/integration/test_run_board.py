"""Heartbeats and requests over a database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from robustbench_lab.errors import StoreError, UsageError
from robustbench_lab.records import CANCELLED, Status
from robustbench_lab.result_store import ResultStore, RunBoard, open_store, run_board
from robustbench_lab.testing.example_results import example_cell, example_gap, example_result
from robustbench_lab.tracking.run_heartbeat import Heartbeat
from robustbench_lab.tracking.run_tracker import RunTracker


@pytest.fixture
def store(database: str) -> Iterator[ResultStore]:
    with open_store(database) as opened:
        yield opened


def begin(store: ResultStore, **spec: Any) -> str:
    return store.begin_run(["rbl", "run"], spec, {"torch": "2.15"})


def test_a_run_that_gives_heartbeats_is_running_and_what_it_said_last_is_seen_by_others(
    store: ResultStore, database: str
) -> None:
    run_id = begin(store)
    store.board.beat(run_id, "machine", {"left": 2})
    store.board.beat(run_id, "machine", {"left": 1})
    with open_store(database, create=False) as elsewhere:
        (run,) = elsewhere.board.runs()
    assert (run.run_id, run.condition, run.host, run.state) == (run_id, "running", "machine", {"left": 1})
    assert run.silent_seconds is not None
    assert 0 <= run.silent_seconds < 30
    assert run.command == ("rbl", "run")
    store.finish_run(run_id, "interrupted")
    assert store.board.find_run(run_id[:4]).condition == "interrupted"


def test_a_run_is_dead_only_after_it_has_been_silent(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it gave heartbeats, or is by an older version that gave none."""
    silent, spoke = begin(store), begin(store)
    store.board.beat(spoke, "machine", {})
    assert {run.condition for run in store.board.runs()} == {"running"}
    monkeypatch.setattr(run_board, "SILENT_SECONDS", -2.0)
    assert {run.condition for run in store.board.runs()} == {"dead"}
    for run_id in (silent, spoke):
        store.finish_run(run_id, "finished")
    assert {run.condition for run in store.board.runs()} == {"finished"}


def test_runs_come_newest_first_and_are_found_by_the_beginning_of_their_id(store: ResultStore) -> None:
    ids = [begin(store) for _ in range(3)]
    assert [run.run_id for run in store.board.runs()] == ids[::-1]
    assert store.board.find_run(ids[1]).run_id == ids[1]
    with pytest.raises(UsageError, match=r"no run in .* begins with 'zz'"):
        store.board.find_run("zz")
    with pytest.raises(UsageError, match="3 runs begin with ''"):
        store.board.find_run("")


def test_a_request_reaches_its_run_alone_and_its_answer_comes_back(store: ResultStore) -> None:
    mine, other = begin(store), begin(store)
    whole = store.board.request_cancellation(mine, None)
    cell = store.board.request_cancellation(mine, "c0ffee")
    assert store.board.cancellations(other) == []
    assert [(one.id, one.cell) for one in store.board.cancellations(mine)] == [(whole, None), (cell, "c0ffee")]
    assert store.board.cells_cancelled(cell) is None
    store.board.answer(store.board.cancellations(mine)[1], 3)
    assert store.board.cells_cancelled(cell) == 3
    assert [one.id for one in store.board.cancellations(mine)] == [whole]


def test_cells_without_a_result_are_listed_with_the_run_that_stored_them(store: ResultStore) -> None:
    old, new = begin(store, seeds=[0]), begin(store, seeds=[1])
    store.save_cell(example_gap(Status.FAILED, "boom", model="a"), old)
    store.save_cell(example_result([True], model="b"), old)
    store.save_cell(example_gap(Status.SKIPPED, CANCELLED, model="c"), new)
    store.save_cell(example_gap(Status.SKIPPED, "no gradient", model="d"), new)
    gaps = store.board.gaps()
    assert [gap.run_id for gap in gaps] == [new, new, old]
    assert {gap.reason for gap in gaps} == {CANCELLED, "no gradient", "boom"}
    assert store.board.spec(old) == {"seeds": [0]}
    ids = [gap.cell_id for gap in gaps]
    again = {gap.cell_id for gap in gaps if gap.reason != "no gradient"}
    assert store.failed_or_cancelled([*ids, example_cell(model="b").cell_id, "unknown"]) == again


# ---------------------------------------------------------------- the thread that uses it


class Asked:
    """What a scheduler does with requests: it knows of no cells the first time."""

    def __init__(self) -> None:
        self.cells: list[str | None] = []
        self.twice = Event()

    def __call__(self, cell: str | None) -> int | None:
        self.cells.append(cell)
        if len(self.cells) == 1:
            return None
        self.twice.set()
        return 2


def test_a_request_is_answered_once_the_run_knows_its_cells(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustbench_lab.tracking.run_heartbeat.BEAT_SECONDS", 0.01)
    run_id, asked = begin(store), Asked()
    request = store.board.request_cancellation(run_id, "c0ffee")
    with Heartbeat(store.board, run_id, RunTracker(), asked):
        assert asked.twice.wait(30)
    assert asked.cells == ["c0ffee", "c0ffee"]
    assert store.board.cells_cancelled(request) == 2


def test_the_last_heartbeat_says_how_the_run_ended(store: ResultStore) -> None:
    run_id, tracker = begin(store), RunTracker()
    with Heartbeat(store.board, run_id, tracker, lambda _cell: 0):
        tracker.run_started(run_id, [example_cell()], 0)
        tracker.cell_finished(example_result([True]))
        tracker.run_finished(False)
    state = store.board.find_run(run_id).state
    assert state is not None
    assert (state["ok"], state["left"]) == (1, 0)


def test_a_database_that_refuses_heartbeats_stops_no_run() -> None:
    class Locked(RunBoard):
        def __init__(self) -> None:
            self.asked = 0

        def cancellations(self, run_id: str) -> list[run_board.Cancellation]:
            self.asked += 1
            raise StoreError("locked")

    board = Locked()
    with Heartbeat(board, "r1", RunTracker(), lambda _cell: 0):
        pass
    assert board.asked >= 1
