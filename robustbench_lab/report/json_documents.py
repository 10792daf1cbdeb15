"""The machine-readable documents. Their schemas are in docs/schemas; a key is added, never changed or taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable, flag_codes
from robustbench_lab.records import Cell, CellRecord, Finding, Outcomes, ResolvedComponent
from robustbench_lab.report.attack_comparison import AttackTable, ComparedAttack
from robustbench_lab.report.breaking_budgets import median_distance, robust_shares

SCHEMA_VERSION = 1
COMPONENTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")


def run_document(run_id: str, database: str, records: Sequence[CellRecord]) -> dict[str, Any]:
    """What `rbl run --json` prints: the run's cells, those stored before included."""
    cells = [result(record) for record in records]
    return {"schema_version": SCHEMA_VERSION, "run_id": run_id, "database": database, "cells": cells}


def leaderboard_document(leaderboard: Leaderboard) -> dict[str, Any]:
    """What `rbl leaderboard --json` prints: the tables, and the cells they rest on."""
    definition = asdict(leaderboard.definition)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": definition.pop("name"),
        "title": definition.pop("title"),
        "definition": plain_json(definition),
        "tables": [_table(table) for table in leaderboard.tables],
        "cells": [result(record) for record in leaderboard.records],
    }


def comparison_document(tables: Sequence[AttackTable]) -> dict[str, Any]:
    """What `rbl compare --json` prints: the attacks on the models of each leaderboard table."""
    return {"schema_version": SCHEMA_VERSION, "tables": [_attack_table(table) for table in tables]}


def cell_document(record: CellRecord, provenance: Mapping[str, Any], *, samples: bool = False) -> dict[str, Any]:
    """What `rbl show CELL --json` prints; with `samples`, the outcome of each of them."""
    document = {
        "schema_version": SCHEMA_VERSION,
        **result(record),
        "components": {name: _component(getattr(record.cell, name)) for name in COMPONENTS},
        "sample_set": {
            "identity": record.cell.samples.identity,
            "dataset_revision": record.cell.samples.dataset_revision,
        },
        "evaluation": {"device": record.device, "batch_size": record.batch_size, "executor": record.executor},
        "provenance": plain_json(provenance),
        "distances": _distances(record),
    }
    if samples:
        document["outcomes"] = [] if record.outcomes is None else _outcomes(record.cell, record.outcomes)
    return document


def result(record: CellRecord) -> dict[str, Any]:
    """One cell, as it stands in every document."""
    cell = record.cell
    return {
        "cell_id": cell.cell_id,
        "status": record.status.value,
        "reason": record.reason,
        "task": cell.task,
        "model": cell.model.label,
        "defense": cell.defense.label,
        "dataset": cell.dataset.label,
        "attack": cell.attack.label,
        "objective": cell.objective.label,
        "threat_model": cell.threat_model.label,
        "adversary": cell.adversary,
        "norm": cell.norm,
        "eps": _number(cell.eps),
        "seed": cell.seed,
        "samples": len(cell.samples.sample_ids),
        "metrics": _metrics(record.metrics),
        "forward_per_sample": _number(record.forward_per_sample),
        "backward_per_sample": _number(record.backward_per_sample),
        "wall_seconds": _number(record.wall_seconds),
        "verdict": record.verdict and record.verdict.value,
        "flags": list(flag_codes(record.findings)),
        "findings": [_finding(finding) for finding in record.findings],
    }


def cell_row(record: CellRecord) -> dict[str, Any]:
    """One cell as a flat row, for data frames: each metric as `name`, `name_low`, `name_high`; flags as one text."""
    row = result(record)
    metrics, findings = row.pop("metrics"), row.pop("findings")
    row["flags"] = "; ".join(row["flags"])
    for name, one in metrics.items():
        row |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"]}
    return row | {"findings": "; ".join(finding["message"] for finding in findings)}


