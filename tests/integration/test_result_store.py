"""What goes into the result store comes out again, and the database refuses what makes no sense."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError, UsageError
from robustbench_lab.provenance import file_sha256
from robustbench_lab.records import CellRecord, Outcomes, Status
from robustbench_lab.result_store import ResultStore, open_store
from robustbench_lab.result_store.engine import database_url

Sql = Callable[[str], list[Any]]
examples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))


@pytest.fixture
def store(database: str, in_tmp_path: Path) -> Iterator[ResultStore]:
    open_store(database).close()  # creating it leaves settings on its connection that opening it must make too
    with open_store(database, create=False) as opened:
        yield opened


@pytest.fixture
def run_id(store: ResultStore) -> str:
    return store.begin_run(["rbl", "run"], {"attacks": ["pgd"]}, {"python": "3.12"})


@pytest.fixture
def sql(store: ResultStore, database: str) -> Iterator[Sql]:
    """Statements on a connection of our own, on which foreign keys are checked as on the store's."""
    engine = create_engine(database_url(database), isolation_level="AUTOCOMMIT")

    def execute(statement: str) -> list[Any]:
        done = connection.exec_driver_sql(statement)
        return [tuple(row) for row in done] if done.returns_rows else []

    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            execute("PRAGMA foreign_keys=ON")
        yield execute
    engine.dispose()


def assert_same(left: Any, right: Any) -> None:
    """Equal records, whose outcomes may hold NaN."""
    assert replace(left, outcomes=None) == replace(right, outcomes=None)
    if left.outcomes is None or right.outcomes is None:
        assert left.outcomes is right.outcomes
        return
    arrays = [_arrays(record.outcomes) for record in (left, right)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], strict=True)


def _arrays(outcomes: Outcomes) -> dict[str, Any]:
    columns = {f"column {name}": column for name, column in outcomes.columns.items()}
    return {"clean": outcomes.clean_correct, "robust": outcomes.robust, "distance": outcomes.distance, **columns}


# ---------------------------------------------------------------- cells


