"""Records to rows of the tables and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from robustbench_lab.comparable_cells import subject_of
from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError, describe_error
from robustbench_lab.records import (
    Cell,
    CellRecord,
    Finding,
    ResolvedComponent,
    SampleSet,
    Status,
    UnitRecord,
    Verdict,
    finding_json,
    finding_of,
)
from robustbench_lab.result_store.artifact_files import Artifact
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.json_values import from_json, to_json
from robustbench_lab.result_store.packing import (
    pack_indices,
    pack_outcomes,
    pack_sample_ids,
    unpack_indices,
    unpack_outcomes,
    unpack_sample_ids,
)

COMPONENTS = ("model", "defense", "dataset", "attack", "objective", "threat_model")
COLUMNS_FOR_QUERIES = frozenset((*COMPONENTS, "run_id", "samples", "finished_at", "row_id"))
"""Columns of `cells` that a record has no use for: they are there to be searched and sorted by."""
SUMMARY_COLUMNS = [field.name for field in fields(CellSummary) if field.name != "metrics"]
NUMBERS = ("eps", "seed", "samples", "forward_per_sample", "backward_per_sample", "wall_seconds", "batch_size")
Values = dict[str, Any]


# ---------------------------------------------------------------- records to rows


@dataclass(frozen=True)
class CellRows:
    """A closed cell, as rows of the tables."""

    samples: SampleSet
    cell: Values
    metrics: list[Values]
    outcomes: list[Values]
    artifacts: list[Values]


def cell_rows(record: CellRecord, run_id: str, files: Sequence[Artifact]) -> CellRows:
    """All rows of a closed cell. Raises StoreError for what cannot be stored."""
    return CellRows(
        samples=record.cell.samples,
        cell=cell_values(record, run_id),
        metrics=metric_values(record),
        outcomes=outcome_values(record),
        artifacts=[artifact_values(record.cell.cell_id, file) for file in files],
    )


def cell_values(record: CellRecord, run_id: str) -> Values:
    """The row of `cells`."""
    cell = record.cell
    components: dict[str, ResolvedComponent] = {kind: getattr(cell, kind) for kind in COMPONENTS}
    return {
        "cell_id": cell.cell_id,
        "run_id": run_id,
        "status": record.status,
        "reason": _storable(record.reason),
        "task": cell.task,
        **{kind: _storable(component.label) for kind, component in components.items()},
        "norm": cell.norm,
        "eps": cell.eps,
        "adversary": cell.adversary,
        "seed": cell.seed,
        "sample_set_id": cell.samples.identity,
        "samples": len(cell.samples.sample_ids),
        "definition": {
            **{kind: _component_json(component) for kind, component in components.items()},
            "estimated_forward": cell.estimated_forward,
            "estimated_backward": cell.estimated_backward,
        },
        "forward_per_sample": record.forward_per_sample,
        "backward_per_sample": record.backward_per_sample,
        "wall_seconds": record.wall_seconds,
        "verdict": record.verdict,
        "findings": findings_json(record.findings),
        "device": record.device,
        "batch_size": record.batch_size,
        "executor": record.executor,
        "finished_at": datetime.now(UTC),
        "row_id": subject_of(cell).row_id,
    }


def metric_values(record: CellRecord) -> list[Values]:
    """The rows of `metrics`. Their status is `ok` whatever the cell's: the database refuses them where it is not."""
    return [
        {
            "cell_id": record.cell.cell_id,
            "name": name,
            "status": Status.OK,
            "value": _nan_to_null(estimate.value),
            "low": _nan_to_null(estimate.low),
            "high": _nan_to_null(estimate.high),
        }
        for name, estimate in record.metrics.items()
    ]


def outcome_values(record: CellRecord) -> list[Values]:
    """The row of `sample_outcomes`, if there are outcomes."""
    if record.outcomes is None:
        return []
    return [{"cell_id": record.cell.cell_id, "status": Status.OK, "packed": pack_outcomes(record.outcomes)}]


def sample_set_values(samples: SampleSet) -> Values:
    """The row of `sample_sets`."""
    return {
        "id": samples.identity,
        "dataset_revision": samples.dataset_revision,
        "count": len(samples.sample_ids),
        "packed_ids": pack_sample_ids(samples.sample_ids),
        "packed_indices": pack_indices(samples.indices),
    }


def artifact_values(cell_id: str, file: Artifact) -> Values:
    """A row of `artifacts`."""
    return {"cell_id": cell_id, "kind": file.kind, "path": file.path, "sha256": file.sha256, "bytes": file.size}


def unit_values(record: UnitRecord, run_id: str) -> Values:
    """The row of `unit_outcomes`."""
    return {
        "cell_id": record.cell_id,
        "start": record.start,
        "stop": record.stop,
        "run_id": run_id,
        "status": record.status,
        "reason": _storable(record.reason),
        "packed": None if record.outcomes is None else pack_outcomes(record.outcomes),
        "forward_passes": record.forward_passes,
        "backward_passes": record.backward_passes,
        "wall_seconds": record.wall_seconds,
        "findings": findings_json(record.findings),
        "device": record.device,
        "batch_size": record.batch_size,
        "artifact": record.artifact,
    }


def findings_json(findings: Sequence[Finding]) -> list[Values]:
    """Findings as JSON."""
    return [{**finding_json(one), "value": to_json(one.value)} for one in findings]


def _component_json(component: ResolvedComponent) -> Values:
    return {
        "name": component.name,
        "label": component.label,
        "params": to_json(component.params),
        "plugin": component.plugin,
        "version": component.version,
        "identity": component.identity,
    }


