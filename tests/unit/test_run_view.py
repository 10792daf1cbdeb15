"""A run at work as lines of text, whatever the names and however narrow the terminal."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.hardware.gpus import Gpu
from robustbench_lab.report.run_view import busy_line, run_line, slot_lines

GB = 1024**3


def work(**changed: Any) -> dict[str, Any]:
    usual = {
        "cell_id": "c1",
        "model": "resnet",
        "defense": "none",
        "dataset": "cifar",
        "attack": "pgd",
        "threat_model": "linf(eps=0.1)",
        "eps": 8 / 255,
        "start": 0,
        "stop": 200,
        "unbroken": 90,
        "passes": 3000,
        "seconds": 2.0,
    }
    return usual | changed


def state(slots: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    usual = {
        "to_do": 48,
        "left": 36,
        "failed": 0,
        "skipped": 0,
        "stored": 0,
        "units": 120,
        "retries": 0,
        "passes_per_second": 23456.0,
        "seconds": 700.0,
        "seconds_left": 720.0,
        "stopping": None,
        "slots": slots,
    }
    return usual | changed


def slot(name: str, doing: dict[str, Any] | None, busy: float = 0.5) -> dict[str, Any]:
    return {"slot": name, "device": name, "units": 3, "busy_share": busy, "work": doing}


def test_a_wide_terminal_shows_all_there_is_to_say() -> None:
    gpus = {"cuda:0": Gpu("cuda:0", "H200", 140 * GB, 100 * GB, 0.97)}
    heading, line, waiting = slot_lines(state([slot("cuda:0", work()), slot("cuda:1", None)]), gpus, 160, 50)
    assert heading.split() == ["slot", "runs", "samples", "robust", "passes/s", "for", "busy", "memory", "GPU"]
    assert line.startswith("cuda:0  pgd · resnet · cifar · linf 8/255 ")
    assert line.split()[-12:] == ["200", "45.0%", "1,500", "2.0", "s", "50%", "40.0", "GB", "of", "140.0", "GB", "97%"]
    assert len(line) == 160
    assert waiting.startswith("cuda:1  waits")


def test_the_line_of_the_run() -> None:
    assert run_line(state([])) == "12 of 48 cells done; 12 min left; 23,456 passes/s"
    much = state([], failed=1, skipped=2, stored=3, retries=1, stopping="Ctrl-C\n")
    assert run_line(much) == (
        "12 of 48 cells done, 1 failed, 2 skipped, 3 stored before; 12 min left; 23,456 passes/s; 1 unit retried; "
        "stopping: Ctrl-C "
    )
    assert "left" not in run_line(state([], seconds_left=None))
    shared = state([], found=4, waiting=1)
    assert run_line(shared) == (
        "12 of 48 cells done, 4 by other runs; 12 min left; 23,456 passes/s; waits for 1 cell of other runs"
    )


def test_the_busy_share_of_the_slots() -> None:
    assert busy_line(state([slot("cpu", None, 0.97)])) == "busy 97% of 12 min (cpu); 120 units"
    two = [slot("cuda:0", None, 0.9), slot("cuda:1", None, 1.0)]
    assert busy_line(state(two, retries=2)) == "busy 95% of 12 min (cuda:0 90%, cuda:1 100%); 120 units, 2 retried"
    many = [slot(f"cuda:{index}", None, index / 100) for index in range(51)]
    assert busy_line(state(many)) == "busy 25% of 12 min (51 slots, 0% to 50%); 120 units"


names = st.text(max_size=60)
works = st.builds(work, model=names, attack=names)


@given(
    slots=st.lists(st.builds(slot, st.text("abc:/", min_size=1, max_size=12), st.none() | works), max_size=400),
    width=st.integers(8, 200),
    most=st.integers(2, 60),
    with_gpus=st.booleans(),
)
def test_any_view_fits_its_terminal_and_has_no_control_characters(
    slots: list[dict[str, Any]], width: int, most: int, with_gpus: bool
) -> None:
    gpus = {one["device"]: Gpu(one["device"], "x", GB, 0, None) for one in slots} if with_gpus else {}
    lines = slot_lines(state(slots), gpus, width, most)
    assert len(lines) <= max(most, 3)
    assert all(len(line) <= width and (line.isprintable() or not line) for line in lines)
    if len(lines) - 1 < len(slots):
        assert lines[-1] == f"… and {len(slots) - len(lines) + 2} more slots"[:width]


def test_where_there_is_no_room_for_all_slots_those_that_work_are_shown() -> None:
    slots = [slot(f"cuda:{index}", work() if index in (5, 7) else None) for index in range(9)]
    lines = slot_lines(state(slots), {}, 100, 4)
    assert [line.split()[0] for line in lines[1:3]] == ["cuda:5", "cuda:7"]
    assert lines[3] == "… and 7 more slots"