RECORDS = {
    "ok": examples.ok_record(),
    "ok with little": examples.ok_record(metrics={}, verdict=None, findings=(), forward_per_sample=None),
    "failed": examples.failed_record(),
    "skipped": examples.failed_record(status=Status.SKIPPED, reason="the model returns NaN"),
    "no norm": examples.ok_record(cell=examples.make_cell(norm=None, eps=math.inf, seed=-1)),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_a_cell_comes_back_as_it_was(store: ResultStore, run_id: str, record: CellRecord) -> None:
    store.save_cell(record, run_id)
    (back,) = store.cells()
    assert_same(back, record)
    assert isinstance(back.cell.model.params["mean"], tuple)
    (light,) = store.cells(with_outcomes=False)
    assert_same(light, replace(record, outcomes=None))


def test_a_cell_comes_back_from_another_process_s_connection(store: ResultStore, run_id: str, database: str) -> None:
    store.save_cell(examples.ok_record(), run_id)
    with open_store(database, create=False) as other:
        assert_same(other.cells()[0], examples.ok_record())


def test_a_metric_may_be_nan(store: ResultStore, run_id: str) -> None:
    nan = math.nan
    metrics = {"none": Estimate(nan, nan, nan), "no interval": Estimate(0.5, nan, nan)}
    store.save_cell(examples.ok_record(metrics=metrics), run_id)
    back = store.cells()[0].metrics
    assert [math.isnan(number) for number in (back["none"].value, back["none"].low, back["none"].high)] == [True] * 3
    assert back["no interval"].value == 0.5
    assert math.isnan(back["no interval"].low)


def test_a_reason_with_bytes_that_are_no_text_is_stored_readably(store: ResultStore, run_id: str) -> None:
    store.save_cell(examples.failed_record(reason="cannot read caf\udce9\0.png"), run_id)
    assert store.cells()[0].reason == r"cannot read caf\udce9\x00.png"


def test_a_parameter_that_cannot_be_stored_stores_nothing(store: ResultStore, run_id: str) -> None:
    cell = examples.make_cell(model=examples.component("mine", net=object()))
    with pytest.raises(StoreError, match="object cannot be stored as a parameter"):
        store.save_cell(examples.ok_record(cell=cell), run_id)
    assert store.cells() == []


def test_saving_a_cell_twice_replaces_all_of_it(store: ResultStore, run_id: str) -> None:
    store.save_cell(examples.ok_record(), run_id, artifacts=[b"first", b"second"])
    old_files = [store.artifacts_folder / one.path for one in store.artifacts("c0ffee")]
    again = examples.failed_record("c0ffee")
    other_run = store.begin_run(["rbl"], {}, {})
    store.save_cell(again, other_run)
    (back,) = store.cells()
    assert_same(back, again)
    assert store.artifacts("c0ffee") == []
    assert not any(file.exists() for file in old_files)
    assert store.run_of("c0ffee")["run_id"] == other_run
    store.save_cell(examples.ok_record(), run_id)
    assert_same(store.cells()[0], examples.ok_record())


def test_cells_are_chosen_by_task_status_run_and_id(store: ResultStore, run_id: str) -> None:
    other_run = store.begin_run(["rbl"], {}, {})
    store.save_cell(examples.ok_record("a"), run_id)
    store.save_cell(examples.failed_record("b"), other_run)
    detection = examples.make_cell("c", task="detection")
    store.save_cell(examples.ok_record(cell=detection), other_run)

    def ids(**conditions: Any) -> list[str]:
        return [record.cell.cell_id for record in store.cells(**conditions)]

    assert ids() == ["a", "b", "c"]
    assert ids(task="detection") == ["c"]
    assert ids(status=Status.OK) == ["a", "c"]
    assert ids(run_id=other_run) == ["b", "c"]
    assert ids(run_id=other_run, status=Status.FAILED) == ["b"]
    assert ids(ids=["c", "missing", "a", "c"]) == ["c", "a"]
    assert ids(ids=["c", "a"], task="detection") == ["c"]
    assert ids(ids=[]) == []


def test_a_summary_says_the_same_as_the_cell(store: ResultStore, run_id: str) -> None:
    for record in (examples.ok_record("a"), examples.failed_record("b")):
        store.save_cell(record, run_id)
    for summary, record in zip(store.summaries(), store.cells(), strict=True):
        cell = record.cell
        assert (summary.cell_id, summary.task, summary.norm, summary.eps) == (cell.cell_id, cell.task, "linf", cell.eps)
        assert (summary.model, summary.attack, summary.threat_model) == (
            cell.model.label,
            cell.attack.label,
            cell.threat_model.label,
        )
        assert (summary.status, summary.reason, summary.verdict) == (record.status, record.reason, record.verdict)
        assert (summary.samples, summary.metrics) == (4, record.metrics)
    assert [summary.cell_id for summary in store.summaries(status=Status.FAILED)] == ["b"]


def test_the_statuses_of_ten_thousand_ids_are_asked_in_one_call(store: ResultStore, run_id: str) -> None:
    store.save_cell(examples.ok_record("id-9999"), run_id)
    store.save_cell(examples.failed_record("id-5"), run_id)
    asked = [f"id-{number}" for number in range(10_000)]
    assert store.stored_statuses(asked) == {"id-9999": Status.OK, "id-5": Status.FAILED}
    assert [record.cell.cell_id for record in store.cells(ids=asked)] == ["id-5", "id-9999"]


def test_the_runs_and_files_of_many_cells_are_read_together(store: ResultStore, run_id: str) -> None:
    store.save_cell(examples.ok_record("first"), run_id, artifacts=[b"x", b"y"])
    store.save_cell(examples.ok_record("second"), store.begin_run(["other"], {}, {"torch": "2.15"}))
    asked = [*(f"id-{number}" for number in range(2_000)), "second", "first"]
    assert store.runs_of(asked) == {one: store.run_of(one) for one in ("first", "second")}
    assert [store.run_of(one)["command"] for one in ("first", "second")] != [["other"]] * 2
    assert store.run_of("second")["environment"] == {"torch": "2.15"}
    assert store.artifacts_of(asked) == {"first": store.artifacts("first")}
    assert len(store.artifacts("first")) == 2


def test_deleted_cells_are_gone_with_all_that_belongs_to_them(store: ResultStore, run_id: str, sql: Sql) -> None:
    store.save_cell(examples.ok_record("gone"), run_id, artifacts=[b"x"])
    store.save_cell(examples.ok_record("stays"), run_id, artifacts=[b"x"])
    store.save_unit(examples.make_unit("half-done", 0, 2), run_id)
    (file,) = store.artifacts("gone")
    store.delete_cells(["gone", "half-done", "never stored"])
    assert [record.cell.cell_id for record in store.cells()] == ["stays"]
    assert store.units("half-done") == []
    assert not (store.artifacts_folder / file.path).exists()
    for table in ("metrics", "sample_outcomes", "artifacts"):
        assert sql(f"SELECT DISTINCT cell_id FROM {table}") == [("stays",)]  # noqa: S608


def test_a_cell_is_found_by_the_beginning_of_its_id(store: ResultStore, run_id: str) -> None:
    for cell_id in ("abc111", "abc222", "ffff00"):
        store.save_cell(examples.failed_record(cell_id), run_id)
    assert store.find_cell("f") == "ffff00"
    assert store.find_cell("abc222") == "abc222"
    with pytest.raises(UsageError, match=r"2 cells begin with 'abc'.*abc111, abc222"):
        store.find_cell("abc")
    with pytest.raises(UsageError, match=r"no cell in .*'abc112'.*Did you mean 'abc111'"):
        store.find_cell("abc112")


# ---------------------------------------------------------------- units, runs, artifacts


def test_units_come_back_in_order_and_vanish_when_their_cell_is_closed(store: ResultStore, run_id: str) -> None:
    failed = examples.make_unit(
        "c0ffee", 4, 6, status=Status.FAILED, reason="out of memory", outcomes=None, artifact=None
    )
    units = [examples.make_unit("c0ffee", 0, 2), examples.make_unit("c0ffee", 2, 4), failed]
    for unit in reversed(units):
        store.save_unit(unit, run_id)
    store.save_unit(examples.make_unit("other", 0, 2), run_id)
    assert len(store.units("c0ffee")) == 3
    for back, unit in zip(store.units("c0ffee"), units, strict=True):
        assert_same(back, unit)
    store.save_cell(examples.ok_record(), run_id)
    assert store.units("c0ffee") == []
    assert len(store.units("other")) == 1


def test_a_unit_is_replaced_by_a_later_one_of_the_same_slice(store: ResultStore, run_id: str) -> None:
    store.save_unit(examples.make_unit("c0ffee", 0, 2, device="cpu"), run_id)
    store.save_unit(examples.make_unit("c0ffee", 0, 2, device="cuda:1"), run_id)
    assert [unit.device for unit in store.units("c0ffee")] == ["cuda:1"]


def test_provenance_names_the_run_and_the_environment(store: ResultStore) -> None:
    spec = {"eps": [8 / 255], "limit": math.inf}
    run_id = store.begin_run(["rbl", "run", "--attack", "pgd"], spec, {"python": "3.12", "gpus": []})
    store.save_cell(examples.ok_record(), run_id)
    before = store.run_of("c0ffee")
    assert (before["run_id"], before["status"], before["finished_at"]) == (run_id, "running", None)
    store.finish_run(run_id, "interrupted")
    after = store.run_of("c0ffee")
    assert after["status"] == "interrupted"
    assert after["command"] == ["rbl", "run", "--attack", "pgd"]
    assert after["spec"] == spec
    assert after["environment"] == {"python": "3.12", "gpus": []}
    times = [datetime.fromisoformat(after[name]) for name in ("started_at", "stored_at", "finished_at")]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None and not time.utcoffset() for time in times)
    with pytest.raises(UsageError, match="no cell 'unknown'"):
        store.run_of("unknown")


