"""Results as lines of JSON, one a cell, complete enough to be ranked again anywhere: what curated leaderboards hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError
from robustbench_lab.ranking.leaderboard import Leaderboard
from robustbench_lab.records import (
    Cell,
    CellRecord,
    Finding,
    ResolvedComponent,
    SampleSet,
    Severity,
    Status,
    Verdict,
)
from robustbench_lab.result_store.json_values import from_json, to_json
from robustbench_lab.result_store.packing import pack_outcomes, unpack_outcomes

COMPONENTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")
CELL_FIELDS = ("cell_id", "task", "norm", "eps", "adversary", "seed", "estimated_forward", "estimated_backward")
RECORD_FIELDS = (
    "reason",
    "forward_per_sample",
    "backward_per_sample",
    "wall_seconds",
    "device",
    "batch_size",
    "executor",
)


def render(leaderboard: Leaderboard) -> str:
    """The results a leaderboard rests on, a line each."""
    return "".join(result_line(record) + "\n" for record in leaderboard.records)


def result_line(record: CellRecord) -> str:
    """One result as one line of JSON, with its per-sample outcomes packed."""
    cell = record.cell
    document = {
        **{name: getattr(cell, name) for name in CELL_FIELDS},
        "components": {name: _component(getattr(cell, name)) for name in COMPONENTS},
        "dataset_revision": cell.samples.dataset_revision,
        "sample_set": cell.samples.identity,
        "sample_ids": list(cell.samples.sample_ids),
        "sample_indices": list(cell.samples.indices),
        "status": record.status.value,
        "verdict": record.verdict and record.verdict.value,
        **{name: getattr(record, name) for name in RECORD_FIELDS},
        "metrics": {name: [one.value, one.low, one.high] for name, one in record.metrics.items()},
        "findings": [[one.code, one.severity.value, one.message, one.value] for one in record.findings],
        "outcomes": None if record.outcomes is None else base64.b64encode(pack_outcomes(record.outcomes)).decode(),
    }
    return json.dumps(to_json(document), sort_keys=True, separators=(",", ":"))


def read_lines(lines: Iterable[str], source: str) -> list[CellRecord]:
    """The results of `result_line`s. Raises StoreError that names `source` and the line where one is damaged."""
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(from_json(json.loads(line))))
        except (ValueError, KeyError, TypeError, StoreError) as error:
            raise StoreError(f"{source}, line {number} is no result of rbl: {error}") from error
    return records


def _record(document: Mapping[str, Any]) -> CellRecord:
    samples = SampleSet(
        document["dataset_revision"],
        tuple(document["sample_ids"]),
        tuple(document["sample_indices"]),
        document["sample_set"],
    )
    components: dict[str, Any] = {name: ResolvedComponent(**document["components"][name]) for name in COMPONENTS}
    packed, verdict = document["outcomes"], document["verdict"]
    return CellRecord(
        cell=Cell(**components, **{name: document[name] for name in CELL_FIELDS}, samples=samples),
        status=Status(document["status"]),
        metrics={name: Estimate(*values) for name, values in document["metrics"].items()},
        outcomes=None if packed is None else unpack_outcomes(base64.b64decode(packed), len(samples.sample_ids)),
        verdict=None if verdict is None else Verdict(verdict),
        findings=tuple(Finding(code, Severity(how), text, value) for code, how, text, value in document["findings"]),
        **{name: document[name] for name in RECORD_FIELDS},
    )


def _component(component: ResolvedComponent) -> dict[str, Any]:
    return {
        "name": component.name,
        "label": component.label,
        "params": dict(component.params),
        "plugin": component.plugin,
        "version": component.version,
        "identity": component.identity,
    }
