"""One stored result in a terminal: what was evaluated, what came out, how far to trust it, where it was computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_lab.ranking.leaderboard import NamedMetric
from robustbench_lab.records import CellRecord, Outcomes, Severity, Status
from robustbench_lab.report import formatting as write
from robustbench_lab.report.breaking_budgets import median_distance, robust_shares
from robustbench_lab.report.run_facts import environment_facts, run_facts
from robustbench_lab.report.table import VERDICT_STYLES

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

STATUS_STYLES = {Status.OK: "green", Status.SKIPPED: "yellow", Status.FAILED: "red"}
SEVERITY_STYLES = {Severity.INFO: "dim", Severity.SUSPECT: "yellow", Severity.FATAL: "red"}
COMPONENTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")

Line = tuple[str, "str | Text"]


def renderable(
    record: CellRecord, provenance: Mapping[str, Any], *, samples: bool = False, metrics: Sequence[NamedMetric] = ()
) -> RenderableType:
    """For a Rich console.

    provenance: of the run that stored the cell. samples: list what became of each. metrics: tells which of the cell's
    metrics are shares, shown in percent; others are plain numbers.
    """
    return _CellView(record, provenance, samples, metrics)


@dataclass(frozen=True)
class _CellView:
    record: CellRecord
    provenance: Mapping[str, Any]
    samples: bool
    metrics: Sequence[NamedMetric]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        record = self.record
        yield Text.assemble(
            ("Cell ", "bold"),
            (record.cell.cell_id, "bold cyan"),
            ("   " + record.status.value, STATUS_STYLES[record.status]),
            ("" if record.verdict is None else f" · {record.verdict.value}", _verdict_style(record)),
        )
        if record.reason is not None:
            yield Text(write.printable(record.reason), style=STATUS_STYLES[record.status])
        yield from _section("Definition", _definition(record))
        yield from _section("Result", _result(record, self.metrics))
        yield from _section("Findings", _findings(record))
        yield from _section("Provenance", self._provenance())
        if self.samples and record.outcomes is not None:
            yield Text()
            yield _samples(record, record.outcomes)

    def _provenance(self) -> Iterator[Line]:
        yield from _computed(self.record)
        told = (("run", "run_id"), ("stored at", "stored_at"))
        yield from ((name, str(self.provenance[key])) for name, key in told if self.provenance.get(key))
        yield from run_facts(self.provenance)
        yield from environment_facts(self.provenance)


def _section(title: str, lines: Sequence[Line] | Iterator[Line]) -> Iterator[RenderableType]:
    rows = list(lines)
    if rows:
        from rich.text import Text

        yield Text()
        yield Text(title, style="bold")
        yield _grid(rows)


def _grid(lines: Sequence[Line]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines:
        shown = Text(write.printable(value)) if isinstance(value, str) else value
        grid.add_row(Text(f"  {write.printable(name)}"), shown)
    return grid


def _definition(record: CellRecord) -> Iterator[Line]:
    from rich.text import Text

    cell = record.cell
    for name in COMPONENTS:
        component = getattr(cell, name)
        source = f"   {component.plugin} {component.version}, {component.identity[:8]}"
        yield name.replace("_", " "), Text.assemble(write.printable(component.label), (write.printable(source), "dim"))
    yield "eps", write.eps_text(cell.eps)
    yield "adversary", cell.adversary
    yield "seed", str(cell.seed)
    yield "samples", f"{len(cell.samples.sample_ids):,} (set {cell.samples.identity[:6]})"


def _result(record: CellRecord, metrics: Sequence[NamedMetric]) -> Iterator[Line]:
    fractions = {metric.name for metric in metrics if metric.fraction}
    for name, estimate in record.metrics.items():
        yield write.metric_title(name), write.estimate_text(estimate, fraction=name in fractions)
    if record.minimum_norm and record.outcomes is not None:
        yield from _distances(record.cell.eps, record.outcomes)
    if record.status is Status.OK:
        yield "Passes", f"{write.passes_text(record)} forward/backward per sample"


def _distances(eps: float, outcomes: Outcomes) -> Iterator[Line]:
    """What a minimum-norm attack tells of every budget."""
    median = median_distance(outcomes)
    yield "Median distance", f"{median:.4g}" if math.isfinite(median) else "none found for most samples"
    for budget, share in robust_shares(eps, outcomes).items():
        yield f"Robust at {write.eps_text(budget)}", f"at most {write.estimate_text(share, fraction=True)}"


def _findings(record: CellRecord) -> Iterator[Line]:
    from rich.text import Text

    for finding in record.findings:
        text = f"  {write.printable(finding.line)}"
        yield (
            finding.severity.value,
            Text.assemble((write.printable(finding.code), SEVERITY_STYLES[finding.severity]), text),
        )


def _samples(record: CellRecord, outcomes: Outcomes) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("Sample", overflow="fold")
    table.add_column("Without attack")
    table.add_column("Under attack")
    table.add_column("Distance", justify="right")
    columns = (outcomes.clean_correct.tolist(), outcomes.robust.tolist(), outcomes.distance.tolist())
    for sample_id, correct, robust, distance in zip(record.cell.samples.sample_ids, *columns, strict=True):
        table.add_row(
            Text(write.printable(sample_id)),
            Text("right" if correct else "wrong", style="" if correct else "dim"),
            Text("robust", "green") if robust else Text("broken" if correct else "wrong", "red" if correct else "dim"),
            write.ABSENT if math.isnan(distance) else f"{distance:.4g}",
        )
    return table


def _computed(record: CellRecord) -> Iterator[Line]:
    yield "time", write.duration_text(record.wall_seconds)
    yield "device", f"{record.device}, batches of {record.batch_size}, executor {record.executor}"


def _verdict_style(record: CellRecord) -> str:
    return "" if record.verdict is None else VERDICT_STYLES[record.verdict]
