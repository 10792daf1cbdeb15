"""Make every LEADERBOARD.md from its rule (leaderboard.toml) and its results (results/*.jsonl).

python leaderboards/build.py            write them
python leaderboards/build.py --check    exit 1 where one is stale
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustbench_lab.leaderboard import LeaderboardDefinition
from robustbench_lab.pipeline import open_catalog, rank
from robustbench_lab.report import markdown
from robustbench_lab.report.jsonl import read_lines

FOLDER = Path(__file__).resolve().parent
NOTE = "<!-- Made by leaderboards/build.py from leaderboard.toml and results/. Do not edit. -->\n\n"


def page(folder: Path) -> str:
    """The text of a curated leaderboard."""
    records = []
    for file in sorted((folder / "results").glob("*.jsonl")):
        records += read_lines(file.read_text(encoding="utf-8").splitlines(), file.name)
    definition = LeaderboardDefinition.from_toml(folder / "leaderboard.toml")
    return NOTE + markdown.render(rank(records, definition, open_catalog()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for rule in sorted(FOLDER.glob("*/leaderboard.toml")):
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
