"""The log of a run: every event is one line that follows the schema, whatever plugins call themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from robustbench_lab.hardware.device_slots import make_slots
from robustbench_lab.records import Finding, Severity, Status, UnitRecord, WorkUnit
from robustbench_lab.report import run_log
from robustbench_lab.report.run_log import RunLog
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.testing.example_results import example_cell, example_component, example_gap, example_result

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "run-log.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


def unit_record(unit: WorkUnit, reason: str | None) -> UnitRecord:
    return UnitRecord(
        cell_id=unit.cell.cell_id,
        start=unit.start,
        stop=unit.stop,
        status=Status.FAILED if reason else Status.OK,
        reason=reason,
        outcomes=None,
        forward_passes=20,
        backward_passes=10,
        wall_seconds=0.5,
        findings=(Finding("few-steps", Severity.SUSPECT, "text"),),
        device="cpu",
        batch_size=10,
    )


def tell_everything(observer: RunObserver, name: str) -> None:
    """Every event there is; `name` stands wherever a plugin may write."""
    (slot,) = make_slots(["cpu"])
    cell = replace(example_cell(samples=10), attack=example_component(name), model=example_component(name))
    unit = WorkUnit(cell, 0, 10)
    observer.run_started("run1", [cell], 2)
    observer.slots_known([slot])
    observer.unit_started(unit, slot)
    observer.unit_progressed(UnitProgress(unit, slot, 10, 7, 40, 20))
    observer.unit_retried(unit, slot, name)
    observer.unit_started(unit, slot)
    observer.unit_finished(unit_record(unit, None), slot)
    observer.unit_finished(unit_record(unit, name or "why"), slot)
    observer.cell_finished(replace(example_result([True] * 10), cell=cell))
    observer.cell_finished(example_gap(Status.FAILED, name or "why"))
    observer.run_waiting(1)
    observer.cell_found(replace(example_result([True] * 10), cell=cell))
    observer.run_stopping(name)
    observer.run_finished(True)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.iterdir()
    assert file.name == "run1.jsonl"
    assert file.read_bytes().isascii()
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(run_log, "PROGRESS_SECONDS", 0.0)
    tell_everything(RunLog(tmp_path), "pgd")
    return lines_of(tmp_path)


def test_every_event_that_an_observer_hears_of_is_in_the_log_and_in_the_schema(events: list[dict[str, Any]]) -> None:
    heard = {name for name in vars(RunObserver) if not name.startswith("_")}
    assert {event["event"] for event in events} == heard
    assert {one["properties"]["event"]["const"] for one in SCHEMA["oneOf"]} == heard


def test_every_line_follows_the_schema_which_knows_each_key(events: list[dict[str, Any]]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for event in events:
        assert [error.message for error in VALIDATOR.iter_errors(event)] == []
        assert not VALIDATOR.is_valid(event | {"surprise": 1})
        for key in event:
            assert not VALIDATOR.is_valid({name: value for name, value in event.items() if name != key}), key


def test_lines_say_when_where_and_what(events: list[dict[str, Any]]) -> None:
    assert all(datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0) for event in events)
    assert {event["run_id"] for event in events} == {"run1"}
    finished = next(event for event in events if event["event"] == "unit_finished")
    assert (finished["slot"], finished["start"], finished["stop"]) == ("cpu", 0, 10)
    assert (finished["forward_passes"], finished["seconds"], finished["findings"]) == (20, 0.5, ["few-steps"])
    gap = [event for event in events if event["event"] == "cell_finished"][1]
    assert (gap["status"], gap["reason"], gap["metrics"]) == ("failed", "pgd", {})


@given(st.text())
def test_no_name_or_message_can_forge_a_line(name: str) -> None:
    with TemporaryDirectory() as folder:
        tell_everything(RunLog(Path(folder)), name)
        events = lines_of(Path(folder))
    assert len(events) == 13  # progress comes every half minute at most
    assert next(event for event in events if event["event"] == "unit_started")["attack"] == name
    assert next(event for event in events if event["event"] == "unit_retried")["reason"] == name
    for event in events:
        VALIDATOR.validate(event)


def test_what_was_written_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "logs")
    log.run_started("run1", [example_cell()], 0)
    assert [line["event"] for line in lines_of(tmp_path / "logs")] == ["run_started"]
    log.run_finished(False)


def test_a_run_with_nothing_to_do_leaves_no_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "logs")
    log.run_started("run1", [], 5)
    log.run_finished(False)
    assert not (tmp_path / "logs").exists()
