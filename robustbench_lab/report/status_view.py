"""The runs of a database, as `rbl status` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from robustbench_lab.report.formatting import ABSENT, duration_text, printable
from robustbench_lab.report.json_documents import SCHEMA_VERSION, plain_json
from robustbench_lab.report.listing_table import ListingColumn, listing_table
from robustbench_lab.report.run_view import run_line, slot_lines
from robustbench_lab.result_store.run_board import RunNotice

COLUMNS = (
    ListingColumn("run"),
    ListingColumn("condition", least=10),
    ListingColumn("began"),
    ListingColumn("cells done", right=True),
    ListingColumn("failed", right=True),
    ListingColumn("left", right=True),
    ListingColumn("passes/s", right=True, minor=2),
    ListingColumn("time left", right=True),
    ListingColumn("machine", minor=1),
)
MOST_SLOTS = 1000


def status_document(database: str, runs: Sequence[RunNotice]) -> dict[str, Any]:
    """What `rbl status --json` prints."""
    return {"schema_version": SCHEMA_VERSION, "database": database, "runs": [_run(run) for run in runs]}


def renderable(runs: Sequence[RunNotice], *, slots_of: Sequence[RunNotice], width: int) -> RenderableType:
    """A table of runs, and below it the slots of some of them."""
    parts: list[RenderableType] = [listing_table(COLUMNS, [_row(run) for run in runs], width), Text()]
    for run in slots_of:
        if run.state is not None and run.state["slots"]:
            lines = slot_lines(run.state, {}, width, MOST_SLOTS)
            parts.append(Text("\n".join([f"run {run.run_id}: {run_line(run.state)}", *lines, ""]), no_wrap=True))
    return Group(*parts)


def line(run: RunNotice) -> str:
    """A run on one line."""
    said = "it has said nothing yet" if run.state is None else run_line(run.state)
    return f"run {run.run_id} {run.condition}: {said}"


def _row(run: RunNotice) -> list[str]:
    began = run.started_at.astimezone().strftime("%Y-%m-%d %H:%M")
    condition = run.condition
    if condition == "dead" and run.silent_seconds is not None:
        condition = f"dead for {duration_text(run.silent_seconds)}"
    row = [run.run_id, condition, began]
    if run.state is None:
        return row + [ABSENT] * (len(COLUMNS) - len(row))
    state = run.state
    at_work = run.condition == "running"
    done = f"{state['to_do'] - state['left']:,} of {state['to_do']:,}"
    speed = f"{state['passes_per_second']:,.0f}"
    known = at_work and state["seconds_left"] is not None
    left = duration_text(state["seconds_left"]) if known else ABSENT
    return [*row, done, f"{state['failed']:,}", f"{state['left']:,}", speed, left, printable(run.host or "")]


def _run(run: RunNotice) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "condition": run.condition,
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "finished_at": run.finished_at and run.finished_at.isoformat(timespec="seconds"),
        "command": list(run.command),
        "host": run.host,
        "silent_seconds": run.silent_seconds,
        "state": plain_json(run.state),
    }