def plain_json(value: Any) -> Any:
    """`value` in what JSON has: NaN and infinities become null, paths and unknown objects text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | PurePath):
        return [plain_json(one) for one in value]
    return str(value)


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinities."""
    return value if value is not None and math.isfinite(value) else None


def _metrics(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}
        for name, one in metrics.items()
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "value": _number(finding.value),
    }


def _component(component: ResolvedComponent) -> dict[str, Any]:
    return {
        "name": component.name,
        "label": component.label,
        "params": plain_json(component.params),
        "plugin": component.plugin,
        "version": component.version,
        "identity": component.identity,
    }


def _outcomes(cell: Cell, outcomes: Outcomes) -> list[dict[str, Any]]:
    columns = (
        cell.samples.sample_ids,
        outcomes.clean_correct.tolist(),
        outcomes.robust.tolist(),
        outcomes.distance.tolist(),
    )
    return [
        {"sample_id": sample_id, "clean_correct": correct, "robust": robust, "distance": _number(distance)}
        for sample_id, correct, robust, distance in zip(*columns, strict=True)
    ]


def _distances(record: CellRecord) -> dict[str, Any] | None:
    """What a minimum-norm attack tells of other budgets; None for other attacks, and where there is no result."""
    if record.outcomes is None or not record.minimum_norm:
        return None
    shares = robust_shares(record.cell.eps, record.outcomes)
    return {
        "median": _number(median_distance(record.outcomes)),
        "robust_at": [{"eps": _number(eps), **_metrics({"share": one})} for eps, one in shares.items()],
    }


def _table(table: LeaderboardTable) -> dict[str, Any]:
    return {**_subject(table), "sort": table.sort, "rows": [_row(row) for row in table.rows]}


def _attack_table(table: AttackTable) -> dict[str, Any]:
    rows = [_compared_attack(row) for row in table.rows]
    return {**_subject(table.about), "models": table.models, "broken": table.broken, "attacks": rows}


def _subject(table: LeaderboardTable) -> dict[str, Any]:
    return {
        "task": table.task,
        "dataset": table.dataset,
        "samples": table.samples,
        "sample_set": table.sample_set,
        "objective": table.objective,
        "threat_model": table.threat_model,
        "adversary": table.adversary,
        "norm": table.norm,
        "eps": _number(table.eps),
    }


def _compared_attack(row: ComparedAttack) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "tied": row.tied,
        "attack": row.label,
        "baseline": row.baseline,
        "models": row.models,
        **_metrics({"found": row.found}),
        "alone": row.alone,
        "optimality": _number(row.optimality),
        "forward_per_sample": _number(row.forward_per_sample),
        "backward_per_sample": _number(row.backward_per_sample),
        "wall_seconds": _number(row.wall_seconds),
        "verdict": row.verdict and row.verdict.value,
        "cell_ids": list(row.cell_ids),
    }


def _row(row: LeaderboardRow) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "tied": row.tied,
        "model": row.model,
        "defense": row.defense,
        "variant": row.variant or None,
        "metrics": _metrics(row.metrics),
        "published": row.published and plain_json(asdict(row.published)),
        "attacks": [
            {
                "attack": one.label,
                "baseline": one.baseline,
                "metrics": _metrics(one.metrics),
                "forward_per_sample": _number(one.forward_per_sample),
                "backward_per_sample": _number(one.backward_per_sample),
                "wall_seconds": _number(one.wall_seconds),
                "seeds": list(one.seeds),
                "cell_ids": list(one.cell_ids),
            }
            for one in row.attacks
        ],
        "absent_attacks": [{"attack": one.label, "status": one.status, "reason": one.reason} for one in row.absent],
        "forward_per_sample": _number(row.forward_per_sample),
        "backward_per_sample": _number(row.backward_per_sample),
        "wall_seconds": _number(row.wall_seconds),
        "verdict": row.verdict and row.verdict.value,
        "flags": list(row.flags),
        "findings": [_finding(finding) for finding in row.findings],
        "seeds": list(row.seeds),
        "cell_ids": list(row.cell_ids),
    }
