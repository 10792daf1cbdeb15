"""A busy run commits many results together: nothing is lost, nothing changes its order, and nobody waits for long."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from robustbench_lab.errors import StoreError
from robustbench_lab.result_store import ResultStore, commit_batches, open_store, transactions
from robustbench_lab.result_store.engine import WRITES

examples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))
LONG = 1000.0
"""Seconds: within them no test ends."""


@pytest.fixture
def store(database: str, in_tmp_path: Path) -> Iterator[ResultStore]:
    with open_store(database) as opened:
        yield opened


@pytest.fixture
def seen(store: ResultStore, database: str) -> Iterator[Callable[[], list[str]]]:
    """The ids of the cells that another process would see."""
    with open_store(database, create=False) as other:
        yield lambda: [record.cell.cell_id for record in other.cells()]


@pytest.fixture
def run_id(store: ResultStore) -> str:
    return store.begin_run(["rbl"], {}, {})


@pytest.fixture
def commits() -> Iterator[list[None]]:
    """Grows with every commit of a writer."""
    done: list[None] = []

    def count(connection: Any) -> None:
        if connection.get_execution_options().get(WRITES):
            done.append(None)

    event.listen(Engine, "commit", count)
    yield done
    event.remove(Engine, "commit", count)


@pytest.fixture
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_batches, "BATCH_SECONDS", LONG)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------- when things are committed


def test_what_comes_alone_is_committed_at_once(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], no_timer: None
) -> None:
    with store.batched():
        store.save_cell(examples.ok_record("first"), run_id)
        assert seen() == ["first"]
        store.save_cell(examples.ok_record("second"), run_id)
        assert seen() == ["first"]
    assert seen() == ["first", "second"]


def test_what_waits_is_committed_after_a_while(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_batches, "BATCH_SECONDS", 0.05)
    with store.batched():
        for cell_id in ("a", "b", "c"):
            store.save_cell(examples.ok_record(cell_id), run_id)
        wait_until(lambda: seen() == ["a", "b", "c"])


def test_many_results_take_few_commits(
    store: ResultStore, run_id: str, commits: list[None], no_timer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_batches, "BATCH_RECORDS", 20)
    before = len(commits)
    with store.batched():
        for number in range(50):
            store.save_unit(examples.make_unit("cell", number, number + 1), run_id)
    assert len(commits) - before == 4  # the first alone, twice 20, the rest
    assert len(store.units("cell")) == 50


def test_a_store_reads_what_it_has_saved(store: ResultStore, run_id: str, no_timer: None) -> None:
    with store.batched():
        for number in range(3):
            store.save_unit(examples.make_unit("cell", number, number + 1), run_id)
            assert len(store.units("cell")) == number + 1
        store.save_cell(examples.ok_record("cell"), run_id)
        assert store.units("cell") == []
        store.delete_cells(["cell"])
        assert store.cells() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_a_run_what_waits_is_committed(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], no_timer: None, error: type[BaseException]
) -> None:
    def run() -> None:
        with store.batched():
            for cell_id in ("a", "b"):
                store.save_cell(examples.ok_record(cell_id), run_id)
            raise error

    with pytest.raises(error):
        run()
    assert seen() == ["a", "b"]


def test_an_action_follows_the_commit_of_what_was_saved_before_it(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], no_timer: None
) -> None:
    told: list[list[str]] = []
    store.when_stored(lambda: told.append(seen()))
    assert told.pop() == []
    with store.batched():
        for cell_id in ("a", "b"):
            store.save_cell(examples.ok_record(cell_id), run_id)
            store.when_stored(lambda: told.append(seen()))
        assert told == [["a"]]
    assert told == [["a"], ["a", "b"]]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[ResultStore, ResultStore]]:
    with open_store(":memory:") as together, open_store(":memory:") as alone:
        yield together, alone


STEPS = st.lists(
    st.tuples(st.sampled_from(["unit", "ok", "failed", "delete", "read"]), st.sampled_from("ab"), st.integers(0, 2))
)
numbers = count()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_sequence_of_writes_leaves_what_it_leaves_one_by_one(
    pair: tuple[ResultStore, ResultStore],
    no_timer: None,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[str, str, int]],
) -> None:
    monkeypatch.setattr(commit_batches, "BATCH_RECORDS", 3)
    example = next(numbers)
    ids = [f"{name}-{example}" for name in "ab"]

    def take(store: ResultStore, run_id: str) -> None:
        for what, name, number in steps:
            cell_id = f"{name}-{example}"
            if what == "unit":
                store.save_unit(examples.make_unit(cell_id, number, number + 1, device=f"cuda:{number}"), run_id)
            elif what == "read":
                store.cells(ids=ids)
            elif what == "delete":
                store.delete_cells([cell_id])
            else:
                make = examples.ok_record if what == "ok" else examples.failed_record
                store.save_cell(make(cell_id, batch_size=number), run_id)

    def left(store: ResultStore) -> list[Any]:
        cells = [(one.cell.cell_id, one.status, one.batch_size) for one in store.cells(ids=ids)]
        return [cells, *([(one.start, one.device) for one in store.units(cell_id)] for cell_id in ids)]

    together, alone = pair
    with together.batched():
        take(together, together.begin_run([], {}, {}))
    take(alone, alone.begin_run([], {}, {}))
    assert left(together) == left(alone)


# ---------------------------------------------------------------- what goes wrong


def test_a_result_that_is_refused_costs_no_other(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], no_timer: None
) -> None:
    def run() -> None:
        with store.batched():
            store.save_cell(examples.ok_record("a"), run_id)
            store.save_cell(examples.ok_record("b"), run_id)
            store.save_cell(examples.failed_record("nonsense", reason=None), run_id)
            store.save_cell(examples.ok_record("c"), run_id)

    with pytest.raises(StoreError, match="constraint"):
        run()
    assert seen() == ["a", "b", "c"]


def test_what_cannot_be_packed_is_refused_where_it_is_saved(store: ResultStore, run_id: str, no_timer: None) -> None:
    cell = examples.make_cell(model=examples.component("mine", net=object()))
    with store.batched():
        store.save_cell(examples.ok_record("a"), run_id)
        with pytest.raises(StoreError, match="cannot be stored as a parameter"):
            store.save_cell(examples.ok_record(cell=cell), run_id)
    assert len(store.cells()) == 1


def test_what_is_refused_behind_the_back_of_the_run_is_said_at_its_next_save(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_batches, "BATCH_SECONDS", 0.2)
    with store.batched():
        store.save_cell(examples.ok_record("a"), run_id)
        store.save_cell(examples.failed_record("nonsense", reason=None), run_id)
        store.save_cell(examples.ok_record("b"), run_id)
        wait_until(lambda: "b" in seen())
        with pytest.raises(StoreError, match="constraint"):
            store.save_cell(examples.ok_record("c"), run_id)
    assert seen() == ["a", "b", "c"]


def test_what_could_not_be_committed_is_committed_later(
    store: ResultStore, run_id: str, seen: Callable[[], list[str]], no_timer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = transactions.Transactions.write

    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    with store.batched():
        for cell_id in ("a", "b"):
            store.save_cell(examples.ok_record(cell_id), run_id)
        monkeypatch.setattr(transactions.Transactions, "write", full)
        with pytest.raises(StoreError, match="full"):
            store.cells()
        assert seen() == ["a"]
        monkeypatch.setattr(transactions.Transactions, "write", write)
        store.save_cell(examples.ok_record("c"), run_id)
    assert seen() == ["a", "b", "c"]