def test_an_environment_is_stored_once(store: ResultStore, sql: Sql) -> None:
    runs = {store.begin_run(["rbl"], {}, {"python": "3.12"}) for _ in range(3)}
    assert len(runs) == 3
    assert sql("SELECT count(*) FROM environments") == [(1,)]


def test_artifacts_are_files_with_their_hash_in_the_database(store: ResultStore, run_id: str, tmp_path: Path) -> None:
    contents = [b"adversarial inputs 0 to 1", b"adversarial inputs 2 to 3"]
    store.save_cell(examples.ok_record(), run_id, artifacts=contents)
    files = store.artifacts("c0ffee")
    assert store.artifacts_folder.resolve() == tmp_path / "rbl-artifacts"
    for file, content in zip(files, contents, strict=True):
        assert (store.artifacts_folder / file.path).read_bytes() == content
        assert file.sha256 == file_sha256(store.artifacts_folder / file.path)
        assert file.size == len(content)
    assert sorted(path for path in store.artifacts_folder.rglob("*") if path.is_file()) == sorted(
        store.artifacts_folder / file.path for file in files
    )
    store.save_cell(examples.ok_record(), run_id, artifacts=contents)
    assert store.artifacts("c0ffee") == files
    assert all((store.artifacts_folder / file.path).exists() for file in files)