def _storable(text: str | None) -> str | None:
    r"""Text that every database takes: file names and error messages may hold NUL or bytes that are no UTF-8."""
    if text is None:
        return None
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _nan_to_null(value: float) -> float | None:
    return None if math.isnan(value) else value


# ---------------------------------------------------------------- rows to records


def estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    """A row of `metrics`."""
    nan = math.nan
    return Estimate(nan if value is None else value, nan if low is None else low, nan if high is None else high)


@contextmanager
def _readable(row: Row[Any]) -> Iterator[None]:
    """Columns hold what the schema says unless somebody has written to them: SQLite takes any text for a number."""
    try:
        for name in NUMBERS:
            value = getattr(row, name, None)
            if not (value is None or isinstance(value, int | float)):
                raise TypeError(f"{name} is no number")
        yield
    except StoreError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"cell {row.cell_id} is stored in a form that cannot be read ({describe_error(error)})"
        raise StoreError(f"{what}: `rbl db check` lists all such cells; restore a copy, or use --fresh") from error


def cell_summary(row: Row[Any], metrics: Mapping[str, Estimate]) -> CellSummary:
    """SUMMARY_COLUMNS of a row of `cells`. Raises StoreError where they hold something else."""
    with _readable(row):
        return _cell_summary(row, metrics)


def _cell_summary(row: Row[Any], metrics: Mapping[str, Estimate]) -> CellSummary:
    return CellSummary(
        cell_id=row.cell_id,
        status=Status(row.status),
        reason=row.reason,
        task=row.task,
        model=row.model,
        defense=row.defense,
        dataset=row.dataset,
        attack=row.attack,
        objective=row.objective,
        threat_model=row.threat_model,
        norm=row.norm,
        eps=row.eps,
        adversary=row.adversary,
        seed=row.seed,
        samples=row.samples,
        metrics=metrics,
        forward_per_sample=row.forward_per_sample,
        backward_per_sample=row.backward_per_sample,
        wall_seconds=row.wall_seconds,
        verdict=None if row.verdict is None else Verdict(row.verdict),
    )


def unit_record(row: Row[Any]) -> UnitRecord:
    """A row of `unit_outcomes`. Raises StoreError where it holds something else."""
    with _readable(row):
        return _unit_record(row)


def _unit_record(row: Row[Any]) -> UnitRecord:
    return UnitRecord(
        cell_id=row.cell_id,
        start=row.start,
        stop=row.stop,
        status=Status(row.status),
        reason=row.reason,
        outcomes=None if row.packed is None else unpack_outcomes(row.packed, row.stop - row.start),
        forward_passes=row.forward_passes,
        backward_passes=row.backward_passes,
        wall_seconds=row.wall_seconds,
        findings=_findings(row.findings),
        device=row.device,
        batch_size=row.batch_size,
        artifact=row.artifact,
    )


class CellReader:
    """Rows of `cells` to records. Sample sets and components that cells share become one object each."""

    def __init__(self) -> None:
        self._sample_sets: dict[str, SampleSet] = {}
        self._components: dict[tuple[str, str, str, str, str], ResolvedComponent] = {}

    def add_sample_set(self, row: Row[Any]) -> None:
        """A row of `sample_sets`, before the cells that refer to it."""
        if row.id not in self._sample_sets:
            ids = unpack_sample_ids(row.packed_ids)
            indices = unpack_indices(row.packed_indices, len(ids))
            self._sample_sets[row.id] = SampleSet(row.dataset_revision, ids, indices, row.id)

    def record(self, row: Row[Any], metrics: Mapping[str, Estimate]) -> CellRecord:
        """A row of `cells`, with `packed` from `sample_outcomes`. Raises StoreError where it holds something else."""
        with _readable(row):
            return self._record(row, metrics)

    def _record(self, row: Row[Any], metrics: Mapping[str, Estimate]) -> CellRecord:
        cell = self._cell(row)
        samples = len(cell.samples.sample_ids)
        return CellRecord(
            cell=cell,
            status=Status(row.status),
            reason=row.reason,
            metrics=metrics,
            outcomes=None if row.packed is None else unpack_outcomes(row.packed, samples),
            forward_per_sample=row.forward_per_sample,
            backward_per_sample=row.backward_per_sample,
            wall_seconds=row.wall_seconds,
            verdict=None if row.verdict is None else Verdict(row.verdict),
            findings=_findings(row.findings),
            device=row.device,
            batch_size=row.batch_size,
            executor=row.executor,
        )

    def _cell(self, row: Row[Any]) -> Cell:
        definition = row.definition
        return Cell(
            cell_id=row.cell_id,
            task=row.task,
            **{kind: self._component(definition[kind]) for kind in COMPONENTS},
            norm=row.norm,
            eps=row.eps,
            adversary=row.adversary,
            seed=row.seed,
            samples=self._sample_sets[row.sample_set_id],
            estimated_forward=definition["estimated_forward"],
            estimated_backward=definition["estimated_backward"],
        )

    def _component(self, stored: Values) -> ResolvedComponent:
        # The identity is a hash of the parameters, so equal keys mean equal parameters.
        key = (stored["name"], stored["label"], stored["plugin"], stored["version"], stored["identity"])
        known = self._components.get(key)
        if known is None:
            name, label, plugin, version, identity = key
            known = ResolvedComponent(name, label, from_json(stored["params"]), plugin, version, identity)
            self._components[key] = known
        return known


def _findings(stored: Sequence[Values]) -> tuple[Finding, ...]:
    return tuple(finding_of({**one, "value": from_json(one["value"])}) for one in stored)
