"""What the report's figures have in common: colours that follow the page's, and how they stand in it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from robustbench_lab.report import formatting as write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES = 8
NAME_WIDTH = 40
MARKERS = "osD^vPX*"

# Placeholders that matplotlib writes into the SVG and `inline_svg` replaces by the page's CSS variables.
TEXT, QUIET, GRID = "#010101", "#010102", "#020202"
SERIES = tuple(f"#0303{number:02x}" for number in range(1, MOST_CURVES + 1))
VARIABLES: Mapping[str, str] = {
    TEXT: "var(--text)",
    QUIET: "var(--quiet)",
    GRID: "var(--line)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)},
}

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


def name_curves(axes: Axes, names: Sequence[str]) -> None:
    """A legend above the axes, of their lines in order."""
    lines = axes.get_lines()
    # Names are set afterwards: matplotlib leaves labels out that begin with an underscore.
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "borderaxespad": 0, "frameon": False}
    legend = axes.legend(lines, [f"{number}" for number in range(len(lines))], **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(write.shorten(write.printable(name), 2 * NAME_WIDTH))


@contextmanager
def page_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of that size in inches, under the settings that `inline_svg` relies on."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "robustbench-lab",
        "text.parse_math": False,
        "text.usetex": False,
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.edgecolor": GRID,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.alpha": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": TEXT,
        "ytick.labelcolor": TEXT,
        "font.size": 10,
        "path.simplify": False,
    }
    with rc_context(settings), warnings.catch_warnings():
        # Text stays text and is drawn by the browser, which has the glyphs that matplotlib misses.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(width, height), layout="constrained")


def inline_svg(figure: Figure, figure_id: str, title: str, description: str) -> str:
    """SVG to stand inside a page: no ids that collide, no fixed colours, and a text for those who cannot see it."""
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
    )
    root = ET.fromstring(stream.getvalue())  # noqa: S314 (matplotlib's own output)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(key.removeprefix(_XLINK), _attribute(key, value, figure_id))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{figure_id}-title {figure_id}-text")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{figure_id}-{'title' if tag == 'title' else 'text'}"})
        element.text = write.printable(text)
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, figure_id: str) -> str:
    if key == "id":
        return f"{figure_id}-{value}"
    if key.endswith("href"):
        return f"#{figure_id}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{figure_id}-")
    if key == "style":
        value = re.sub(r"(font(?:-family)?:[^;]*?)\s*'DejaVu Sans'[^;]*", r"\1 system-ui, sans-serif", value)
        value = re.sub("#[0-9a-f]{6}", lambda color: VARIABLES.get(color.group(), color.group()), value)
    return value