def test_a_result_can_be_kept_from_one_that_is_none(store: ResultStore, run_id: str) -> None:
    store.save_cell(examples.ok_record(), run_id, artifacts=[b"x"])
    (file,) = store.artifacts("c0ffee")
    store.save_unit(examples.make_unit("c0ffee", 0, 2), run_id)
    store.save_cell(examples.failed_record("c0ffee"), run_id, artifacts=[b"x", b"y"], keeps_ok=True)
    assert store.stored_statuses(["c0ffee"]) == {"c0ffee": Status.OK}
    assert store.units("c0ffee") == []
    assert [path for path in store.artifacts_folder.rglob("*") if path.is_file()] == [
        store.artifacts_folder / file.path
    ]
    store.save_cell(examples.failed_record("c0ffee"), run_id)
    assert store.stored_statuses(["c0ffee"]) == {"c0ffee": Status.FAILED}


def test_samples_that_cells_share_are_stored_once(store: ResultStore, run_id: str, sql: Sql) -> None:
    for cell_id in ("a", "b"):
        store.save_cell(examples.ok_record(cell_id), run_id)
    assert sql("SELECT count, dataset_revision FROM sample_sets") == [(4, "digits-1")]
    first, second = store.cells()
    assert first.cell.samples is second.cell.samples


# ---------------------------------------------------------------- what the database itself refuses


METRIC = "INSERT INTO metrics VALUES ('{cell}', 'robust_accuracy', '{status}', {numbers})"
REFUSED = {
    "metrics of a failed cell": METRIC.format(cell="bad", status="ok", numbers="1.0, 0.9, 1.0"),
    "metrics that say failed themselves": METRIC.format(cell="bad", status="failed", numbers="1.0, 0.9, 1.0"),
    "metrics of no cell": METRIC.format(cell="none", status="ok", numbers="1.0, 0.9, 1.0"),
    "an interval beside its value": "UPDATE metrics SET low = 0.9 WHERE name = 'robust_accuracy'",
    "outcomes of a failed cell": "INSERT INTO sample_outcomes VALUES ('bad', 'ok', '')",
    "failing a cell that has metrics": "UPDATE cells SET status = 'failed', reason = 'x' WHERE cell_id = 'good'",
    "an unknown status": "UPDATE cells SET status = 'broken' WHERE cell_id = 'bad'",
    "an unknown verdict": "UPDATE cells SET verdict = 'maybe' WHERE cell_id = 'good'",
    "a failed cell without reason": "UPDATE cells SET reason = NULL WHERE cell_id = 'bad'",
    "an ok cell with a reason": "UPDATE cells SET reason = 'because' WHERE cell_id = 'good'",
    "a cell of no run": "UPDATE cells SET run_id = 'none'",
    "artifacts of no cell": "INSERT INTO artifacts VALUES (1, 'none', 'k', 'p', 's', 1)",
    "an unknown run status": "UPDATE runs SET status = 'paused'",
    "a unit that ends before it begins": "UPDATE unit_outcomes SET stop = 0",
    "a failed unit with outcomes": "UPDATE unit_outcomes SET status = 'failed', reason = 'x'",
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED.keys())
def test_the_database_refuses(store: ResultStore, run_id: str, sql: Sql, statement: str) -> None:
    store.save_cell(examples.ok_record("good"), run_id)
    store.save_cell(examples.failed_record("bad"), run_id)
    store.save_unit(examples.make_unit("open", 0, 2), run_id)
    with pytest.raises(IntegrityError):
        sql(statement)


