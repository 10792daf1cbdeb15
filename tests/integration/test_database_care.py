"""`rbl db`: databases of several machines come together, and damage is found. SQLite and PostgreSQL."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError
from robustbench_lab.records import CellRecord, Outcomes, SampleSet, Status
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.result_store.engine import database_url

examples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))


@pytest.fixture
def ours(database: str, tmp_path: Path) -> Iterator[ResultStore]:
    with open_store(database, artifacts_folder=tmp_path / "our-artifacts") as store:
        yield store


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[ResultStore]:
    with open_store(tmp_path / "theirs.db") as store:
        yield store


def fill(store: ResultStore, *records: CellRecord, artifacts: tuple[bytes, ...] = ()) -> str:
    run_id = store.begin_run(["rbl", "run"], {}, {"machine": store.name})
    for record in records:
        store.save_cell(record, run_id, artifacts=artifacts)
    store.finish_run(run_id, "finished")
    return run_id


def contents(store: ResultStore) -> dict[str, Any]:
    """All that a database says of its cells."""
    return {
        record.cell.cell_id: (
            replace(record, outcomes=None),
            None if record.outcomes is None else record.outcomes.distance.tobytes(),
            store.artifacts(record.cell.cell_id),
            store.run_of(record.cell.cell_id),
        )
        for record in store.cells()
    }


# ---------------------------------------------------------------- merge


def test_results_of_two_machines_come_together(ours: ResultStore, theirs: ResultStore) -> None:
    fill(ours, examples.ok_record("a"), examples.failed_record("b"))
    fill(theirs, examples.ok_record("c"), examples.failed_record("d"), artifacts=(b"first", b"second"))
    expected = {**contents(ours), **contents(theirs)}
    merged = ours.merge(theirs)
    assert (merged.cells, merged.replaced, merged.kept, merged.runs) == (2, 0, 0, 1)
    assert contents(ours) == expected
    (first, second) = ours.artifacts("c")
    assert (ours.artifacts_folder / first.path).read_bytes() == b"first"
    assert (ours.artifacts_folder / second.path).read_bytes() == b"second"
    assert list(ours.check({})) == []


def test_merging_twice_changes_nothing(ours: ResultStore, theirs: ResultStore) -> None:
    fill(ours, examples.ok_record("a"))
    run_id = fill(theirs, examples.ok_record("a"), examples.ok_record("b"), artifacts=(b"x",))
    theirs.save_unit(examples.make_unit("open", 0, 2), run_id)
    ours.merge(theirs)
    before = contents(ours)
    again = ours.merge(theirs)
    assert (again.cells, again.replaced, again.kept, again.runs, again.units) == (0, 0, 2, 0, 0)
    assert contents(ours) == before
    assert len(ours.units("open")) == 1


def test_results_go_from_any_database_into_any_other(ours: ResultStore, theirs: ResultStore) -> None:
    fill(ours, examples.ok_record("a"), examples.failed_record("b"), artifacts=(b"x",))
    assert theirs.merge(ours).cells == 2
    assert contents(theirs) == contents(ours)


def test_a_number_replaces_a_failure_and_nothing_else(ours: ResultStore, theirs: ResultStore) -> None:
    stay = examples.ok_record("ok here", device="cpu")
    fill(ours, stay, examples.failed_record("ok there"), examples.failed_record("nowhere"), artifacts=(b"old",))
    stale = ours.artifacts("ok there")[0].path
    fill(
        theirs,
        examples.failed_record("ok here"),
        examples.ok_record("ok there"),
        examples.failed_record("nowhere", status=Status.SKIPPED),
    )
    merged = ours.merge(theirs)
    assert (merged.cells, merged.replaced, merged.kept, merged.conflicts) == (0, 1, 2, [])
    statuses = ours.stored_statuses(["ok here", "ok there", "nowhere"])
    assert statuses == {"ok here": Status.OK, "ok there": Status.OK, "nowhere": Status.FAILED}
    assert ours.cells(ids=["ok here"])[0].device == "cpu"
    assert not (ours.artifacts_folder / stale).exists()


def test_the_same_cell_with_other_outcomes_is_listed_and_kept(ours: ResultStore, theirs: ResultStore) -> None:
    mine = examples.make_outcomes()
    other = replace(mine, robust=np.array([True, True, True, False]))
    rounded = replace(mine, distance=mine.distance * np.float32(1 + 1e-5))  # another device
    fill(ours, *(examples.ok_record(cell_id, outcomes=mine) for cell_id in ("conflict", "rounded", "metrics")))
    fill(
        theirs,
        examples.ok_record("conflict", outcomes=other),
        examples.ok_record("rounded", outcomes=rounded),
        examples.ok_record("metrics", outcomes=mine, metrics={}),
    )
    merged = ours.merge(theirs)
    assert merged.conflicts == ["conflict: 2 of 4 samples differ in the two databases; kept as it was here"]
    for record in ours.cells():
        assert record.outcomes is not None
        np.testing.assert_array_equal(record.outcomes.robust, mine.robust)
        assert len(record.metrics) == 2


def test_unfinished_cells_can_go_on_after_a_merge(ours: ResultStore, theirs: ResultStore) -> None:
    run_id = fill(theirs, examples.ok_record("finished there"))
    ours_id = fill(ours, examples.ok_record("finished here"))
    ours.save_unit(examples.make_unit("finished there", 0, 2), ours_id)
    ours.save_unit(examples.make_unit("begun in both", 0, 3), ours_id)
    for cell_id in ("finished here", "begun in both", "begun there"):
        theirs.save_unit(examples.make_unit(cell_id, 0, 2), run_id)
    assert ours.merge(theirs).units == 1
    assert [unit.stop for unit in ours.units("begun there")] == [2]
    assert [unit.stop for unit in ours.units("begun in both")] == [3]
    assert ours.units("finished there") == ours.units("finished here") == []


def test_runs_whose_short_ids_are_the_same_stay_apart(
    ours: ResultStore, theirs: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "ab" * size)
    fill(ours, examples.ok_record("a"))
    fill(theirs, examples.ok_record("b"))
    for _ in range(2):
        ours.merge(theirs)
        runs = [ours.run_of(cell_id) for cell_id in "ab"]
        assert [run["environment"]["machine"] for run in runs] == [ours.name, theirs.name]
    assert len(ours.board.runs()) == 2


def test_a_run_that_has_ended_since_the_last_merge_has_ended_here_too(ours: ResultStore, theirs: ResultStore) -> None:
    run_id = theirs.begin_run(["rbl"], {}, {})
    theirs.save_cell(examples.ok_record("a"), run_id)
    ours.merge(theirs)
    assert ours.run_of("a")["status"] == "running"
    theirs.finish_run(run_id, "interrupted")
    ours.merge(theirs)
    assert ours.run_of("a") == theirs.run_of("a")


def test_a_file_that_is_missing_or_changed_is_listed_and_its_cell_copied(
    ours: ResultStore, theirs: ResultStore
) -> None:
    fill(theirs, examples.ok_record("a"), artifacts=(b"stays", b"changes", b"vanishes"))
    _, changes, vanishes = (theirs.artifacts_folder / file.path for file in theirs.artifacts("a"))
    changes.write_bytes(b"something else")
    vanishes.unlink()
    merged = ours.merge(theirs)
    assert [line.split()[-1] for line in merged.missing_files] == ["one", "missing"]
    assert len(ours.artifacts("a")) == 1
    assert list(ours.check({})) == []


def test_no_database_makes_another_write_outside_of_its_folder(
    ours: ResultStore, theirs: ResultStore, tmp_path: Path
) -> None:
    fill(theirs, examples.ok_record("a"), artifacts=(b"x",))
    execute(theirs, "UPDATE artifacts SET path = '../victim'")
    (tmp_path / "victim").write_bytes(b"x")
    merged = ours.merge(theirs)
    assert "is not inside of" in merged.missing_files[0]
    assert not (ours.artifacts_folder / "../victim").exists() or ours.artifacts("a") == []


def test_a_merge_that_fails_leaves_nothing_behind(
    ours: ResultStore, theirs: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ours, examples.failed_record("a"))
    fill(theirs, *(examples.ok_record(cell_id) for cell_id in "abc"))
    execute(theirs, "UPDATE cells SET run_id = 'none' WHERE cell_id = 'c'")
    before = contents(ours)
    with pytest.raises(KeyError):
        ours.merge(theirs)
    assert contents(ours) == before
    assert len(ours.board.runs()) == 1


CELLS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["ok", "other", "failed"]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CELLS, CELLS)
def test_a_merge_keeps_every_number_that_either_has(left: dict[str, str], right: dict[str, str]) -> None:
    outcomes = examples.make_outcomes()
    outcomes = replace(outcomes, robust=np.ones_like(outcomes.robust))
    made: dict[str, Callable[[str], CellRecord]] = {
        "ok": examples.ok_record,
        "other": lambda cell_id: examples.ok_record(cell_id, outcomes=outcomes),
        "failed": examples.failed_record,
    }

    def kinds(store: ResultStore) -> dict[str, str]:
        def kind(record: CellRecord) -> str:
            return "failed" if record.outcomes is None else "other" if record.outcomes.robust.all() else "ok"

        return {record.cell.cell_id: kind(record) for record in store.cells()}

    with open_store(":memory:") as one, open_store(":memory:") as two:
        for store, cells in ((one, left), (two, right)):
            fill(store, *(made[kind](cell_id) for cell_id, kind in cells.items()))
        merged = one.merge(two)
        assert kinds(one) == {**left, **right, **{name: kind for name, kind in left.items() if kind != "failed"}}
        assert kinds(two) == right
        both = left.keys() & right.keys()
        conflicts = {line.partition(":")[0] for line in merged.conflicts}
        assert conflicts == {name for name in both if {left[name], right[name]} == {"ok", "other"}}


# ---------------------------------------------------------------- check


def robust_share(outcomes: Outcomes) -> Estimate:
    return Estimate(float(outcomes.robust.mean()), 0.01, 0.81)


METRICS = {"classification": {"robust_accuracy": robust_share}}


def execute(store: ResultStore, statement: str, **values: Any) -> None:
    """What another program does to a database."""
    engine = create_engine(database_url(store.name))
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def test_a_sound_database_has_no_problems(ours: ResultStore) -> None:
    run_id = fill(ours, examples.ok_record("a"), examples.failed_record("b"), artifacts=(b"x",))
    ours.save_unit(examples.make_unit("c", 0, 2), run_id)
    assert list(ours.check(METRICS)) == []


DAMAGE = {
    "UPDATE sample_outcomes SET packed = :bytes WHERE cell_id = 'a'": "a: cannot be read: stored outcomes",
    "UPDATE sample_sets SET packed_ids = :bytes": "a: cannot be read: stored outcomes or samples",
    "UPDATE metrics SET value = 0.5 WHERE name = 'robust_accuracy'": "a: robust_accuracy is stored as 0.5 [",
    "UPDATE metrics SET low = 0.02 WHERE name = 'robust_accuracy'": "0.25 [0.02, 0.81], and its outcomes "
    "give 0.25 [0.01, 0.81]",
    "DELETE FROM sample_outcomes": "a: it is ok, but has no outcomes",
    "UPDATE cells SET adversary = 'oblivious'": "a: it does not belong to the leaderboard row",
    "UPDATE cells SET definition = '{}'": "cannot be read (KeyError: 'model')",
    "UPDATE unit_outcomes SET packed = :bytes": "open: samples 0 to 2: cannot be read",
    "UPDATE unit_outcomes SET stop = 3": "open: samples 0 to 3: cannot be read: stored outcomes "
    "are damaged: they are of 2 samples, not of 3",
    "UPDATE artifacts SET path = 'gone'": "gone is missing",
    "UPDATE artifacts SET sha256 = 'other'": "has changed",
}


@pytest.mark.parametrize(("statement", "problem"), DAMAGE.items(), ids=DAMAGE.values())
def test_damage_is_found(ours: ResultStore, statement: str, problem: str) -> None:
    run_id = fill(ours, examples.ok_record("a"), artifacts=(b"x",))
    fill(ours, examples.failed_record("b"))
    ours.save_unit(examples.make_unit("open", 0, 2), run_id)
    execute(ours, statement, **({"bytes": b"damaged"} if ":bytes" in statement else {}))
    problems = list(ours.check(METRICS))
    assert problems
    assert problem in problems[0]
    assert all("\n" not in one for one in problems)


@pytest.mark.parametrize(
    "change",
    ["UPDATE cells SET eps = 'wide'", "UPDATE cells SET definition = '{}'", "UPDATE cells SET findings = '[3]'"],
)
def test_what_nobody_can_read_is_one_line_that_names_the_cell(theirs: ResultStore, change: str) -> None:
    fill(theirs, examples.ok_record("a"))
    execute(theirs, change)
    with pytest.raises(StoreError, match=r"^cell a is stored in a form that cannot be read .*rbl db check"):
        theirs.cells()


def test_a_changed_file_is_found(ours: ResultStore) -> None:
    fill(ours, examples.ok_record("a"), artifacts=(b"x",))
    file = ours.artifacts_folder / ours.artifacts("a")[0].path
    file.write_bytes(b"y")
    assert list(ours.check({})) == [f"a: file {file} has changed: its SHA-256 is not the stored one"]


def test_rows_that_refer_to_nothing_are_found_in_a_file(theirs: ResultStore) -> None:
    fill(theirs, examples.ok_record("a"))
    execute(theirs, "UPDATE metrics SET cell_id = 'nowhere'")  # a program that does not switch foreign keys on
    assert any("metrics refers to a row of cells" in problem for problem in theirs.check({}))


def test_a_text_that_is_no_text_any_more_costs_its_cell_alone(theirs: ResultStore) -> None:
    fill(theirs, examples.ok_record("a"), examples.ok_record("b"))
    execute(theirs, "UPDATE cells SET definition = CAST(x'7bff' AS TEXT) WHERE cell_id = 'a'")
    (problem,) = theirs.check(METRICS)
    assert problem.startswith("a: cannot be read: the file: damaged: restore a copy")
    with pytest.raises(StoreError, match="damaged: restore a copy"):
        theirs.cells()


def test_bytes_that_are_overwritten_are_found(theirs: ResultStore) -> None:
    run_id = theirs.begin_run(["rbl"], {}, {})
    with theirs.batched():
        for number in range(100):
            theirs.save_cell(examples.ok_record(f"cell-{number}"), run_id)
    theirs.vacuum()
    name = Path(theirs.name)
    theirs.close()
    content = bytearray(name.read_bytes())
    content[len(content) // 2 :: 4096] = b"\xff" * len(content[len(content) // 2 :: 4096])
    name.write_bytes(content)
    found: list[str] = []

    def look() -> None:
        with open_store(name, create=False) as store:
            found.extend(store.check({}))

    try:
        look()
    except StoreError as error:
        found.append(str(error))
    assert found


# ---------------------------------------------------------------- vacuum


def test_a_vacuum_gives_space_back_and_loses_nothing(ours: ResultStore) -> None:
    run_id = ours.begin_run(["rbl"], {}, {})
    noise = np.random.default_rng(0).random(20_000).astype(np.float32)
    yes = np.ones(20_000, dtype=np.bool_)
    many = SampleSet("1", tuple(map(str, range(20_000))), tuple(range(20_000)), "many")
    for number in range(20):
        outcomes = Outcomes(yes, yes, noise, {"loss": noise + number})
        cell = examples.make_cell(f"cell-{number}", samples=many)
        large = examples.ok_record(cell=cell, outcomes=outcomes, metrics={})
        ours.save_cell(large, run_id)
    ours.delete_cells([f"cell-{number}" for number in range(1, 20)])
    kept = contents(ours)
    before, after = ours.vacuum()
    assert after < before - 1_000_000
    assert contents(ours) == kept
