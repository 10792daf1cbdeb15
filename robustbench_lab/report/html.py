"""One static page that stands by itself: tables, figures, flags, commands and provenance. No script, no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustbench_lab import __version__
from robustbench_lab.errors import UsageError
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable, NamedMetric, group_by
from robustbench_lab.ranking.leaderboard_rows import FLAG_MEANINGS
from robustbench_lab.records import CellRecord, Status
from robustbench_lab.report import attack_table, figures
from robustbench_lab.report import formatting as write
from robustbench_lab.report.attack_comparison import AttackTable, compare_attacks
from robustbench_lab.report.cell_pictures import CellPictures
from robustbench_lab.report.error_curves import error_caption, error_curve
from robustbench_lab.report.page_figures import MOST_CURVES
from robustbench_lab.report.report_pictures import ReportPictures
from robustbench_lab.report.reproduce import reproduce_command
from robustbench_lab.report.run_facts import environment_facts, run_facts

NO_PICTURES = ReportPictures()


def write_report(
    leaderboard: Leaderboard,
    provenance: Mapping[str, Mapping[str, Any]],
    out_dir: Path,
    pictures: ReportPictures = NO_PICTURES,
) -> Path:
    """Write `index.html` to a folder, made where there is none, and return its path.

    provenance: for each cell id the run that stored it, as `ResultStore.run_of` gives it. Raises UsageError where the
    folder cannot be written to.
    """
    page = Path(out_dir) / "index.html"
    text = render(leaderboard, provenance, pictures)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"Cannot write {page}: {error.strerror or error}. Choose another folder with -o.") from error
    return page


def render(
    leaderboard: Leaderboard, provenance: Mapping[str, Mapping[str, Any]], pictures: ReportPictures = NO_PICTURES
) -> str:
    """The page as text. Everything that is not ours is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records = {record.cell.cell_id: record for record in leaderboard.records}
    runs = _runs({cell_id: one for cell_id, one in provenance.items() if cell_id in records})
    return environment.get_template("report.html.j2").render(
        version=__version__,
        title=write.printable(leaderboard.definition.title),
        description=leaderboard.definition.description,
        summary=_summary(leaderboard),
        explanation=write.EXPLANATION,
        sections=[
            _section(table, f"table-{number}", records, provenance)
            for number, table in enumerate(leaderboard.tables, start=1)
        ],
        compared=[_compared(table) for table in compare_attacks(leaderboard) if len(table.rows) > 1],
        compared_titles=attack_table.TITLES,
        compared_explanation=attack_table.EXPLANATION,
        curves=list(_curves(leaderboard.tables)),
        pictured=[_pictured(cell) for cell in pictures.cells],
        not_pictured=pictures.left_out,
        glossary=_glossary(leaderboard.tables),
        runs=runs,
        environments=_environments(runs),
    )


def _shown(value: Any) -> Any:
    """Every text without control characters: autoescape knows none, and one of them turns a line around."""
    return write.printable(value) if type(value) is str else value


def _summary(leaderboard: Leaderboard) -> str:
    names = {Status.OK: "finished", Status.SKIPPED: "skipped", Status.FAILED: "failed"}
    counts = {status: sum(one.status is status for one in leaderboard.records) for status in Status}
    parts = [f"{counts[status]:,} {name}" for status, name in names.items() if counts[status]]
    return f"Cells: {', '.join(parts) or 'none'}."