NONSENSE = {
    "a failed cell with metrics": examples.failed_record(metrics={"robust_accuracy": Estimate(1.0, 0.9, 1.0)}),
    "a failed cell with outcomes": examples.failed_record(outcomes=examples.make_outcomes()),
    "a failed cell without reason": examples.failed_record(reason=None),
    "an ok cell with a reason": examples.ok_record("badce11", reason="because"),
    "an interval beside its value": examples.ok_record("badce11", metrics={"x": Estimate(0.5, 0.6, 0.7)}),
}


@pytest.mark.parametrize("record", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_record_that_makes_no_sense_leaves_the_stored_one(
    store: ResultStore, run_id: str, record: CellRecord
) -> None:
    store.save_cell(examples.ok_record("badce11"), run_id)
    with pytest.raises(StoreError, match="constraint"):
        store.save_cell(record, run_id)
    assert_same(store.cells()[0], examples.ok_record("badce11"))


def test_a_database_refuses_from_the_moment_it_is_created(tmp_path: Path) -> None:
    with open_store(tmp_path / "new.db") as store:
        run_id = store.begin_run(["rbl"], {}, {})
        with pytest.raises(StoreError, match="FOREIGN KEY constraint failed"):
            store.save_cell(examples.failed_record(outcomes=examples.make_outcomes()), run_id)


def test_numbers_are_stored_as_numbers(store: ResultStore, run_id: str, sql: Sql) -> None:
    store.save_cell(examples.ok_record(), run_id)
    type_of = "typeof" if store.name.endswith(".db") else "pg_typeof"
    columns = ("eps", "seed", "samples", "wall_seconds", "forward_per_sample")
    types = ", ".join(f"CAST({type_of}({name}) AS TEXT)" for name in columns)
    (found,) = sql(f"SELECT {types} FROM cells")  # noqa: S608
    real, whole = {"real", "double precision"}, {"integer", "bigint"}
    assert all(kind in allowed for kind, allowed in zip(found, (real, whole, whole, real, real), strict=True))
    metrics = sql(f"SELECT DISTINCT CAST({type_of}(value) AS TEXT), CAST({type_of}(low) AS TEXT) FROM metrics")  # noqa: S608
    assert len(metrics) == 1
    assert set(metrics[0]) <= real


def test_the_definition_can_be_read_by_any_program(store: ResultStore, run_id: str, sql: Sql) -> None:
    store.save_cell(examples.ok_record(), run_id)
    ((text,),) = sql("SELECT CAST(definition AS TEXT) FROM cells")
    definition = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert definition["attack"]["params"]["steps"] == 50
    assert definition["attack"]["identity"] == examples.make_cell().attack.identity


# ---------------------------------------------------------------- cost


def test_importing_the_store_imports_nothing_heavy() -> None:
    heavy = ["alembic", "pandas", "scipy", "torch"]
    code = f"import sys, robustbench_lab.result_store; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_an_existing_database_does_not_import_alembic(store: ResultStore) -> None:
    code = (
        "import sys; from robustbench_lab.result_store import open_store\n"
        "open_store(sys.argv[1]).close(); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, store.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
