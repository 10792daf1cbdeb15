"""Cells that runs claim in one database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from threading import Barrier, Thread
from typing import Self

import pytest

from robustbench_lab.errors import StoreError
from robustbench_lab.hardware.process_mark import ProcessMark
from robustbench_lab.records import Status
from robustbench_lab.result_store import ResultStore, open_store, rows, run_board
from robustbench_lab.result_store.claims import Claim
from robustbench_lab.testing.example_results import example_gap, example_result

RESULT, GAP = example_result([True, False]), example_gap(Status.FAILED, "it fell over", samples=2)
CELL = RESULT.cell


@pytest.fixture
def store(database: str) -> Iterator[ResultStore]:
    with open_store(database) as opened:
        yield opened


def begin(store: ResultStore) -> str:
    return store.begin_run(["rbl", "run"], {}, {"torch": "2.15"})


def test_a_cell_belongs_to_the_run_that_claims_it_first_until_that_run_ends(store: ResultStore) -> None:
    first, second = begin(store), begin(store)
    with store.claiming(second) as seconds_claim:
        with store.claiming(first) as firsts_claim:
            assert [firsts_claim("a"), seconds_claim("a"), seconds_claim("b"), firsts_claim("b")] == [
                Claim.OURS,
                Claim.ELSEWHERE,
                Claim.OURS,
                Claim.ELSEWHERE,
            ]
            assert firsts_claim("a") is Claim.OURS
        assert [seconds_claim("a"), seconds_claim("a")] == [Claim.INHERITED, Claim.OURS]


def test_what_is_stored_is_nobody_s_any_more(store: ResultStore) -> None:
    first, second = begin(store), begin(store)
    with store.claiming(first) as firsts_claim, store.claiming(second) as seconds_claim:
        assert firsts_claim(CELL.cell_id) is Claim.OURS
        store.save_cell(RESULT, first)
        assert seconds_claim(CELL.cell_id) is Claim.STORED


def test_a_failed_cell_is_claimed_again_only_by_who_replaces_it(store: ResultStore) -> None:
    earlier = begin(store)
    store.save_cell(GAP, earlier)
    first, second = begin(store), begin(store)
    with store.claiming(first) as plain:
        assert plain(CELL.cell_id) is Claim.STORED
    with ExitStack() as both:
        firsts_claim, seconds_claim = (
            both.enter_context(store.claiming(run, replaces_failed=True)) for run in (first, second)
        )
        assert [firsts_claim(CELL.cell_id), seconds_claim(CELL.cell_id)] == [Claim.OURS, Claim.ELSEWHERE]
        store.save_cell(GAP, first)
        assert seconds_claim(CELL.cell_id) is Claim.STORED  # it has failed again just now


def test_a_failure_from_a_machine_whose_clock_is_ahead_is_replaced_too(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=1)

    with monkeypatch.context() as there:
        there.setattr(rows, "datetime", Ahead)
        store.save_cell(GAP, begin(store))
    run = begin(store)
    assert store.run_of(CELL.cell_id)["stored_at"] > store.board.runs()[0].started_at.isoformat()
    with store.claiming(run, replaces_failed=True) as claim:
        assert claim(CELL.cell_id) is Claim.OURS


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_failed_cell_is_free_whether_the_run_that_stored_it_goes_on_or_was_killed(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    first = begin(store)
    with store.claiming(first) as firsts_claim:
        assert firsts_claim(CELL.cell_id) is Claim.OURS
        store.save_cell(GAP, first)
        if is_killed:
            monkeypatch.setattr(ProcessMark, "is_gone", lambda _: True)
        with store.claiming(begin(store), replaces_failed=True) as again:
            assert [again(CELL.cell_id), again(CELL.cell_id)] == [Claim.INHERITED, Claim.OURS]


@pytest.mark.parametrize("what", ["process", "silence", "condition"])
def test_the_claims_of_a_run_that_was_killed_are_free(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first, second = begin(store), begin(store)
    monkeypatch.setattr(ProcessMark, "own", lambda: ProcessMark("another-machine.example", "1@1.0"))
    with store.claiming(first) as firsts_claim, store.claiming(second) as seconds_claim:
        assert [firsts_claim("a"), seconds_claim("a")] == [Claim.OURS, Claim.ELSEWHERE]
        if what == "process":
            monkeypatch.setattr(ProcessMark, "is_gone", lambda _: True)
        elif what == "silence":
            monkeypatch.setattr(run_board, "SILENT_SECONDS", -2.0)
        else:
            store.finish_run(first, "interrupted")
        assert seconds_claim("a") is Claim.INHERITED
        if what == "process":
            monkeypatch.setattr(ProcessMark, "is_gone", lambda _: False)
            assert firsts_claim("a") is Claim.ELSEWHERE  # it was not dead after all, and has lost the cell


def test_of_many_that_ask_at_once_one_gets_the_cell(store: ResultStore, database: str) -> None:
    runs = [begin(store) for _ in range(4)]
    together, answers = Barrier(len(runs)), []

    def ask(run: str) -> None:
        with open_store(database) as own, own.claiming(run) as claim:
            together.wait()
            answers.extend(claim(cell) for cell in "abcdefgh")
            together.wait()

    threads = [Thread(target=ask, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(Claim.OURS) == 8
    assert answers.count(Claim.ELSEWHERE) == 8 * (len(runs) - 1)


def test_a_database_that_refuses_claims_stops_no_run(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_work: object) -> None:
        raise StoreError("the disk is full")

    run = begin(store)
    with monkeypatch.context() as patched:
        patched.setattr(store._transactions, "write", refuses)
        with store.claiming(run) as claim:
            assert claim("a") is Claim.OURS


def test_nothing_of_claims_goes_into_another_database(tmp_path: Path) -> None:
    with open_store(tmp_path / "one.db") as one, open_store(tmp_path / "two.db") as two:
        run = begin(one)
        one.save_cell(RESULT, run)
        with one.claiming(run) as claim:
            claim("a")
            two.merge(one)
        with two.claiming(begin(two)) as claim:
            assert claim("a") is Claim.OURS