def _section(
    table: LeaderboardTable,
    section_id: str,
    records: Mapping[str, CellRecord],
    provenance: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    from markupsafe import Markup

    figure = figures.comparison(table, f"{section_id}-figure")
    errors = error_curve(table, f"{section_id}-errors")
    notes = write.note_numbers(table)
    rows = [(row, [records[one] for one in row.cell_ids]) for row in table.rows]
    return {
        "id": section_id,
        "heading": write.heading(table),
        "samples": write.samples_text(table),
        "metric_titles": [write.metric_title(metric.name) for metric in write.measured_metrics(table)],
        "published_titles": [write.published_title(metric) for metric in table.published],
        "rows": [
            _row(row, table)
            | {
                "note": notes.get(row.cell_ids),
                "command": reproduce_command(table, ones, _plugins(row.cell_ids, provenance)),
            }
            for row, ones in rows
        ],
        "notes": [
            {"names": ", ".join(write.printable(row.name) for row in note.rows), "findings": note.findings}
            for note in write.notes(table)
        ],
        # Built by us and escaped by the XML writer.
        "figure": None if figure is None else Markup(figure),  # noqa: S704
        "figure_caption": _comparison_caption(table),
        "error_figure": None if errors is None else Markup(errors),  # noqa: S704
        "error_caption": error_caption(table),
    }


def _plugins(cell_ids: Sequence[str], provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The files that the runs of some cells loaded, each once."""
    specs = [provenance.get(cell_id, {}).get("spec") or {} for cell_id in cell_ids]
    return list(dict.fromkeys(str(file) for spec in specs for file in spec.get("plugins", ())))


def _compared(table: AttackTable) -> dict[str, Any]:
    rows = [{"ranked": row.rank is not None, "texts": attack_table.texts(row)} for row in table.rows]
    return {"heading": write.heading(table.about), "summary": attack_table.summary(table), "rows": rows}


def _comparison_caption(table: LeaderboardTable) -> str:
    main = table.main_metric
    others = [write.metric_title(one.name) for one in figures.compared_with(table)]
    caption = f"{write.metric_title(main.name)} (dot) with its 95% interval"
    if others:
        caption += f"; rings: {', '.join(title[0].lower() + title[1:] for title in others)}"
    if any(row.rank is None and row.metrics for row in table.rows):
        caption += "; crosses: rows without a rank"
    with_results = sum(bool(row.metrics) for row in table.rows)
    return caption + (
        f". The first {figures.MOST_ROWS} of {with_results} rows." if with_results > figures.MOST_ROWS else "."
    )


def _row(row: LeaderboardRow, table: LeaderboardTable) -> dict[str, Any]:
    return {
        "rank": row.rank_label,
        "ranked": row.rank is not None,
        "name": write.printable(row.name),
        "metrics": [_metric(row, metric, main=metric == table.main_metric) for metric in write.measured_metrics(table)],
        "published": [write.published_text(row, metric) for metric in table.published],
        "attacks": write.attack_labels(row),
        "passes": write.passes_text(row),
        "time": write.seconds_text(row),
        "verdict": "" if row.verdict is None else row.verdict.value,
        "results": [
            {
                "label": write.printable(attack.label),
                "metrics": [
                    write.estimate_text(attack.metrics.get(metric.name), fraction=metric.fraction)
                    for metric in write.measured_metrics(table)
                ],
                "passes": write.passes_text(attack),
                "time": write.duration_text(attack.wall_seconds),
                "cell_ids": attack.cell_ids,
            }
            for attack in row.attacks
        ],
        "absent": row.absent,
    }


def _metric(row: LeaderboardRow, metric: NamedMetric, *, main: bool) -> dict[str, Any]:
    estimate = row.metrics.get(metric.name)
    return {
        "value": write.value_text(estimate, fraction=metric.fraction),
        "interval": "" if estimate is None else write.interval_text(estimate, fraction=metric.fraction),
        "main": main,
    }


def _curves(tables: Sequence[LeaderboardTable]) -> Iterator[dict[str, Any]]:
    from markupsafe import Markup

    plain = [table for table in tables if table.has_plain_budget]
    families = group_by(
        plain, lambda one: (one.task, one.dataset, one.sample_set, one.norm, one.objective, one.adversary)
    )
    for number, family in enumerate(families.values(), start=1):
        curves = figures.security_curves(family)
        if curves:
            caption = f"{write.printable(family[0].dataset)} · {family[0].norm} · {write.samples_text(family[0])}"
            if len(curves) > MOST_CURVES:
                caption += f" · the first {MOST_CURVES} of {len(curves)} rows"
            figure = figures.security_curve(curves, family[0], f"curve-{number}")
            yield {"figure": Markup(figure), "caption": caption}  # noqa: S704 (escaped by the XML writer)


def _pictured(shown: CellPictures) -> dict[str, Any]:
    cell = shown.record.cell
    parts = [getattr(cell, name).label for name in ("model", "defense", "attack", "objective")]
    parts.append(write.threat_model_text(cell.threat_model.label, cell.eps))
    return {
        "heading": " · ".join(write.printable(part) for part in parts),
        "cell_id": cell.cell_id,
        "legend": shown.legend,
        "remark": shown.remark,
        "pictures": [
            {
                "caption": one.caption,
                "alt": f"{one.shows}: {one.caption}",
                "source": f"data:{one.media_type};base64,{base64.b64encode(one.content).decode('ascii')}",
            }
            for one in shown.pictures
        ],
    }


def _glossary(tables: Sequence[LeaderboardTable]) -> list[tuple[str, str]]:
    found = {flag for table in tables for row in table.rows for flag in row.flags}
    return [(code, meaning) for code, meaning in FLAG_MEANINGS.items() if code in found]


def _runs(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each run once, with the number of its cells."""
    by_run = group_by(provenance.values(), lambda one: str(one.get("run_id", "unknown")))
    return [
        {
            "name": write.printable(name),
            "cells": f"{len(ones):,}",
            "facts": list(run_facts(ones[0])),
            "environment": list(environment_facts(ones[0])),
        }
        for name, ones in by_run.items()
    ]


def _environments(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each environment once, with the runs in it."""
    same = group_by((run for run in runs if run["environment"]), lambda run: json.dumps(run["environment"]))
    return [{"facts": ones[0]["environment"], "runs": [run["name"] for run in ones]} for ones in same.values()]
