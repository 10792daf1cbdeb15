"""The command that computes a row again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from robustbench_lab.ranking.leaderboard import LeaderboardTable
from robustbench_lab.records import CellRecord
from robustbench_lab.report.formatting import eps_text


def reproduce_command(table: LeaderboardTable, records: Sequence[CellRecord], plugins: Sequence[str] = ()) -> str:
    """`rbl run ...` for the cells of one row of `table`, quoted for a POSIX shell; numbers are exact.

    plugins: files that the runs of these cells loaded.
    """
    files = (part for file in plugins for part in ("--plugin", file))
    return shlex.join(["rbl", "run", *files, *_options(table, records)])


def _options(table: LeaderboardTable, records: Sequence[CellRecord]) -> Iterator[str]:
    cell = records[0].cell
    yield from ("--model", cell.model.label)
    if cell.defense.label != "none":
        yield from ("--defense", cell.defense.label)
    yield from ("--dataset", cell.dataset.label)
    for attack in dict.fromkeys(record.cell.attack.label for record in records):
        yield from ("--attack", attack)
    if table.has_plain_budget and table.norm is not None:
        yield from ("--norm", table.norm, "--eps", eps_text(table.eps))
    else:
        yield from ("--threat-model", table.threat_model)
    yield from ("--objective", table.objective)
    if table.adversary != "adaptive":
        yield from ("--adversary", table.adversary)
    yield from ("--samples", str(table.samples))
    for seed in sorted({record.cell.seed for record in records}):
        yield from ("--seed", str(seed))
