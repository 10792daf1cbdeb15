"""Make every LEADERBOARD.md from its rule (leaderboard.toml) and its results (results/*.jsonl).

python leaderboards/build.py            write them
python leaderboards/build.py --check    exit 1 where one is stale
python leaderboards/build.py --metrics  write the metrics in results/ anew from their outcomes, then the pages
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from robustbench_lab.pipeline import open_catalog, rank
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import CellRecord
from robustbench_lab.report import markdown
from robustbench_lab.report.jsonl import read_lines, result_line

FOLDER = Path(__file__).resolve().parent
NOTE = "<!-- Made by leaderboards/build.py from leaderboard.toml and results/. Do not edit. -->\n\n"


def page(folder: Path) -> str:
    """The text of a curated leaderboard."""
    records = []
    for file in sorted((folder / "results").glob("*.jsonl")):
        records += read_lines(file.read_text(encoding="utf-8").splitlines(), file.name)
    definition = LeaderboardDefinition.from_toml(folder / "leaderboard.toml")
    return NOTE + markdown.render(rank(records, definition, open_catalog()))


def measured_again(record: CellRecord) -> CellRecord:
    """A result with all metrics of its task as they are computed today."""
    if record.outcomes is None:
        return record
    task = record.cell.task
    named = task_metrics(open_catalog(), {task})[task]
    return replace(record, metrics={metric.name: metric.function(record.outcomes) for metric in named})


def measure_again(folder: Path) -> None:
    """Do so for all results of a curated leaderboard."""
    for file in sorted((folder / "results").glob("*.jsonl")):
        records = read_lines(file.read_text(encoding="utf-8").splitlines(), file.name)
        file.write_text("".join(result_line(measured_again(one)) + "\n" for one in records), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--metrics", action="store_true")
    given = parser.parse_args()
    check, stale = given.check, []
    for rule in sorted(FOLDER.glob("*/leaderboard.toml")):
        if given.metrics:
            measure_again(rule.parent)
        target = rule.with_name("LEADERBOARD.md")
        made = page(rule.parent)
        if check and (not target.is_file() or target.read_text(encoding="utf-8") != made):
            stale.append(target.parent.name)
        elif not check:
            target.write_text(made, encoding="utf-8")
    if stale:
        print(f"stale: {', '.join(stale)}; run `make leaderboards` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
