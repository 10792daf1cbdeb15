"""Draw docs/images/leaderboard.svg, the picture of the README, from results computed here: about half a minute.

python docs/images/make_leaderboard_picture.py
"""

from __future__ import annotations

import html
import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking.leaderboard import Leaderboard
from robustbench_lab.report.table import renderable

PICTURE = Path(__file__).with_name("leaderboard.svg")
ATTACKS = ["pgd", "noise"]
DEFENSES = ["none", "bit-depth", "median"]
COLUMNS = 122
COLUMN_WIDTH = 12.2
"""Of Rich's pictures."""
TEXT = re.compile(r'x="([\d.]+)" (y="[\d.]+") textLength="[\d.]+"( clip-path="[^"]+")>([^<\n]+)</text>')
LIGHT = TerminalTheme(
    background=(255, 255, 255),
    foreground=(31, 35, 40),
    normal=[
        (31, 35, 40),
        (207, 34, 46),
        (17, 99, 41),
        (149, 87, 0),
        (9, 105, 218),
        (130, 80, 223),
        (9, 105, 165),
        (89, 99, 110),
    ],
)
"""Dark on white, with the contrast that small text needs."""


def main() -> None:
    leaderboard = _evaluated()
    options = [f"--{kind} {name}" for kind, names in (("attack", ATTACKS), ("defense", DEFENSES)) for name in names]
    PICTURE.write_text(_drawn(leaderboard, f"rbl run {' '.join(options)}"), encoding="utf-8")


def _evaluated() -> Leaderboard:
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "rbl.db")
        spec = ExperimentSpec.from_flags(attacks=ATTACKS, defenses=DEFENSES, database=database)
        return run_experiment(spec, open_catalog()).leaderboard


def _drawn(leaderboard: Leaderboard, title: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(renderable(leaderboard))
    drawn = console.export_svg(title=title, theme=LIGHT, unique_id="leaderboard")
    # A picture in a page may load nothing; without the web font a monospaced one of the reader's own is taken.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = TEXT.sub(_without_outer_spaces, drawn)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def _without_outer_spaces(text: re.Match[str]) -> str:
    """A piece of text that begins where its first letter stands: some viewers drop leading spaces."""
    x, y, clip, content = text.groups()
    written = content.replace("&#160;", " ")
    start = float(x) + COLUMN_WIDTH * (len(written) - len(written.lstrip()))
    shown = written.strip()
    length = COLUMN_WIDTH * len(html.unescape(shown))
    kept = shown.replace(" ", "&#160;")
    return f'x="{start:.1f}" {y} textLength="{length:.1f}"{clip}>{kept}</text>'


if __name__ == "__main__":
    main()
